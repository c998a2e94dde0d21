//! A world that can be repeated from a number: randomness, power, disks and folders.

mod disk;
mod folder;
mod rng;

pub use disk::SimDisk;
pub use folder::SimFolder;
pub use rng::Rng;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The power supply of one simulated machine. All its disks share it.
///
/// While it is off every operation fails, so that a program cannot do anything in the time between
/// the cut and its end. It can be set to fail by itself after a number of further operations: a
/// crash in the middle of whatever is going on then.
#[derive(Clone, Debug)]
pub struct Power {
    left: Arc<AtomicI64>,
}

impl Default for Power {
    fn default() -> Power {
        Power { left: Arc::new(AtomicI64::new(i64::MAX)) }
    }
}

impl Power {
    /// Fails after `operations` more.
    pub fn fail_after(&self, operations: u32) {
        self.left.store(i64::from(operations), Ordering::SeqCst);
    }

    /// Whether it has failed.
    pub fn is_off(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }

    /// Turns it on again; the disks' own `power_cut` decides what they still hold.
    pub fn restore(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    fn spend(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.left.store(0, Ordering::SeqCst);
            return Err(io::Error::other("the simulated power is off"));
        }
        Ok(())
    }
}
