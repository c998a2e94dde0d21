//! Loads that fio makes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::tree;

/// A way to write.
#[derive(Clone, Copy)]
pub struct Load {
    /// Its name in the report.
    pub name: &'static str,
    /// fio's word for the order.
    order: &'static str,
    /// fio's word for the size of one write.
    block: &'static str,
    /// Whether writes a second say more than bytes a second.
    pub is_small: bool,
}

/// What applications do, each 32 deep.
pub const LOADS: [Load; 4] = [
    Load { name: "4 KiB random", order: "randwrite", block: "4k", is_small: true },
    Load { name: "4 KiB sequential", order: "write", block: "4k", is_small: true },
    Load { name: "1 MiB random", order: "randwrite", block: "1m", is_small: false },
    Load { name: "1 MiB sequential", order: "write", block: "1m", is_small: false },
];

/// What a run of fio came to.
#[derive(Clone, Copy)]
pub struct Measured {
    /// Completed writes in a second.
    pub writes: f64,
    /// Bytes in a second.
    pub bytes: f64,
    /// What 99 of 100 writes took at most. Unit: milliseconds.
    pub p99: f64,
    /// Bytes written in all.
    pub total: u64,
}

/// Writes for some seconds over NBD.
pub fn over_nbd(uri: &str, load: Load, seconds: u32, size: u64) -> Result<Measured> {
    let mut fio = nbd(uri, size);
    fio.arg(format!("--rw={}", load.order)).arg(format!("--bs={}", load.block));
    fio.args(["--time_based", "--randrepeat=0"]).arg(format!("--runtime={seconds}"));
    read(&mut fio)
}

/// Writes `bytes` in blocks of 4 KiB, each somewhere else, over NBD.
pub fn scatter(uri: &str, size: u64, bytes: u64) -> Result<Measured> {
    let mut fio = nbd(uri, size);
    fio.args(["--rw=randwrite", "--bs=4k", "--randrepeat=0", "--end_fsync=1"]);
    // fio takes a file size of its own for the range, and this for how much of it.
    fio.arg(format!("--io_size={bytes}"));
    read(&mut fio)
}

/// Writes all of a volume from its begin to its end, over NBD.
pub fn sequential(uri: &str, size: u64) -> Result<Measured> {
    read(nbd(uri, size).args(["--rw=write", "--bs=1m", "--end_fsync=1"]))
}

/// Writes a file from its begin to its end, then waits for the disk.
pub fn whole_file(path: &Path, size: u64) -> Result<Measured> {
    let mut fio = base(size);
    fio.args(["--ioengine=psync", "--rw=write", "--bs=1m", "--end_fsync=1"]);
    read(fio.arg(format!("--filename={}", path.display())))
}

/// Writes 4 KiB after 4 KiB, waiting for the disk after each.
pub fn synced(path: &Path, size: u64, seconds: u32) -> Result<Measured> {
    let mut fio = base(size);
    fio.args(["--ioengine=psync", "--rw=write", "--bs=4k", "--fdatasync=1", "--time_based"]);
    fio.arg(format!("--runtime={seconds}"));
    read(fio.arg(format!("--filename={}", path.display())))
}

fn nbd(uri: &str, size: u64) -> Command {
    let mut fio = base(size);
    fio.args(["--ioengine=nbd", "--iodepth=32"]).arg(format!("--uri={uri}"));
    fio
}

fn base(size: u64) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--output-format=json", "--thread"]);
    fio.arg(format!("--size={size}"));
    fio
}

fn read(fio: &mut Command) -> Result<Measured> {
    let said = tree::output(fio)?;
    let start = said.find('{').context("fio printed no JSON")?; // warnings may stand before it
    let document: Value = serde_json::from_str(&said[start..]).context("output of fio")?;
    let write = &document["jobs"][0]["write"];
    let number = |value: &Value| value.as_f64().context("a figure of fio is missing");
    Ok(Measured {
        writes: number(&write["iops"])?,
        bytes: number(&write["bw_bytes"])?,
        p99: number(&write["clat_ns"]["percentile"]["99.000000"])? / 1e6,
        total: write["io_bytes"].as_u64().context("fio said no io_bytes")?,
    })
}
