//! Environments of several groups, with steps, outside of the agent's home, renamed, and killed
//! while they are made.

use std::path::{Path, PathBuf};

use super::common::{Agent, MIB, Nbd, Pair, noise, until};

/// A pair whose replica also follows a group `h` with an LV `data` and one `log`.
fn two_groups() -> Pair {
    let pair = Pair::new(&[("data", 2 * MIB)], &[]);
    let images = pair.place.path().join("h-images");
    std::fs::create_dir(&images).unwrap();
    std::fs::write(images.join("data"), noise(50, MIB)).unwrap();
    std::fs::write(images.join("log"), noise(51, 64 << 10)).unwrap();
    let spec = format!("images:{}", images.display());
    pair.source.ok(&["group", "add", "h", "--volumes", &spec]);
    let made = pair.source.json(&["pair", "invite", "--group", "h", "--role", "replica"]);
    let there = format!("images:{}", pair.place.path().join("h-replica").display());
    pair.replica.ok(&["pair", "join", made["token"].as_str().unwrap(), "--volumes", &there]);
    pair.source.ok(&["wait", "h", "--for", "in-sync", "--timeout", "60s"]);
    pair
}

/// The same with a snapshot `s` of each group.
fn with_snapshots() -> Pair {
    let pair = two_groups();
    pair.open("data").write(0, &noise(1, 2 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "s"]);
    pair.source.ok(&["snapshot", "create", "h", "s"]);
    pair
}

fn read(agent: &Agent, export: &str, len: u64) -> Vec<u8> {
    let mut nbd = Nbd::open_export(&agent.nbd_socket(), export).unwrap();
    nbd.read(0, usize::try_from(len).unwrap()).unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn environments(agent: &Agent) -> Vec<serde_json::Value> {
    agent.json(&["env", "list"])["environments"].as_array().unwrap().clone()
}

/// Fails unless nothing of any environment is left, and its snapshots can go.
#[track_caller]
fn assert_nothing_is_left(agent: &Agent) {
    assert_eq!(environments(agent).len(), 0);
    assert_eq!(names_in(&agent.path("environments")), Vec::<String>::new());
    for group in ["g", "h"] {
        agent.ok(&["snapshot", "delete", &format!("{group}@s")]);
    }
}

/// Goal: one environment has the LVs of several groups, each at its point, and is made whole or
/// not at all; a template is a point like any other.
#[test]
fn an_environment_of_several_groups_is_one() {
    let mut pair = with_snapshots();
    let agent = &pair.replica;
    agent.ok(&["template", "create", "t", "--from", "h@s"]);
    let base = std::fs::read(pair.source_image("data")).unwrap();
    let both = ["--from", "g@s", "--from", "h@s", "--nbd"];
    let made = agent.json(&[&["env", "create", "e"][..], &both].concat());
    let exports = ["env/e/g/data", "env/e/h/data", "env/e/h/log"];
    assert_eq!(made["exports"], serde_json::json!(exports));
    assert_eq!(
        (&made["parts"][0]["group"], &made["parts"][1]["group"]),
        (&"g".into(), &"h".into())
    );
    assert!(read(agent, exports[0], 2 * MIB) == base);
    assert!(read(agent, exports[1], MIB) == noise(50, MIB));
    let mixed = ["--from", "g@s", "--from", "t", "--nbd", "--rename", "lv:*=c_*"];
    let made = agent.json(&[&["env", "create", "m"][..], &mixed].concat());
    assert_eq!(made["exports"][2], "env/m/h/c_log");
    assert!(read(agent, "env/m/h/c_log", 64 << 10) == noise(51, 64 << 10));
    let mut nbd = Nbd::open_export(&agent.nbd_socket(), "env/m/h/c_log").unwrap();
    nbd.write(0, &noise(7, 4096)).unwrap();
    nbd.flush().unwrap();
    drop(nbd);

    // All or nothing: the second point is not there, or of the same group.
    let create = ["env", "create", "x", "--nbd", "--from", "g@s", "--from"];
    agent.run(&[&create[..], &["h@none"]].concat()).expect(3, &["none"]);
    agent.run(&[&create[..], &["g@s"]].concat()).expect(3, &["of group g"]);
    let rename = ["h@s", "--rename", "lv:*=same"];
    agent.run(&[&create[..], &rename].concat()).expect(3, &["two LVs", "--rename"]);
    agent
        .run(&[&create[..], &["h@s", "--rename", "lv:none=x"]].concat())
        .expect(3, &["no LV fits"]);
    agent
        .run(&[&create[..], &["h@s", "--rename", "mount:/a=/b"]].concat())
        .expect(2, &["recreatevg"]);
    assert_eq!(names_in(&agent.path("environments")), ["e", "m"]);

    // It outlives the agent, under the same names.
    pair.replica.kill();
    pair.replica.start();
    let agent = &pair.replica;
    assert!(read(agent, exports[1], MIB) == noise(50, MIB));
    assert!(read(agent, "env/m/h/c_log", 4096) == noise(7, 4096));
    agent.run(&["snapshot", "delete", "h@s"]).expect(3, &["environment e"]);
    agent.run(&["group", "remove", "h"]).expect(3, &["environments build on group h"]);
    agent.ok(&["env", "destroy", "e"]);
    agent.ok(&["env", "destroy", "m"]);
    assert_nothing_is_left(agent);
}

/// Goal: the facts of an environment that an earlier version made are read.
#[test]
fn an_environment_of_an_earlier_version_is_opened() {
    let mut pair = with_snapshots();
    pair.replica.ok(&["env", "create", "e", "--from", "g@s", "--nbd"]);
    pair.replica.stop();
    let path = pair.replica.path("environments/e/environment.json");
    let facts = std::fs::read(&path).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let part = &facts["parts"][0];
    let old = serde_json::json!({
        "version": 1, "name": "e", "group": "g", "base": part["base"], "seq": part["seq"],
        "clock": part["clock"], "owner": null, "created": facts["created"], "expires": null,
        "quota": null,
    });
    std::fs::write(&path, old.to_string()).unwrap();
    pair.replica.start();
    let base = std::fs::read(pair.source_image("data")).unwrap();
    assert!(read(&pair.replica, "env/e/g/data", 2 * MIB) == base);
    pair.replica.ok(&["env", "extend", "e", "--lease", "1h"]);
    pair.replica.ok(&["env", "destroy", "e"]);
    assert_nothing_is_left(&pair.replica);
}

/// Goal: steps run in order on what nobody else sees, and their first failure is its end.
#[test]
fn an_environment_is_handed_out_when_all_its_steps_are_done() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let seen = agent.path("seen");
    let write = format!(
        "set -e; export=$(echo \"$VGSHIP_VOLUMES\" | sed -n 's/^h log //p')\n\
         qemu-io -f raw -c 'write -P 42 0 4k' -c flush \
         \"nbd+unix:///$export?socket=$VGSHIP_NBD_SOCKET\"\n\
         nbdinfo --list --json \"nbd+unix:///?socket=$VGSHIP_NBD_SOCKET\" > {} || true",
        seen.display()
    );
    let check = "test -d \"$VGSHIP_FOLDER\" && echo all is well with $VGSHIP_ENV";
    let both = ["--from", "g@s", "--from", "h@s", "--nbd"];
    let steps = ["--step", &write, "--step", check];
    let last = agent.path("last");
    let bye = format!("echo \"$VGSHIP_EXPORTS\" > {}; exit 4", last.display());
    let create = [&["env", "create", "e"][..], &both, &steps, &["--teardown", &bye]].concat();
    let made = agent.json(&create);
    assert_eq!(made["steps"].as_array().unwrap().len(), 2, "{made}");
    assert_eq!(made["steps"][1]["ended"], "exit status: 0");
    let hidden = std::fs::read_to_string(seen).unwrap();
    assert!(!hidden.contains("mask-") && !hidden.contains("env/e"), "{hidden}");
    assert!(read(agent, "env/e/h/log", 4096) == [42; 4096]);
    assert!(agent.ok(&["env", "log", "e"]).contains("all is well with e"));
    let shown = agent.ok(&["env", "show", "e"]);
    assert!(shown.contains("ready") && shown.contains("exit status: 0"), "{shown}");
    agent.run(&["env", "show", "none"]).expect(3, &["no environment none"]);

    // What fails is not handed out.
    let fails = ["--step", "echo one", "--step", "echo no such table; exit 3", "--step", "echo 3"];
    let create = [&["env", "create", "f"][..], &both, &fails].concat();
    agent.run(&create).expect(1, &["step 2", "no such table", "--keep-failed"]);
    assert_eq!(names_in(&agent.path("environments")), ["e"]);
    agent
        .run(&[&create[..], &["--keep-failed"]].concat())
        .expect(1, &["no such table", "env log f"]);
    let failed = agent.json(&["env", "show", "f"]);
    assert_eq!(
        (failed["state"].as_str(), failed["exports"].as_array().unwrap().len()),
        (Some("failed"), 0)
    );
    assert_eq!(failed["steps"].as_array().unwrap().len(), 2, "the third did not run");
    assert!(Nbd::open_export(&agent.nbd_socket(), "env/f/g/data").is_err());
    let log = agent.ok(&["env", "log", "f"]);
    assert!(log.contains("one") && log.contains("exit status: 3"), "{log}");
    let slow = ["--step", "sleep 600", "--step-timeout", "100ms"];
    agent.run(&[&["env", "create", "s"][..], &both, &slow].concat()).expect(1, &["too long"]);

    // The teardown sees it as it was, and cannot hold it up.
    let done = agent.ok(&["env", "destroy", "e"]);
    assert!(done.contains("destroyed, but the teardown") && done.contains("status: 4"), "{done}");
    let last = std::fs::read_to_string(last).unwrap();
    assert_eq!(last, "data env/e/g/data\ndata env/e/h/data\nlog env/e/h/log\n");
    agent.ok(&["env", "destroy", "f"]);
    let over = agent.path("over");
    let bye = format!("touch {}", over.display());
    let leased = ["--teardown", &bye, "--lease", "100ms"];
    agent.ok(&[&["env", "create", "l"][..], &both, &leased].concat());
    until("the lease is over", || environments(agent).is_empty());
    assert!(over.exists());
    until("all of it is gone", || names_in(&agent.path("environments")).is_empty());
    assert_nothing_is_left(agent);
}

fn place(agent: &Agent, name: &str) -> (PathBuf, String) {
    let folder = agent.path(name);
    let text = folder.display().to_string();
    (folder, text)
}

/// Goal: image files that belong to an environment go with it, and only they.
#[test]
fn images_of_an_environment_go_with_it() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let base = std::fs::read(pair.source_image("data")).unwrap();
    let (folder, text) = place(agent, "out/of/here");
    let spec = format!("images:{text}");
    let see = "set -e; echo \"$VGSHIP_VOLUMES\" | while read group lv path; do test -s $path; done";
    let to = ["--to-volumes", &spec, "--rename", "lv:data=c_data", "--step", see];
    let both = ["--from", "g@s", "--from", "h@s"];
    let made = agent.json(&[&["env", "create", "e"][..], &both, &to].concat());
    assert_eq!(made["volumes"][0]["place"], folder.join("g/c_data").display().to_string());
    assert!(std::fs::read(folder.join("g/c_data")).unwrap() == base);
    assert!(std::fs::read(folder.join("h/log")).unwrap() == noise(51, 64 << 10));
    // It needs its snapshots no more, and its folder is taken.
    agent.run(&[&["env", "create", "f"][..], &both, &to].concat()).expect(3, &["not empty"]);
    let quota = [&["env", "create", "q"][..], &both, &to, &["--quota", "1MiB"]].concat();
    agent.run(&quota).expect(2, &["--nbd"]);
    assert_eq!(names_in(&agent.path("environments")), ["e"]);
    std::fs::write(folder.join("h/mine"), "x").unwrap();
    agent.ok(&["env", "destroy", "e"]);
    assert_eq!(
        (names_in(&folder), names_in(&folder.join("h"))),
        (vec!["h".into()], vec!["mine".into()])
    );
    assert_nothing_is_left(agent);
}

/// Goal: new AIX disks hold the point's LVs, as a VG of its own that the agent itself can serve.
#[test]
fn a_point_becomes_the_disks_of_a_new_aix_vg() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let base = std::fs::read(pair.source_image("data")).unwrap();
    let mut identities = Vec::new();
    for name in ["one", "two"] {
        let (folder, text) = place(agent, name);
        let spec = format!("aix-disks:{text}");
        let to = ["--to-volumes", &spec, "--vg", "clonevg", "--rename", "lv:*=c_*"];
        let made = agent.json(&[&["env", "create", name, "--from", "g@s"][..], &to].concat());
        let disk = folder.join("clonevg-1.img");
        assert_eq!(made["volumes"][0]["place"], disk.display().to_string());
        let blkid = std::process::Command::new("blkid").arg("-p").arg(&disk).output().unwrap();
        let told = String::from_utf8(blkid.stdout).unwrap();
        assert!(told.contains("PTTYPE=\"aix\""), "{told}");

        let spec = format!("aix-disks:{}", disk.display());
        let listed = agent.json(&["vg", "list", disk.to_str().unwrap()]).to_string();
        assert!(listed.contains("c_data"), "{listed}");
        pair.source.ok(&["group", "add", name, "--volumes", &spec]);
        let mut nbd =
            Nbd::open_export(&pair.source.nbd_socket(), &format!("{name}/c_data")).unwrap();
        assert!(nbd.read(0, 2 << 20).unwrap() == base, "{name}");
        drop(nbd);
        pair.source.ok(&["group", "remove", name, "--force"]);
        let bytes = std::fs::read(&disk).unwrap();
        identities.push((bytes[0x80..0x88].to_vec(), bytes[7 * 512 + 4..7 * 512 + 20].to_vec()));
    }
    assert!(identities[0].0 != identities[1].0 && identities[0].1 != identities[1].1);
    let (_, text) = place(agent, "one");
    let spec = format!("aix-disks:{text}");
    let again = ["env", "create", "x", "--from", "g@s", "--to-volumes", &spec, "--vg", "clonevg"];
    agent.run(&again).expect(3, &["there already"]);
    let long = ["--rename", "lv:*=much_too_long_*"];
    agent.run(&[&again[..], &long].concat()).expect(3, &["longer than 15"]);
    for name in ["one", "two"] {
        agent.ok(&["env", "destroy", name]);
        assert!(!agent.path(name).exists());
    }
    assert_nothing_is_left(agent);
}

/// A step that says that it runs, and ends when the agent does.
fn waiting(started: &Path) -> String {
    format!("touch {}; while kill -0 $PPID 2>/dev/null; do sleep 0.1; done", started.display())
}

/// Goal: whenever the agent is killed while it makes an environment, nothing stays, here or
/// outside, and it can be made then.
#[test]
fn an_agent_that_is_killed_leaves_no_half_made_environment() {
    let mut pair = with_snapshots();
    let (folder, text) = place(&pair.replica, "out/x");
    let spec = format!("images:{text}");
    for to in [&["--nbd"][..], &["--to-volumes", &spec]] {
        let started = pair.replica.path("started");
        let wait = waiting(&started);
        let create = [&["env", "create", "e", "--from", "g@s", "--from", "h@s"][..], to].concat();
        let begun = pair.replica.begin(&[&create[..], &["--step", &wait]].concat());
        until("a step runs", || started.exists());
        assert_eq!(names_in(&pair.replica.path("environments")), ["e"]);
        pair.replica.kill();
        assert_eq!(begun.end().code, 1);
        std::fs::remove_file(started).unwrap();
        pair.replica.start();
        assert_eq!(environments(&pair.replica).len(), 0);
        assert_eq!(names_in(&pair.replica.path("environments")), Vec::<String>::new());
        assert!(!folder.exists() && !pair.replica.path("out").exists());
        pair.replica.ok(&create);
        pair.replica.ok(&["env", "destroy", "e"]);
    }
    assert_nothing_is_left(&pair.replica);
}

/// Goal: several environments of one point, made at once, are whole and their own.
#[test]
fn several_environments_of_one_point_are_made_at_once() {
    let pair = with_snapshots();
    let agent = &pair.replica;
    let (folder, text) = place(agent, "disks");
    let spec = format!("aix-disks:{text}");
    std::fs::create_dir(&folder).unwrap();
    let begun: Vec<_> = (0..6)
        .map(|number| {
            let (name, vg) = (format!("e{number}"), format!("vg{}", number / 2));
            let to: &[&str] = match number % 2 {
                0 => &["--nbd"],
                _ => &["--to-volumes", &spec, "--vg", &vg],
            };
            agent.begin(&[&["env", "create", &name, "--from", "g@s"][..], to].concat())
        })
        .collect();
    for begun in begun {
        begun.end().expect(0, &[]);
    }
    let base = std::fs::read(pair.source_image("data")).unwrap();
    for number in 0..3 {
        assert!(read(agent, &format!("env/e{}/g/data", 2 * number), 2 * MIB) == base);
    }
    assert_eq!(names_in(&folder), ["vg0-1.img", "vg1-1.img", "vg2-1.img"]);
    // Two that want the same files: one gets them, the other leaves them alone.
    let create = |name| ["env", "create", name, "--from", "g@s", "--to-volumes", &spec];
    let two = [agent.begin(&create("x")), agent.begin(&create("y"))];
    let mut codes = two.map(|begun| begun.end().code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 3]);
    assert!(folder.join("g-1.img").exists());
    for env in environments(agent) {
        agent.ok(&["env", "destroy", env["name"].as_str().unwrap()]);
    }
    assert_eq!(names_in(&folder), Vec::<String>::new());
    assert_nothing_is_left(agent);
}

/// A VG of an LVM2 that is played by scripts: its devices are files.
struct FakeVg {
    vg: String,
    state: PathBuf,
}

impl FakeVg {
    fn new(agent: &mut Agent) -> FakeVg {
        let vg = format!("vgship-test-{}", std::process::id());
        let (state, programs) = (agent.path("lvm2"), agent.path("programs"));
        let devices = Path::new("/dev").join(&vg);
        for folder in [&state, &programs, &devices] {
            std::fs::create_dir(folder).unwrap();
        }
        let script = |name: &str, text: &str| {
            let path = programs.join(name);
            let head = format!("S={}; V={vg}; set -e; cd $S", state.display());
            std::fs::write(&path, format!("#!/bin/sh\n{head}\n{text}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        };
        script(
            "vgs",
            r#"echo "{\"report\":[{\"vg\":[{\"vg_name\":\"$V\",\"vg_uuid\":\"u\",\"vg_extent_size\":\"4194304\"}]}]}""#,
        );
        script(
            "lvs",
            r#"printf '{"report":[{"lv":['; comma=
for lv in *; do test -f "$lv" || continue
  printf '%s{"vg_name":"%s","lv_name":"%s","lv_uuid":"u-%s","lv_attr":"-wi-a-----","lv_size":"4194304","origin":"","segtype":"linear","seg_count":"1","lv_tags":"%s"}' \
    "$comma" $V $lv $lv "$(cat $lv)"; comma=,
done; echo ']}]}'"#,
        );
        script(
            "lvcreate",
            r#"echo "$*" >> ../lvm2-commands; test "$1 $2 $4 $6" = "--yes -n -L --addtag"
test ! -e $3; truncate -s ${5%b} /dev/$8/$3; head -c 100000 /dev/urandom | dd of=/dev/$8/$3 conv=notrunc status=none
echo $7 > $3"#,
        );
        script(
            "lvremove",
            r#"test ! -e ../lvm2-busy || { echo "Logical volume $2 in use." >&2; exit 5; }
echo "$*" >> ../lvm2-commands; rm /dev/$2 ${2#*/}"#,
        );
        std::fs::write(state.join("old"), "").unwrap();
        let path = std::env::var("PATH").unwrap();
        agent.set_env("PATH", &format!("{}:{path}", programs.display()));
        agent.stop();
        agent.start();
        FakeVg { vg, state }
    }
}

impl Drop for FakeVg {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new("/dev").join(&self.vg));
    }
}

/// Goal: new LVs of a VG that is there hold the point, whatever lay on their disks, and only they
/// are removed, also after a crash.
#[test]
fn a_point_becomes_new_lvs_of_a_vg() {
    let mut pair = with_snapshots();
    let base = std::fs::read(pair.source_image("data")).unwrap();
    let fake = FakeVg::new(&mut pair.replica);
    let agent = &pair.replica;
    let spec = format!("lvm2:{}", fake.vg);
    let from = ["--from", "g@s", "--from", "h@s", "--to-volumes", &spec];
    let create = [&["env", "create", "e"][..], &from].concat();
    agent.run(&create).expect(3, &["two LVs would be called data", "--rename"]);
    let one = ["env", "create", "e", "--from", "g@s", "--to-volumes", &spec];
    agent
        .run(&[&one[..], &["--rename", "lv:data=old"]].concat())
        .expect(3, &["old is there already"]);
    let made = agent.json(&[&one[..], &["--rename", "lv:*=c_*"]].concat());
    let device = Path::new("/dev").join(&fake.vg).join("c_data");
    assert_eq!(made["volumes"][0]["place"], device.display().to_string());
    let found = std::fs::read(&device).unwrap();
    assert!(found[..base.len()] == base && found[base.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(found.len(), 4 << 20, "rounded up to what the VG allocates");
    let typed = std::fs::read_to_string(agent.path("lvm2-commands")).unwrap();
    assert!(typed.starts_with("--yes -n c_data -L 4194304b --addtag vgship.env.e."), "{typed}");

    // One that is in use stays, and is listed until it can go.
    std::fs::write(agent.path("lvm2-busy"), "").unwrap();
    agent.run(&["env", "destroy", "e"]).expect(1, &["in use", "end what uses it"]);
    assert_eq!(environments(agent)[0]["name"], "e");
    std::fs::remove_file(agent.path("lvm2-busy")).unwrap();
    agent.ok(&["env", "destroy", "e"]);
    assert_eq!(names_in(&fake.state), ["old"]);

    let started = agent.path("started");
    let wait = waiting(&started);
    let begun = agent.begin(&[&one[..], &["--rename", "lv:*=c_*", "--step", &wait]].concat());
    until("a step runs", || started.exists());
    assert_eq!(names_in(&fake.state), ["c_data", "old"]);
    pair.replica.kill();
    begun.end();
    pair.replica.start();
    assert_eq!(names_in(&fake.state), ["old"]);
    assert!(!device.exists());
    assert_nothing_is_left(&pair.replica);
}
