//! `cargo xtask images`: test images on disk, to look at or to try a command on.

use std::path::PathBuf;

use anyhow::Result;

use crate::tree;

/// Write volume-group test images into a folder
///
/// The images are made by the crate vgship-test-images; what follows `--` goes to its example
/// `write-image`, which explains itself with `--help`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder to write into; it is made when it does not exist
    dir: PathBuf,
    /// Further arguments of the example
    #[arg(last = true)]
    more: Vec<String>,
}

/// Gives whether the images were written.
pub fn run(args: &Args) -> Result<bool> {
    std::fs::create_dir_all(&args.dir)?;
    let dir = args.dir.canonicalize()?;
    let mut cargo = tree::cargo();
    cargo.args(["run", "--quiet", "--package", "vgship-test-images"]);
    cargo.args(["--example", "write-image", "--"]).arg(&dir).args(&args.more);
    Ok(cargo.status()?.success())
}
