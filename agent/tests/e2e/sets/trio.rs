//! Two groups on two agents, both replicated to a third, which has a set of them; an application
//! that counts on both.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::common::{Agent, MIB, Nbd, Ran, Relay, until};

/// The sources, as the one that has replicas of both calls their groups.
pub const SOURCES: [&str; 2] = ["app", "db"];

/// The agents of two sources, whose groups are both `g` at home, and the one that has replicas of
/// both, as `app` and `db`.
pub struct Trio {
    pub sources: [Agent; 2],
    relays: [Relay; 2],
    pub dr: Agent,
    place: tempfile::TempDir,
}

impl Trio {
    pub fn new() -> Trio {
        Trio::with(&[])
    }

    /// With options of both groups.
    pub fn with(options: &[&str]) -> Trio {
        let place = tempfile::tempdir().unwrap();
        let relays = SOURCES.map(|_| Relay::start(1));
        let mut sources = SOURCES.map(|name| Agent::init(place.path(), name));
        for ((name, agent), relay) in SOURCES.iter().zip(&mut sources).zip(&relays) {
            agent.configure(&format!("advertise = \"{}\"", relay.address()));
            let images = place.path().join(format!("{name}-images"));
            fs::create_dir(&images).unwrap();
            fs::File::create(images.join("data")).unwrap().set_len(MIB).unwrap();
            let spec = format!("images:{}", images.display());
            agent.ok(&[&["group", "add", "g", "--volumes", &spec], options].concat());
            agent.start();
            relay.lead_to(agent.listens());
        }
        let mut dr = Agent::init(place.path(), "dr");
        dr.start();
        for (name, source) in SOURCES.iter().zip(&sources) {
            let made = source.json(&["pair", "invite", "--group", "g", "--role", "replica"]);
            let token = made["token"].as_str().unwrap();
            let spec = format!("images:{}", place.path().join(format!("dr-{name}")).display());
            dr.ok(&["pair", "join", token, "--group", name, "--volumes", &spec]);
            source.until("paired", |group| group["peers"][0].is_object());
            source.wait("in-sync");
        }
        dr.ok(&["set", "create", "erp", "--member", "app", "--member", "db", "--hold", "40s"]);
        Trio { sources, relays, dr, place }
    }

    /// One more replica of a source's group, on an agent of its own, and its image.
    pub fn another(&self, source: usize) -> (Agent, std::path::PathBuf) {
        let mut agent = Agent::init(self.place.path(), "far");
        agent.start();
        let made =
            self.sources[source].json(&["pair", "invite", "--group", "g", "--role", "replica"]);
        let images = self.file("far-images");
        let spec = format!("images:{}", images.display());
        agent.ok(&["pair", "join", made["token"].as_str().unwrap(), "--volumes", &spec]);
        self.sources[source].until("paired", |group| group["peers"][1].is_object());
        self.sources[source].wait("in-sync");
        (agent, images.join("data"))
    }

    /// Starts a source again, at another port.
    pub fn restart_source(&mut self, source: usize) {
        self.sources[source].start();
        self.relays[source].lead_to(self.sources[source].listens());
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    /// Gives a source hooks and lets the replica's agent use them. `HERE` is the folder of all files,
    /// `LOG` a file in it.
    pub fn set_hooks(&self, source: usize, freeze: &str, thaw: &str, hold: &str) {
        let here = self.place.path().display().to_string();
        let [freeze, thaw] = [freeze, thaw]
            .map(|it| it.replace("LOG", &format!("{here}/hooks.log")).replace("HERE", &here));
        let set = ["group", "set", "g", "--freeze", &freeze, "--thaw", &thaw, "--hold", hold];
        self.sources[source].ok(&[&set[..], &["--replica-quiesce", "allow"]].concat());
    }

    pub fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("hooks.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The set's snapshots.
    pub fn snapshots(&self) -> Vec<Value> {
        let all = self.dr.json(&["snapshot", "list", "--set", "erp"]);
        all["snapshots"].as_array().unwrap().clone()
    }

    /// What of sets a replica keeps.
    pub fn kept(&self, group: &str) -> Vec<Value> {
        let all = self.dr.json(&["snapshot", "list", group]);
        let all = all["snapshots"].as_array().unwrap();
        all.iter().filter(|it| it["name"].as_str().unwrap().starts_with("set.")).cloned().collect()
    }

    /// The number that stands at the head of a volume of a snapshot.
    pub fn number(&self, group: &str, snapshot: &str) -> u64 {
        let to = self.file(&format!("out-{group}-{snapshot}"));
        let from = format!("{group}@{snapshot}");
        self.dr.ok(&["snapshot", "export", &from, "--to", to.to_str().unwrap()]);
        let bytes = fs::read(to.join("data")).unwrap();
        u64::from_be_bytes(bytes[..8].try_into().unwrap())
    }

    pub fn create(&self, name: &str) -> Ran {
        self.dr.run(&["snapshot", "create", "--set", "erp", name, "--quiesce", "--json"])
    }

    /// Waits until nothing of sets is left on either side.
    pub fn until_nothing_is_left(&self) {
        until("the set has no snapshot", || self.snapshots().is_empty());
        for (name, source) in SOURCES.iter().zip(&self.sources) {
            source.wait("applied");
            assert_eq!(self.kept(name), Vec::<Value>::new());
        }
    }
}

/// An application that counts on both sources, `app` first: what `db` says is never more than what
/// `app` says. Before each write it stops while that source's file `stop-N` is there, and says so by
/// a file `blocked`.
pub struct Counting {
    ends: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    works: Option<thread::JoinHandle<()>>,
}

impl Counting {
    pub fn start(trio: &Trio) -> Counting {
        let (ends, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut volumes =
            trio.sources.each_ref().map(|it| Nbd::open(&it.nbd_socket(), "data").unwrap());
        let stops = SOURCES.map(|name| trio.file(&format!("stop-{name}")));
        let blocked = trio.file("blocked");
        let (told, counted) = (Arc::clone(&ends), Arc::clone(&done));
        let works = thread::spawn(move || {
            for number in 1_u64.. {
                for (volume, stop) in volumes.iter_mut().zip(&stops) {
                    if stop.exists() {
                        fs::write(&blocked, "").unwrap();
                        until("it may go on", || !stop.exists());
                        let _ = fs::remove_file(&blocked);
                    }
                    if told.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut block = vec![0; 4096];
                    block[..8].copy_from_slice(&number.to_be_bytes());
                    volume.write(0, &block).unwrap();
                }
                counted.store(number, Ordering::SeqCst);
            }
        });
        Counting { ends, done, works: Some(works) }
    }

    /// Waits until it has counted on by this much.
    pub fn passes(&self, by: u64) {
        let from = self.done.load(Ordering::SeqCst);
        until("it counts on", || self.done.load(Ordering::SeqCst) >= from + by);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let ended = self.works.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// Hooks that stop the counting where it would write to that source; the second is slow to begin.
pub fn stop_counting(trio: &Trio) {
    for (place, name) in SOURCES.iter().enumerate() {
        let slow = if place == 1 { "sleep 0.5; " } else { "" };
        let freeze = format!(
            "{slow}touch HERE/stop-{name}; until [ -e HERE/blocked ]; do sleep 0.01; done; \
             echo frozen {name} >> LOG"
        );
        let thaw = format!("echo thawed {name} >> LOG; rm -f HERE/stop-{name}");
        trio.set_hooks(place, &freeze, &thaw, "40s");
    }
}

/// What a command printed.
pub trait Success {
    /// What it printed, as JSON.
    fn json_of_success(self) -> Value;
}

impl Success for Ran {
    #[track_caller]
    fn json_of_success(self) -> Value {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.json()
    }
}
