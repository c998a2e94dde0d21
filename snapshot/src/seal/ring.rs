//! A key ring: several data keys by their ids, of which one is current. What is new is sealed with
//! the current key; what is old is opened with the key whose id its header names.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{DataKey, KeyId, SealError};

/// Gives keys by their ids.
pub trait Keys {
    /// The key of an id, to open `what` with.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] when it was never here, [`SealError::Destroyed`] when it is no more.
    fn find(&self, id: KeyId, what: &'static str) -> Result<DataKey, SealError>;
}

impl Keys for DataKey {
    fn find(&self, id: KeyId, what: &'static str) -> Result<DataKey, SealError> {
        match id == self.id() {
            true => Ok(self.clone()),
            false => Err(SealError::OtherKey { what, found: id, ours: self.id() }),
        }
    }
}

/// The keys of one group. All clones are one ring: a key that is added is current for all of them.
#[derive(Clone, Debug)]
pub struct KeyRing(Arc<RwLock<Ring>>);

#[derive(Debug)]
struct Ring {
    /// Oldest first; the last is current.
    keys: Vec<DataKey>,
    destroyed: BTreeSet<KeyId>,
}

impl From<DataKey> for KeyRing {
    fn from(key: DataKey) -> KeyRing {
        KeyRing::new(vec![key], BTreeSet::new())
    }
}

impl From<&DataKey> for KeyRing {
    fn from(key: &DataKey) -> KeyRing {
        key.clone().into()
    }
}

impl From<&KeyRing> for KeyRing {
    fn from(ring: &KeyRing) -> KeyRing {
        ring.clone()
    }
}

impl KeyRing {
    /// A ring of these keys, oldest first: the last is current. `destroyed` are known to be no more.
    ///
    /// # Panics
    /// When there is no key.
    pub fn new(keys: Vec<DataKey>, destroyed: BTreeSet<KeyId>) -> KeyRing {
        assert!(!keys.is_empty(), "a ring has a current key");
        KeyRing(Arc::new(RwLock::new(Ring { keys, destroyed })))
    }

    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ring> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is new is sealed with this one.
    pub fn current(&self) -> DataKey {
        self.read().keys.last().expect("a ring has a current key").clone()
    }

    /// Names the current key.
    pub fn current_id(&self) -> KeyId {
        self.read().keys.last().expect("a ring has a current key").id()
    }

    /// Whether what needs this key can be opened.
    pub fn holds(&self, id: KeyId) -> bool {
        self.read().keys.iter().any(|key| key.id() == id)
    }

    /// Whether this key is here, or was.
    pub fn knows(&self, id: KeyId) -> bool {
        self.holds(id) || self.read().destroyed.contains(&id)
    }

    /// From now on this is the current key. The caller has made it durable before.
    pub fn add(&self, key: DataKey) {
        let mut ring = self.write();
        ring.keys.retain(|known| known.id() != key.id());
        ring.keys.push(key);
    }

    /// This key is no more: nothing is opened with it from now on. The current key stays.
    pub fn destroy(&self, id: KeyId) {
        let mut ring = self.write();
        if ring.keys.last().is_some_and(|current| current.id() != id) {
            ring.keys.retain(|key| key.id() != id);
            ring.destroyed.insert(id);
        }
    }
}

impl Keys for KeyRing {
    fn find(&self, id: KeyId, what: &'static str) -> Result<DataKey, SealError> {
        let ring = self.read();
        if let Some(key) = ring.keys.iter().find(|key| key.id() == id) {
            return Ok(key.clone());
        }
        if ring.destroyed.contains(&id) {
            return Err(SealError::Destroyed { what, key: id });
        }
        let ours = ring.keys.last().expect("a ring has a current key").id();
        Err(SealError::OtherKey { what, found: id, ours })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_key_is_current_and_older_ones_are_found_until_they_are_destroyed() {
        let [old, new, other] = [1, 2, 3].map(|byte| DataKey::from_bytes([byte; 32]));
        let ring = KeyRing::from(&old);
        let shared = ring.clone();
        ring.add(new.clone());
        assert_eq!((shared.current_id(), shared.current().id()), (new.id(), new.id()));
        assert_eq!(shared.find(old.id(), "file").unwrap().id(), old.id());
        ring.destroy(new.id());
        assert!(shared.holds(new.id()), "the current key stays");
        ring.destroy(old.id());
        assert!(!shared.holds(old.id()) && shared.knows(old.id()));
        let refused = shared.find(old.id(), "file").unwrap_err();
        assert!(matches!(refused, SealError::Destroyed { .. }) && !refused.is_damage());
        let refused = shared.find(other.id(), "file").unwrap_err();
        assert!(matches!(refused, SealError::OtherKey { .. }) && !shared.knows(other.id()));
    }
}
