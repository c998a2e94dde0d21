//! Counts the memory that a target holds. A program that checks limits makes [`Counting`] its
//! global allocator; elsewhere nothing is counted.

#![expect(unsafe_code, reason = "an allocator is unsafe by nature; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Held by this thread since [`most_held`] began, and the most that it ever was. What another
    /// thread gives back makes it negative. Unit: bytes.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, with a count per thread.
pub struct Counting;

fn count(bytes: usize, sign: isize) {
    let change = sign * isize::try_from(bytes).unwrap_or(isize::MAX);
    // A thread that ends gives memory back after its count has gone.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now.saturating_add(change);
        held.set((now, most.max(now)));
    });
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, 1);
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// The most memory that this thread held at a time while `run` ran, above what it held before.
/// Zero when [`Counting`] is not the allocator. Unit: bytes.
pub fn most_held(run: impl FnOnce()) -> usize {
    HELD.set((0, 0));
    run();
    usize::try_from(HELD.get().1).unwrap_or(0)
}
