//! Collects the faults of a draft.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{kinds, scope::Readable};
use crate::{
    error::FieldFault,
    i18n::Text,
    limits::{self, TextLimit},
    workflow::{
        param::{self, Given, NothingKnown},
        spec::{NodeSpec, ParamKind, ParamSpec},
        variables::{MAX_REFERENCES, has_variables, push_token, references, shortened},
    },
};

/// The largest number of faults reported.
pub(super) const MAX_FAULTS: usize = 500;

#[derive(Default)]
pub(super) struct Faults(pub(super) Vec<FieldFault>);

impl Faults {
    pub(super) fn add(
        &mut self,
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<Text>,
    ) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(FieldFault::new(pointer, code, detail));
        }
    }

    pub(super) fn name(&mut self, pointer: &str, name: &str) {
        self.text(pointer, name, limits::NAME);
    }

    pub(super) fn text(&mut self, pointer: &str, text: &str, limit: TextLimit) {
        if let Some(FieldFault { code, detail, .. }) = limit.fault(pointer, text) {
            self.add(pointer, code, detail);
        }
    }

    pub(super) fn params(
        &mut self,
        at: &str,
        label: &str,
        params: &Map<String, Value>,
        spec: Option<&NodeSpec>,
        scope: &Readable<'_, '_>,
    ) {
        for (name, value) in params {
            let mut pointer = at.to_owned();
            push_token(&mut pointer, name);
            match spec.map(|spec| spec.find_param(name)) {
                // The node type is unknown, and so are its parameters.
                None => {}
                Some(None) => self.add(
                    pointer.as_str(),
                    "unknown_parameter",
                    Text::key("fault-unknown-parameter").with("name", shortened(name)),
                ),
                Some(Some(param)) => self.kind(&pointer, label, value, param),
            }
            let found = references(value);
            if found.len() >= MAX_REFERENCES {
                let detail = Text::key("fault-too-many-variables").with("most", MAX_REFERENCES);
                self.add(pointer.as_str(), "too_many", detail);
                continue;
            }
            for reference in found {
                let (code, detail) = match reference.target {
                    Err(e) => (
                        "invalid_variable",
                        Text::key("fault-variable").with("why", e),
                    ),
                    Ok(target) => match scope.fault(&target) {
                        None => continue,
                        Some(why) => ("unresolved_variable", why),
                    },
                };
                self.add(format!("{pointer}{}", reference.pointer), code, detail);
            }
        }
        self.no_nul(at, params.iter());
    }

    /// Checks the kind of a literal value; preflight checks the values that variables give.
    fn kind(&mut self, pointer: &str, label: &str, value: &Value, spec: &ParamSpec) {
        let kind = &spec.kind;
        let undecided = value.is_string() && has_variables(value);
        // Accept a malformed URL, which a person may correct later. A value of another type is a mistake.
        if undecided
            || kinds::is_blank(value)
            || (matches!(kind, ParamKind::Url) && value.is_string())
        {
            return;
        }
        if let Some(expected) = kinds::misfit(value, kind) {
            self.add(
                pointer,
                "wrong_kind",
                Text::key("fault-wrong-kind").with("expected", expected),
            );
            return;
        }
        let given = Given::look(value, &NothingKnown);
        let found = param::faults(spec, given.as_ref());
        for fault in found.iter().filter(|fault| !fault.is_left_to_people()) {
            self.add(
                format!("{pointer}{}", fault.pointer()),
                fault.code,
                fault.human(label, spec.name),
            );
        }
    }

    /// Reports NUL characters, which stores cannot keep.
    pub(super) fn no_nul<'v>(
        &mut self,
        at: &str,
        fields: impl Iterator<Item = (&'v String, &'v Value)>,
    ) {
        fn holds_nul(value: &Value) -> bool {
            match value {
                Value::String(text) => text.contains('\0'),
                Value::Array(items) => items.iter().any(holds_nul),
                Value::Object(fields) => fields
                    .iter()
                    .any(|(name, value)| name.contains('\0') || holds_nul(value)),
                _ => false,
            }
        }
        for (name, value) in fields {
            if name.contains('\0') || holds_nul(value) {
                let mut pointer = at.to_owned();
                // Point to the name without its NULs, so that the pointer can be shown.
                let _ = write!(
                    pointer,
                    "/{}",
                    name.replace('\0', "").replace('~', "~0").replace('/', "~1")
                );
                self.add(pointer, "invalid_text", Text::key("fault-nul"));
            }
        }
    }
}
