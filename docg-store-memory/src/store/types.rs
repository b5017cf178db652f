//! Numbered sets of node types. With the numbers, a table lookup tells whether a worker has the types
//! that an execution needs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use docg_core::workflow::Workflow;

/// The number of a workflow's set of node types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TypeSet(usize);

impl TypeSet {
    pub(super) fn is_in(self, allowed: &[bool]) -> bool {
        allowed.get(self.0).copied().unwrap_or(false)
    }
}

type NodeTypes = Arc<[Arc<str>]>;

/// The number of node type lists whose result is cached. A worker passes the same list in all its claims.
const REMEMBERED: usize = 16;

#[derive(Default)]
pub(super) struct TypeSets {
    known: RwLock<Known>,
    answers: Mutex<Vec<(NodeTypes, Arc<[bool]>)>>,
}

#[derive(Default)]
struct Known {
    numbers: HashMap<Arc<[Arc<str>]>, usize>,
    sets: Vec<Arc<[Arc<str>]>>,
}

impl TypeSets {
    pub(super) fn of(&self, workflow: &Workflow) -> TypeSet {
        let mut types: Vec<Arc<str>> = workflow
            .nodes
            .iter()
            .map(|node| Arc::clone(&node.node_type))
            .collect();
        types.sort_unstable();
        types.dedup();
        if let Some(number) = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .numbers
            .get(types.as_slice())
        {
            return TypeSet(*number);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Known { numbers, sets } = &mut *known;
        let types: Arc<[Arc<str>]> = types.into();
        TypeSet(*numbers.entry(Arc::clone(&types)).or_insert_with(|| {
            sets.push(types);
            sets.len() - 1
        }))
    }

    /// The node types of a set, in order.
    pub(super) fn names(&self, set: TypeSet) -> Vec<Arc<str>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .sets
            .get(set.0)
            .map(|set| set.to_vec())
            .unwrap_or_default()
    }

    /// For each set, true if `node_types` contains all its types.
    pub(super) fn allowed(&self, node_types: &NodeTypes) -> Arc<[bool]> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let asked_before = answers
            .iter()
            .position(|(asked, _)| Arc::ptr_eq(asked, node_types));
        if let Some(index) = asked_before {
            if answers[index].1.len() == known.sets.len() {
                return Arc::clone(&answers[index].1);
            }
            answers.swap_remove(index);
        } else if answers.len() == REMEMBERED {
            answers.remove(0);
        }
        let allowed: Arc<[bool]> = known
            .sets
            .iter()
            .map(|set| set.iter().all(|node_type| node_types.contains(node_type)))
            .collect();
        answers.push((Arc::clone(node_types), Arc::clone(&allowed)));
        allowed
    }
}
