//! A clone and bytes in memory.

use proptest::prelude::*;
use vgship_base::disk::{Allocation, Disk};

use super::super::BLOCK;
use super::{LEN, World, blocks_of, content};

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, u8),
    Zero(u64, u64),
    Read(u64, usize),
    Flush,
    Reopen,
}

fn steps() -> impl Strategy<Value = Step> {
    let place = || prop_oneof![0..LEN, (0..13u64).prop_map(|block| block * BLOCK)];
    let len = || prop_oneof![1..600usize, Just(4096), 1..20_000usize];
    prop_oneof![
        4 => (place(), len(), 1u8..).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
        2 => (place(), len()).prop_map(|(at, len)| Step::Zero(at, len as u64)),
        2 => (place(), len()).prop_map(|(at, len)| Step::Read(at, len)),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A clone does what bytes in memory do, and what it says of holes is true.
    #[test]
    fn equals_bytes_in_memory(
        steps in prop::collection::vec(steps(), 0..40),
        frame_entries in 1usize..4,
        growth in prop_oneof![Just(0u64), Just(1 << 20)],
    ) {
        let world = World::new();
        let mut clone = world.create("a");
        let mut model = world.bytes.clone();
        let places = |at: u64, len: u64| {
            usize::try_from(at).unwrap()..usize::try_from((at + len).min(LEN)).unwrap()
        };
        for step in steps {
            {
                let mut map = clone.map.lock().unwrap();
                (map.frame_entries, map.growth) = (frame_entries, growth);
            }
            match step {
                Step::Write(at, len, byte) => {
                    let places = places(at, len as u64);
                    clone.write_at(at, &vec![byte; places.len()]).unwrap();
                    model[places].fill(byte);
                }
                Step::Zero(at, len) => {
                    let places = places(at, len);
                    clone.zero_at(at, places.len() as u64).unwrap();
                    model[places].fill(0);
                }
                Step::Read(at, len) => {
                    let places = places(at, len as u64);
                    let mut found = vec![0xee; places.len()];
                    clone.read_at(at, &mut found).unwrap();
                    prop_assert!(found == model[places]);
                }
                Step::Flush => clone.flush().unwrap(),
                Step::Reopen => {
                    clone.flush().unwrap();
                    clone = world.open("a");
                }
            }
            let mut at = 0;
            while at < LEN {
                let (kind, to) = clone.allocation(at, LEN).unwrap();
                prop_assert!(at < to && to <= LEN);
                let is_zero = || model[places(at, to - at)].iter().all(|&byte| byte == 0);
                prop_assert!(kind == Allocation::Data || is_zero());
                at = to;
            }
            let owned = blocks_of(&clone).len() as u64;
            prop_assert_eq!(owned * BLOCK, clone.written_bytes());
        }
        prop_assert!(content(&clone) == model);
        prop_assert!(content(&*world.base) == world.bytes);
    }
}
