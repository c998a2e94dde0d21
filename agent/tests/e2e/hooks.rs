//! The hooks that come with vgship: against programs that only say what they were asked, and on real
//! file systems and a real PostgreSQL behind a source's exports.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::common::campaign::postgres::{self, Disks, Server};
use super::common::mounts::{FuseFile, LoopDevice, Mount, cannot_mount};
use super::common::programs::run;
use super::common::{MIB, Pair, until};

fn hook(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("hooks").join(name)
}

/// Programs that write down how they were called, and do what a test wants of them.
struct Stubs(tempfile::TempDir);

impl Stubs {
    /// Each with what it does then, as lines of shell.
    fn new(programs: &[(&str, &str)]) -> Stubs {
        let stubs = Stubs(tempfile::tempdir().unwrap());
        for (name, does) in programs {
            let log = stubs.0.path().join("log");
            let text = format!("#!/bin/sh\necho {name} \"$@\" >> {}\n{does}\n", log.display());
            let path = stubs.0.path().join(name);
            // Not by this process: a file that a fork of it has open to write cannot be run.
            let mut make = Command::new("/bin/sh");
            make.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
            let mut make = make.spawn().unwrap();
            make.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(make.wait().unwrap().success());
        }
        stubs
    }

    fn run(&self, name: &str, args: &[&str]) -> (i32, String) {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        let mut command = Command::new(hook(name));
        command.args(args).env("PATH", path).env("VGSHIP_HOLD", "5").env_remove("ORACLE_HOME");
        let Output { status, stdout, stderr } = command.output().unwrap();
        let said = [stdout, stderr].map(|it| String::from_utf8(it).unwrap()).concat();
        (status.code().unwrap(), said)
    }

    /// What was called since this was last asked.
    fn calls(&self) -> Vec<String> {
        let log = self.0.path().join("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

#[test]
fn hooks_are_clean_shell() {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        eprintln!("skipped: shellcheck is not installed");
        return;
    }
    let names = ["combine", "db2", "fsfreeze", "jfs2", "oracle", "postgresql"];
    let files = names.map(|name| hook(name).to_str().unwrap().to_owned());
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    run("shellcheck", "shellcheck", &files);
    for file in files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o111, 0o111, "{file}");
    }
}

#[test]
fn fsfreeze_undoes_what_it_began_and_says_what_was_not_frozen() {
    let stubs = Stubs::new(&[
        ("mountpoint", "[ \"$2\" != /folder ]"),
        (
            "fsfreeze",
            "case \"$*\" in '-f /busy') echo busy; exit 1 ;; \
             '-u /thawed') echo 'unfreeze failed: Invalid argument'; exit 1 ;; \
             '-u /stuck') echo stuck; exit 1 ;; esac",
        ),
    ]);
    assert_eq!(stubs.run("fsfreeze", &["freeze", "/a b", "/c"]).0, 0);
    assert_eq!(stubs.calls()[2..], ["fsfreeze -f /a b", "fsfreeze -f /c"]);
    let (code, said) = stubs.run("fsfreeze", &["freeze", "/a", "/c", "/busy", "/d"]);
    assert!(code == 1 && said.contains("/busy: busy"), "{said}");
    let undone = ["fsfreeze -f /busy", "fsfreeze -u /c", "fsfreeze -u /a"];
    assert!(stubs.calls().ends_with(&undone.map(str::to_owned)));
    for (at, said) in [("/", "never frozen"), ("/folder", "not a mount point")] {
        let (code, found) = stubs.run("fsfreeze", &["freeze", at]);
        assert!(code == 1 && found.contains(said), "{found}");
    }
    assert!(!stubs.calls().iter().any(|call| call.starts_with("fsfreeze")));
    for (places, code) in [("/a /c", 0), ("/thawed /a", 3), ("/stuck /thawed /a", 1)] {
        let args: Vec<&str> = ["thaw"].into_iter().chain(places.split(' ')).collect();
        assert_eq!(stubs.run("fsfreeze", &args).0, code, "{places}");
        assert_eq!(stubs.calls().len(), args.len() - 1, "all are tried");
    }
    assert_eq!(stubs.run("fsfreeze", &["melt", "/a"]).0, 1);
}

#[test]
fn jfs2_is_given_more_time_than_the_hold() {
    let stubs = Stubs::new(&[("chfs", "[ \"$3\" != /busy ]")]);
    assert_eq!(stubs.run("jfs2", &["freeze", "/a", "/b"]).0, 0);
    assert_eq!(stubs.calls(), ["chfs -a freeze=35 /a", "chfs -a freeze=35 /b"]);
    assert_eq!(stubs.run("jfs2", &["thaw", "/a", "/b"]).0, 0);
    assert_eq!(stubs.calls(), ["chfs -a freeze=off /b", "chfs -a freeze=off /a"]);
    assert_eq!(stubs.run("jfs2", &["freeze", "/a", "/busy"]).0, 1);
    assert_eq!(stubs.calls()[2..], ["chfs -a freeze=off /a"]);
    assert_eq!(stubs.run("jfs2", &["freeze", "/a", "/var"]).0, 1);
    assert!(stubs.calls().is_empty());
}

#[test]
fn databases_are_asked_in_their_words() {
    let heard = "sed 's/^/  /' >> \"$(dirname \"$0\")/log\"";
    let stubs = Stubs::new(&[("sqlplus", heard), ("db2", "exit 0"), ("psql", "exit 0")]);
    assert_eq!(stubs.run("oracle", &["freeze", "ORCL"]).0, 0);
    assert!(stubs.calls().contains(&"  alter database begin backup;".to_owned()));
    assert_eq!(stubs.run("oracle", &["thaw", "ORCL"]).0, 0);
    let calls = stubs.calls().join("\n");
    let [end, archive] = ["end backup;", "archive log current;"].map(|it| calls.find(it).unwrap());
    assert!(end < archive && calls.contains("whenever sqlerror exit failure"), "{calls}");
    assert_eq!(stubs.run("oracle", &["freeze"]).0, 1, "it names no database");
    let lapsed = Stubs::new(&[("sqlplus", "echo 'ORA-01142: no'; exit 1")]);
    assert_eq!(lapsed.run("oracle", &["thaw", "ORCL"]).0, 3);

    assert_eq!(stubs.run("db2", &["freeze", "SAMPLE"]).0, 0);
    let suspended = ["db2 -x connect to SAMPLE", "db2 -x set write suspend for database"];
    assert_eq!(stubs.calls(), suspended);
    assert_eq!(stubs.run("db2", &["thaw", "SAMPLE"]).0, 0);
    assert_eq!(stubs.calls()[1], "db2 -x set write resume for database");
    let hangs = Stubs::new(&[("db2", "case $2 in connect) exit 4 ;; esac")]);
    assert_eq!(hangs.run("db2", &["thaw", "SAMPLE"]).0, 0);
    assert_eq!(hangs.calls()[1], "db2 -x restart database SAMPLE write resume");
    assert_eq!(stubs.run("db2", &["freeze", "a;b"]).0, 1);

    assert_eq!(stubs.run("postgresql", &["freeze"]).0, 0);
    assert_eq!(stubs.run("postgresql", &["thaw"]).0, 0);
    assert!(stubs.calls().concat().ends_with("-c CHECKPOINT"));
}

#[test]
fn combined_hooks_freeze_in_order_and_thaw_in_reverse() {
    let fails = "[ \"$1 $2\" != 'freeze bad' ] || exit 9; [ \"$1 $2\" != 'thaw gone' ] || exit 3";
    let stubs = Stubs::new(&[("one", ""), ("two", fails)]);
    let all = |verb, last| [verb, "one", "it's", "--", "two", last, "--", "one"];
    assert_eq!(stubs.run("combine", &all("freeze", "b")).0, 0);
    assert_eq!(stubs.calls(), ["one freeze it's", "two freeze b", "one freeze"]);
    assert_eq!(stubs.run("combine", &all("thaw", "gone")).0, 3);
    assert_eq!(stubs.calls(), ["one thaw", "two thaw gone", "one thaw it's"]);
    assert_eq!(stubs.run("combine", &all("freeze", "bad")).0, 1);
    let done = ["one freeze it's", "two freeze bad", "two thaw bad", "one thaw it's"];
    assert_eq!(stubs.calls(), done);
    assert_eq!(stubs.run("combine", &["freeze"]).0, 1);
}

/// The program `name`, or why it is not there.
fn cannot_freeze() -> Option<String> {
    let missing =
        ["nbdfuse", "losetup", "mkfs.ext4", "e2fsck", "tune2fs", "fsfreeze", "mountpoint"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_err());
    let missing = missing.map(|program| format!("{program} is missing"));
    cannot_mount().map(str::to_owned).or(missing)
}

/// Whether a file system's image was one at rest: its log has nothing to replay.
fn is_at_rest(image: &Path) -> bool {
    !run("e2fsprogs", "tune2fs", &["-l", image.to_str().unwrap()]).contains("needs_recovery")
}

fn export(pair: &Pair, point: &str, to: &str) -> PathBuf {
    let to = pair.replica.path(to);
    pair.replica.ok(&["snapshot", "export", point, "--to", to.to_str().unwrap()]);
    to
}

/// Goal: a frozen ext4 is at rest in the snapshot, while somebody writes to it; in one that was taken
/// beside that it is not.
#[test]
fn a_frozen_file_system_is_at_rest_in_the_snapshot() {
    if let Some(reason) = cannot_freeze() {
        eprintln!("skipped: {reason}");
        return;
    }
    let pair = Pair::new(&[("data", 64 * MIB)], &[]);
    let [fuse, root] = ["fuse", "root"].map(|name| pair.place.path().join(name));
    let file = FuseFile::of(&pair.source.uri("data"), &fuse);
    let disk = LoopDevice::over(&file.file());
    run("e2fsprogs", "mkfs.ext4", &["-q", "-F", disk.path()]);
    let mount = Mount::of(&[], disk.path(), &root).unwrap();
    let (freezes, thaws) = (hook("fsfreeze"), root.display().to_string());
    let command = |verb: &str| format!("{} {verb} {thaws}", freezes.display());
    let set = ["group", "set", "g", "--freeze", &command("freeze"), "--thaw", &command("thaw")];
    pair.source.ok(&[&set[..], &["--hold", "50s"]].concat());
    let ends = Arc::new(AtomicBool::new(false));
    let (told, target) = (Arc::clone(&ends), root.join("file"));
    let writes = thread::spawn(move || {
        let mut turn = 0_u64;
        while !told.load(Ordering::SeqCst) {
            turn += 1;
            fs::write(&target, turn.to_be_bytes().repeat(1000)).unwrap();
        }
        turn
    });
    until("somebody writes", || root.join("file").exists());
    pair.source.ok(&["snapshot", "create", "g", "plain"]);
    let made = pair.source.json(&["snapshot", "create", "g", "still", "--quiesce"]);
    ends.store(true, Ordering::SeqCst);
    assert!(writes.join().unwrap() > 0);
    assert_eq!(made["quiesced"], true, "{made}");
    drop(mount);
    drop(disk);
    drop(file);
    assert!(!is_at_rest(&export(&pair, "g@plain", "e0").join("data")), "it proves nothing");
    let still = export(&pair, "g@still", "e1").join("data");
    assert!(is_at_rest(&still));
    run("e2fsprogs", "e2fsck", &["-f", "-n", still.to_str().unwrap()]);
}

/// Goal: hooks in a row. In the snapshot both file systems of a PostgreSQL at work are at rest, and
/// it has all that was committed before.
#[test]
fn a_database_and_its_file_systems_are_quiesced_in_a_row() {
    if let Some(reason) = cannot_freeze().or_else(postgres::cannot_run) {
        eprintln!("skipped: {reason}");
        return;
    }
    let place = Arc::new(tempfile::tempdir().unwrap());
    let (images, volumes) = (place.path().join("source-images"), [("data", 192), ("log", 48)]);
    let volumes = volumes.map(|(name, mib)| (name, mib * MIB));
    postgres::make_images(&images, &volumes, place.path());
    let mut pair = Pair::at_rest(Arc::clone(&place), &volumes, &[]);
    pair.start();
    pair.join();
    pair.source.wait("in-sync");
    let root = place.path().join("root");
    let file = |name: &str| FuseFile::of(&pair.source.uri(name), &place.path().join(name));
    let files = ["data", "log"].map(file);
    let devices = [&files[0], &files[1]].map(|file| LoopDevice::over(&file.file()));
    let disks = Disks::mount(devices[0].path(), devices[1].path(), &root, &[]).unwrap();
    let mut server = Server::start(&disks, &place.path().join("server")).unwrap();
    let mut load = server.pgbench(&["--client=2", "--time=3600", "--no-vacuum", "--rate=50"]);

    let env = format!("PGHOST={} PGUSER=postgres PGDATABASE=postgres", server.place().display());
    let hooks = ["combine", "postgresql", "fsfreeze"].map(|name| hook(name).display().to_string());
    let [combine, database, freezes] = hooks;
    let at = root.display();
    let command =
        |verb: &str| format!("{env} {combine} {verb} {database} -- {freezes} {at}/data {at}/log");
    let set = ["group", "set", "g", "--freeze", &command("freeze"), "--thaw", &command("thaw")];
    pair.source.ok(&[&set[..], &["--hold", "50s"]].concat());
    server.ask("insert into acks values (7, 1)").unwrap();
    let made = pair.source.json(&["snapshot", "create", "g", "still", "--quiesce"]);
    assert_eq!(made["quiesced"], true, "{made}");
    server.ask("insert into acks values (7, 2)").unwrap();
    load.kill().unwrap();
    load.wait().unwrap();
    server.stop();
    drop((server, disks));

    let still = export(&pair, "g@still", "still");
    let [data, log] = ["data", "log"].map(|name| still.join(name));
    assert!(is_at_rest(&data) && is_at_rest(&log));
    let (data, log) = (data.to_str().unwrap(), log.to_str().unwrap());
    let copy = Disks::mount(data, log, &place.path().join("copy"), &["-o", "loop"]).unwrap();
    let mut server = Server::start(&copy, &place.path().join("copy-server")).unwrap();
    assert_eq!(server.ask("select max(n) from acks where client = 7"), Ok("1".to_owned()));
    server.stop();
}
