//! Decides which physical partitions an LV gets.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use vgship_base::sim::Rng;

use crate::recipe::{LvRecipe, Placement, Recipe};
use crate::structures::place_of;
use crate::{ExpectedLv, Written};

/// A physical partition: disk and number, both from 0.
pub type Pp = (usize, u16);

/// Every LV's partitions, chosen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Per slot, per logical partition: the copies. An unused slot has none.
    pub lvs: Vec<Vec<Vec<Pp>>>,
}

impl Plan {
    /// Chooses partitions for every LV, in order.
    ///
    /// # Errors
    /// When the recipe is outside the format's limits or its LVs do not fit its disks.
    pub fn new(recipe: &Recipe) -> Result<Plan> {
        let per_disk = 1016 * recipe.factor;
        ensure!((1..=16).contains(&recipe.factor), "the factor is 1 to 16");
        ensure!((20..=30).contains(&recipe.pp_log2), "a partition has 1 MiB to 1 GiB");
        ensure!(
            (1..=usize::from(32 / recipe.factor)).contains(&recipe.disks.len()),
            "this many disks do not fit the VG"
        );
        ensure!(recipe.disks.iter().all(|&pps| pps <= per_disk), "at most {per_disk} PPs a disk");
        ensure!(recipe.lvs.len() <= 255, "an original VG has at most 255 LVs");
        let mut free = Free(recipe.disks.iter().map(|&pps| vec![true; pps.into()]).collect());
        let chosen = recipe.lvs.iter().map(|lv| {
            ensure!((1..64).contains(&lv.name.len()), "a name has 1 to 63 bytes");
            ensure!((1..=3).contains(&lv.copies), "an LV has 1 to 3 copies");
            free.choose(lv).with_context(|| format!("LV {} does not fit", lv.name))
        });
        Ok(Plan { lvs: chosen.collect::<Result<_>>()? })
    }

    /// The VG that this plan makes of the recipe.
    pub fn written(&self, recipe: &Recipe, disks: Vec<PathBuf>) -> Written {
        let used = self.lvs.iter().zip(&recipe.lvs).filter(|(lps, _)| !lps.is_empty());
        let lvs = used.map(|(lps, lv)| ExpectedLv {
            name: lv.name.clone(),
            lps: lps
                .iter()
                .map(|copies| copies.iter().map(|&pp| place_of(recipe, pp)).collect())
                .collect(),
        });
        Written { disks, vgid: recipe.vgid(), pp_bytes: 1 << recipe.pp_log2, lvs: lvs.collect() }
    }
}

/// Which partitions are free, per disk.
struct Free(Vec<Vec<bool>>);

impl Free {
    fn choose(&mut self, lv: &LvRecipe) -> Option<Vec<Vec<Pp>>> {
        let mut lps = vec![Vec::new(); lv.lps.into()];
        let disks = self.0.len();
        let mut rng = Rng::new(match lv.placement {
            Placement::Scattered(seed) => seed,
            _ => 0,
        });
        for copy in 0..usize::from(lv.copies) {
            match lv.placement {
                Placement::Contiguous(disk) => self.run((disk + copy) % disks, &mut lps)?,
                Placement::Spanning => {
                    let share = lps.len().div_ceil(disks).max(1);
                    for (part, some) in lps.chunks_mut(share).enumerate() {
                        self.run((part + copy) % disks, some)?;
                    }
                }
                Placement::Scattered(_) => {
                    for copies in &mut lps {
                        let pp = self.any_but(copies, &mut rng)?;
                        copies.push(pp);
                    }
                }
            }
        }
        Some(lps)
    }

    /// Gives each of `lps` one more copy: the first run of free neighbours on a disk.
    fn run(&mut self, disk: usize, lps: &mut [Vec<Pp>]) -> Option<()> {
        let pps = &mut self.0[disk];
        if lps.is_empty() {
            return Some(());
        }
        let first = pps.windows(lps.len()).position(|run| run.iter().all(|&free| free))?;
        for (at, copies) in (first..).zip(lps) {
            pps[at] = false;
            copies.push((disk, u16::try_from(at).ok()?));
        }
        Some(())
    }

    /// A free partition by dice, on a disk that holds none of `taken` where there is one.
    fn any_but(&mut self, taken: &[Pp], rng: &mut Rng) -> Option<Pp> {
        let free = || {
            let disks = self.0.iter().enumerate();
            disks.flat_map(|(disk, pps)| {
                (0u16..).zip(pps).filter(|(_, free)| **free).map(move |(pp, _)| (disk, pp))
            })
        };
        let apart = |pp: &Pp| taken.iter().all(|other| other.0 != pp.0);
        let mut choice: Vec<Pp> = free().filter(apart).collect();
        if choice.is_empty() {
            choice = free().collect();
        }
        if choice.is_empty() {
            return None;
        }
        let (disk, pp) = choice[rng.index(choice.len())];
        self.0[disk][usize::from(pp)] = false;
        Some((disk, pp))
    }
}
