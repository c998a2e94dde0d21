//! What all loads have in common.

use std::path::{Path, PathBuf};

use super::load_fio::Fio;
use super::load_postgres::Postgres;
use super::plan::LoadKind;
use crate::{Agent, MIB, Stamps};

/// An application that writes on the source and knows what it was told is done.
///
/// It does operations in one or several streams, each numbered from 1.
pub trait Load {
    /// How many operations of each stream are acknowledged.
    fn acknowledged(&self) -> Vec<u64>;

    /// The source's process has ended.
    fn source_is_gone(&mut self) {}

    /// The source's process serves again.
    fn source_is_back(&mut self, _source: &Agent) {}

    /// Does nothing more. The source must serve.
    fn rest(&mut self);

    /// Gives how many operations of each stream the images in a folder hold, or why that is no
    /// prefix with the first `floor` of each. The images are changed, as a failover would.
    fn check(&self, images: &Path, floor: &[u64]) -> Result<Vec<u64>, String>;

    /// What its operations are called.
    fn unit(&self) -> &'static str;
}

/// The volumes that a load needs. Unit: bytes.
pub fn volumes(kind: LoadKind) -> &'static [(&'static str, u64)] {
    match kind {
        LoadKind::Stamps => &[("data", 48 * MIB), ("log", 16 * MIB)],
        LoadKind::Fio => &[("data", 32 * MIB)],
        LoadKind::Postgres => &[("data", 192 * MIB), ("log", 48 * MIB)],
    }
}

/// Starts a load on a source that serves; `place` is for its own files.
pub fn start(kind: LoadKind, source: &Agent, place: &Path, seed: u64) -> Box<dyn Load> {
    match kind {
        LoadKind::Stamps => {
            Box::new(Stamps::start(&source.nbd_socket(), &["data", "log"], 2, seed))
        }
        LoadKind::Fio => Box::new(Fio::start(source.uri("data"), place, seed)),
        LoadKind::Postgres => Box::new(Postgres::start(source, place)),
    }
}

impl Load for Stamps {
    fn acknowledged(&self) -> Vec<u64> {
        Stamps::acknowledged(self)
    }

    fn rest(&mut self) {
        Stamps::rest(self);
    }

    fn check(&self, images: &Path, floor: &[u64]) -> Result<Vec<u64>, String> {
        Stamps::check(self, |volume: &str| -> PathBuf { images.join(volume) }, floor)
    }

    fn unit(&self) -> &'static str {
        "writes"
    }
}
