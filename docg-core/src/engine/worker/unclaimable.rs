//! Reports unclaimable executions to the operator and in their own logs. An execution is unclaimable if it is
//! due, and no worker that is up has all its node types.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    engine::{Engine, Inner},
    ids::{ExecutionId, OrganizationId, SignalId},
    observe::Actor,
    ports::{Signal, SignalKind, Unserved},
    time::Timestamp,
};

/// The shortest time between two queries to the store, however short leases are.
const SHORTEST: Duration = Duration::from_secs(1);
/// The shortest time between two log lines about a node type.
const INTERVAL: Duration = Duration::from_secs(60);
/// This constant and an execution's id together give the id of the signal that this module sends to the
/// execution.
const SIGNAL: u128 = 0x6e6f_5f77_6f72_6b65_725f_6861_735f_6974;

/// Checks at intervals until the future is dropped. A process without workers logs all waiting executions.
pub(super) async fn run(inner: &Arc<Inner>, works: bool) {
    let known = if works {
        Arc::clone(&inner.node_types)
    } else {
        Arc::default()
    };
    // Within one lease another worker replaces one that died; the second lease gives operators time.
    let patience = (inner.options.lease * 2).max(SHORTEST);
    let mut logged = Logged::default();
    let mut told = HashSet::new();
    loop {
        let asked_at = inner.now();
        inner.clock.sleep(patience).await;
        let unclaimable = match inner.store.unserved(Arc::clone(&known), asked_at).await {
            Ok(unserved) => unserved,
            Err(e) => {
                tracing::debug!("unclaimable executions could not be read: {e}");
                continue;
            }
        };
        logged.log(missing(&unclaimable, &known), inner.clock.elapsed());
        // A process without workers knows no node types, so its list holds every waiting execution. Some only
        // wait for a busy worker of another process: do not tell them that their node types are missing.
        if works {
            tell_executions(inner, &unclaimable, &known, &mut told).await;
        }
    }
}

/// The missing node types, each with the time since which an execution waits for it.
fn missing<'u>(unclaimable: &'u [Unserved], known: &[Arc<str>]) -> BTreeMap<&'u str, Timestamp> {
    let mut missing = BTreeMap::new();
    for waiting in unclaimable {
        for node_type in waiting.node_types.iter().filter(|it| !known.contains(it)) {
            let since = missing.entry(&**node_type).or_insert(waiting.due_since);
            *since = (*since).min(waiting.due_since);
        }
    }
    missing
}

/// When each missing node type was last logged.
#[derive(Default)]
struct Logged(BTreeMap<String, Duration>);

impl Logged {
    /// Logs each missing node type once a minute, and once when it is no longer missing.
    fn log(&mut self, missing: BTreeMap<&str, Timestamp>, now: Duration) {
        self.0.retain(|node_type, _| {
            let is_missing = missing.contains_key(&**node_type);
            if !is_missing {
                tracing::info!("executions with the node type {node_type} wait no longer");
            }
            is_missing
        });
        for (node_type, since) in missing {
            let last = self.0.get(node_type);
            if last.is_none_or(|last| now.saturating_sub(*last) >= INTERVAL) {
                tracing::warn!(due_since = %since, "executions wait, and no worker that has the node type {node_type} has claimed them");
                self.0.insert(node_type.to_owned(), now);
            }
        }
    }
}

/// Signals each unclaimable execution once, so that its log says that it waits for a worker. `told` holds the
/// executions that this process has signaled.
async fn tell_executions(
    inner: &Arc<Inner>,
    unclaimable: &[Unserved],
    known: &[Arc<str>],
    told: &mut HashSet<ExecutionId>,
) {
    let engine = Engine {
        inner: Arc::clone(inner),
    };
    let mut waiting = HashSet::new();
    for Unserved {
        node_types,
        executions,
        ..
    } in unclaimable
    {
        let missing = node_types.iter().filter(|it| !known.contains(it));
        let missing: Vec<_> = missing.map(ToString::to_string).collect();
        for (organization, id) in executions {
            waiting.insert(*id);
            if told.insert(*id)
                && let Err(e) = engine
                    .send_again(signal(inner, *organization, *id, missing.clone()))
                    .await
            {
                tracing::debug!(execution_id = %id, "the note in the log of an unclaimable execution was not sent: {e}");
            }
        }
    }
    // Forget executions that wait no longer. If one is signaled again, the second signal changes nothing.
    told.retain(|id| waiting.contains(id));
}

/// The signal by which an execution's log says that no worker knows its node types. Its id derives from the
/// execution's id. So the signal is applied once, although several processes send it.
fn signal(
    inner: &Inner,
    organization_id: OrganizationId,
    execution_id: ExecutionId,
    node_types: Vec<String>,
) -> Signal {
    Signal {
        id: SignalId(Uuid::from_u128(execution_id.0.as_u128() ^ SIGNAL)),
        execution_id,
        organization_id,
        actor: Actor::system(),
        received_at: inner.now(),
        if_version: None,
        kind: SignalKind::NoWorker { node_types },
    }
}
