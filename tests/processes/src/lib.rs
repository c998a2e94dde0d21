//! Agents as processes: a source and a replica with a relay between them, loads, and a campaign
//! of faults against them. For tests alone: what does not come about ends them by a panic.

#![expect(clippy::unwrap_used, reason = "all of this crate is a test")]

mod agent;
pub mod campaign;
pub mod mounts;
mod nbd;
mod prefix;
pub mod programs;
mod relay;
mod small_disk;
mod stamps;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vgship_base::sim::Rng;

pub use agent::{Agent, Begun, Ran};
pub use nbd::Nbd;
pub use prefix::{Operation, Order};
pub use relay::{Faults, Relay};
pub use small_disk::SmallDisk;
pub use stamps::Stamps;

/// Unit: bytes.
pub const MIB: u64 = 1 << 20;

/// Longer than anything takes that is waited for, on a busy machine too.
pub const LONG: Duration = Duration::from_mins(1);

/// How long conditions are waited for between two looks.
pub const LOOK: Duration = Duration::from_millis(20);

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come about that {what}");
        std::thread::sleep(LOOK);
    }
}

/// Bytes that no compression makes smaller.
pub fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        bytes.extend(rng.draw().to_be_bytes());
    }
    bytes.truncate(usize::try_from(len).unwrap());
    bytes
}

/// A source and a replica of one group `g` of image files, paired through a relay.
pub struct Pair {
    /// What applications write to.
    pub source: Agent,
    /// What follows.
    pub replica: Agent,
    /// The network between them.
    pub relay: Relay,
    /// The folder of all files.
    pub place: Arc<TempDir>,
    volumes: Vec<String>,
}

impl Pair {
    /// Makes both agents and the group, and starts them; `group` are further words for `group add`.
    pub fn unpaired(volumes: &[(&str, u64)], group: &[&str]) -> Pair {
        let mut pair = Pair::at_rest(Arc::new(tempfile::tempdir().unwrap()), volumes, group);
        pair.start();
        pair
    }

    /// Makes both agents and the group in a folder, which may already have the volumes' images.
    pub fn at_rest(place: Arc<TempDir>, volumes: &[(&str, u64)], group: &[&str]) -> Pair {
        let source = Agent::init(place.path(), "source");
        let replica = Agent::init(place.path(), "replica");
        let relay = Relay::start(1);
        source.configure(&format!("advertise = \"{}\"", relay.address()));
        let images = place.path().join("source-images");
        fs::create_dir_all(&images).unwrap();
        for (name, bytes) in volumes {
            let mut options = File::options();
            let image = options.create(true).write(true).truncate(false).open(images.join(name));
            image.unwrap().set_len(*bytes).unwrap();
        }
        let spec = format!("images:{}", images.display());
        let add = ["group", "add", "g", "--volumes", &spec];
        source.ok(&add.iter().chain(group).copied().collect::<Vec<_>>());
        let volumes = volumes.iter().map(|(name, _)| (*name).to_owned()).collect();
        Pair { source, replica, relay, place, volumes }
    }

    /// Starts both agents for the first time.
    pub fn start(&mut self) {
        self.restart_source();
        self.replica.start();
    }

    /// Makes both agents, pairs them and waits until they are in sync.
    pub fn new(volumes: &[(&str, u64)], group: &[&str]) -> Pair {
        let pair = Pair::unpaired(volumes, group);
        pair.join();
        pair.source.wait("in-sync");
        pair
    }

    /// A token for a replica.
    pub fn invite(&self) -> String {
        let made = self.source.json(&["pair", "invite", "--group", "g", "--role", "replica"]);
        made["token"].as_str().unwrap().to_owned()
    }

    /// Where the replica's volumes are made.
    pub fn replica_spec(&self) -> String {
        format!("images:{}", self.place.path().join("replica-images").display())
    }

    /// Pairs both sides.
    pub fn join(&self) {
        self.replica.ok(&["pair", "join", &self.invite(), "--volumes", &self.replica_spec()]);
        // The source's group learns of it a moment after the replica was told.
        self.source.until("paired", |group| group["peers"][0].is_object());
    }

    /// Starts the source again, at another port, and leads the relay there.
    pub fn restart_source(&mut self) {
        self.source.start();
        self.relay.lead_to(self.source.listens());
    }

    /// The image of a volume on the source.
    pub fn source_image(&self, volume: &str) -> PathBuf {
        self.place.path().join("source-images").join(volume)
    }

    /// The image of a volume on the replica.
    pub fn replica_image(&self, volume: &str) -> PathBuf {
        self.place.path().join("replica-images").join(volume)
    }

    /// Opens a volume on the source.
    pub fn open(&self, volume: &str) -> Nbd {
        Nbd::open(&self.source.nbd_socket(), volume).unwrap()
    }

    /// Fails at the first byte in which both sides' images differ.
    #[track_caller]
    pub fn assert_equal(&self) {
        for volume in &self.volumes {
            let ours = File::open(self.source_image(volume)).unwrap();
            let theirs = File::open(self.replica_image(volume)).unwrap();
            let bytes = ours.metadata().unwrap().len();
            assert_eq!(bytes, theirs.metadata().unwrap().len(), "size of {volume}");
            let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
            for start in (0..bytes).step_by(1 << 20) {
                let len = usize::try_from((bytes - start).min(MIB)).unwrap();
                ours.read_exact_at(&mut one[..len], start).unwrap();
                theirs.read_exact_at(&mut two[..len], start).unwrap();
                let differs = (0..len).find(|&at| one[at] != two[at]);
                if let Some(at) = differs {
                    panic!("{volume} differs at byte {}", start + at as u64);
                }
            }
        }
    }

    /// Waits until everything written so far is on the replica, and compares.
    #[track_caller]
    pub fn assert_follows(&self) {
        self.source.wait("applied");
        self.assert_equal();
    }
}
