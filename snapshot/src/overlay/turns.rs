//! Who may make blocks the clone's own: one at a time for each block, in order of asking.

use std::sync::{Condvar, Mutex, MutexGuard};

/// Hands out turns at runs of blocks.
#[derive(Default)]
pub(super) struct Turns {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    next: u64,
    /// Number, first block and the one behind; in order of asking. As many as there are threads.
    runs: Vec<(u64, u64, u64)>,
}

impl Asked {
    /// Whether one that asked before `number` overlaps. Only those count, so nobody waits for ever.
    fn must_wait(&self, number: u64, first: u64, end: u64) -> bool {
        let mut earlier = self.runs.iter().take_while(|run| run.0 < number);
        earlier.any(|run| run.1 < end && first < run.2)
    }
}

/// A turn; the next begins when it is dropped.
#[must_use = "the turn ends when this is dropped"]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Turns {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("no panic while turns are handed out")
    }

    /// Waits until nobody who came earlier has a turn at any of `first..end`.
    pub(super) fn take(&self, first: u64, end: u64) -> Turn<'_> {
        let mut asked = self.asked();
        let number = asked.next;
        asked.next += 1;
        asked.runs.push((number, first, end));
        while asked.must_wait(number, first, end) {
            asked = self.changed.wait(asked).expect("no panic while turns are handed out");
        }
        Turn { turns: self, number }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.asked().runs.retain(|run| run.0 != self.number);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn only_earlier_overlapping_turns_are_waited_for() {
        let turns = Turns::default();
        let (one, other) = (turns.take(0, 4), turns.take(4, 8));
        assert!(turns.asked().must_wait(2, 3, 4) && turns.asked().must_wait(2, 7, 20));
        assert!(!turns.asked().must_wait(2, 8, 20) && !turns.asked().must_wait(0, 3, 4));
        drop(one);
        assert!(!turns.asked().must_wait(2, 0, 4));
        drop(other);
        assert!(turns.asked().runs.is_empty());
    }

    /// Goal: nobody is in a block at the same time as another.
    /// Method: threads add to a number in two steps, each within a turn.
    #[test]
    fn a_block_has_one_at_a_time() {
        let (turns, number) = (Turns::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (turns, number) = (&turns, &number);
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let turn = turns.take(thread, 4);
                        let found = number.load(Ordering::Relaxed);
                        std::thread::yield_now();
                        number.store(found + 1, Ordering::Relaxed);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(number.into_inner(), 4000);
    }
}
