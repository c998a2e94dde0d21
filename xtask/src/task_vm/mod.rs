//! `cargo xtask vm`: what only another kernel can say, asked in a small emulated guest.
//!
//! The guest is made of Debian packages that are unpacked under `target/vm`; nothing is installed
//! on this machine. It always runs under plain emulation, so that it runs everywhere alike.

mod cpio;
mod debs;
mod guest;
mod judge;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::tree;

/// Ask a real kernel in an emulated guest
///
/// `--aix-judge` lets the ppc64le kernel of Debian, which has a reader of AIX volume groups of its
/// own, read a disk that vgship-test-images wrote, and compares what it found.
#[derive(clap::Args)]
pub struct Args {
    /// Compare an AIX disk image with what the kernel's own reader finds in it
    #[arg(long, required = true)]
    aix_judge: bool,
    /// Judge this image instead of the one that vgship-test-images writes
    #[arg(long, requires = "expect")]
    image: Option<PathBuf>,
    /// What is expected of `--image`, a line per LV: NAME START-SECTOR SECTORS
    #[arg(long, requires = "image")]
    expect: Option<PathBuf>,
    /// Succeed with one line when the Debian packages cannot be fetched
    #[arg(long)]
    skip_unreachable: bool,
    /// Seconds after which the guest is ended
    #[arg(long, default_value_t = 180)]
    limit: u64,
}

/// Gives whether the kernel found what was expected.
pub fn run(args: &Args) -> Result<bool> {
    let home = tree::target().join("vm");
    let guest = match guest::prepare(&home) {
        Ok(guest) => guest,
        Err(guest::Unprepared::Unreachable(error)) if args.skip_unreachable => {
            let reason = format!("{error:#}").replace('\n', " ");
            println!("vm: skipped, the Debian packages cannot be fetched: {reason}");
            return Ok(true);
        }
        Err(error) => return Err(error.into_error()),
    };
    let made = home.join("judge.img");
    let (image, expected): (&Path, String) = match (&args.image, &args.expect) {
        (Some(image), Some(expect)) => (image, std::fs::read_to_string(expect)?),
        _ => (&made, write_image(&made)?),
    };
    let expected = judge::expected(&expected)?;
    let said = guest.boot(image, Duration::from_secs(args.limit))?;
    let found = judge::found(&said).context("what the guest said")?;
    Ok(judge::compare(&expected, &found))
}

/// Lets vgship-test-images write its image for the judge; gives what it says is in it.
fn write_image(path: &Path) -> Result<String> {
    let mut cargo = tree::cargo();
    cargo.args(["run", "--quiet", "--package", "vgship-test-images"]);
    cargo.args(["--example", "judge-image", "--"]).arg(path);
    let said = tree::output(&mut cargo)?;
    if said.trim().is_empty() {
        bail!("the example judge-image named no LV");
    }
    Ok(said)
}
