//! Random calls. A call refers to executions and other things by number, modulo their count, so that any
//! sequence of calls is valid, also after it was shrunk.

use docg_core::run::Status;
use proptest::prelude::*;

/// The number of an organization, execution, lease, worker, workflow or key.
pub(crate) type Which = usize;

#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// Moves the clock forward, in milliseconds.
    Wait(i64),
    Create {
        organization: Which,
        workflow: Which,
        priority: i16,
        /// The time until the execution is due, in milliseconds; `None` if only a signal makes it due.
        due_in: Option<i64>,
        /// An idempotency key, and the body of the request.
        key: Option<(Which, u8)>,
        /// The worker that claims the execution at once, and the organization's share of leases.
        claim: Option<(Which, usize)>,
    },
    /// Creates an execution that exists already.
    CreateAgain(Which),
    ClaimDue {
        worker: Which,
        per_organization: usize,
        /// True if the worker knows all node types.
        all_types: bool,
    },
    ClaimOne {
        worker: Which,
        run: Which,
    },
    Commit(Change),
    Renew(Vec<Which>),
    Release(Vec<Which>),
    Signal {
        run: Which,
        /// True if the signal comes from the execution's own organization.
        own: bool,
        odd: Option<Odd>,
    },
    /// Sends a signal that was sent before.
    SignalAgain(Which),
    Unpublished,
    MarkPublished {
        run: Which,
        seq: u64,
    },
    /// Purges executions that ended at least this long ago, in milliseconds.
    Purge(i64),
    PutWorkflow {
        organization: Which,
        workflow: Which,
        /// The difference between the stored version and the next valid one.
        off_by: u32,
    },
    DeleteWorkflow {
        organization: Which,
        workflow: Which,
    },
    Remember {
        organization: Which,
        key: Which,
        lasts: i64,
    },
    Replace {
        organization: Which,
        key: Which,
        lasts: i64,
    },
    Recall {
        organization: Which,
        key: Which,
    },
    /// Pages through an organization's executions.
    List {
        organization: Which,
        workflow: Option<Which>,
        status: Option<Status>,
        limit: usize,
    },
    /// Pages through all records of an execution.
    Read {
        run: Which,
        own: bool,
        limit: usize,
    },
}

/// A value that not every store can keep.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Odd {
    Nul,
    /// JSON that is nested to this depth.
    Nested(usize),
}

/// A commit, valid or not.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) lease: Which,
    /// True if the commit expects another version than the stored one.
    pub(crate) stale: bool,
    /// True if an event is missing between the stored ones and the commit's.
    pub(crate) hole: bool,
    pub(crate) status: Option<Status>,
    pub(crate) events: usize,
    pub(crate) logs: usize,
    pub(crate) audit: bool,
    pub(crate) steps: bool,
    pub(crate) inputs: bool,
    /// The odd value in the steps and inputs, if any.
    pub(crate) odd: Option<Odd>,
    pub(crate) signature: bool,
    pub(crate) approval: bool,
    pub(crate) settle: usize,
    pub(crate) published: bool,
    /// The time until the execution needs a worker next, in milliseconds.
    pub(crate) wake_in: Option<i64>,
    /// The time for which the lease is kept, in milliseconds; `None` releases it.
    pub(crate) keep: Option<i64>,
}

fn which() -> impl Strategy<Value = Which> {
    0usize..6
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(Status::ALL.to_vec())
}

fn odd() -> impl Strategy<Value = Option<Odd>> {
    let odd = prop_oneof![Just(Odd::Nul), (95usize..130).prop_map(Odd::Nested),];
    prop::option::weighted(0.1, odd)
}

prop_compose! {
    fn change()(
        lease in which(),
        stale in prop::bool::weighted(0.1),
        hole in prop::bool::weighted(0.05),
        status in prop::option::weighted(0.6, status()),
        events in 0usize..4,
        logs in 0usize..3,
        (audit, steps, inputs) in any::<(bool, bool, bool)>(),
        odd in odd(),
        signature in prop::bool::weighted(0.2),
        approval in prop::bool::weighted(0.2),
        settle in 0usize..3,
        published in any::<bool>(),
        wake_in in prop::option::of(0i64..30_000),
        keep in prop::option::weighted(0.7, 1i64..20_000),
    ) -> Change {
        Change {
            lease, stale, hole, status, events, logs, audit, steps, inputs, odd, signature, approval,
            settle, published, wake_in, keep,
        }
    }
}

fn call() -> impl Strategy<Value = Call> {
    let create = (
        which(),
        which(),
        -1i16..2,
        prop::option::weighted(0.8, 0i64..5_000),
    );
    let key = prop::option::weighted(0.3, (0usize..3, 0u8..2));
    let claim = prop::option::weighted(0.4, (which(), 1usize..4));
    let create = (create, key, claim);
    prop_oneof![
        3 => (0i64..12_000).prop_map(Call::Wait),
        6 => create.prop_map(|((organization, workflow, priority, due_in), key, claim)| Call::Create {
            organization, workflow, priority, due_in, key, claim,
        }),
        1 => which().prop_map(Call::CreateAgain),
        4 => (which(), 1usize..4, prop::bool::weighted(0.8)).prop_map(
            |(worker, per_organization, all_types)| Call::ClaimDue {
                worker, per_organization, all_types,
            }),
        2 => (which(), which()).prop_map(|(worker, run)| Call::ClaimOne { worker, run }),
        12 => change().prop_map(Call::Commit),
        1 => prop::collection::vec(which(), 0..4).prop_map(Call::Renew),
        1 => prop::collection::vec(which(), 0..4).prop_map(Call::Release),
        3 => (which(), prop::bool::weighted(0.9), odd()).prop_map(
            |(run, own, odd)| Call::Signal { run, own, odd }),
        1 => which().prop_map(Call::SignalAgain),
        1 => Just(Call::Unpublished),
        1 => (which(), 0u64..12).prop_map(|(run, seq)| Call::MarkPublished { run, seq }),
        1 => (0i64..30_000).prop_map(Call::Purge),
        1 => (which(), which(), prop::sample::select(vec![0, 0, 0, 1])).prop_map(
            |(organization, workflow, off_by)| Call::PutWorkflow { organization, workflow, off_by }),
        1 => (which(), which()).prop_map(
            |(organization, workflow)| Call::DeleteWorkflow { organization, workflow }),
        1 => (which(), 0usize..3, 0i64..10_000).prop_map(
            |(organization, key, lasts)| Call::Remember { organization, key, lasts }),
        1 => (which(), 0usize..3, 0i64..10_000).prop_map(
            |(organization, key, lasts)| Call::Replace { organization, key, lasts }),
        1 => (which(), 0usize..3).prop_map(|(organization, key)| Call::Recall { organization, key }),
        1 => (which(), prop::option::of(which()), prop::option::of(status()), 1usize..4).prop_map(
            |(organization, workflow, status, limit)| Call::List {
                organization, workflow, status, limit,
            }),
        1 => (which(), prop::bool::weighted(0.8), 1usize..4).prop_map(
            |(run, own, limit)| Call::Read { run, own, limit }),
    ]
}

pub(crate) fn calls() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec(call(), 10..70)
}
