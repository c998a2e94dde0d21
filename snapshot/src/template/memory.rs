//! A store in memory, for tests: it can fail, decay, and let others decide who goes next.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::objects::{ObjectError, ObjectInfo, Objects, key_is_legal};

/// How many objects a listing tells between two looks at the store.
const PAGE: usize = 3;

/// Stands before every step of one user of a store. May block, so that users take turns; may
/// refuse, which is how a user crashes.
pub trait Gate: Send + Sync {
    /// Before the operation `action` on `key`.
    fn pass(&self, action: &'static str, key: &str) -> io::Result<()>;
}

/// Refuses nothing.
struct Open;

impl Gate for Open {
    fn pass(&self, _: &'static str, _: &str) -> io::Result<()> {
        Ok(())
    }
}

/// Refuses all steps after a number of them.
struct Crash(AtomicI64);

impl Gate for Crash {
    fn pass(&self, _: &'static str, _: &str) -> io::Result<()> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            1.. => Ok(()),
            _ => Err(io::Error::other("the user of this store has crashed")),
        }
    }
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Arc<Vec<u8>>, u64)>,
    now: u64,
    puts: u64,
}

/// A store in memory; clones are the same store. Its clock stands still unless it is moved.
#[derive(Clone)]
pub struct MemoryObjects {
    state: Arc<Mutex<State>>,
    gate: Arc<dyn Gate>,
}

impl Default for MemoryObjects {
    fn default() -> MemoryObjects {
        MemoryObjects { state: Arc::default(), gate: Arc::new(Open) }
    }
}

impl MemoryObjects {
    /// The same store for a user who has to pass `gate` before every step.
    #[must_use]
    pub fn through(&self, gate: Arc<dyn Gate>) -> MemoryObjects {
        MemoryObjects { state: self.state.clone(), gate }
    }

    /// The same store for a user whose steps all fail after `steps` of them.
    #[must_use]
    pub fn failing_after(&self, steps: u32) -> MemoryObjects {
        self.through(Arc::new(Crash(AtomicI64::new(steps.into()))))
    }

    /// Moves the store's clock. Unit: milliseconds.
    pub fn pass_time(&self, millis: u64) {
        self.state().now += millis;
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// What the objects hold together whose key begins with `prefix`. Unit: bytes.
    pub fn bytes(&self, prefix: &str) -> u64 {
        let state = self.state();
        let held = state.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        held.map(|(_, (bytes, _))| bytes.len() as u64).sum()
    }

    /// How many objects were written so far.
    pub fn puts(&self) -> u64 {
        self.state().puts
    }

    /// Flips one bit, as decay would. Does nothing behind the object's end.
    pub fn decay(&self, key: &str, byte: usize, bit: u8) {
        if let Some((bytes, _)) = self.state().objects.get_mut(key)
            && let Some(byte) = Arc::make_mut(bytes).get_mut(byte)
        {
            *byte ^= 1 << (bit % 8);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, action: &'static str, key: &str) -> Result<MutexGuard<'_, State>, ObjectError> {
        assert!(key_is_legal(key.trim_end_matches('/')), "{key:?} is no key");
        self.gate.pass(action, key).map_err(ObjectError::of(action, key))?;
        Ok(self.state())
    }
}

impl State {
    fn put(&mut self, key: &str, bytes: &[u8]) {
        self.puts += 1;
        self.objects.insert(key.to_owned(), (Arc::new(bytes.to_vec()), self.now));
    }

    fn info(&self, key: &str) -> Option<ObjectInfo> {
        let (bytes, modified) = self.objects.get(key)?;
        Some(ObjectInfo { key: key.to_owned(), len: bytes.len() as u64, modified: *modified })
    }
}

impl Objects for MemoryObjects {
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        self.enter("write", key)?.put(key, bytes);
        Ok(())
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
        let mut state = self.enter("write", key)?;
        let absent = !state.objects.contains_key(key);
        if absent {
            state.put(key, bytes);
        }
        Ok(absent)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let state = self.enter("read", key)?;
        Ok(state.objects.get(key).map(|(bytes, _)| bytes.to_vec()))
    }

    fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Option<Vec<u8>>, ObjectError> {
        let state = self.enter("read", key)?;
        Ok(state.objects.get(key).map(|(bytes, _)| {
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            bytes[place(offset)..place(offset.saturating_add(len))].to_vec()
        }))
    }

    fn head(&self, key: &str) -> Result<Option<ObjectInfo>, ObjectError> {
        Ok(self.enter("read", key)?.info(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), ObjectError> {
        let mut last = prefix.to_owned();
        loop {
            let state = self.enter("list", prefix)?;
            let behind = (Bound::Excluded(last.clone()), Bound::Unbounded);
            let within = state.objects.range(behind).map(|(key, _)| key);
            let page: Vec<ObjectInfo> = within
                .take_while(|key| key.starts_with(prefix))
                .take(PAGE)
                .filter_map(|key| state.info(key))
                .collect();
            drop(state);
            let full = page.len() == PAGE;
            if let Some(end) = page.last() {
                last.clone_from(&end.key);
            }
            page.into_iter().for_each(&mut *each);
            if !full {
                return Ok(());
            }
        }
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.enter("remove", key)?.objects.remove(key);
        Ok(())
    }
}
