//! `write-image DIR [--lps N] [--seed N]` writes the demonstration's VG (two disks; LVs mirrored,
//! contiguous, spanning and scattered) into a folder, its LVs filled with a pattern, and prints what
//! to type to look at it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use vgship_test_images::{DemoSizes, fill_lv, write_demo_vg};

const USAGE: &str = "usage: write-image DIR [--lps PARTITIONS_OF_1_MIB_PER_LV] [--seed NUMBER]";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut folder, mut sizes, mut seed) = (None, DemoSizes::default(), 1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().context(USAGE);
        match arg.as_str() {
            "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--lps" => sizes.lps = value()?.parse().context("--lps takes a number")?,
            "--seed" => seed = value()?.parse().context("--seed takes a number")?,
            _ if folder.is_none() && !arg.starts_with('-') => folder = Some(PathBuf::from(arg)),
            _ => bail!(USAGE),
        }
    }
    let written = write_demo_vg(&folder.context(USAGE)?, sizes, seed)?;
    for lv in &written.lvs {
        fill_lv(&written, lv, seed)?;
    }
    let disks: Vec<String> = written.disks.iter().map(|disk| disk.display().to_string()).collect();
    println!("look at it:   vgship vg list {}", disks.join(" "));
    println!("replicate it: vgship group add G --volumes aix-disks:{}", disks.join(","));
    Ok(())
}
