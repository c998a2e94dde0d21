//! Blind replicas: the far side keeps, checks and serves what it cannot read, and whoever has the
//! escrow reads it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::common::{Agent, MIB, Nbd, Pair, Stamps, noise, until};

/// What must never be found on the far side.
const SECRET: &[u8] = b"this line is for the eyes of the source alone, whatever it is kept for";

/// Size of `log`: its last extent is short. Unit: bytes.
const ODD: u64 = 2 * MIB + 512;

/// Whole sectors full of it.
fn secret(sectors: usize) -> Vec<u8> {
    SECRET.iter().copied().cycle().take(sectors * 512).collect()
}

fn blind_token(source: &Agent) -> String {
    let words = ["pair", "invite", "--group", "g", "--role", "replica", "--blind"];
    source.json(&words)["token"].as_str().unwrap().to_owned()
}

/// Pairs the replica as a blind one.
fn join_blind(pair: &Pair) {
    let token = blind_token(&pair.source);
    pair.replica.ok(&["pair", "join", &token, "--volumes", &pair.replica_spec()]);
    pair.source.until("paired", |group| {
        group["peers"].as_array().unwrap().iter().any(|peer| peer["blind"] == true)
    });
}

/// All files below a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), into);
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
}

/// Whether some of the secret is in a file of these folders. Any 24 bytes of it count.
fn shows(folders: &[&Path]) -> Option<PathBuf> {
    let mut all = Vec::new();
    folders.iter().for_each(|folder| files(folder, &mut all));
    assert!(all.len() > 4, "{all:?}");
    let parts: Vec<&[u8]> = SECRET.chunks_exact(24).collect();
    all.into_iter().find(|path| {
        let bytes = fs::read(path).unwrap_or_default(); // it may just have gone
        bytes.windows(24).any(|run| parts.contains(&run))
    })
}

/// The blind side's home and volumes.
fn shown_there(pair: &Pair) -> Option<PathBuf> {
    shows(&[&pair.replica.path(""), &pair.place.path().join("replica-images")])
}

/// A place that is not there yet.
fn fresh(pair: &Pair, name: &str) -> String {
    pair.place.path().join(name).display().to_string()
}

/// What the blind replica held at a point, unveiled with an escrow that the source makes.
fn unveiled(pair: &Pair, point: &str, name: &str) -> PathBuf {
    let [images, escrow, plain] =
        ["images", "escrow", "plain"].map(|kind| fresh(pair, &format!("{name}-{kind}")));
    pair.replica.ok(&["snapshot", "export", point, "--to", &images]);
    pair.source.ok(&["key", "escrow", "g", "--to", &escrow]);
    let key = pair.source.path("key").display().to_string();
    let words = ["--escrow", &escrow, "--key-file", &key, "--from", &images, "--to", &plain];
    pair.replica.ok(&[&["unveil"][..], &words].concat());
    plain.into()
}

fn assert_same(one: &Path, other: &Path) {
    let (one_is, other_is) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    assert_eq!(one_is.len(), other_is.len(), "{}", one.display());
    let differs = (0..one_is.len()).find(|&at| one_is[at] != other_is[at]);
    assert_eq!(differs, None, "{} and {}", one.display(), other.display());
}

/// Goal: through load, cuts, kills of either side and a resync the blind replica ends up with what
/// the source holds, veiled; any point of it can be had in clear by whoever has the key; nothing of it
/// is in clear on its side; and a plain replica beside it does not notice.
#[test]
fn a_blind_replica_keeps_what_it_cannot_read() {
    let volumes = [("data", 8 * MIB), ("log", ODD)];
    let mut pair = Pair::unpaired(&volumes, &["--self-check", "64MiB"]);
    pair.open("data").write(0, &secret(64)).unwrap(); // comes by the first sync
    let mut plain = Agent::init(pair.place.path(), "plain");
    plain.start();
    let seen = pair.place.path().join("plain-images");
    let spec = format!("images:{}", seen.display());
    plain.ok(&["pair", "join", &pair.invite(), "--volumes", &spec]);
    pair.source.wait("in-sync");
    join_blind(&pair);
    pair.source.wait("in-sync");

    let there = pair.replica.group();
    assert_eq!((&there["blind"], &there["role"]), (&true.into(), &"replica".into()));
    assert_eq!(plain.group()["blind"], false);
    let here = pair.source.group();
    let blind = |group: &Value| -> Vec<bool> {
        let peers = group["peers"].as_array().unwrap().iter();
        peers.map(|peer| peer["blind"].as_bool().unwrap()).collect()
    };
    assert_eq!(blind(&here), [false, true]);
    assert_eq!(here["veil"]["key"], there["veil"]["key"]);
    assert_eq!(here["veil"]["escrowed"], Value::Null);
    assert!(pair.source.ok(&["status"]).contains("NO ESCROW"));
    assert!(pair.replica.ok(&["status"]).contains("blind replica"));
    for agent in [&pair.source, &pair.replica] {
        assert!(agent.ok(&["pair", "list"]).contains("(blind)"));
    }
    let keys = pair.source.json(&["key", "list", "g"])["rings"][0].clone();
    assert_eq!(keys["veil"]["id"], there["veil"]["key"]);

    // Live, and behind a link that is gone, and over kills of each side.
    let mut data = pair.open("data");
    let mut log = pair.open("log");
    data.write(MIB, &secret(2048)).unwrap();
    log.write(ODD - 512, &secret(1)).unwrap();
    log.zero(4096, 8192).unwrap();
    pair.source.wait("applied");
    pair.relay.cut();
    pair.source.until("cut", |group| group["peers"][1]["connected"] == false);
    data.write(3 * MIB, &secret(512)).unwrap();
    data.write(4 * MIB, &noise(1, MIB)).unwrap();
    pair.relay.restore();
    pair.source.wait("in-sync");
    pair.replica.kill();
    data.write(5 * MIB, &secret(512)).unwrap();
    pair.source.kill();
    pair.replica.start();
    pair.restart_source();
    pair.source.wait("in-sync");
    let mut data = pair.open("data");
    data.write(5 * MIB + 512, &secret(3)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "monday"]);
    let monday = pair.place.path().join("monday");
    fs::create_dir(&monday).unwrap();
    for (name, _) in volumes {
        fs::copy(pair.source_image(name), monday.join(name)).unwrap();
    }
    data.write(MIB, &secret(700)).unwrap();
    data.write(6 * MIB, &secret(100)).unwrap();
    pair.source.wait("applied");

    let found = unveiled(&pair, "g@monday", "monday");
    for (name, _) in volumes {
        assert_same(&found.join(name), &monday.join(name));
        assert_same(&pair.source_image(name), &seen.join(name));
    }
    let now = unveiled(&pair, "g@now", "now");
    for (name, _) in volumes {
        assert_same(&now.join(name), &pair.source_image(name));
    }
    assert_eq!(shown_there(&pair), None);
    let clear = shows(&[&plain.path(""), &seen]);
    assert!(clear.is_some(), "the search finds what is there");
    // Points, templates and clones are those of any replica.
    pair.replica.ok(&["template", "create", "t", "--from", "g@monday"]);
    pair.replica.ok(&["template", "verify", "t"]);
    pair.replica.ok(&["env", "create", "e", "--from", "g@monday", "--nbd"]);
    let mut clone = Nbd::open_export(&pair.replica.nbd_socket(), "env/e/g/data").unwrap();
    assert!(clone.read(MIB, 512).unwrap() != secret(1));
    drop(clone);
    pair.replica.ok(&["env", "destroy", "e"]);
    assert_eq!(shown_there(&pair), None);
    assert!(pair.source.group()["veil"]["escrowed"].is_string());
    assert!(!pair.source.ok(&["status"]).contains("NO ESCROW"));

    // Damage there is found by the source's hashes, and mended.
    let image = fs::File::options().write(true).open(pair.replica_image("data")).unwrap();
    image.write_all_at(&[9; 512], MIB).unwrap();
    let differs = |group: &Value| group["self_check"]["mismatches"].as_u64() >= Some(1);
    pair.source.until("told of the damage", differs);
    pair.source.wait("in-sync");
    let mended = unveiled(&pair, "g@now", "mended");
    assert_same(&mended.join("data"), &pair.source_image("data"));
}

/// Goal: under load, over kills of either side, each point of a blind replica is, once it is unveiled, a
/// state that the source was in, and nothing is lost that was acknowledged before it.
#[test]
fn points_of_a_blind_replica_are_states_of_the_source() {
    let mut pair = Pair::unpaired(&[("data", 24 * MIB), ("log", 8 * MIB)], &[]);
    join_blind(&pair);
    pair.source.wait("in-sync");
    let mut load = Stamps::start(&pair.source.nbd_socket(), &["data", "log"], 2, 7);
    let more = |load: &Stamps| {
        let before = load.writes();
        until("the application writes", || load.writes() >= before + 200);
    };
    for round in 0..4 {
        more(&load);
        if round % 2 == 0 {
            pair.replica.kill();
            pair.replica.start();
        } else {
            pair.source.kill();
            pair.restart_source();
        }
        pair.source.wait("in-sync");
    }
    let floor = load.acknowledged();
    pair.source.ok(&["snapshot", "create", "g", "busy"]);
    more(&load);
    load.rest();
    let written = load.acknowledged();
    pair.source.wait("in-sync");
    pair.source.wait("applied");
    pair.source.ok(&["snapshot", "create", "g", "end"]);
    let busy = unveiled(&pair, "g@busy", "busy");
    let found = load.check(|volume| busy.join(volume), &floor).unwrap();
    assert!(found != written, "the load went on");
    let end = unveiled(&pair, "g@end", "end");
    assert_eq!(load.check(|volume| end.join(volume), &written), Ok(written.clone()));
    assert!(load.check(|volume| pair.replica_image(volume), &written).is_err(), "it is veiled");
}

/// Goal: a journal that decays on the blind side is found by its own recovery, which has no key of the
/// source; what its volumes hold already it does without, and the rest comes again.
#[test]
fn a_blind_replica_finds_damage_in_its_journal_by_itself() {
    let mut pair = Pair::unpaired(&[("data", 4 * MIB)], &[]);
    join_blind(&pair);
    pair.source.wait("in-sync");
    let mut data = pair.open("data");
    data.write(0, &secret(1024)).unwrap();
    pair.source.wait("applied");
    // The source is away when it starts: what it says of its journal it says alone.
    pair.relay.cut();
    data.write(MIB, &secret(64)).unwrap();
    pair.replica.kill();
    let mut segments = Vec::new();
    files(&pair.replica.path("groups/g/journal"), &mut segments);
    segments.sort();
    let segment = segments.iter().rev().find(|it| fs::metadata(it).unwrap().len() > 65_536);
    let segment = segment.expect("a segment with content");
    let file = fs::File::options().read(true).write(true).open(segment).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], at).unwrap();
    pair.replica.start();
    until("the damage is found", || pair.replica.log().contains("the journal was damaged"));
    pair.relay.restore();
    pair.source.wait("in-sync");
    pair.source.ok(&["snapshot", "create", "g", "healed"]);
    let found = unveiled(&pair, "g@healed", "healed");
    assert_same(&found.join("data"), &pair.source_image("data"));
    assert_eq!(shown_there(&pair), None);
}

/// Goal: a client that was connected before there was a blind replica goes on writing parts of
/// sectors, which reach the replica by a resync; one that comes later is told to write whole ones.
#[test]
fn who_came_before_may_write_parts_of_sectors() {
    let pair = Pair::unpaired(&[("data", 4 * MIB)], &[]);
    let mut early = pair.open("data");
    early.write(700, b"before there was any replica").unwrap();
    join_blind(&pair);
    pair.source.wait("in-sync");
    early.write(MIB + 100, SECRET).unwrap();
    early.zero(MIB + 120, 7).unwrap();
    early.write(2 * MIB, &secret(8)).unwrap();
    pair.source.wait("in-sync");
    pair.source.wait("applied");
    let mut late = pair.open("data");
    let refused = late.write(MIB + 100, SECRET).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(22), "{refused}");
    assert!(late.zero(100, 512).is_err() && late.read(1, 512).is_err());
    late.write(3 * MIB, &secret(1)).unwrap();
    pair.source.wait("applied");
    let found = unveiled(&pair, "g@now", "parts");
    assert_same(&found.join("data"), &pair.source_image("data"));
    assert_eq!(shown_there(&pair), None);
}

/// Goal: content of one replica is wholly veiled or not at all, whatever files are changed; and without
/// its veil key a source does not go on with another.
#[test]
fn what_is_blind_and_what_is_not_do_not_mix() {
    let mut pair = Pair::unpaired(&[("data", 2 * MIB)], &[]);
    join_blind(&pair);
    pair.source.wait("in-sync");
    pair.replica.stop();
    let path = pair.replica.path("groups/g/group.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.starts_with("blind = ")).unwrap().to_owned();
    fs::write(&path, text.replace(&line, "")).unwrap();
    pair.replica.start();
    let refused = |group: &Value| {
        let error = group["peers"][0]["last_error"].as_str().unwrap_or_default();
        group["peers"][0]["connected"] == false && error.contains("not paired as a blind one")
    };
    pair.replica.until("refused", refused);
    pair.source.until("refusing", refused);
    pair.open("data").write(0, &secret(8)).unwrap();
    pair.replica.stop();
    fs::write(&path, &text).unwrap();
    pair.replica.start();
    pair.source.wait("in-sync");
    pair.source.wait("applied");
    assert_eq!(shown_there(&pair), None);

    pair.source.stop();
    let keys = pair.source.path("groups/g/keys");
    let mut veil = Vec::new();
    files(&keys, &mut veil);
    veil.retain(|it| it.extension().is_some_and(|it| it == "veil"));
    let away = pair.source.path("away");
    fs::rename(&veil[0], &away).unwrap();
    pair.restart_source();
    let group = pair.source.group();
    assert!(group["reason"].as_str().unwrap().contains("veil key is missing"), "{group}");
    pair.source.stop();
    fs::rename(&away, &veil[0]).unwrap();
    pair.restart_source();
    pair.source.wait("in-sync");

    // A plain pairing of the same two agents: another group there, which begins with nothing.
    pair.source.ok(&["pair", "revoke", "replica"]);
    pair.replica.ok(&["group", "remove", "g", "--force"]);
    pair.replica.ok(&["pair", "join", &pair.invite(), "--volumes", &pair.replica_spec()]);
    pair.source.until("plain", |group| group["peers"][0]["blind"] == false);
    pair.source.wait("in-sync");
    pair.assert_follows();
}

/// Goal: an escrow opens with its key alone, with images of its group alone, and overwrites nothing.
#[test]
fn unveiling_refuses_what_does_not_fit() {
    let pair = Pair::unpaired(&[("data", 2 * MIB)], &[]);
    let escrow = fresh(&pair, "escrow");
    pair.source.run(&["key", "escrow", "g", "--to", &escrow]).expect(3, &["no veil key"]);
    let words = ["pair", "invite", "--group", "g", "--role", "source", "--blind"];
    pair.source.run(&words).expect(2, &["--role replica"]);
    let words = ["pair", "invite", "--group", "g", "--role", "replica", "--blind"];
    pair.source.run(&words).expect(0, &["no escrow of the veil key"]);
    join_blind(&pair);
    pair.source.wait("in-sync");
    pair.open("data").write(0, &secret(64)).unwrap();
    pair.source.wait("applied");
    pair.replica.run(&["key", "escrow", "g", "--to", &escrow]).expect(3, &["its source has it"]);

    let key = fresh(&pair, "recovery-key");
    fs::write(&key, format!("{}\n", "7e".repeat(32))).unwrap();
    let make = ["key", "escrow", "g", "--to", &escrow, "--key-file", &key];
    pair.source.run(&make).expect(1, &["is a secret"]);
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    pair.source.ok(&make);
    pair.source.run(&make).expect(3, &["is there already"]);
    pair.source.run(&words).expect(0, &[]);
    assert!(!pair.source.run(&words).err.contains("no escrow"));

    let images = fresh(&pair, "images");
    pair.source.ok(&["snapshot", "create", "g", "last"]);
    pair.replica.ok(&["snapshot", "export", "g@last", "--to", &images]);
    // With neither of the two agents, as after the loss of both machines.
    let elsewhere = Agent::init(pair.place.path(), "elsewhere");
    let unveil = |key: &str, from: &str, to: &str| {
        let words = ["--escrow", &escrow, "--key-file", key, "--from", from, "--to", to];
        elsewhere.run(&[&["unveil"][..], &words].concat())
    };
    let other = elsewhere.path("key").display().to_string();
    let plain = fresh(&pair, "plain");
    unveil(&other, &images, &plain).expect(1, &["needs key"]);
    assert!(!Path::new(&plain).exists());
    let done = unveil(&key, &images, &plain);
    done.expect(0, &[]);
    assert_same(&Path::new(&plain).join("data"), &pair.source_image("data"));
    unveil(&key, &images, &plain).expect(3, &["is there already"]);

    // Images of another kind.
    let note = Path::new(&images).join("veiled.json");
    let said = fs::read_to_string(&note).unwrap();
    let id = pair.source.group()["veil"]["key"].as_str().unwrap().to_owned();
    fs::write(&note, said.replace(&id, "0102030405060708")).unwrap();
    unveil(&key, &images, &fresh(&pair, "two")).expect(3, &["the escrow holds key"]);
    fs::remove_file(&note).unwrap();
    let ran = unveil(&key, &images, &fresh(&pair, "two"));
    assert!(ran.code == 0 && ran.out.contains("nothing tells"), "{ran:?}");
    let image = fs::File::options().write(true).open(Path::new(&images).join("data")).unwrap();
    image.set_len(MIB).unwrap();
    unveil(&key, &images, &fresh(&pair, "three")).expect(3, &["when the escrow was made"]);
    fs::remove_file(Path::new(&images).join("data")).unwrap();
    unveil(&key, &images, &fresh(&pair, "three")).expect(1, &["find the image"]);
    assert!(!Path::new(&fresh(&pair, "three")).exists());
    let mut bytes = fs::read(&escrow).unwrap();
    bytes[100] ^= 1;
    fs::write(&escrow, bytes).unwrap();
    unveil(&key, &images, &fresh(&pair, "three")).expect(1, &["cannot be used"]);
}

/// Goal: an escrow that was made before a volume grew still reads all of it.
#[test]
fn an_escrow_outlives_the_growth_of_volumes() {
    let pair = Pair::unpaired(&[("data", 2 * MIB + 512)], &[]);
    join_blind(&pair);
    pair.source.wait("in-sync");
    let escrow = fresh(&pair, "escrow");
    pair.source.ok(&["key", "escrow", "g", "--to", &escrow]);
    let image = fs::File::options().write(true).open(pair.source_image("data")).unwrap();
    image.set_len(3 * MIB).unwrap();
    let grown = |group: &Value| group["volumes"][0]["bytes"] == 3 * MIB;
    pair.source.until("grown", grown);
    pair.replica.until("grown", grown);
    pair.source.wait("in-sync");
    pair.open("data").write(2 * MIB, &secret(1024)).unwrap();
    pair.source.wait("applied");
    pair.source.ok(&["snapshot", "create", "g", "large"]);
    let (images, plain) = (fresh(&pair, "images"), fresh(&pair, "plain"));
    pair.replica.ok(&["snapshot", "export", "g@large", "--to", &images]);
    let key = pair.source.path("key").display().to_string();
    let words = ["--escrow", &escrow, "--key-file", &key, "--from", &images, "--to", &plain];
    let done = pair.replica.json(&[&["unveil"][..], &words].concat());
    assert_eq!(done["notes"][0], "data has grown since the escrow was made");
    assert_same(&Path::new(&plain).join("data"), &pair.source_image("data"));
    assert_eq!(shown_there(&pair), None);
}
