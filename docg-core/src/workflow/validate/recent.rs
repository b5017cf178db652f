use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Mutex};

/// A bounded cache of compiled schemas and conditions, shared between executions. It keeps recently used
/// values: when the newer half is full it becomes the older half, and the previous older half is dropped.
pub(crate) struct Recent<K, V> {
    halves: Mutex<(HashMap<K, V>, HashMap<K, V>)>,
    half: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Creates a cache of at most `capacity` values.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            halves: Mutex::default(),
            half: capacity.div_ceil(2).max(1),
        }
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // A panic while the lock was held cannot have left a state that matters.
        let mut halves = self
            .halves
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (newer, older) = &mut *halves;
        if let Some(value) = newer.get(key) {
            return Some(value.clone());
        }
        let (key, value) = older.remove_entry(key)?;
        put(newer, older, self.half, key, value.clone());
        Some(value)
    }

    pub(crate) fn put(&self, key: K, value: V) {
        let mut halves = self
            .halves
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (newer, older) = &mut *halves;
        put(newer, older, self.half, key, value);
    }
}

fn put<K: Eq + Hash, V>(
    newer: &mut HashMap<K, V>,
    older: &mut HashMap<K, V>,
    half: usize,
    key: K,
    value: V,
) {
    if newer.len() >= half {
        *older = std::mem::take(newer);
    }
    newer.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_used_and_never_more_than_its_capacity() {
        let recent = Recent::new(4);
        for key in 0..100 {
            recent.put(key, key);
            assert_eq!(recent.get(&0), Some(0), "used all the time");
            let halves = recent.halves.lock().expect("not poisoned");
            assert!(halves.0.len() + halves.1.len() <= 4);
        }
        assert_eq!(recent.get(&50), None);
    }
}
