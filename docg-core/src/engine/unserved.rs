//! Tells the operator what waits in vain: executions that no worker takes, because none that is up
//! has all their node types.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::Inner;
use crate::ports::Unserved;

/// How often the store is asked at most, however short leases are.
const SHORTEST: Duration = Duration::from_secs(1);

/// Runs until it is dropped. In a process that takes no executions, whatever waits is told.
pub(super) async fn run(engine: &Inner, works: bool) {
    let known = if works {
        Arc::clone(&engine.node_types)
    } else {
        Arc::default()
    };
    // Within a lease even a worker that has just died is replaced; and operators have time.
    let patience = (engine.options.lease * 2).max(SHORTEST);
    let mut told = BTreeSet::new();
    loop {
        let asked_at = engine.now();
        engine.clock.sleep(patience).await;
        match engine.store.unserved(Arc::clone(&known), asked_at).await {
            Ok(unserved) => told = tell(&told, &known, unserved),
            Err(e) => tracing::debug!("whether executions wait in vain is not known: {e}"),
        }
    }
}

type NodeTypes = Vec<Arc<str>>;

/// Logs what has changed; returns what is told by now.
fn tell(
    told: &BTreeSet<NodeTypes>,
    known: &[Arc<str>],
    unserved: Vec<Unserved>,
) -> BTreeSet<NodeTypes> {
    let mut now = BTreeSet::new();
    for Unserved {
        node_types,
        due_since,
    } in unserved
    {
        if !told.contains(&node_types) {
            let is_missing = |node_type: &&Arc<str>| !known.contains(node_type);
            let missing: Vec<&str> = node_types
                .iter()
                .filter(is_missing)
                .map(|node_type| &**node_type)
                .collect();
            let missing = missing.join(", ");
            tracing::warn!(%due_since, "executions wait, and no worker has taken them that has the node types {missing}");
        }
        now.insert(node_types);
    }
    for node_types in told.difference(&now) {
        let node_types = node_types.join(", ");
        tracing::info!("executions with the node types {node_types} wait no longer");
    }
    now
}
