//! The queries that an application sends to the engine, and their results. Stores answer the same queries.
//!
//! Each query has public fields for stores to read, and is built with [`of`](ExecutionQuery::of) and setters,
//! so that a later version can add filters.

use std::sync::Arc;

use crate::{
    ids::{ExecutionId, NodeId, OrganizationId, WorkflowId},
    observe::{LogDomain, LogEntry, LogLevel},
    run::{Execution, Inputs},
    time::Timestamp,
};

mod executions;

pub use executions::{
    ExecutionCounts, ExecutionFilter, ExecutionQuery, ExecutionSort, Search, WaitCount, words,
};

/// The largest number of rows that a query returns unless it sets its own limit.
pub const DEFAULT_LIMIT: usize = 100;

/// A query for an execution's log entries, oldest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The execution.
    pub execution_id: ExecutionId,
    /// Only entries of this level.
    pub level: Option<LogLevel>,
    /// Only entries of this domain.
    pub domain: Option<LogDomain>,
    /// Only entries of this node's step.
    pub step_id: Option<NodeId>,
    /// Only entries with a greater `seq`.
    pub after: u64,
    /// The largest number of entries to return.
    pub limit: usize,
}

impl LogQuery {
    /// True if the query's filters select the entry.
    #[must_use]
    pub fn selects(&self, entry: &LogEntry) -> bool {
        self.level.is_none_or(|level| entry.level == level)
            && self.domain.is_none_or(|domain| entry.domain == domain)
            && (self.step_id.is_none() || entry.step_id == self.step_id)
    }

    /// All log entries of an execution.
    #[must_use]
    pub const fn of(organization_id: OrganizationId, execution_id: ExecutionId) -> Self {
        Self {
            organization_id,
            execution_id,
            level: None,
            domain: None,
            step_id: None,
            after: 0,
            limit: DEFAULT_LIMIT,
        }
    }

    /// Only entries of this level.
    #[must_use]
    pub fn level(mut self, level: impl Into<Option<LogLevel>>) -> Self {
        self.level = level.into();
        self
    }

    /// Only entries of this domain.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<Option<LogDomain>>) -> Self {
        self.domain = domain.into();
        self
    }

    /// Only entries of this node's step.
    #[must_use]
    pub fn step_id(mut self, node: impl Into<Option<NodeId>>) -> Self {
        self.step_id = node.into();
        self
    }

    /// Only entries with a greater `seq`.
    #[must_use]
    pub const fn after(mut self, seq: u64) -> Self {
        self.after = seq;
        self
    }

    /// Returns at most this many entries.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// A query for an execution's events, oldest first.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct EventQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The execution.
    pub execution_id: ExecutionId,
    /// Only events with a greater `seq`.
    pub after: u64,
    /// The largest number of events to return.
    pub limit: usize,
}

/// A query for the executions that wait for an event with this name and key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AwaitingQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The event's name.
    pub name: String,
    /// The event's key.
    pub key: String,
    /// The largest number of executions to return.
    pub limit: usize,
}

impl AwaitingQuery {
    /// The largest number of executions that one event reaches.
    pub const MOST: usize = 1_000;

    /// A query for at most this many executions.
    #[must_use]
    pub fn new(organization_id: OrganizationId, name: &str, key: &str, limit: usize) -> Self {
        Self {
            organization_id,
            name: name.to_owned(),
            key: key.to_owned(),
            limit,
        }
    }
}

/// A query for an execution's audit rows, oldest first.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AuditQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The execution.
    pub execution_id: ExecutionId,
    /// Only rows with a greater `seq`.
    pub after: u64,
    /// The largest number of rows to return.
    pub limit: usize,
}

macro_rules! sequence_query {
    ($query:ident, $rows:literal) => {
        impl $query {
            #[doc = concat!("All ", $rows, " of an execution.")]
            #[must_use]
            pub const fn of(organization_id: OrganizationId, execution_id: ExecutionId) -> Self {
                Self {
                    organization_id,
                    execution_id,
                    after: 0,
                    limit: DEFAULT_LIMIT,
                }
            }

            #[doc = concat!("Only ", $rows, " with a greater `seq`.")]
            #[must_use]
            pub const fn after(mut self, seq: u64) -> Self {
                self.after = seq;
                self
            }

            #[doc = concat!("Returns at most this many ", $rows, ".")]
            #[must_use]
            pub const fn limit(mut self, limit: usize) -> Self {
                self.limit = limit;
                self
            }
        }
    };
}

sequence_query!(EventQuery, "events");
sequence_query!(AuditQuery, "audit rows");

/// A query for workflows, newest first.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WorkflowQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Only workflows that follow the one with this `created_at` and id in the list.
    pub after: Option<(Timestamp, WorkflowId)>,
    /// The largest number of workflows to return.
    pub limit: usize,
}

impl WorkflowQuery {
    /// All workflows of an organization.
    #[must_use]
    pub const fn of(organization_id: OrganizationId) -> Self {
        Self {
            organization_id,
            after: None,
            limit: DEFAULT_LIMIT,
        }
    }

    /// Only workflows that follow the one with this `created_at` and id in the list.
    #[must_use]
    pub fn after(mut self, place: impl Into<Option<(Timestamp, WorkflowId)>>) -> Self {
        self.after = place.into();
        self
    }

    /// Returns at most this many workflows.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// True if more rows follow.
    pub has_more: bool,
}

/// An execution, as given to readers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExecutionRecord {
    /// The run state.
    pub execution: Execution,
    /// The execution's input data.
    pub inputs: Arc<Inputs>,
    /// True if part of the execution cannot be read, because the data is damaged or another version of docg
    /// wrote it. Ids and status are correct; other fields hold only what could be read. A person can only
    /// cancel this execution.
    pub unreadable: bool,
}

impl ExecutionRecord {
    /// An execution of which all parts can be read.
    #[must_use]
    pub const fn new(execution: Execution, inputs: Arc<Inputs>) -> Self {
        Self {
            execution,
            inputs,
            unreadable: false,
        }
    }
}
