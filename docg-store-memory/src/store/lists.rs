//! An organization's executions, newest first, in total and by workflow, each by status.
//!
//! A change of status moves an execution between two sets; only the sets of ended executions are large. A
//! list without a status filter is merged from the sets of all twelve statuses.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use docg_core::{
    ids::{ExecutionId, WorkflowId},
    run::Status,
    time::Timestamp,
};

/// The sort key of lists: the time of creation and the id.
pub(super) type ListKey = (Timestamp, ExecutionId);

#[derive(Default)]
pub(super) struct TenantLists(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    all: ByStatus,
    workflows: HashMap<WorkflowId, Box<ByStatus>>,
}

#[derive(Default)]
struct ByStatus([BTreeSet<ListKey>; Status::ALL.len()]);

impl TenantLists {
    pub(super) fn insert(&self, workflow: WorkflowId, key: ListKey, status: Status) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.all.0[status as usize].insert(key);
        lists.workflows.entry(workflow).or_default().0[status as usize].insert(key);
    }

    pub(super) fn change(&self, workflow: WorkflowId, key: ListKey, from: Status, to: Status) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.all.change(key, from, to);
        lists
            .workflows
            .entry(workflow)
            .or_default()
            .change(key, from, to);
    }

    pub(super) fn remove(&self, workflow: WorkflowId, key: ListKey, status: Status) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.all.0[status as usize].remove(&key);
        if let Some(list) = lists.workflows.get_mut(&workflow) {
            list.0[status as usize].remove(&key);
            if list.0.iter().all(BTreeSet::is_empty) {
                lists.workflows.remove(&workflow);
            }
        }
    }

    /// At most `limit` keys that follow `after` in the list: of executions with one of these statuses (empty
    /// for any), newest first, or oldest first if `is_ascending`.
    pub(super) fn page(
        &self,
        workflow: Option<WorkflowId>,
        statuses: &[Status],
        is_ascending: bool,
        after: Option<ListKey>,
        limit: usize,
    ) -> Vec<ListKey> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = match workflow {
            None => &lists.all,
            Some(workflow) => match lists.workflows.get(&workflow) {
                Some(list) => list,
                None => return Vec::new(),
            },
        };
        let statuses = match statuses {
            [] => &Status::ALL,
            statuses => statuses,
        };
        let sets: Vec<_> = statuses.iter().map(|it| &list.0[*it as usize]).collect();
        if is_ascending {
            let lists = sets.into_iter().map(|set| oldest_first(set, after));
            merged(lists.collect(), |a, b| b.cmp(a), limit)
        } else {
            let lists = sets.into_iter().map(|set| newest_first(set, after));
            merged(lists.collect(), ListKey::cmp, limit)
        }
    }
}

impl ByStatus {
    fn change(&mut self, key: ListKey, from: Status, to: Status) {
        self.0[from as usize].remove(&key);
        self.0[to as usize].insert(key);
    }
}

/// The first keys of several lists: of the lists' heads, the greatest in this order comes first.
fn merged(
    mut lists: Vec<impl Iterator<Item = ListKey>>,
    order: impl Fn(&ListKey, &ListKey) -> Ordering,
    limit: usize,
) -> Vec<ListKey> {
    let mut heads: Vec<Option<ListKey>> = lists.iter_mut().map(Iterator::next).collect();
    let mut page = Vec::new();
    while page.len() < limit {
        let heads_in_use = heads.iter().enumerate();
        let heads_in_use = heads_in_use.filter_map(|(index, head)| Some((index, (*head)?)));
        let Some((index, key)) = heads_in_use.max_by(|a, b| order(&a.1, &b.1)) else {
            break;
        };
        page.push(key);
        heads[index] = lists[index].next();
    }
    page
}

fn newest_first(set: &BTreeSet<ListKey>, after: Option<ListKey>) -> impl Iterator<Item = ListKey> {
    use std::ops::Bound::{Excluded, Unbounded};
    set.range((Unbounded, after.map_or(Unbounded, Excluded)))
        .rev()
        .copied()
}

fn oldest_first(set: &BTreeSet<ListKey>, after: Option<ListKey>) -> impl Iterator<Item = ListKey> {
    use std::ops::Bound::{Excluded, Unbounded};
    set.range((after.map_or(Unbounded, Excluded), Unbounded))
        .copied()
}
