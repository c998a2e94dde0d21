//! How the LVs of a clone are laid out on the disks of a new AIX VG of the original format.

use vgship_base::ids::Name;
use vgship_test_images::{Identities, LvRecipe, Placement, Plan, Recipe};

/// Longest name of an LV. Unit: letters.
pub const LV_NAME_MAX: usize = 15;

const LVS_MAX: usize = 255;
const PVS_MAX: u64 = 32;
const PPS_PER_PV: u64 = 1016;
/// Partitions of a VG, and so of an LV.
const PPS_MAX: u64 = PVS_MAX * PPS_PER_PV;
/// Sizes of a partition. Unit: log2 of bytes.
const PP_LOG2: std::ops::RangeInclusive<u8> = 20..=30;

/// The VG that holds volumes of these names and sizes, each in one run after the other. Unit:
/// bytes; `stamp`, seconds since 1970 and nanoseconds. `identity` is asked for 16 new bytes.
///
/// Shape: the largest partitions that every size is a multiple of; where there are none, the
/// smallest that suffice, and the LVs are larger than their volumes.
pub fn lay_out(
    volumes: &[(Name, u64)],
    stamp: (u32, u32),
    mut identity: impl FnMut() -> [u8; 16],
) -> Result<(Recipe, Plan), String> {
    if volumes.is_empty() || volumes.len() > LVS_MAX {
        return Err(format!("an AIX VG has 1 to {LVS_MAX} LVs, and these are {}", volumes.len()));
    }
    let pp_log2 = partition_size(volumes).ok_or("they are too large for an original AIX VG")?;
    let lps = |bytes: u64| u16::try_from(bytes.div_ceil(1 << pp_log2)).expect("at most PPS_MAX");
    let lvs = volumes
        .iter()
        .map(|(name, bytes)| LvRecipe::new(name.as_str(), lps(*bytes), Placement::Contiguous(0)));
    let lvs: Vec<LvRecipe> = lvs.collect();
    let all: u64 = lvs.iter().map(|lv| u64::from(lv.lps)).sum();
    let full = u16::try_from(PPS_PER_PV).expect("a small number");
    let mut disks = Vec::new();
    let mut left = all;
    while left > 0 {
        let here = left.min(PPS_PER_PV);
        disks.push(u16::try_from(here).unwrap_or(full));
        left -= here;
    }
    let pvids = disks.iter().map(|_| pvid(identity())).collect();
    let identities = Some(Identities { vgid: vgid(identity()), pvids });
    let recipe = Recipe {
        identities,
        control_blocks: false,
        pp_log2,
        disks,
        lvs,
        stamp,
        ..Recipe::default()
    };
    let plan = one_after_the_other(&recipe);
    Ok((recipe, plan))
}

fn partition_size(volumes: &[(Name, u64)]) -> Option<u8> {
    let count =
        |log2: u8| -> u64 { volumes.iter().map(|(_, size)| size.div_ceil(1 << log2)).sum() };
    let exact = |log2: &u8| volumes.iter().all(|(_, size)| size.is_multiple_of(1 << log2));
    let best = PP_LOG2.rev().find(exact).filter(|log2| count(*log2) <= PPS_MAX);
    best.or_else(|| PP_LOG2.into_iter().find(|log2| count(*log2) <= PPS_MAX))
}

fn one_after_the_other(recipe: &Recipe) -> Plan {
    let disks = recipe.disks.iter().enumerate();
    let mut free = disks.flat_map(|(disk, pps)| (0..*pps).map(move |pp| (disk, pp)));
    let lps = |lv: &LvRecipe| {
        let lps =
            (0..lv.lps).map(|_| vec![free.next().expect("the disks are as large as all LVs")]);
        lps.collect()
    };
    Plan { lvs: recipe.lvs.iter().map(lps).collect() }
}

/// The identities of machines begin with a zero byte; a PVID has 8 bytes that count.
fn pvid(mut random: [u8; 16]) -> [u8; 16] {
    random[0] = 0;
    random[8..].fill(0);
    random
}

fn vgid(mut random: [u8; 16]) -> [u8; 16] {
    random[0] = 0;
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(sizes: &[u64]) -> Result<(Recipe, Plan), String> {
        let name = |at: usize| format!("lv{at}").parse().unwrap();
        let volumes: Vec<(Name, u64)> =
            sizes.iter().enumerate().map(|(at, size)| (name(at), *size)).collect();
        let mut next = 0;
        lay_out(&volumes, (1, 2), || {
            next += 1;
            [next; 16]
        })
    }

    #[test]
    fn partitions_fit_the_sizes_and_lvs_follow_each_other() {
        let (recipe, plan) = laid(&[96 << 20, 32 << 20]).unwrap();
        assert_eq!((recipe.pp_log2, &recipe.disks[..]), (25, &[4][..]));
        assert_eq!(plan.lvs, [vec![vec![(0, 0)], vec![(0, 1)], vec![(0, 2)]], vec![vec![(0, 3)]]]);
        // Odd sizes are rounded up to the smallest partitions.
        let (recipe, _) = laid(&[512, (1 << 20) + 512]).unwrap();
        assert_eq!((recipe.pp_log2, recipe.lvs[0].lps, recipe.lvs[1].lps), (20, 1, 2));
        // More than one disk holds.
        let (recipe, plan) = laid(&[1 << 20, 2000 << 20]).unwrap();
        assert_eq!(recipe.disks, [1016, 985]);
        assert_eq!(plan.lvs[1][1015], [(1, 0)]);
        let ids = recipe.identities.unwrap();
        let head = [0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!((ids.pvids[0], ids.pvids[1][1], ids.vgid[15]), (head, 2, 3));
    }

    #[test]
    fn large_ones_get_larger_partitions_and_what_cannot_be_is_refused() {
        let (recipe, _) = laid(&[(1 << 40) + (1 << 20)]).unwrap();
        assert_eq!(recipe.pp_log2, 26, "the smallest that suffice");
        assert_eq!(laid(&[8 << 40]).unwrap().0.pp_log2, 30);
        assert!(laid(&[40 << 40]).unwrap_err().contains("too large"));
        assert!(laid(&[]).unwrap_err().contains("1 to 255"));
        assert!(laid(&[1 << 20; 256]).unwrap_err().contains("these are 256"));
    }
}
