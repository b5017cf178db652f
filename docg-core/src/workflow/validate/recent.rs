use std::{
    borrow::Borrow,
    hash::Hash,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;

/// A bounded cache of compiled schemas and conditions, shared between executions. A full cache drops the
/// value whose last use is longest ago.
pub(crate) struct Recent<K: Eq + Hash, V>(Mutex<LruCache<K, V>>);

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Creates a cache of at most `capacity` values, and of one at least.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(LruCache::new(capacity)))
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.cache().get(key).cloned()
    }

    pub(crate) fn put(&self, key: K, value: V) {
        // The replaced value is dropped here, after the lock is released: it may be large.
        let _replaced = self.cache().push(key, value);
    }

    fn cache(&self) -> MutexGuard<'_, LruCache<K, V>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            assert!(recent.cache().len() <= 4);
        }
        assert_eq!(recent.get(&50), None);
        assert_eq!(recent.get(&99), Some(99));
    }
}
