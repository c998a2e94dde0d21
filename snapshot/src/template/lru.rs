//! A small cache that forgets what was not used for longest.

/// At most so many things by their keys. Looks at all of them: for some dozens.
pub(super) struct Lru<K, V> {
    /// What was used last stands last.
    kept: Vec<(K, V)>,
    most: usize,
}

impl<K: PartialEq, V: Clone> Lru<K, V> {
    pub(super) fn new(most: usize) -> Lru<K, V> {
        Lru { kept: Vec::new(), most }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        let at = self.kept.iter().rposition(|(known, _)| known == key)?;
        let found = self.kept.remove(at);
        let value = found.1.clone();
        self.kept.push(found);
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.kept.retain(|(known, _)| *known != key);
        if self.kept.len() >= self.most {
            self.kept.remove(0);
        }
        self.kept.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept() {
        let mut cache = Lru::new(2);
        cache.put(1, 'a');
        cache.put(2, 'b');
        assert_eq!(cache.get(&1), Some('a'));
        cache.put(3, 'c');
        assert_eq!([1, 2, 3].map(|key| cache.get(&key)), [Some('a'), None, Some('c')]);
        cache.put(1, 'd');
        cache.put(4, 'e');
        assert_eq!([1, 3, 4].map(|key| cache.get(&key)), [Some('d'), None, Some('e')]);
    }
}
