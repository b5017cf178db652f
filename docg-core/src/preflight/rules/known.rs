//! The values known before a step runs: trigger data, outputs of ended steps, and the declared outputs of
//! steps that will run.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{
    preflight::PreflightRequest,
    workflow::{
        Node, NodeSpec,
        validate::output_fields,
        variables::{EXECUTION_FIELDS, Found, Path, Root, Source, descend},
    },
};

/// The values that later nodes may read from a node.
pub(super) enum Standing<'a> {
    /// The node has run and has this output.
    Output(&'a Value),
    /// The node has no output and will have none.
    Nothing,
    /// The node will run. The declaration of its type, if known, tells the fields of its output.
    Runs(Option<&'a NodeSpec>),
    /// This execution leaves the node out (dry run, `until_phase`). A node that runs cannot read this node's
    /// output. A node that is also left out is checked as if this node ran.
    LeftOut,
}

/// A node, its effective parameters, and what later nodes may read from it.
type Seen<'a> = (&'a Node, Cow<'a, Map<String, Value>>, Standing<'a>);

/// The values known so far. Each checked node adds its own.
pub(super) struct Known<'a> {
    request: PreflightRequest<'a>,
    /// The nodes checked so far, in order. The outputs of all other nodes come too late for the node being
    /// checked.
    nodes: Vec<Seen<'a>>,
    /// True if the node being checked runs in this execution.
    runs: bool,
}

impl<'a> Known<'a> {
    pub(super) fn new(request: &PreflightRequest<'a>) -> Self {
        Self {
            request: *request,
            nodes: Vec::with_capacity(request.workflow.nodes.len()),
            runs: true,
        }
    }

    pub(super) fn push(
        &mut self,
        node: &'a Node,
        params: Cow<'a, Map<String, Value>>,
        standing: Standing<'a>,
    ) {
        self.nodes.push((node, params, standing));
    }

    pub(super) fn for_node_that_runs(&mut self, runs: bool) {
        self.runs = runs;
    }

    fn output(&self, node: &str, fields: &[&str]) -> Found<'_> {
        let Some((_, params, standing)) =
            self.nodes.iter().find(|(earlier, ..)| earlier.id == *node)
        else {
            return Found::Absent;
        };
        match standing {
            Standing::Output(output) => descend(output, fields).into(),
            Standing::Nothing => Found::Absent,
            Standing::LeftOut if self.runs => Found::Absent,
            Standing::LeftOut | Standing::Runs(None) => Found::Later,
            Standing::Runs(Some(spec)) => {
                let unknown = fields
                    .first()
                    .zip(output_fields(spec, params))
                    .is_some_and(|(field, declared)| !declared.contains(field));
                if unknown { Found::Absent } else { Found::Later }
            }
        }
    }
}

impl Source for Known<'_> {
    fn find(&self, path: &Path<'_>) -> Found<'_> {
        let owned = |value: Value| Found::Value(Cow::Owned(value));
        match (path.root, path.segments.as_slice()) {
            (Root::Trigger, fields) => descend(&self.request.inputs.trigger_data, fields).into(),
            (Root::Steps, []) => Found::Absent,
            (Root::Steps, [node, fields @ ..]) => self.output(node, fields),
            (Root::Execution, ["dry_run"]) => owned(self.request.dry_run.into()),
            (Root::Execution, ["workflow_id"]) => {
                owned(self.request.workflow.id.to_string().into())
            }
            (Root::Execution, ["organization_id"]) => {
                owned(self.request.organization_id.to_string().into())
            }
            (Root::Execution, []) => Found::Later,
            (Root::Execution, [field]) if EXECUTION_FIELDS.contains(field) => Found::Later,
            (Root::Execution, _) => Found::Absent,
        }
    }
}
