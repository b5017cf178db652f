//! Checks one node of a draft.

use std::{collections::HashSet, sync::Arc};

use super::{
    Faults, MAX_ATTEMPTS, MAX_MULTIPLIER, MAX_PAUSE_MS, MAX_TIMEOUT_MS,
    scope::{Earlier, Readable},
};
use crate::{
    i18n::Text,
    ids::NodeId,
    limits,
    run::Phase,
    workflow::{
        condition,
        definition::{Node, NodeDraft, RetryPolicy},
        spec::NodeSpec,
        variables::shortened,
    },
};

pub(super) struct NodeCheck<'c, 'd> {
    pub(super) at: String,
    pub(super) node: &'d NodeDraft,
    pub(super) spec: Option<&'d NodeSpec>,
    pub(super) earlier: &'c [Earlier<'d>],
    pub(super) ids: &'c HashSet<&'d str>,
    pub(super) faults: &'c mut Faults,
}

fn range(least: u64, most: u64) -> Text {
    Text::key("fault-range")
        .with("least", least)
        .with("most", most)
}

fn at_most(most: impl ToString) -> Text {
    Text::key("fault-at-most").with("most", most)
}

impl NodeCheck<'_, '_> {
    /// Checks the node; `None` if it cannot become a [`Node`].
    pub(super) fn run(&mut self) -> Option<Node> {
        let node = self.node;
        self.id();
        if self.spec.is_none() {
            let at = format!("{}/type", self.at);
            match limits::NODE_TYPE.fault(&at, &node.node_type) {
                Some(fault) => self.faults.add(at, fault.code, fault.detail),
                None => {
                    let text = Text::key("fault-node-type");
                    let text = text.with("type", shortened(&node.node_type));
                    self.fault("/type", "unknown_node_type", text);
                }
            }
        }
        if let Some(label) = &node.label {
            let at = format!("{}/label", self.at);
            self.faults.text(&at, label, limits::LABEL);
        }
        let phase = self.phase();
        let label = node.label.as_deref().map_or(node.id.as_str(), str::trim);
        let scope = Readable {
            own: &node.id,
            earlier: self.earlier,
            ids: self.ids,
        };
        self.faults.params(
            &format!("{}/params", self.at),
            label,
            &node.params,
            self.spec,
            &scope,
        );
        self.condition(&scope);
        self.retry(node.retry.as_ref());
        if node
            .timeout_ms
            .is_some_and(|millis| !(1..=MAX_TIMEOUT_MS).contains(&millis))
        {
            self.fault("/timeout_ms", "out_of_range", range(1, MAX_TIMEOUT_MS));
        }
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

    fn fault(&mut self, at: &str, code: &'static str, detail: impl Into<Text>) {
        self.faults.add(format!("{}{at}", self.at), code, detail);
    }

    fn id(&mut self) {
        let id = self.node.id.as_str();
        if id.is_empty()
            || id.len() > 64
            || !id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        {
            self.fault("/id", "invalid_node_id", Text::key("fault-node-id"));
        }
        if self.earlier.iter().any(|earlier| earlier.id == id) {
            self.fault(
                "/id",
                "duplicate_node_id",
                Text::key("fault-node-id-taken").with("id", shortened(id)),
            );
        }
    }

    fn phase(&mut self) -> Option<Phase> {
        let spec = self.spec?;
        let known = || {
            spec.phases
                .iter()
                .map(|phase| phase.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (self.node.phase, spec.phases.as_slice()) {
            (Some(phase), phases) if phases.contains(&phase) => Some(phase),
            (Some(_), _) => {
                self.fault(
                    "/phase",
                    "phase_not_allowed",
                    Text::key("fault-phase").with("phases", known()),
                );
                None
            }
            (None, [only]) => Some(*only),
            (None, _) => {
                self.fault(
                    "/phase",
                    "phase_required",
                    Text::key("fault-one-of").with("values", known()),
                );
                None
            }
        }
    }

    fn condition(&mut self, scope: &Readable<'_, '_>) {
        let Some(when) = &self.node.when else { return };
        let at = format!("{}/when", self.at);
        self.faults.text(&at, when, limits::WHEN);
        if when.len() > 4 * limits::WHEN.max {
            // The condition is far longer than allowed, which is already reported: look for no other faults
            // in it.
            return;
        }
        match condition::read_paths(when) {
            Err(e) => self.fault(
                "/when",
                "invalid_condition",
                Text::key("fault-condition").with("why", e),
            ),
            Ok(targets) => {
                for target in targets {
                    if let Some(why) = scope.fault(&target) {
                        self.fault("/when", "unresolved_variable", why);
                    }
                }
            }
        }
    }

    fn retry(&mut self, retry: Option<&RetryPolicy>) {
        let Some(retry) = retry else { return };
        if !(1..=MAX_ATTEMPTS).contains(&retry.max_attempts) {
            self.fault(
                "/retry/max_attempts",
                "out_of_range",
                range(1, MAX_ATTEMPTS.into()),
            );
        }
        if !(1.0..=f64::from(MAX_MULTIPLIER)).contains(&retry.multiplier) {
            self.fault(
                "/retry/multiplier",
                "out_of_range",
                range(1, MAX_MULTIPLIER.into()),
            );
        }
        if retry.initial_ms > retry.max_ms {
            self.fault("/retry/initial_ms", "out_of_range", at_most("max_ms"));
        }
        if retry.max_ms > MAX_PAUSE_MS {
            self.fault("/retry/max_ms", "out_of_range", at_most(MAX_PAUSE_MS));
        }
    }
}
