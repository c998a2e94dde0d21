//! The demonstration as a user runs it: its exit code, its JSON document, what it leaves behind.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The demonstration, with its temporary folders below `place`.
fn demo(place: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vgship"));
    command.arg("demo").args(args).env("TMPDIR", place.path()).stdin(Stdio::null());
    command
}

/// Processes of this program that work on a home below `place`.
fn agents_of(place: &tempfile::TempDir) -> usize {
    let below = place.path().to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&below)).count()
}

fn nothing_is_left(place: &tempfile::TempDir) {
    let left = std::fs::read_dir(place.path()).expect("the test's own folder").count();
    assert_eq!(left, 0, "a folder was left behind");
    assert_eq!(agents_of(place), 0, "a process was left behind");
}

#[test]
fn every_check_holds_and_nothing_is_left_behind() {
    let place = tempfile::tempdir().unwrap();
    let done = demo(&place, &["--seconds", "3", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}\n{said}", done.status);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let number = |at: &str| report.pointer(at).and_then(Value::as_u64).expect(at);
    let volumes = number("/volume_bytes");
    assert_eq!(report["volumes"].as_array().unwrap().len(), 4);
    assert_eq!(number("/compared_bytes"), volumes - 4 * 512);
    assert_eq!(number("/mirror_bytes"), volumes / 4 - 512);
    for crash in ["replica_killed", "source_killed"] {
        let steps = number(&format!("/{crash}/replica_steps"));
        assert!(steps >= number(&format!("/{crash}/durable_steps")), "{crash}: {report}");
        assert!(steps <= number(&format!("/{crash}/done_steps")) + 1, "{crash}: {report}");
    }
    assert_eq!(report["flap"]["resynced"], false);
    assert_eq!(report["overflow"]["resynced"], true);
    assert_eq!(report["checks"].as_array().unwrap().len(), 14);
    nothing_is_left(&place);
}

fn until_agents_run(child: &mut Child, place: &tempfile::TempDir) {
    let begun = Instant::now();
    while agents_of(place) < 2 {
        assert!(matches!(child.try_wait(), Ok(None)), "it ended before its agents ran");
        assert!(begun.elapsed() < Duration::from_mins(2), "its agents never ran");
        std::thread::yield_now();
    }
}

#[test]
fn told_to_end_it_takes_its_agents_along() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = tempfile::tempdir().unwrap();
        let mut command = demo(&place, &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        until_agents_run(&mut child, &place);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{signal}");
        assert!(String::from_utf8_lossy(&done.stderr).contains("interrupted"), "{signal}");
        nothing_is_left(&place);
    }
}

#[test]
fn a_folder_in_use_is_refused_and_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("kept");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("mine"), "precious").unwrap();
    let done = demo(&place, &["--keep", &folder.display().to_string()]).output().unwrap();
    assert_eq!(done.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&done.stderr).contains("is not empty"));
    assert_eq!(std::fs::read_to_string(folder.join("mine")).unwrap(), "precious");
}
