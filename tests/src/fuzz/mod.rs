//! Fuzz targets: each feeds bytes that anybody may have written to the real parsers and cores, and
//! asserts more than "no panic". cargo-fuzz, the seeded loop of `cargo xtask fuzz` and plain tests
//! run the same functions; see `docs/testing.md`.
//!
//! What a target asserts, where it applies: what was decoded means the same after it was encoded;
//! the same bytes give the same result; memory stays below the target's limit whatever a length
//! claims ([`allocs`]); what comes out of a damaged file is what went in, or an error.

mod aix;
pub mod allocs;
mod api;
mod config;
pub mod corpus;
mod edits;
mod input;
mod journal;
mod json;
mod lvm2;
pub mod mutate;
mod nbd;
mod outbox;
mod past;
mod replica;
mod source;
mod state;
mod wire;

pub use input::Input;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of its program, of its folder of the corpus, on the command line.
    pub name: &'static str,
    /// Takes any bytes. Panics when an assertion does not hold.
    pub run: fn(&[u8]),
    /// Inputs made by the real encoders, where fuzzing begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input that is of use. Unit: bytes.
    pub longest: usize,
    /// Most memory that one input may hold at a time. Unit: bytes.
    pub memory: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// All targets, in the order of the data path.
#[rustfmt::skip]
pub const TARGETS: [Target; 25] = [
    // What one NBD client may make the server hold: `capture::nbd::limits`.
    target("nbd_connection", nbd::connection, nbd::connection_seeds, 4 * KIB, 40 * MIB),
    target("nbd_requests", nbd::requests, nbd::request_seeds, KIB, 16 * MIB),
    target("source", source::run, source::seeds, KIB, 16 * MIB),
    target("outbox", outbox::run, outbox::seeds, KIB, 16 * MIB),
    target("hello", wire::hello, wire::hello_seeds, KIB, 64 * KIB),
    target("frames", wire::frames, wire::frame_seeds, 4 * KIB, 16 * MIB),
    target("batches", wire::batches, wire::batch_seeds, 4 * KIB, 16 * MIB),
    target("records", wire::records, wire::record_seeds, 4 * KIB, 16 * MIB),
    target("pairing", wire::pairing, wire::pairing_seeds, KIB, 64 * KIB),
    target("token", wire::token, wire::token_seeds, KIB, 64 * KIB),
    target("replica", replica::run, replica::seeds, 2 * KIB, 16 * MIB),
    target("journal", journal::recovery, journal::seeds, KIB, 32 * MIB),
    target("spill", journal::spill, journal::spill_seeds, KIB, 32 * MIB),
    target("sealed", state::sealed, state::sealed_seeds, KIB, 16 * MIB),
    target("ledger", state::ledger, state::ledger_seeds, 2 * KIB, MIB),
    target("ledger_file", state::ledger_file, state::ledger_file_seeds, KIB, 8 * MIB),
    target("checkpoint", state::checkpoint, state::checkpoint_seeds, 256, 64 * KIB),
    target("rolled", past::rolled, past::rolled_seeds, 256, 64 * KIB),
    target("catalogue", past::catalogue, past::catalogue_seeds, KIB, 64 * MIB),
    target("manifest", past::manifest, past::manifest_seeds, 4 * KIB, MIB),
    target("layout", state::layout, state::layout_seeds, KIB, MIB),
    target("aix", aix::run, aix::seeds, KIB, 64 * MIB),
    target("lvm2", lvm2::run, lvm2::seeds, 4 * KIB, MIB),
    target("config", config::run, config::seeds, KIB, 2 * MIB),
    target("api", api::run, api::seeds, 2 * KIB, MIB),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    longest: usize,
    memory: usize,
) -> Target {
    Target { name, run, seeds, longest, memory }
}

impl Target {
    /// Runs one input and checks the memory that it held, where [`allocs::Counting`] counts.
    ///
    /// # Panics
    /// When an assertion does not hold, or the limit was passed.
    pub fn check(&self, data: &[u8]) {
        let most = allocs::most_held(|| (self.run)(data));
        assert!(most <= self.memory, "{} held {most} bytes, limit {}", self.name, self.memory);
    }
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs one input of a target: what the programs of `tests/fuzz` call.
///
/// # Panics
/// When there is no such target, or as [`Target::check`].
pub fn run(name: &str, data: &[u8]) {
    find(name).expect("programs are named for targets").check(data);
}
