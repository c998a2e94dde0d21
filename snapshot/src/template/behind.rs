//! Writing objects while their maker goes on, by other threads.
//!
//! Packs may be written at once, as many as the store takes with profit
//! ([`Objects::at_once`]). A node is written when all that was given before is: what it needs is
//! there whenever it is seen. A store that takes one at a time sees the order in which they were
//! given, and nothing else in between.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use super::objects::{ObjectError, Objects};
use super::place::{Kind, Place};

#[derive(Default)]
struct State {
    waiting: VecDeque<(Place, Vec<u8>)>,
    running: usize,
    /// One was not written. What waits then is not written either.
    failed: bool,
    /// Why, until it is told.
    error: Option<ObjectError>,
    /// Nothing more is given.
    over: bool,
    /// Memory of packs that were written.
    free: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    /// How many write.
    threads: usize,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, busy: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.state(), busy).unwrap_or_else(PoisonError::into_inner)
    }

    /// The next object, when it may be written; `None` when there is nothing more to do.
    fn take(&self) -> Option<(Place, Vec<u8>)> {
        let idle = |state: &mut State| match state.waiting.front() {
            _ if state.failed => false,
            Some((place, _)) => place.object.kind == Kind::Node && state.running > 0,
            None => !state.over,
        };
        let mut state = self.wait_while(idle);
        let next = if state.failed { None } else { state.waiting.pop_front() };
        state.running += usize::from(next.is_some());
        drop(state);
        // There is room for another, which may be written now as well.
        self.changed.notify_all();
        next
    }

    fn work(&self, store: &dyn Objects) {
        while let Some((place, mut bytes)) = self.take() {
            let done = store.put(&place.key(), &bytes);
            let mut state = self.state();
            state.running -= 1;
            if place.object.kind == Kind::Pack {
                bytes.clear();
                state.free.push(bytes);
            }
            if let Err(error) = done {
                state.failed = true;
                state.error.get_or_insert(error);
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// Gives objects to the threads that write them.
pub(super) struct Behind(Arc<Desk>);

impl Behind {
    /// Begins the threads. They end with the first error, and when this is dropped and all that was
    /// given is written.
    pub(super) fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        store: &'scope dyn Objects,
    ) -> Behind {
        let desk = Arc::new(Desk { threads: store.at_once().max(1), ..Desk::default() });
        for _ in 0..desk.threads {
            let desk = Arc::clone(&desk);
            scope.spawn(move || desk.work(store));
        }
        Behind(desk)
    }

    /// Gives an object to be written. A pack waits for a thread that writes it, so that no more of
    /// them are in memory; a node, which is small, until no other one waits.
    ///
    /// # Errors
    /// Of one that was given before, told once.
    pub(super) fn put(&self, place: Place, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let most = if place.object.kind == Kind::Pack { self.0.threads } else { usize::MAX };
        let many = |state: &mut State| {
            let full = !state.waiting.is_empty() || state.running >= most;
            full && !state.failed
        };
        let mut state = self.0.wait_while(many);
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        state.waiting.push_back((place, bytes));
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Memory for a pack, which was one's before if there was one: large pieces that come and go
    /// would leave holes.
    pub(super) fn memory(&self) -> Vec<u8> {
        self.0.state().free.pop().unwrap_or_default()
    }

    /// Waits until all that was given is written, or one of it failed and nobody writes any more.
    ///
    /// # Errors
    /// Of one that was given before, told once.
    pub(super) fn wait(&self) -> Result<(), ObjectError> {
        let busy =
            |state: &mut State| state.running > 0 || (!state.waiting.is_empty() && !state.failed);
        self.0.wait_while(busy).error.take().map_or(Ok(()), Err)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.state().over = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;
    use crate::template::MemoryObjects;
    use crate::template::memory::Gate;
    use crate::template::objects::{ObjectInfo, SharedObjects};
    use crate::template::place::{ObjectId, Ref, WriterId};

    fn place(kind: Kind, number: u8) -> Place {
        Place { writer: WriterId([0; 16]), object: Ref { kind, id: ObjectId([number; 32]) } }
    }

    /// Tells which object is begun, and waits until it may go on, or has to fail.
    struct Told {
        begun: Sender<String>,
        go_on: Mutex<Receiver<bool>>,
    }

    impl Gate for Told {
        fn pass(&self, _: &'static str, key: &str) -> io::Result<()> {
            self.begun.send(key.to_owned()).unwrap();
            let granted = self.go_on.lock().unwrap().recv().unwrap();
            if granted { Ok(()) } else { Err(io::Error::other("refused")) }
        }
    }

    /// A store that takes two at once.
    struct Two(SharedObjects);

    impl Objects for Two {
        fn at_once(&self) -> usize {
            2
        }
        fn put(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectError> {
            self.0.put(key, bytes)
        }
        fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
            self.0.put_if_absent(key, bytes)
        }
        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
            self.0.get(key)
        }
        fn get_range(&self, key: &str, at: u64, len: u64) -> Result<Option<Vec<u8>>, ObjectError> {
            self.0.get_range(key, at, len)
        }
        fn head(&self, key: &str) -> Result<Option<ObjectInfo>, ObjectError> {
            self.0.head(key)
        }
        fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), ObjectError> {
            self.0.list(prefix, each)
        }
        fn delete(&self, key: &str) -> Result<(), ObjectError> {
            self.0.delete(key)
        }
    }

    fn told() -> (MemoryObjects, Two, Receiver<String>, Sender<bool>) {
        let (begun, hear) = channel();
        let (grant, go_on) = channel();
        let store = MemoryObjects::default();
        let gate = Arc::new(Told { begun, go_on: Mutex::new(go_on) });
        let two = Two(Arc::new(store.through(gate)));
        (store, two, hear, grant)
    }

    #[test]
    fn packs_are_written_at_once_and_a_node_when_all_before_it_are() {
        let (store, two, begun, grant) = told();
        thread::scope(|scope| {
            let behind = Behind::begin(scope, &two);
            for number in [1, 2] {
                behind.put(place(Kind::Pack, number), vec![number]).unwrap();
            }
            behind.put(place(Kind::Node, 3), vec![3]).unwrap();
            // Both at once: the first was not granted yet.
            let mut first: Vec<_> = begun.iter().take(2).collect();
            first.sort();
            assert_eq!(first, [1, 2].map(|number| place(Kind::Pack, number).key()));
            grant.send(true).unwrap();
            let one = || store.keys().len() == 1;
            while !one() {
                thread::yield_now();
            }
            assert!(begun.try_recv().is_err(), "the node waits for the other pack");
            grant.send(true).unwrap();
            assert_eq!(begun.recv().unwrap(), place(Kind::Node, 3).key());
            assert_eq!(store.keys().len(), 2);
            grant.send(true).unwrap();
            behind.wait().unwrap();
        });
        assert_eq!(store.keys().len(), 3);
    }

    #[test]
    fn what_waits_behind_a_failure_is_never_written() {
        let (store, two, begun, grant) = told();
        thread::scope(|scope| {
            let behind = Behind::begin(scope, &two);
            behind.put(place(Kind::Pack, 1), vec![1]).unwrap();
            behind.put(place(Kind::Node, 2), vec![2]).unwrap();
            begun.recv().unwrap();
            grant.send(false).unwrap();
            let error = behind.wait().unwrap_err();
            assert_eq!(error.key, place(Kind::Pack, 1).key());
        });
        assert!(begun.try_recv().is_err() && store.keys().is_empty());
    }
}
