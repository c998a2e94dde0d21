//! Where the partitions of an LV lie.

/// One copy of one logical partition, on a disk that is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MirrorCopy {
    /// Which of the VG's disks at hand. Unit: index from 0.
    pub disk: usize,
    /// First byte. Unit: bytes from the disk's start.
    pub offset: u64,
    /// Whether it may be read: neither stale nor on a disk that missed changes.
    pub fresh: bool,
}

/// A run of an LV whose copies are each one run of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First byte. Unit: bytes from the LV's start.
    pub(super) at: u64,
    /// Unit: bytes.
    pub(super) len: u64,
    /// Fresh copies first.
    pub(super) copies: Vec<MirrorCopy>,
}

/// Merges partitions whose copies all continue where those of the one before end.
pub(super) fn runs(lps: &[Vec<MirrorCopy>], pp_bytes: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (copies, at) in lps.iter().zip((0..).map(|index: u64| index * pp_bytes)) {
        match runs.last_mut() {
            Some(run) if continues(run, copies) => run.len += pp_bytes,
            _ => {
                let mut copies = copies.clone();
                copies.sort_by_key(|copy| (!copy.fresh, copy.disk, copy.offset));
                runs.push(Run { at, len: pp_bytes, copies });
            }
        }
    }
    runs
}

fn continues(run: &Run, copies: &[MirrorCopy]) -> bool {
    let next = run.copies.iter().map(|copy| MirrorCopy { offset: copy.offset + run.len, ..*copy });
    run.copies.len() == copies.len() && next.into_iter().all(|copy| copies.contains(&copy))
}

/// How an LV lies on its disks, for people: `contiguous`, or in how many runs.
pub fn shape_of(lps: &[Vec<MirrorCopy>], pp_bytes: u64) -> String {
    match runs(lps, pp_bytes).len() {
        0 | 1 => "contiguous".to_owned(),
        count => format!("scattered, {count} runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(disk: usize, offset: u64) -> MirrorCopy {
        MirrorCopy { disk, offset, fresh: true }
    }

    #[test]
    fn partitions_merge_only_where_every_copy_goes_on() {
        let lps = [
            vec![copy(0, 100), copy(1, 500)],
            vec![copy(0, 110), copy(1, 510)],
            vec![copy(0, 120)],               // one copy less
            vec![copy(0, 130), copy(1, 540)], // one copy more
            vec![copy(0, 140), copy(1, 900)], // only one goes on
            vec![copy(0, 150), MirrorCopy { fresh: false, ..copy(1, 910) }],
        ];
        let found = runs(&lps, 10);
        let shape: Vec<_> = found.iter().map(|run| (run.at, run.len, run.copies.len())).collect();
        assert_eq!(shape, [(0, 20, 2), (20, 10, 1), (30, 10, 2), (40, 10, 2), (50, 10, 2)]);
        assert_eq!(shape_of(&lps, 10), "scattered, 5 runs");
        assert_eq!(shape_of(&lps[..2], 10), "contiguous");
    }
}
