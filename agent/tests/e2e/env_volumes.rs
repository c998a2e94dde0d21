//! Environments outside of the agent's home: image files, AIX disks, LVs.

use std::path::{Path, PathBuf};

use super::common::{Agent, Nbd, noise, until};
use super::environments::{
    assert_nothing_is_left, environments, names_in, place, waiting, with_snapshots,
};

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
    agent.run(&quota).expect(2, &["--quota"]);
    // What is replicated takes no copies, also not by another way to it.
    let (live, text) = place(agent, "live");
    std::fs::create_dir(&live).unwrap();
    std::fs::write(live.join("lv"), noise(9, 64 << 10)).unwrap();
    agent.ok(&["group", "add", "own", "--volumes", &format!("images:{text}")]);
    std::os::unix::fs::symlink(&live, agent.path("link")).unwrap();
    let way = agent.path("link/new").display().to_string();
    for spec in [format!("images:{way}"), format!("aix-disks:{text}")] {
        let create = ["env", "create", "q", "--from", "g@s", "--to-volumes", &spec];
        agent.run(&create).expect(3, &["group own", "no group replicates"]);
    }
    let export = ["env", "create", "q", "--from", "g@s", "--to-dir", &way];
    agent.run(&export).expect(3, &["group own"]);
    assert_eq!(names_in(&live), ["lv"]);
    agent.ok(&["group", "remove", "own", "--force"]);
    let own = ["env", "create", "q", "--from", "g@s", "--to-dir", "x", "--owner", "me"];
    agent.run(&own).expect(2, &["--owner"]);
    assert_eq!(names_in(&agent.path("environments")), ["e"]);
    std::fs::write(folder.join("h/mine"), "x").unwrap();
    // Another file where one of it was is another's.
    std::fs::remove_file(folder.join("h/log")).unwrap();
    std::fs::write(folder.join("h/log"), "x").unwrap();
    agent.ok(&["env", "destroy", "e"]);
    assert_eq!(
        (names_in(&folder), names_in(&folder.join("h"))),
        (vec!["h".into()], vec!["log".into(), "mine".into()])
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
    // Mount points are renamed by the script that imports them, where there are any.
    let script = std::fs::read_to_string(agent.path("one").join("clonevg-import.sh")).unwrap();
    assert!(script.contains("vg=${VG:-clonevg}") && script.contains("importvg -y"), "{script}");
    let (third, text) = place(agent, "three");
    let spec = format!("aix-disks:{text}");
    let create = ["env", "create", "three", "--to-volumes", &spec, "--rename", "mount:/d*=/c/d*"];
    agent.run(&[&create[..], &["--from", "g@s"]].concat()).expect(3, &["control block"]);
    assert!(!third.exists());
    pair.open("data").write(0, &[&b"AIX LVCB"[..], &[0; 504]].concat()).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "mounted"]);
    agent.ok(&[&create[..], &["--from", "g@mounted"]].concat());
    let script = std::fs::read_to_string(third.join("g-import.sh")).unwrap();
    assert!(script.contains("recreatevg -y") && script.contains("echo \"/c/d${it}\""), "{script}");
    agent.ok(&["env", "destroy", "three"]);
    assert!(!third.exists());
    for name in ["one", "two"] {
        agent.ok(&["env", "destroy", name]);
        assert!(!agent.path(name).exists());
    }
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
            r#"uuid=$(cat ../lvm2-uuid 2>/dev/null || echo u)
echo "{\"report\":[{\"vg\":[{\"vg_name\":\"$V\",\"vg_uuid\":\"$uuid\",\"vg_extent_size\":\"4194304\"}]}]}""#,
        );
        script(
            "lvs",
            r#"printf '{"report":[{"lv":['; comma=
for lv in *; do test -f "$lv" || continue
  printf '%s{"vg_name":"%s","lv_name":"%s","lv_uuid":"u-%s","lv_attr":"-wi-a-----","lv_size":"4194304","origin":"%s","segtype":"linear","seg_count":"1","lv_tags":"%s"}' \
    "$comma" $V $lv $lv "$(cat ../lvm2-origin-of-$lv 2>/dev/null)" "$(cat $lv)"; comma=,
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

    // LVM2 would remove a snapshot of it with it.
    let create = [&one[..], &["--rename", "lv:*=c_*"]].concat();
    agent.ok(&create);
    std::fs::write(fake.state.join("snap"), "").unwrap();
    std::fs::write(agent.path("lvm2-origin-of-snap"), "c_data").unwrap();
    agent.run(&["env", "destroy", "e"]).expect(3, &["snapshot snap", "lvremove"]);
    assert_eq!(names_in(&fake.state), ["c_data", "old", "snap"]);
    std::fs::remove_file(fake.state.join("snap")).unwrap();
    agent.ok(&["env", "destroy", "e"]);

    // One whose VG is gone, though another has its name, can be given up.
    agent.ok(&create);
    std::fs::write(agent.path("lvm2-uuid"), "other").unwrap();
    agent.run(&["env", "destroy", "e"]).expect(3, &["is gone", "--forget-volumes"]);
    let shown = agent.json(&["env", "show", "e"]);
    assert_eq!(shown["state"], "ending");
    assert!(shown["reason"].as_str().unwrap().contains("--forget-volumes"), "{shown}");
    agent.ok(&["env", "destroy", "e", "--forget-volumes"]);
    assert!(environments(agent).is_empty());
    assert_eq!(names_in(&fake.state), ["c_data", "old"]);
    std::fs::remove_file(agent.path("lvm2-uuid")).unwrap();
    std::fs::remove_file(fake.state.join("c_data")).unwrap();
    std::fs::remove_file(&device).unwrap();

    // Its end goes on after a crash, without another teardown.
    let torn = agent.path("torn");
    let teardown = format!("echo down >> {}", torn.display());
    agent.ok(&[&one[..], &["--rename", "lv:*=c_*", "--teardown", &teardown]].concat());
    let busy = agent.path("lvm2-busy");
    std::fs::write(&busy, "").unwrap();
    agent.run(&["env", "destroy", "e"]).expect(1, &["in use"]);
    assert_eq!(environments(agent)[0]["state"], "ending");
    agent.run(&["env", "extend", "e", "--lease", "1h"]).expect(3, &["being destroyed"]);
    pair.replica.kill();
    std::fs::remove_file(&busy).unwrap();
    pair.replica.start();
    until("its end is done", || environments(&pair.replica).is_empty());
    until("it is gone", || names_in(&fake.state) == ["old"]);
    assert_eq!(std::fs::read_to_string(torn).unwrap(), "down\n");

    // What is half made goes at the next start; if it is in use then, when its name is wanted.
    let (started, create) =
        (pair.replica.path("started"), [&one[..], &["--rename", "lv:*=c_*"]].concat());
    let wait = waiting(&started);
    for in_use in [false, true] {
        let begun = pair.replica.begin(&[&create[..], &["--step", &wait]].concat());
        until("a step runs", || started.exists());
        assert_eq!(names_in(&fake.state), ["c_data", "old"]);
        pair.replica.kill();
        begun.end();
        std::fs::remove_file(&started).unwrap();
        if in_use {
            std::fs::write(&busy, "").unwrap();
        }
        pair.replica.start();
        assert_eq!(environments(&pair.replica).len(), 0);
        if in_use {
            pair.replica.run(&create).expect(1, &["in use"]);
            std::fs::remove_file(&busy).unwrap();
            pair.replica.ok(&create);
            pair.replica.ok(&["env", "destroy", "e"]);
        }
        assert_eq!(names_in(&fake.state), ["old"]);
        assert!(!device.exists());
    }
    assert_nothing_is_left(&pair.replica);
}
