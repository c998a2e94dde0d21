//! End to end: agents as processes of their own, paired through a UDP relay on loopback, with
//! applications writing over NBD. Each test waits for conditions; none takes time as a proof.

#![expect(clippy::unwrap_used, reason = "all of this program is a test")]

use vgship_processes as common;

mod blind;
mod cli;
mod clients;
mod drift;
mod drill;
mod env_volumes;
mod environments;
mod full_disks;
mod hooks;
mod keys;
mod kills;
mod lag;
mod memory;
mod overflow;
mod quiesce;
mod remove;
mod restart;
mod retry;
mod roles;
mod rollback;
mod s3;
mod sets;
mod snapshots;
mod status;
mod sync;
mod templates;
mod wire;
