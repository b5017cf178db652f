//! Caches for the definitions of executions and the numbers of node type sets. Neither ever changes.

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

/// The maximum number of entries in each cache. Beyond it the cache is emptied and filled again.
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

/// The hash under which a definition is stored.
pub(super) fn hash(definition: &str) -> [u8; 32] {
    Sha256::digest(definition).into()
}

impl Definitions {
    /// Finds the definitions with these hashes, in order, each with its own result. Those that are not cached
    /// are read together.
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

    /// The number of a workflow's set of node types; it is stored if it is new.
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
        // Two attempts: a statement sees the rows as of its start, so only a second one finds a set that
        // another process has just added.
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
