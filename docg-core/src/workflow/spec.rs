//! The declarations of node types. They tell preflight what to check.

use std::sync::Arc;

use crate::run::Phase;

/// The declaration of a node type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeSpec {
    /// The type's name in workflows, such as `render-pdf`.
    pub node_type: Arc<str>,
    /// The allowed phases of nodes of this type. If there is only one, a node may omit its phase.
    pub phases: Vec<Phase>,
    /// The parameters. A node with an undeclared parameter is refused.
    pub params: Vec<ParamSpec>,
    /// The fields that later nodes may read.
    pub outputs: Outputs,
    /// How safe it is to repeat the effect.
    pub effect: EffectClass,
    /// True if a successful step is about a document, as its phase says: it made, saved or sent one. The audit trail
    /// records that.
    pub has_document: bool,
    /// The timeout of one attempt in milliseconds, if the node sets none.
    pub timeout_ms: u64,
}

impl NodeSpec {
    /// A node type for one phase, with no parameters, any output, and a timeout of 60 seconds.
    #[must_use]
    pub fn new(node_type: impl Into<Arc<str>>, phase: Phase) -> Self {
        Self {
            node_type: node_type.into(),
            phases: vec![phase],
            params: Vec::new(),
            outputs: Outputs::Any,
            effect: EffectClass::Once,
            has_document: true,
            timeout_ms: 60_000,
        }
    }

    /// Allows every phase except preflight.
    #[must_use]
    pub fn any_phase(mut self) -> Self {
        self.phases = Phase::ALL[1..].to_vec();
        self
    }

    /// Declares a parameter.
    #[must_use]
    pub fn param(mut self, param: ParamSpec) -> Self {
        self.params.push(param);
        self
    }

    /// Declares the fields of the output.
    #[must_use]
    pub fn outputs<const N: usize>(mut self, fields: [&'static str; N]) -> Self {
        self.outputs = Outputs::Fields(fields.to_vec());
        self
    }

    /// Declares that the output has the same keys as the object in this parameter.
    #[must_use]
    pub fn outputs_of_param(mut self, param: &'static str) -> Self {
        self.outputs = Outputs::KeysOf(param);
        self
    }

    /// Declares that it is safe to repeat the effect.
    #[must_use]
    pub fn safe_to_repeat(mut self) -> Self {
        self.effect = EffectClass::Repeatable;
        self
    }

    /// Declares that steps are about no document, whatever their phase: they ask people, or wait.
    #[must_use]
    pub fn without_document(mut self) -> Self {
        self.has_document = false;
        self
    }

    /// Sets the timeout of one attempt in milliseconds, for nodes that set none.
    #[must_use]
    pub fn timeout_ms(mut self, millis: u64) -> Self {
        self.timeout_ms = millis;
        self
    }

    /// Finds the declaration of a parameter.
    #[must_use]
    pub fn find_param(&self, name: &str) -> Option<&ParamSpec> {
        self.params.iter().find(|param| param.name == name)
    }
}

/// How safe it is to repeat an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EffectClass {
    /// The effect is safe to repeat after a crash.
    Repeatable,
    /// The effect is not safe to repeat: after a crash the handler's `probe` is asked before the step runs
    /// again.
    Once,
}

/// The fields of an output that later nodes may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outputs {
    /// The fields are unknown before the node has run.
    Any,
    /// The output has exactly these fields.
    Fields(Vec<&'static str>),
    /// The output has the same keys as the object in this parameter.
    KeysOf(&'static str),
}

/// The declaration of a parameter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ParamSpec {
    /// The key in a node's `params`.
    pub name: &'static str,
    /// The kind of the parameter's value, which decides the checks.
    pub kind: ParamKind,
    /// True if the parameter must be present and not blank.
    pub required: bool,
}

/// The kind of a parameter's value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParamKind {
    /// Any JSON value.
    Json,
    /// Text.
    Text,
    /// Text from this list.
    OneOf(Vec<&'static str>),
    /// A whole number, zero or more.
    Integer,
    /// A duration in whole milliseconds, from 1 to ten years; read it as [`Millis`](crate::time::Millis).
    Duration,
    /// `true` or `false`.
    Boolean,
    /// A JSON object.
    Object,
    /// An `http` or `https` URL.
    Url,
    /// One e-mail address (RFC 5321), with or without a display name.
    Email,
    /// One e-mail address or a list of addresses: the recipients of a delivery.
    EmailList,
    /// The name of a template, readable through [`ResourceProbe`](crate::preflight::ResourceProbe).
    Template,
    /// A folder to write to.
    Folder,
    /// A connection to a provider.
    Connection,
    /// A document from an earlier step.
    File,
    /// A list of `{email, name?, order?}`.
    Signers,
}

impl ParamSpec {
    /// A parameter that must be present.
    #[must_use]
    pub fn required(name: &'static str, kind: ParamKind) -> Self {
        Self {
            name,
            kind,
            required: true,
        }
    }

    /// A parameter that may be missing.
    #[must_use]
    pub fn optional(name: &'static str, kind: ParamKind) -> Self {
        Self {
            name,
            kind,
            required: false,
        }
    }
}
