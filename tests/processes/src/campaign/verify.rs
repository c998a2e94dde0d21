//! Copies of images, for a look at them.

use std::fs;
use std::path::Path;

use crate::programs::run;

/// Copies all images of a folder into another, holes as holes.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        run("coreutils", "cp", &["--reflink=auto", "--sparse=always", from, to]);
    }
}
