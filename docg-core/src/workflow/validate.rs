//! What is checked before a definition is stored.
//!
//! Only what no trigger data and no person can put right afterwards is a fault here: a node type
//! that there is not, a variable that nothing can give. Whether an address is an address, whether
//! a template exists and whether a required parameter is filled is for preflight.

use std::{collections::HashSet, fmt::Write as _, sync::Arc};

use serde_json::{Map, Value};

use super::{
    condition,
    definition::{Node, NodeDraft, RetryPolicy, Settings, WorkflowDraft},
    registry::Registry,
    spec::{NodeSpec, Outputs, ParamKind},
    variables::{EXECUTION_FIELDS, Root, Target, has_variables, push_token, references, shortened},
};
use crate::{ids::NodeId, run::Phase};

pub(crate) mod kinds;
mod recent;
pub(crate) mod schema;
#[cfg(test)]
mod tests;

pub(crate) use recent::Recent;

/// A workflow has at most this many nodes.
pub const MAX_NODES: usize = 200;
/// One attempt of a step takes at most this long, in milliseconds: a day.
pub const MAX_TIMEOUT_MS: u64 = 24 * 3_600_000;
/// A step is attempted at most this often.
pub const MAX_ATTEMPTS: u32 = 100;
/// A pause between attempts is at most this long, in milliseconds: a week.
pub const MAX_PAUSE_MS: u64 = 7 * 24 * 3_600_000;

/// A review ends within this time, in milliseconds, or never: ten years.
const MAX_REVIEW_MS: u64 = 10 * 365 * 24 * 3_600_000;
const MAX_NAME_CHARS: usize = 200;
const MAX_FAULTS: usize = 500;

/// A definition that can run.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    /// For people.
    pub name: String,
    /// JSON Schema 2020-12 of the trigger data.
    pub input_schema: Map<String, Value>,
    /// Behaviour of the whole workflow.
    pub settings: Settings,
    /// The nodes, in the order in which they run.
    pub nodes: Vec<Arc<Node>>,
}

/// One thing that keeps a definition from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON pointer (RFC 6901) into the draft.
    pub pointer: String,
    /// What, machine-readable.
    pub code: &'static str,
    /// What, in words.
    pub detail: String,
}

/// Checks a draft and fills in what it leaves to the node types.
///
/// # Errors
///
/// Every fault that it has, at most 500.
pub fn validate(draft: WorkflowDraft, registry: &Registry) -> Result<Validated, Vec<Fault>> {
    let mut faults = Faults::default();
    faults.name("/name", &draft.name);
    if draft.name.trim().is_empty() {
        faults.add("/name", "required", "a workflow needs a name");
    }
    if let Err((pointer, detail)) = schema::check(&draft.input_schema) {
        faults.add(format!("/input_schema{pointer}"), "invalid_schema", detail);
    }
    faults.no_nul("/input_schema", draft.input_schema.iter());
    if draft.settings.review_expires_ms.is_some_and(|millis| !(1..=MAX_REVIEW_MS).contains(&millis)) {
        faults.add("/settings/review_expires_ms", "out_of_range", format!("1 to {MAX_REVIEW_MS}, or null for ever"));
    }
    if draft.nodes.is_empty() {
        faults.add("/nodes", "required", "a workflow needs a node");
    }
    if draft.nodes.len() > MAX_NODES {
        faults.add("/nodes", "too_many", format!("a workflow has at most {MAX_NODES} nodes"));
        return Err(faults.0);
    }

    let mut earlier = Vec::with_capacity(draft.nodes.len());
    let ids: HashSet<&str> = draft.nodes.iter().map(|node| node.id.as_str()).collect();
    let mut nodes = Vec::with_capacity(draft.nodes.len());
    for (index, node) in draft.nodes.iter().enumerate() {
        let spec = registry.get(&node.node_type).map(|handler| handler.spec());
        let mut check = NodeCheck { at: format!("/nodes/{index}"), node, spec, earlier: &earlier, ids: &ids, faults: &mut faults };
        nodes.extend(check.run().map(Arc::new));
        earlier.push(Earlier { id: &node.id, spec, params: &node.params });
    }

    if faults.0.is_empty() {
        let WorkflowDraft { name, input_schema, settings, .. } = draft;
        Ok(Validated { name: name.trim().to_owned(), input_schema, settings, nodes })
    } else {
        Err(faults.0)
    }
}

/// Checks changes that a person makes to the parameters of a stored workflow's nodes for one run:
/// `{node id: {parameter: value}}`. The pointers begin at the changes.
///
/// # Errors
///
/// Every fault, at most 500.
pub fn check_overrides(
    nodes: &[Arc<Node>],
    overrides: &Map<String, Value>,
    registry: &Registry,
) -> Result<(), Vec<Fault>> {
    let mut faults = Faults::default();
    let ids: HashSet<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    for (id, changed) in overrides {
        let mut at = String::new();
        push_token(&mut at, id);
        let Some(position) = nodes.iter().position(|node| node.id == **id) else {
            faults.add(at, "unknown_node", format!("the workflow has no node {:?}", shortened(id)));
            continue;
        };
        let Value::Object(params) = changed else {
            faults.add(at, "wrong_kind", "an object of parameters is needed");
            continue;
        };
        let specs = nodes[..position].iter().map(|node| {
            let spec = registry.get(&node.node_type).map(|handler| handler.spec());
            Earlier { id: node.id.as_str(), spec, params: &node.params }
        });
        let earlier: Vec<_> = specs.collect();
        let spec = registry.get(&nodes[position].node_type).map(|handler| handler.spec());
        let scope = Readable { own: id, earlier: &earlier, ids: &ids };
        faults.params(&at, params, spec, &scope);
    }
    if faults.0.is_empty() { Ok(()) } else { Err(faults.0) }
}

/// A node that comes before the one that is looked at.
struct Earlier<'d> {
    id: &'d str,
    spec: Option<&'d NodeSpec>,
    params: &'d Map<String, Value>,
}

/// What a node's variables may read.
struct Readable<'c, 'd> {
    own: &'c str,
    earlier: &'c [Earlier<'d>],
    ids: &'c HashSet<&'d str>,
}

impl Readable<'_, '_> {
    /// Why nothing can be at the end of this path.
    fn fault(&self, target: &Target) -> Option<String> {
        match (target.root, target.segments.as_slice()) {
            // What only the trigger data can tell is left to preflight.
            (Root::Trigger, _) | (Root::Execution, []) | (Root::Steps, []) => None,
            (Root::Execution, [field]) if EXECUTION_FIELDS.contains(&field.as_str()) => None,
            (Root::Execution, _) => Some(format!("execution has {}", EXECUTION_FIELDS.join(", "))),
            (Root::Steps, [node, fields @ ..]) => {
                let Some(earlier) = self.earlier.iter().find(|earlier| earlier.id == node) else {
                    return Some(if *node == self.own {
                        "a node cannot read its own output".to_owned()
                    } else if self.ids.contains(node.as_str()) {
                        format!("node {node:?} comes later")
                    } else {
                        format!("there is no node {:?}", shortened(node))
                    });
                };
                let field = fields.first()?;
                let fields = output_fields(earlier.spec?, earlier.params)?;
                (!fields.contains(&field.as_str())).then(|| format!("node {node:?} gives {}", fields.join(", ")))
            }
        }
    }
}

/// The fields that a node's output will have, where that is known before it runs.
pub(crate) fn output_fields<'n>(spec: &'n NodeSpec, params: &'n Map<String, Value>) -> Option<Vec<&'n str>> {
    match &spec.outputs {
        Outputs::Any => None,
        Outputs::Fields(fields) => Some(fields.clone()),
        Outputs::KeysOf(param) => Some(params.get(*param)?.as_object()?.keys().map(String::as_str).collect()),
    }
}

struct NodeCheck<'c, 'd> {
    at: String,
    node: &'d NodeDraft,
    spec: Option<&'d NodeSpec>,
    earlier: &'c [Earlier<'d>],
    ids: &'c HashSet<&'d str>,
    faults: &'c mut Faults,
}

impl NodeCheck<'_, '_> {
    /// The node, or `None` where it is not fit to be one.
    fn run(&mut self) -> Option<Node> {
        let node = self.node;
        self.id();
        if self.spec.is_none() {
            self.fault("/type", "unknown_node_type", format!("there is no node type {:?}", shortened(&node.node_type)));
        }
        self.faults.name(&format!("{}/label", self.at), node.label.as_deref().unwrap_or_default());
        let phase = self.phase();
        let scope = Readable { own: &node.id, earlier: self.earlier, ids: self.ids };
        self.faults.params(&format!("{}/params", self.at), &node.params, self.spec, &scope);
        self.condition(&scope);
        self.retry(node.retry.as_ref());
        if node.timeout_ms.is_some_and(|millis| !(1..=MAX_TIMEOUT_MS).contains(&millis)) {
            self.fault("/timeout_ms", "out_of_range", format!("1 to {MAX_TIMEOUT_MS}"));
        }
        let label = node.label.as_deref().map(str::trim).filter(|label| !label.is_empty()).unwrap_or(&node.id);
        Some(Node {
            id: NodeId::from(node.id.as_str()),
            node_type: Arc::clone(&self.spec?.node_type),
            label: label.into(),
            phase: phase?,
            when: node.when.clone(),
            params: node.params.clone(),
            retry: node.retry.clone().unwrap_or_default(),
            timeout_ms: node.timeout_ms.unwrap_or(self.spec?.timeout_ms),
            on_error: node.on_error,
        })
    }

    fn fault(&mut self, at: &str, code: &'static str, detail: impl Into<String>) {
        self.faults.add(format!("{}{at}", self.at), code, detail);
    }

    fn id(&mut self) {
        let id = self.node.id.as_str();
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            self.fault("/id", "invalid_node_id", "1 to 64 of the letters A-Z and a-z, digits, _ and -");
        }
        if self.earlier.iter().any(|earlier| earlier.id == id) {
            self.fault("/id", "duplicate_node_id", format!("another node is called {:?}", shortened(id)));
        }
    }

    fn phase(&mut self) -> Option<Phase> {
        let spec = self.spec?;
        let known = || spec.phases.iter().map(|phase| phase.as_str()).collect::<Vec<_>>().join(", ");
        match (self.node.phase, spec.phases.as_slice()) {
            (Some(phase), phases) if phases.contains(&phase) => Some(phase),
            (Some(_), _) => {
                self.fault("/phase", "phase_not_allowed", format!("nodes of this type belong to {}", known()));
                None
            }
            (None, [only]) => Some(*only),
            (None, _) => {
                self.fault("/phase", "phase_required", format!("one of {}", known()));
                None
            }
        }
    }

    fn condition(&mut self, scope: &Readable<'_, '_>) {
        let Some(when) = &self.node.when else { return };
        match condition::targets(when) {
            Err(e) => self.fault("/when", "invalid_condition", e.to_string()),
            Ok(targets) => {
                for target in targets {
                    if let Some(why) = scope.fault(&target) {
                        self.fault("/when", "unresolved_variable", format!("{target}: {why}"));
                    }
                }
            }
        }
        if when.contains('\0') {
            self.fault("/when", "invalid_text", "the character NUL cannot be stored");
        }
    }

    fn retry(&mut self, retry: Option<&RetryPolicy>) {
        let Some(retry) = retry else { return };
        if !(1..=MAX_ATTEMPTS).contains(&retry.max_attempts) {
            self.fault("/retry/max_attempts", "out_of_range", format!("1 to {MAX_ATTEMPTS}"));
        }
        if !retry.multiplier.is_finite() || retry.multiplier < 1.0 {
            self.fault("/retry/multiplier", "out_of_range", "1 or more");
        }
        if retry.initial_ms > retry.max_ms {
            self.fault("/retry/initial_ms", "out_of_range", "at most max_ms");
        }
        if retry.max_ms > MAX_PAUSE_MS {
            self.fault("/retry/max_ms", "out_of_range", format!("at most {MAX_PAUSE_MS}"));
        }
    }
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(Fault { pointer: pointer.into(), code, detail: detail.into() });
        }
    }

    fn name(&mut self, pointer: &str, name: &str) {
        if name.chars().count() > MAX_NAME_CHARS {
            self.add(pointer, "too_long", format!("at most {MAX_NAME_CHARS} characters"));
        }
        if name.chars().any(char::is_control) {
            self.add(pointer, "invalid_text", "control characters have no place in a name");
        }
    }

    fn params(&mut self, at: &str, params: &Map<String, Value>, spec: Option<&NodeSpec>, scope: &Readable<'_, '_>) {
        for (name, value) in params {
            let mut pointer = at.to_owned();
            push_token(&mut pointer, name);
            match spec.map(|spec| spec.find_param(name)) {
                // Without a node type nothing is known of its parameters.
                None => {}
                Some(None) => self.add(pointer.as_str(), "unknown_parameter", format!("no parameter {:?}", shortened(name))),
                Some(Some(param)) => self.kind(&pointer, value, &param.kind),
            }
            for reference in references(value) {
                let (code, detail) = match reference.target {
                    Err(e) => ("invalid_variable", e.to_string()),
                    Ok(target) => match scope.fault(&target) {
                        None => continue,
                        Some(why) => ("unresolved_variable", format!("{target}: {why}")),
                    },
                };
                self.add(format!("{pointer}{}", reference.pointer), code, detail);
            }
        }
        self.no_nul(at, params.iter());
    }

    /// The type of a value that is there from the start; what variables give is for preflight.
    fn kind(&mut self, pointer: &str, value: &Value, kind: &ParamKind) {
        let undecided = match value {
            Value::String(_) => has_variables(value),
            _ => false,
        };
        // What is malformed may also be written over by a person; only another type cannot be meant.
        if undecided || kinds::is_blank(value) || (matches!(kind, ParamKind::Url) && value.is_string()) {
            return;
        }
        if let Some(expected) = kinds::misfit(value, kind) {
            self.add(pointer, "wrong_kind", format!("{expected} is needed"));
        }
    }

    /// Stores cannot keep the character NUL.
    fn no_nul<'v>(&mut self, at: &str, fields: impl Iterator<Item = (&'v String, &'v Value)>) {
        fn holds_nul(value: &Value) -> bool {
            match value {
                Value::String(text) => text.contains('\0'),
                Value::Array(items) => items.iter().any(holds_nul),
                Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
                _ => false,
            }
        }
        for (name, value) in fields {
            if name.contains('\0') || holds_nul(value) {
                let mut pointer = at.to_owned();
                // The name as it can be shown.
                let _ = write!(pointer, "/{}", name.replace('\0', "").replace('~', "~0").replace('/', "~1"));
                self.add(pointer, "invalid_text", "the character NUL cannot be stored");
            }
        }
    }
}
