use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::quiesce::Why;

/// A guard that answers, and remembers what it was told beside itself.
const GUARD: &str = "#!/bin/sh\nwhile read word; do\n  echo \"$word\" >> \"$0.words\"\n  \
                     case $word in freezing*) echo guarding ;; done) exit ;; esac\ndone\n";

/// Waits for the end of a command.
pub(super) fn ended(run: &mut Run) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = run.poll() {
            return status;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "it does not end");
        thread::sleep(LOOK);
    }
}

struct World {
    place: tempfile::TempDir,
    guard: PathBuf,
}

/// Notes what it is asked for among what commands note.
struct Noting<'a>(&'a World);

impl Stream for Noting<'_> {
    fn mark(&mut self) -> bool {
        self.0.note("mark");
        true
    }

    fn take_back(&mut self) {
        self.0.note("take back");
    }
}

impl World {
    fn new() -> World {
        World::with_guard(GUARD)
    }

    fn with_guard(text: &str) -> World {
        let place = tempfile::tempdir().unwrap();
        let guard = place.path().join("guard");
        // By another process: what this one has open to write, a fork of another test holds, too,
        // and it could not be run.
        let mut make = Command::new("/bin/sh");
        make.args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", text]).arg(&guard);
        assert!(make.status().unwrap().success());
        World { place, guard }
    }

    /// `LOG` in a command is the file of what happened.
    fn hold(&self, freeze: &str, thaw: &str, hold: u64) -> Held {
        let log = self.place.path().join("log");
        let log = log.to_str().unwrap();
        let hooks = Hooks {
            group: "g".to_owned(),
            name: "s".to_owned(),
            freeze: freeze.replace("LOG", log),
            thaw: thaw.replace("LOG", log),
            hold: Duration::from_millis(hold),
        };
        super::hold(&hooks, &self.guard, &mut Noting(self))
    }

    fn note(&self, line: &str) {
        let path = self.place.path().join("log");
        let old = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, format!("{old}{line}\n")).unwrap();
    }

    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn words(&self) -> Vec<String> {
        let text = fs::read_to_string(self.place.path().join("guard.words")).unwrap_or_default();
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }
}

const FREEZE: &str = "echo freeze $VGSHIP_GROUP $VGSHIP_NAME $VGSHIP_HOLD >> LOG";
const THAW: &str = "echo thaw $VGSHIP_GROUP $VGSHIP_NAME $VGSHIP_HOLD >> LOG";

#[test]
fn applications_are_frozen_then_the_marker_is_put_in_then_they_are_thawed() {
    let world = World::new();
    let held = world.hold(FREEZE, THAW, 20_100);
    assert_eq!((held.outcome.why, held.outcome.frozen), (None, false), "{held:?}");
    assert_eq!(world.log(), ["freeze g s 21", "mark", "thaw g s 21"]);
    assert_eq!(world.words(), ["freezing", "ended", "thawing", "done"]);
}

#[test]
fn a_freeze_that_fails_is_thawed_and_its_last_words_are_repeated() {
    let world = World::new();
    let long = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 7";
    let held = world.hold(long, THAW, 20_000);
    assert_eq!(held.outcome.why, Some(Why::FreezeFailed));
    assert!(held.freeze.starts_with("ended with exit status: 7: "), "{}", held.freeze);
    assert!(held.freeze.ends_with("line 2999") && held.freeze.len() < 4000, "{}", held.freeze);
    assert_eq!(world.log(), ["thaw g s 20"]);
}

#[test]
fn a_slow_freeze_is_killed_with_all_its_processes_before_the_thaw() {
    let world = World::new();
    let freeze = "(sleep 30; echo late >> LOG) & sleep 31; echo late >> LOG";
    let since = Instant::now();
    let held = world.hold(freeze, THAW, 300);
    assert_eq!((held.outcome.why, held.outcome.frozen), (Some(Why::FreezeLate), false));
    assert!(since.elapsed() < Duration::from_secs(25), "its processes were not killed");
    assert!(held.freeze.contains("signal: 9"), "{}", held.freeze);
    assert_eq!(world.log(), ["thaw g s 1"]);
}

#[test]
fn a_thaw_that_fails_is_tried_again() {
    let world = World::new();
    let thaw = "echo thaw >> LOG; [ $(grep -c thaw LOG) -ge 3 ]";
    let held = world.hold(FREEZE, thaw, 20_000);
    assert_eq!((held.outcome.why, held.outcome.frozen), (None, false), "{held:?}");
    assert_eq!(world.log(), ["freeze g s 20", "mark", "thaw", "thaw", "thaw"]);
}

#[test]
fn what_was_not_frozen_any_more_is_taken_back() {
    let world = World::new();
    let held = world.hold(FREEZE, "echo they run; exit 3", 20_000);
    assert_eq!((held.outcome.why, held.outcome.frozen), (Some(Why::Lapsed), false));
    assert!(held.thaw.ends_with("they run"), "{}", held.thaw);
    assert_eq!(world.log(), ["freeze g s 20", "mark", "take back"]);
}

#[test]
fn without_a_guard_nothing_is_frozen() {
    for guard in ["#!/bin/sh\nexit 1\n", "#!/bin/sh\nread word\necho what\n", "#!/no/such\n"] {
        let world = World::with_guard(guard);
        let held = world.hold(FREEZE, THAW, 20_000);
        assert_eq!(held.outcome.why, Some(Why::NotStarted), "{guard}");
        assert!(world.log().is_empty(), "{guard}: {:?}", world.log());
    }
}

#[test]
fn a_guard_that_dies_ends_the_freeze() {
    let world = World::with_guard("#!/bin/sh\nread word\necho guarding\n");
    let held = world.hold("sleep 30", THAW, 60_000);
    assert_eq!((held.outcome.why, held.outcome.frozen), (Some(Why::Unguarded), false));
    assert_eq!(world.log(), ["thaw g s 60"]);
}
