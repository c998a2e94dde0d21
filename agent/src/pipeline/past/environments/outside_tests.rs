use super::*;

fn wanted(group: &str, names: &[&str]) -> Wanted {
    let volumes = names.iter().map(|name| (name.parse().unwrap(), 1 << 20)).collect();
    Wanted { group: group.parse().unwrap(), volumes }
}

fn planned(to: &VolumesSpec, vg: Option<&str>, wanted: &[Wanted]) -> Result<Plan, String> {
    plan(to, &"e".parse().unwrap(), vg, wanted, 1_000_001).map_err(|it| it.to_string())
}

fn paths(outside: &Outside) -> Vec<&Path> {
    outside.files.iter().map(|it| &*it.path).collect()
}

#[test]
fn what_was_made_is_removed_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let (folder, own) = (place.path().join("a/b"), place.path().join("own"));
    let to = VolumesSpec::Images(folder.clone());
    let both = || vec![wanted("g", &["x"]), wanted("h", &["x"])];
    std::fs::create_dir(&own).unwrap();
    let remove = || Outside::load(&own).unwrap().unwrap().remove(false).unwrap();
    // A crash at any moment is cleared by the list that was stored last.
    for crash in 0..5 {
        let mut outside = planned(&to, None, &both()).unwrap().outside;
        assert_eq!(paths(&outside), [folder.join("g/x"), folder.join("h/x")]);
        outside.store(&own).unwrap();
        if crash > 0 {
            outside.make_folders().unwrap();
            outside.store(&own).unwrap();
        }
        if crash > 1 {
            outside.make_files(|_| 0o600).unwrap();
        }
        if crash > 2 {
            outside.store(&own).unwrap();
            // Of the first only.
            std::fs::hard_link(&outside.files[0].fresh, folder.join("g/x")).unwrap();
        }
        if crash > 3 {
            std::fs::remove_file(folder.join("g/x")).unwrap();
            outside.name_files().unwrap();
            assert!(planned(&to, None, &both()).map(drop).unwrap_err().contains("not empty"));
        }
        remove();
        assert!(!place.path().join("a").exists(), "{crash}");
    }
    assert_eq!(Outside::load(&folder).unwrap(), None);
}

#[test]
fn what_others_put_in_its_place_stays() {
    let place = tempfile::tempdir().unwrap();
    let (folder, own) = (place.path().join("a/b"), place.path().join("own"));
    let to = VolumesSpec::Images(folder.clone());
    std::fs::create_dir(&own).unwrap();
    // What was there before anything was made: the list alone removes nothing.
    let plan = planned(&to, None, &[wanted("g", &["x"])]).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("x"), "theirs").unwrap();
    assert!(plan.make(&own).is_err());
    Outside::load(&own).unwrap().unwrap().remove(false).unwrap();
    assert_eq!(std::fs::read(folder.join("x")).unwrap(), b"theirs");
    // A name that is taken at the last moment is not replaced, nor removed then.
    std::fs::remove_file(folder.join("x")).unwrap();
    let mut outside = planned(&to, None, &[wanted("g", &["x"])]).unwrap().outside;
    outside.make_files(|_| 0o600).unwrap();
    std::fs::write(folder.join("x"), "theirs").unwrap();
    assert!(outside.name_files().is_err());
    outside.remove(false).unwrap();
    assert_eq!(std::fs::read(folder.join("x")).unwrap(), b"theirs");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    // Another file, or folder, of the same name.
    std::fs::remove_file(folder.join("x")).unwrap();
    let deep = VolumesSpec::Images(folder.join("c"));
    let made = planned(&deep, None, &[wanted("g", &["x"])]).unwrap().make(&own).unwrap();
    std::fs::rename(folder.join("c"), folder.join("moved")).unwrap();
    std::fs::create_dir(folder.join("c")).unwrap();
    std::fs::write(folder.join("c/x"), "theirs").unwrap();
    std::fs::write(folder.join("moved/y"), "theirs").unwrap();
    made.outside.remove(false).unwrap();
    assert!(folder.join("c/x").exists() && folder.join("moved/x").exists());
    std::fs::remove_file(folder.join("c/x")).unwrap();
    made.outside.remove(false).unwrap();
    assert!(folder.join("c").exists(), "an empty folder of others stays, too");
}

#[test]
fn what_cannot_be_planned_says_why() {
    let place = tempfile::tempdir().unwrap();
    let disks = VolumesSpec::AixDisks(vec![place.path().to_owned()]);
    let images = VolumesSpec::Images(place.path().join("x"));
    let one = || vec![wanted("g", &["x"])];
    let error =
        |to: &VolumesSpec, vg, wanted: Vec<Wanted>| planned(to, vg, &wanted).map(drop).unwrap_err();
    assert!(error(&images, Some("vg"), one()).contains("--vg"));
    let two = vec![wanted("g", &["x"]), wanted("h", &["y"])];
    assert!(error(&disks, Some("vg"), two).contains("--vg"));
    assert!(error(&disks, Some("rootvg"), one()).contains("never replicates a rootvg"));
    let folders = vec![place.path().to_owned(), place.path().join("y")];
    assert!(error(&VolumesSpec::AixDisks(folders), None, one()).contains("one folder"));
    let relative = VolumesSpec::Images(PathBuf::from("x"));
    assert!(error(&relative, None, one()).contains("begin with '/'"));
    let same = vec![wanted("g", &["x"]), wanted("h", &["x"])];
    let lvm2 = VolumesSpec::Lvm2("datavg".to_owned());
    assert!(error(&lvm2, None, same).contains("two LVs would be called x"));
    assert!(error(&VolumesSpec::Aix("v".to_owned()), None, one()).contains("aix:VG"));
}

#[test]
fn the_text_of_the_list_does_not_change() {
    let text = concat!(
        r#"{"version":2,"spec":"lvm2:vg","files":[{"path":"/a/x","fresh":"/a/.vgship-7","#,
        r#""identity":"inode-7-made-9"}],"folders":[{"path":"/a","identity":null}],"#,
        r#""lvm2":{"vg":"vg","uuid":"u","tag":"t"},"volumes":[{"group":"g","lv":"x","#,
        r#""place":"/dev/vg/x","bytes":512}]}"#
    );
    let outside: Outside = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&outside).unwrap(), text);
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join(OUTSIDE), text.replace(":2,", ":3,")).unwrap();
    let error = Outside::load(place.path()).unwrap_err().to_string();
    assert!(error.contains("version 3"), "{error}");
}
