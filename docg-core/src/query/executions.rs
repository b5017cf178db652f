//! The query for executions: filters, order and place.

use super::DEFAULT_LIMIT;
use crate::{
    ids::{ExecutionId, OrganizationId, WorkflowId},
    run::{Execution, Status, WaitKind},
    time::Timestamp,
};

/// The order of a list of executions. Executions of the same time are ordered by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExecutionSort {
    /// The newest first.
    #[default]
    NewestFirst,
    /// The oldest first.
    OldestFirst,
    /// The one that changed last first. An execution that changes while the pages are read moves to the front.
    LastChangedFirst,
    /// The one that has not changed for the longest time first. An execution that changes while the pages are
    /// read moves to the end.
    FirstChangedFirst,
}

impl ExecutionSort {
    /// All variants.
    pub const ALL: [Self; 4] = [
        Self::NewestFirst,
        Self::OldestFirst,
        Self::LastChangedFirst,
        Self::FirstChangedFirst,
    ];

    /// The execution's place in a list of this order.
    #[must_use]
    pub fn place(self, execution: &Execution) -> (Timestamp, ExecutionId) {
        let time = if self.is_by_change() {
            execution.updated_at
        } else {
            execution.created_at
        };
        (time, execution.id)
    }

    /// True if the list is ordered by the last change, false if by creation.
    #[must_use]
    pub const fn is_by_change(self) -> bool {
        matches!(self, Self::LastChangedFirst | Self::FirstChangedFirst)
    }

    /// True if the latest comes first.
    #[must_use]
    pub const fn is_descending(self) -> bool {
        matches!(self, Self::NewestFirst | Self::LastChangedFirst)
    }
}

/// A search for executions by what people know of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Search {
    /// The text. An execution whose id or correlation id is this text is found.
    pub text: String,
    /// The words of the text. An execution is found if each of them begins a word of its title.
    pub words: Vec<String>,
}

impl Search {
    /// A search for this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let text = text.trim();
        Self {
            text: text.to_owned(),
            words: words(text),
        }
    }

    fn finds(&self, execution: &Execution) -> bool {
        if *self.text == *execution.correlation_id || self.text == execution.id.to_string() {
            return true;
        }
        let title = words(execution.title.as_deref().unwrap_or_default());
        let begins = |word: &String| title.iter().any(|of_title| of_title.starts_with(&**word));
        !self.words.is_empty() && self.words.iter().all(begins)
    }
}

/// The words of a text, in lower case, as a search compares them.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Which executions of an organization a list or a count is about. The default selects all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExecutionFilter {
    /// Only executions of this workflow.
    pub workflow_id: Option<WorkflowId>,
    /// Only executions with one of these statuses; empty for any. Without repeats.
    pub statuses: Vec<Status>,
    /// Only executions that wait for one of these; empty for any. Without repeats.
    pub waiting_for: Vec<WaitKind>,
    /// Only executions created at this moment or later.
    pub created_from: Option<Timestamp>,
    /// Only executions created before this moment.
    pub created_to: Option<Timestamp>,
    /// Only executions with this correlation id.
    pub correlation_id: Option<String>,
    /// Only executions that this search finds.
    pub search: Option<Search>,
}

impl ExecutionFilter {
    /// True if the filter selects the execution, of whatever organization.
    #[must_use]
    pub fn selects(&self, execution: &Execution) -> bool {
        let waits_for = execution.waiting_for.as_ref().map(|waiting| waiting.kind);
        let created = execution.created_at;
        self.workflow_id
            .is_none_or(|id| execution.workflow_id == id)
            && (self.statuses.is_empty() || self.statuses.contains(&execution.status))
            && (self.waiting_for.is_empty()
                || waits_for.is_some_and(|kind| self.waiting_for.contains(&kind)))
            && self.created_from.is_none_or(|from| created >= from)
            && self.created_to.is_none_or(|to| created < to)
            && (self.correlation_id.as_deref()).is_none_or(|id| *id == *execution.correlation_id)
            && (self.search.as_ref()).is_none_or(|search| search.finds(execution))
    }
}

/// A query for executions.
///
/// ```
/// use docg_core::{ids::OrganizationId, query::ExecutionQuery, run::Status};
///
/// let failed = ExecutionQuery::of(OrganizationId::new()).status(Status::Failed).limit(20);
/// assert_eq!(failed.filter.statuses, [Status::Failed]);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExecutionQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Only the executions that this filter selects.
    pub filter: ExecutionFilter,
    /// The order of the list.
    pub sort: ExecutionSort,
    /// Only executions that follow this [place](ExecutionSort::place) in the list.
    pub after: Option<(Timestamp, ExecutionId)>,
    /// The largest number of executions to return.
    pub limit: usize,
}

impl ExecutionQuery {
    /// All executions of an organization, the newest first.
    #[must_use]
    pub fn of(organization_id: OrganizationId) -> Self {
        Self {
            organization_id,
            filter: ExecutionFilter::default(),
            sort: ExecutionSort::default(),
            after: None,
            limit: DEFAULT_LIMIT,
        }
    }

    /// Only the executions that this filter selects.
    #[must_use]
    pub fn filter(mut self, filter: ExecutionFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Only executions of this workflow.
    #[must_use]
    pub fn workflow_id(mut self, id: impl Into<Option<WorkflowId>>) -> Self {
        self.filter.workflow_id = id.into();
        self
    }

    /// Only executions with this status.
    #[must_use]
    pub fn status(mut self, status: impl Into<Option<Status>>) -> Self {
        self.filter.statuses = status.into().into_iter().collect();
        self
    }

    /// In this order.
    #[must_use]
    pub const fn sort(mut self, sort: ExecutionSort) -> Self {
        self.sort = sort;
        self
    }

    /// Only executions that follow this [place](ExecutionSort::place) in the list.
    #[must_use]
    pub fn after(mut self, place: impl Into<Option<(Timestamp, ExecutionId)>>) -> Self {
        self.after = place.into();
        self
    }

    /// Returns at most this many executions.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// How many executions have each status, and how many wait for each kind of thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecutionCounts {
    /// The number of executions by status, with the status as index.
    pub by_status: [u64; Status::ALL.len()],
    /// The waiting executions by kind, with the kind as index.
    pub waiting: [WaitCount; WaitKind::ALL.len()],
}

/// The executions that wait for one kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitCount {
    /// Their number.
    pub count: u64,
    /// When the oldest of these waits began; `None` if there is none.
    pub oldest_since: Option<Timestamp>,
}

impl WaitCount {
    /// Adds waits, the oldest of which began at this moment.
    pub fn add(&mut self, count: u64, oldest_since: Option<Timestamp>) {
        self.count += count;
        let both = self.oldest_since.into_iter().chain(oldest_since);
        self.oldest_since = both.min();
    }
}

impl ExecutionCounts {
    /// Counts one execution.
    pub fn add(&mut self, execution: &Execution) {
        self.by_status[execution.status as usize] += 1;
        if let Some(waiting) = &execution.waiting_for {
            self.waiting[waiting.kind as usize].add(1, Some(waiting.since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::variables::tests::execution;

    #[test]
    fn a_search_finds_the_beginnings_of_words_of_the_title_and_whole_ids() {
        let mut execution = execution();
        execution.title = Some("Contrato nº 2026-001 — Ação S/A".into());
        execution.correlation_id = "order-7".into();
        let id = execution.id.to_string();
        for found in ["contrato", "AÇÃO contr", "2026 001", " order-7 ", &id, "n"] {
            assert!(Search::of(found).finds(&execution), "{found}");
        }
        for other in ["ontrato", "contrato x", "order", "", "--", &id[..8]] {
            assert!(!Search::of(other).finds(&execution), "{other}");
        }
    }
}
