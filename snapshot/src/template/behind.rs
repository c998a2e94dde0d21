//! Writing objects while their maker goes on: by another thread, one after the other, in the order
//! in which they were given.
//!
//! A writer of a template takes its steps on the store one at a time and in one order: that is what
//! collecting garbage is safe by. So whoever does anything else with the store waits first until
//! what was given here is written.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::Scope;

use super::objects::{ObjectError, Objects};

/// Objects that wait, beside the one that is being written: the last pack of a stretch is written
/// while its node waits, and the next pack is begun.
const WAITING: usize = 1;

/// The bytes of an object and its key.
type Job = (String, Vec<u8>);

/// Gives objects to the thread that writes them.
pub(super) struct Behind {
    jobs: SyncSender<Job>,
    done: Receiver<Result<(), ObjectError>>,
    /// Jobs of which nobody heard yet how they ended.
    open: usize,
}

impl Behind {
    /// Begins the thread. It ends with the first error, and when this is dropped.
    pub(super) fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        store: &'scope dyn Objects,
    ) -> Behind {
        let (jobs, take) = sync_channel::<Job>(WAITING);
        let (say, done) = channel();
        scope.spawn(move || {
            for (key, bytes) in take {
                let put = store.put(&key, &bytes);
                let failed = put.is_err();
                // What was given behind an object that failed is never written.
                if say.send(put).is_err() || failed {
                    return;
                }
            }
        });
        Behind { jobs, done, open: 0 }
    }

    /// Gives an object to be written behind all that were given before. Waits when there are many.
    ///
    /// # Errors
    /// Of one that was given before.
    ///
    /// # Panics
    /// When an error was told before.
    pub(super) fn put(&mut self, key: String, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.open += 1;
        match self.jobs.send((key, bytes)) {
            Ok(()) => Ok(()),
            Err(_) => self.wait(),
        }
    }

    /// Waits until all that was given is written, or one of it failed.
    ///
    /// # Panics
    /// When an error was told before.
    pub(super) fn wait(&mut self) -> Result<(), ObjectError> {
        while self.open > 0 {
            self.open -= 1;
            self.done.recv().expect("each job is answered, or one before it failed")?;
        }
        Ok(())
    }
}
