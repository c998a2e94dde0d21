//! What the outbox holds, gives and forgets.

use bytes::Bytes;
use proptest::prelude::*;
use vgship_base::extent::ExtentSize;
use vgship_base::layout::VolumeLayout;

use super::*;

fn layout() -> Layout {
    let name = "lv".parse().expect("a name");
    let extent = ExtentSize::from_log2(12).expect("4 KiB");
    Layout { extent, volumes: vec![VolumeLayout { name, bytes: 1 << 20, masked: 0 }] }
}

fn write(seq: u64) -> Record {
    let (volume, offset) = (VolumeId(0), seq % 256 * 4096);
    let body = Body::Write { volume, offset, data: Bytes::from(vec![1; 1000]) };
    Record { seq: Seq(seq), target: Target::All, body }
}

/// A step that the spill takes.
fn spill(queue: &mut Queue, layout: &Layout) -> Vec<Record> {
    let moved = queue.to_spill(layout).expect("there is something to move");
    queue.spilled(queue.life(), Moved::Written);
    moved
}

proptest! {
    /// Goal: whatever moves to the spill and back, whatever links do, every record is given in
    /// order and none is forgotten before it is acknowledged; a collapse names all the rest.
    #[test]
    fn nothing_is_lost_or_reordered(
        spill in prop::bool::ANY,
        steps in prop::collection::vec(0u8..12, 1..400),
    ) {
        let layout = layout();
        let budget = Budget { ram: 20_000, spill: if spill { 40_000 } else { 0 } };
        let mut queue = Queue::new(budget, Seq::ZERO);
        let (mut disk, mut next) = (VecDeque::new(), 1);
        let (mut sent, mut acked) = (Seq::ZERO, Seq::ZERO);
        let (mut pushing, mut moving, mut popped) = (false, Vec::new(), None);
        for step in steps {
            match step {
                0..=2 if queue.room(1200) == Room::Free => {
                    queue.push(write(next));
                    next += 1;
                }
                3 => for record in queue.take() {
                    prop_assert_eq!(record.seq, sent.next());
                    sent = record.seq;
                },
                4 => {
                    acked = Seq(u64::midpoint(acked.0, sent.0));
                    queue.acked(acked);
                }
                5 | 8 | 9 | 10 if pushing => {
                    let moved = match step {
                        8 => Moved::Full,
                        9 => Moved::NoRoom,
                        // Rare: it ends the spill's use.
                        10 if next % 16 == 0 => Moved::Failed,
                        _ => Moved::Written,
                    };
                    queue.spilled(queue.life(), moved);
                    if moved == Moved::Written {
                        disk.extend(std::mem::take(&mut moving));
                    }
                    prop_assert!(!queue.lacks_room() || queue.to_spill(&layout).is_none());
                    pushing = false;
                }
                5 => if let Some(moved) = queue.to_spill(&layout) {
                    moving = moved;
                    pushing = true;
                },
                11 => queue.spill_has_room(),
                6 if popped.is_some() => {
                    queue.refilled(queue.life(), popped.take().unwrap_or_default());
                }
                6 if queue.wants_refill() => {
                    popped = Some(disk.drain(..disk.len().min(4)).collect());
                }
                7 => {
                    prop_assert!(queue.covers(acked));
                    queue.rewind(acked);
                    sent = acked;
                }
                _ => {}
            }
            // One record, and what the head is refilled with, may come on top.
            prop_assert!(queue.ram_bytes() <= budget.ram + budget.ram / 4 + 5 * 1200);
        }
        let mut dirty = BitSet::new(256);
        queue.collapse(&layout, Seq(next), |_, span| { dirty.insert(span.offset / 4096); });
        for seq in acked.0 + 1..next {
            prop_assert!(dirty.contains(seq % 256), "record {} is in no map", seq);
        }
    }
}

#[test]
fn a_failed_spill_leaves_the_records_and_their_order() {
    let (layout, budget) = (layout(), Budget { ram: 4000, spill: 100_000 });
    let mut queue = Queue::new(budget, Seq::ZERO);
    (1..4).for_each(|seq| queue.push(write(seq)));
    assert_eq!(queue.room(1200), Room::Soon);
    assert!(queue.to_spill(&layout).is_some());
    queue.spilled(queue.life(), Moved::Failed);
    assert_eq!(queue.room(1200), Room::Full);
    let taken: Vec<u64> = queue.take().iter().map(|record| record.seq.0).collect();
    assert_eq!(taken, [1, 2, 3]);
}

#[test]
fn a_spill_whose_disk_is_full_is_used_again_though_it_is_empty() {
    let (layout, budget) = (layout(), Budget { ram: 4000, spill: 100_000 });
    let mut queue = Queue::new(budget, Seq::ZERO);
    (1..4).for_each(|seq| queue.push(write(seq)));
    assert!(queue.to_spill(&layout).is_some());
    queue.spilled(queue.life(), Moved::NoRoom);
    assert_eq!((queue.room(1200), queue.lacks_room()), (Room::Full, true));
    assert!(queue.to_spill(&layout).is_none());
    queue.spill_has_room();
    assert_eq!(queue.room(1200), Room::Soon);
    assert_eq!(queue.to_spill(&layout).unwrap()[0].seq, Seq(3), "the same again");
    queue.spilled(queue.life(), Moved::Full);
    queue.spill_has_room();
    assert!(!queue.lacks_room());
    assert_eq!(queue.room(1200), Room::Full, "too small for a single step is too small");
}

#[test]
fn a_full_spill_is_used_again_when_it_has_room() {
    let (layout, budget) = (layout(), Budget { ram: 4000, spill: 100_000 });
    let mut queue = Queue::new(budget, Seq::ZERO);
    (1..4).for_each(|seq| queue.push(write(seq)));
    let first = spill(&mut queue, &layout);
    queue.push(write(4));
    assert!(queue.to_spill(&layout).is_some());
    queue.spilled(queue.life(), Moved::Full);
    assert!(queue.to_spill(&layout).is_none(), "not again at once");
    assert_eq!(queue.room(1200), Room::Full);
    queue.refilled(queue.life(), first);
    assert_eq!(queue.room(1200), Room::Soon);
    let taken: Vec<u64> = queue.take().iter().map(|record| record.seq.0).collect();
    assert_eq!(taken, [1, 2, 3]);
    queue.push(write(5));
    queue.acked(Seq(3));
    let taken: Vec<u64> = queue.take().iter().map(|record| record.seq.0).collect();
    assert_eq!(taken, [4, 5]);
    (6..9).for_each(|seq| queue.push(write(seq)));
    spill(&mut queue, &layout);
    queue.push(write(9));
    assert!(queue.to_spill(&layout).is_some());
    queue.spilled(queue.life(), Moved::Full);
    queue.collapse(&layout, Seq(9), |_, _| ());
    assert_eq!(queue.room(90_000), Room::Free, "empty");
    (10..13).for_each(|seq| queue.push(write(seq)));
    assert_eq!(queue.room(1200), Room::Soon, "a new life has its spill");
}

#[test]
fn while_something_is_spilled_half_of_the_memory_takes_new_records() {
    let (layout, budget) = (layout(), Budget { ram: 20_000, spill: 100_000 });
    let one = cost(&write(1));
    let mut queue = Queue::new(budget, Seq::ZERO);
    let mut next = 0;
    while queue.room(one) == Room::Free {
        next += 1;
        queue.push(write(next));
    }
    assert_eq!(next, budget.ram / one, "all of it before that");
    spill(&mut queue, &layout);
    let before = next;
    while queue.room(one) == Room::Free {
        next += 1;
        queue.push(write(next));
    }
    assert_eq!(next - before, budget.ram / 2 / one);
    assert_eq!(queue.room(budget.spill), Room::Full);
    let left = budget.spill - queue.spill_bytes();
    assert_eq!(queue.room(left), Room::Soon, "to the last byte");
    assert_eq!(queue.room(left + 1), Room::Full);
}

#[test]
fn a_batch_for_the_link_is_bounded_by_bytes_and_records() {
    let layout = layout();
    let mut queue = Queue::new(Budget { ram: 1 << 30, spill: 0 }, Seq::ZERO);
    let large = |seq| {
        let data = Bytes::from(vec![1; BATCH_BYTES_MAX / 4 - 24]);
        let body = Body::Write { volume: VolumeId(0), offset: 0, data };
        Record { seq: Seq(seq), target: Target::All, body }
    };
    assert_eq!(large(1).encoded_len(), BATCH_BYTES_MAX / 4, "two make the bound exactly");
    (1..4).for_each(|seq| queue.push(large(seq)));
    assert_eq!(queue.take().len(), 2);
    assert_eq!(queue.take().len(), 1);
    let void = |seq| Record { seq: Seq(seq), target: Target::All, body: Body::Void };
    let many = BATCH_RECORDS_MAX as u64 + 1;
    (4..4 + many).for_each(|seq| queue.push(void(seq)));
    assert_eq!(queue.take().len(), BATCH_RECORDS_MAX);
    assert_eq!(queue.take().len(), 1);
    assert_eq!(queue.unsent_bytes(), 0);
    queue.rewind(Seq(3));
    assert_eq!(queue.unsent_bytes(), many * cost(&void(4)));
    assert_eq!(queue.ram_bytes(), queue.unsent_bytes(), "what it holds durably is forgotten");
    queue.collapse(&layout, Seq(many + 3), |_, _| panic!("voids change nothing"));
}

#[test]
fn offers_are_not_sent_again_on_a_new_link() {
    let mut queue = Queue::new(Budget { ram: 20_000, spill: 0 }, Seq::ZERO);
    let extent = vgship_base::extent::Extent { volume: VolumeId(0), index: 1 };
    let body = Body::Offer { extent, hash: [1; 32] };
    queue.push(write(1));
    queue.push(Record { seq: Seq(2), target: Target::All, body });
    assert_eq!(queue.take().len(), 2);
    queue.rewind(Seq(0));
    let again = queue.take();
    assert_eq!(again, [write(1), Record { body: Body::Void, ..again[1].clone() }]);
    queue.acked(Seq(2));
    assert_eq!((queue.ram_bytes(), queue.unsent_bytes()), (0, 0), "voids are shorter");
}

#[test]
fn a_head_that_is_exactly_full_lets_the_rest_go_to_the_spill() {
    let (layout, one) = (layout(), cost(&write(1)));
    let mut queue = Queue::new(Budget { ram: 8 * one, spill: 100_000 }, Seq::ZERO);
    (1..=5).for_each(|seq| queue.push(write(seq)));
    let moved = queue.to_spill(&layout).expect("nobody else makes room");
    assert_eq!(moved, [write(5)]);
}

#[test]
fn without_a_spill_the_link_gets_all_of_the_memory() {
    let one = cost(&write(1));
    let mut queue = Queue::new(Budget { ram: 8 * one, spill: 0 }, Seq::ZERO);
    (1..=8).for_each(|seq| queue.push(write(seq)));
    assert_eq!((queue.take().len(), queue.room(1)), (8, Room::Full));
}

/// Goal: what is in the spill is in the map after a collapse, also when a part of it has come back.
#[test]
fn what_is_left_in_the_spill_is_named_by_a_collapse() {
    let (layout, budget) = (layout(), Budget { ram: 8000, spill: 100_000 });
    let mut queue = Queue::new(budget, Seq::ZERO);
    (1..=6).for_each(|seq| queue.push(write(seq)));
    let first = spill(&mut queue, &layout);
    (7..=8).for_each(|seq| queue.push(write(seq)));
    let second = spill(&mut queue, &layout);
    let seqs = |records: &[Record]| records.iter().map(|it| it.seq.0).collect::<Vec<_>>();
    assert_eq!((seqs(&first), seqs(&second)), (vec![5, 6], vec![7, 8]));
    queue.take();
    queue.acked(Seq(4));
    assert!(queue.wants_refill());
    queue.refilled(queue.life(), first);
    assert_eq!(seqs(&queue.take()), [5, 6]);
    queue.acked(Seq(6));
    let mut named = Vec::new();
    queue.collapse(&layout, Seq(8), |_, span| named.push(span.offset / 4096));
    named.dedup();
    assert_eq!(named, [5, 6, 7, 8], "the spill's extents are kept until it is empty");
}

#[test]
fn what_waited_behind_the_spill_follows_when_it_is_empty() {
    let (layout, budget) = (layout(), Budget { ram: 8000, spill: 100_000 });
    let one = cost(&write(1));
    let mut queue = Queue::new(budget, Seq::ZERO);
    (1..=6).for_each(|seq| queue.push(write(seq)));
    let moved = spill(&mut queue, &layout);
    queue.push(write(7));
    assert_eq!((queue.held_bytes(), queue.spill_bytes()), (7 * one, 2 * one));
    queue.take();
    queue.acked(Seq(4));
    assert_eq!((queue.held_bytes(), queue.drained_bytes()), (3 * one, 4 * one));
    queue.refilled(queue.life(), moved);
    let taken: Vec<u64> = queue.take().iter().map(|record| record.seq.0).collect();
    assert_eq!(taken, [5, 6, 7]);
}

#[test]
fn a_spill_that_is_empty_names_nothing() {
    let (layout, budget) = (layout(), Budget { ram: 4000, spill: 100_000 });
    let mut queue = Queue::new(budget, Seq::ZERO);
    (1..4).for_each(|seq| queue.push(write(seq)));
    let moved = spill(&mut queue, &layout);
    queue.take();
    queue.acked(Seq(2));
    queue.refilled(queue.life(), moved);
    queue.take();
    queue.acked(Seq(3));
    queue.collapse(&layout, Seq(3), |_, span| panic!("{span:?} is durable on the replica"));
}

#[test]
fn it_covers_what_it_holds_and_nothing_before_that() {
    let mut queue = Queue::new(Budget { ram: 20_000, spill: 0 }, Seq(2));
    (3..=6).for_each(|seq| queue.push(write(seq)));
    assert!(!queue.covers(Seq(1)) && queue.covers(Seq(2)) && queue.covers(Seq(6)));
    assert!(!queue.covers(Seq(7)));
    queue.take();
    queue.acked(Seq(4));
    assert!(!queue.covers(Seq(3)) && queue.covers(Seq(4)));
}

#[test]
fn what_no_link_has_taken_is_not_forgotten_whatever_a_replica_says() {
    let mut queue = Queue::new(Budget { ram: 20_000, spill: 0 }, Seq::ZERO);
    (1..=2).for_each(|seq| queue.push(write(seq)));
    queue.acked(Seq(2));
    assert_eq!(queue.take().len(), 2);
}

#[test]
fn room_ends_with_the_last_byte() {
    let one = cost(&write(1));
    let mut queue = Queue::new(Budget { ram: 4 * one, spill: 0 }, Seq::ZERO);
    assert_eq!(queue.room(5 * one), Room::Free, "an empty one takes anything");
    queue.push(write(1));
    assert_eq!((queue.room(3 * one), queue.room(3 * one + 1)), (Room::Free, Room::Full));
}

#[test]
fn it_goes_to_the_spill_step_by_step() {
    const STEP: u64 = 4 << 20;
    let (layout, budget) = (layout(), Budget { ram: 4, spill: 100 << 20 });
    let quarter = |seq| {
        let data =
            Bytes::from(vec![1; usize::try_from(STEP / 4 - (cost(&write(1)) - 1000)).unwrap()]);
        let body = Body::Write { volume: VolumeId(0), offset: 0, data };
        Record { seq: Seq(seq), target: Target::All, body }
    };
    assert_eq!(cost(&quarter(1)), STEP / 4);
    let mut queue = Queue::new(budget, Seq::ZERO);
    (1..=10).for_each(|seq| queue.push(quarter(seq)));
    let mut steps = Vec::new();
    while let Some(step) = queue.to_spill(&layout) {
        assert!(queue.to_spill(&layout).is_none(), "one step at a time");
        assert!(!queue.wants_refill(), "nor back meanwhile");
        queue.spilled(queue.life(), Moved::Written);
        steps.push(step.len());
    }
    assert_eq!(steps, [4, 4, 1], "the first record is the link's");
}

#[test]
fn what_is_spilled_comes_back_when_a_quarter_of_the_memory_is_left_to_send() {
    let (layout, one) = (layout(), cost(&write(1)));
    let mut queue = Queue::new(Budget { ram: 8 * one, spill: 100_000 }, Seq::ZERO);
    assert!(!queue.wants_refill(), "nothing is spilled");
    (1..=6).for_each(|seq| queue.push(write(seq)));
    spill(&mut queue, &layout);
    queue.take();
    queue.acked(Seq(2));
    assert!(!queue.wants_refill(), "two of eight are left");
    queue.acked(Seq(3));
    assert!(queue.wants_refill());
}
