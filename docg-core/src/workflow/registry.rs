//! The registry of an application's node types.

use std::{collections::BTreeMap, sync::Arc};

use super::handler::{ComputeHandler, Handler};

/// All handlers, by node type.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    handlers: BTreeMap<Arc<str>, Handler>,
}

impl Registry {
    /// Adds a handler. If a node type is added twice, the last handler wins.
    pub fn add(&mut self, handler: Handler) {
        self.handlers
            .insert(Arc::clone(&handler.spec().node_type), handler);
    }

    /// The handler of a node type.
    #[must_use]
    pub fn get(&self, node_type: &str) -> Option<&Handler> {
        self.handlers.get(node_type)
    }

    /// The names of all registered node types.
    #[must_use]
    pub fn node_types(&self) -> Arc<[Arc<str>]> {
        self.handlers.keys().cloned().collect()
    }

    /// The handlers for dry runs: those that compute, and the previews of handlers with effects.
    #[must_use]
    pub fn dry(&self) -> DryRegistry {
        let handlers = self.handlers.iter().filter_map(|(node_type, handler)| {
            let handler = match handler {
                Handler::Compute(handler) => Arc::clone(handler),
                Handler::Effect(handler) => handler.preview()?,
            };
            Some((Arc::clone(node_type), handler))
        });
        DryRegistry {
            handlers: handlers.collect(),
        }
    }
}

/// The handlers that a dry run may call. None of them can have an effect.
#[derive(Clone, Default)]
pub struct DryRegistry {
    handlers: BTreeMap<Arc<str>, Arc<dyn ComputeHandler>>,
}

impl DryRegistry {
    /// The handler that a dry run calls for a node type; `None` skips the step.
    #[must_use]
    pub fn get(&self, node_type: &str) -> Option<&Arc<dyn ComputeHandler>> {
        self.handlers.get(node_type)
    }
}

impl std::fmt::Debug for DryRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}
