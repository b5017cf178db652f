//! What a node type declares about itself. From this alone preflight knows what to check.

use std::sync::Arc;

use crate::run::Phase;

/// The declaration of a node type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeSpec {
    /// The name that workflows use, such as `render-pdf`.
    pub node_type: Arc<str>,
    /// The phases that its nodes may declare; a node may leave the phase out where there is one.
    pub phases: Vec<Phase>,
    /// The parameters. A node with any other parameter is refused.
    pub params: Vec<ParamSpec>,
    /// The fields that later nodes may read.
    pub outputs: Outputs,
    /// Whether its effect can be repeated.
    pub effect: EffectClass,
    /// How long one attempt may take where the node does not say, in milliseconds.
    pub timeout_ms: u64,
}

impl NodeSpec {
    /// A node type for one phase, with no parameters, any output and 60 seconds for an attempt.
    #[must_use]
    pub fn new(node_type: impl Into<Arc<str>>, phase: Phase) -> Self {
        Self {
            node_type: node_type.into(),
            phases: vec![phase],
            params: Vec::new(),
            outputs: Outputs::Any,
            effect: EffectClass::Once,
            timeout_ms: 60_000,
        }
    }

    /// Allows every phase but preflight.
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

    /// Declares that the output has the keys of this parameter's object.
    #[must_use]
    pub fn outputs_of_param(mut self, param: &'static str) -> Self {
        self.outputs = Outputs::KeysOf(param);
        self
    }

    /// Declares that running the effect twice does no harm.
    #[must_use]
    pub fn safe_to_repeat(mut self) -> Self {
        self.effect = EffectClass::Repeatable;
        self
    }

    /// Sets how long one attempt may take where the node does not say, in milliseconds.
    #[must_use]
    pub fn timeout_ms(mut self, millis: u64) -> Self {
        self.timeout_ms = millis;
        self
    }

    /// The declaration of a parameter.
    #[must_use]
    pub fn find_param(&self, name: &str) -> Option<&ParamSpec> {
        self.params.iter().find(|param| param.name == name)
    }
}

/// Whether an effect can be repeated without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EffectClass {
    /// Safe to run again after a crash.
    Repeatable,
    /// Cannot be taken back: after a crash the handler is asked before it is run again.
    Once,
}

/// The fields of an output that later nodes may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outputs {
    /// Not known before it has run.
    Any,
    /// Exactly these.
    Fields(Vec<&'static str>),
    /// The keys of this parameter's object.
    KeysOf(&'static str),
}

/// The declaration of a parameter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ParamSpec {
    /// The key in a node's `params`.
    pub name: &'static str,
    /// What it holds, and so what is checked.
    pub kind: ParamKind,
    /// Whether it must be there and not blank.
    pub required: bool,
}

/// What a parameter holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParamKind {
    /// Any JSON value.
    Json,
    /// Text.
    Text,
    /// Text that is one of these.
    OneOf(Vec<&'static str>),
    /// A whole number, zero or more.
    Integer,
    /// A duration in whole milliseconds, from 1 to ten years; to be read as
    /// [`Millis`](crate::time::Millis).
    Duration,
    /// `true` or `false`.
    Boolean,
    /// A JSON object.
    Object,
    /// An `http` or `https` URL.
    Url,
    /// One e-mail address (RFC 5321), with or without a display name.
    Email,
    /// One e-mail address or a list of them: who a delivery goes to.
    EmailList,
    /// The name of a template, readable through [`ResourceProbe`](crate::preflight::ResourceProbe).
    Template,
    /// A folder to write to.
    Folder,
    /// A connection to a provider.
    Connection,
    /// A document that an earlier step made.
    File,
    /// A list of `{email, name?, order?}`.
    Signers,
}

impl ParamSpec {
    /// A parameter that must be there.
    #[must_use]
    pub fn required(name: &'static str, kind: ParamKind) -> Self {
        Self {
            name,
            kind,
            required: true,
        }
    }

    /// A parameter that may be left out.
    #[must_use]
    pub fn optional(name: &'static str, kind: ParamKind) -> Self {
        Self {
            name,
            kind,
            required: false,
        }
    }
}
