//! Checks which values the variables of a node can read.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::{
    i18n::Text,
    workflow::{
        spec::{NodeSpec, Outputs},
        variables::{EXECUTION_FIELDS, OwnedPath, Root, shortened},
    },
};

/// A node before the one being checked.
pub(super) struct Earlier<'d> {
    pub(super) id: &'d str,
    pub(super) spec: Option<&'d NodeSpec>,
    pub(super) params: &'d Map<String, Value>,
}

/// The values that a node's variables can read.
pub(super) struct Readable<'c, 'd> {
    pub(super) own: &'c str,
    pub(super) earlier: &'c [Earlier<'d>],
    pub(super) ids: &'c HashSet<&'d str>,
}

impl Readable<'_, '_> {
    /// The reason why a path can never have a value, in a text that names the path.
    pub(super) fn fault(&self, target: &OwnedPath) -> Option<Text> {
        let why = self.why(target)?;
        Some(
            Text::key("fault-unresolved")
                .with("path", target)
                .with_text("why", why),
        )
    }

    fn why(&self, target: &OwnedPath) -> Option<Text> {
        match (target.root, target.segments.as_slice()) {
            // The value depends on the trigger data or on all steps; preflight checks these paths.
            (Root::Trigger, _) | (Root::Execution, []) | (Root::Steps, []) => None,
            (Root::Execution, [field]) if EXECUTION_FIELDS.contains(&field.as_str()) => None,
            (Root::Execution, _) => Some(
                Text::key("fault-execution-fields").with("fields", EXECUTION_FIELDS.join(", ")),
            ),
            (Root::Steps, [node, fields @ ..]) => {
                let Some(earlier) = self.earlier.iter().find(|earlier| earlier.id == node) else {
                    return Some(if *node == self.own {
                        Text::key("fault-own-output")
                    } else if self.ids.contains(node.as_str()) {
                        Text::key("fault-later-node").with("id", node)
                    } else {
                        Text::key("fault-no-node").with("id", shortened(node))
                    });
                };
                let field = fields.first()?;
                let fields = output_fields(earlier.spec?, earlier.params)?;
                (!fields.contains(&field.as_str())).then(|| {
                    Text::key("fault-node-fields")
                        .with("id", node)
                        .with("fields", fields.join(", "))
                })
            }
        }
    }
}

/// The fields of a node's output; `None` if they are unknown before the node has run.
pub(crate) fn output_fields<'n>(
    spec: &'n NodeSpec,
    params: &'n Map<String, Value>,
) -> Option<Vec<&'n str>> {
    match &spec.outputs {
        Outputs::Any => None,
        Outputs::Fields(fields) => Some(fields.clone()),
        Outputs::KeysOf(param) => Some(
            params
                .get(*param)?
                .as_object()?
                .keys()
                .map(String::as_str)
                .collect(),
        ),
    }
}
