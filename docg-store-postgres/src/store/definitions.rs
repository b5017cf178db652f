//! Definitions that executions were created with, and numbers of sets of node types: neither ever
//! changes, so both are remembered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use docg_core::workflow::Workflow;
use sha2::{Digest, Sha256};

use crate::{
    codec::{bytes32, field, from_json},
    database::{Database, arguments},
    error::Error,
};

/// This many are remembered of each; then all are forgotten and remembered anew.
const REMEMBERED: usize = 1_024;

#[derive(Default)]
pub(super) struct Definitions {
    by_hash: Mutex<HashMap<[u8; 32], Arc<Workflow>>>,
    type_sets: Mutex<HashMap<Vec<String>, i32>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember<K: std::hash::Hash + Eq, V>(mutex: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut known = lock(mutex);
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(key, value);
}

/// What a definition is found by.
pub(super) fn hash(definition: &str) -> [u8; 32] {
    Sha256::digest(definition).into()
}

impl Definitions {
    /// The definitions of these hashes, in order, each by itself to be had or not; those that are
    /// not known are read, all at once.
    pub(super) async fn find(
        &self,
        database: &Database,
        hashes: &[[u8; 32]],
    ) -> Result<Vec<Result<Arc<Workflow>, Error>>, Error> {
        let known = |hash: &[u8; 32]| lock(&self.by_hash).get(hash).cloned();
        let mut missing: Vec<Vec<u8>> = hashes
            .iter()
            .filter(|hash| known(hash).is_none())
            .map(|hash| hash.to_vec())
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let mut read = HashMap::new();
        if !missing.is_empty() {
            let sql = "SELECT hash, definition::text FROM docg.definitions WHERE hash = ANY ($1)";
            for row in database.read(sql, arguments![missing]).await? {
                let hash = bytes32(&row, "hash")?;
                let workflow = from_json("definition", field(&row, "definition")?).map(Arc::new);
                if let Ok(workflow) = &workflow {
                    remember(&self.by_hash, hash, Arc::clone(workflow));
                }
                read.insert(hash, workflow);
            }
        }
        let missing = || Error::Corrupt("an execution's definition is missing".to_owned());
        let found = |hash| match known(hash) {
            Some(workflow) => Ok(workflow),
            None => read.get(hash).cloned().unwrap_or_else(|| Err(missing())),
        };
        Ok(hashes.iter().map(found).collect())
    }

    /// The number of a workflow's set of node types.
    pub(super) async fn type_set(
        &self,
        database: &Database,
        workflow: &Workflow,
    ) -> Result<i32, Error> {
        let mut types: Vec<String> = workflow
            .nodes
            .iter()
            .map(|node| node.node_type.to_string())
            .collect();
        types.sort_unstable();
        types.dedup();
        if let Some(number) = lock(&self.type_sets).get(&types) {
            return Ok(*number);
        }
        // A second look finds what another process has just added: a statement sees only what was
        // there when it began.
        let sql = "WITH added AS (
                INSERT INTO docg.node_type_sets (node_types) SELECT $1
                WHERE NOT EXISTS (SELECT FROM docg.node_type_sets WHERE node_types = $1)
                ON CONFLICT DO NOTHING RETURNING id)
            SELECT id FROM added
            UNION ALL SELECT id FROM docg.node_type_sets WHERE node_types = $1";
        for _ in 0..2 {
            if let Some(row) = database
                .write(sql, arguments![types.clone()])
                .await?
                .first()
            {
                let number = field(row, "id")?;
                remember(&self.type_sets, types, number);
                return Ok(number);
            }
        }
        Err(Error::Conflict(
            "a set of node types came and went".to_owned(),
        ))
    }
}
