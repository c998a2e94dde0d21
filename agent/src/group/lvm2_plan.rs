//! What is done with each LV of an LVM2 VG, and what a replica's VG lacks.

use vgship_base::ids::Name;
use vgship_base::layout::Layout;

use super::error::VolumeProblem;
use super::images::size_problem;
use super::lvm2::{
    Command, Lvm2Lv, Lvm2Tagged, lvcreate_command, lvcreate_tagged_command, lvextend_command,
    lvremove_command,
};

/// What is done with an LV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lvm2Use {
    /// It is a volume of the group.
    Served(Name),
    /// It is no volume by its nature: why.
    NoVolume(String),
    /// It is a volume, but cannot be served as it is: why, and what to do.
    Unfit(String),
}

impl Lvm2Lv {
    /// Whether something has it open: a mounted file system, or an agent.
    pub fn is_open(&self) -> bool {
        self.attr.chars().nth(5) == Some('o')
    }

    /// What is done with this LV.
    pub fn usage(&self) -> Lvm2Use {
        let letter = |at: usize| self.attr.chars().nth(at).unwrap_or('-');
        let kind = letter(0);
        let no_volume = |why: &str| Lvm2Use::NoVolume(why.to_owned());
        if self.name.starts_with('[') {
            return no_volume("it is internal to LVM");
        }
        if matches!(kind, 's' | 'S') || (kind == 'V' && !self.origin.is_empty()) {
            return Lvm2Use::NoVolume(format!("it is a snapshot of {}", self.origin));
        }
        match kind {
            't' | 'd' => return no_volume("it is a pool; the LVs in it are served"),
            'C' if self.segtype.ends_with("-pool") => {
                return no_volume("it is a cache pool; the LVs that it caches are served");
            }
            'T' | 'D' | 'e' | 'i' | 'I' | 'l' | 'p' => return no_volume("it is internal to LVM"),
            _ => {}
        }
        let unfit = |why: String| Lvm2Use::Unfit(why);
        if letter(1) == 'r' || letter(1) == 'R' {
            unfit("is read-only; make it writable with lvchange -prw".to_owned())
        } else if !matches!(letter(4), 'a' | 'X') {
            unfit(format!("is not active; activate it with lvchange -ay {}/{}", self.vg, self.name))
        } else {
            match self.name.parse() {
                Ok(name) => Lvm2Use::Served(name),
                Err(_) => unfit("has a name with letters that vgship does not take".to_owned()),
            }
        }
    }
}

/// The commands that make what a replica's VG lacks of the layout, or which of its LVs do not fit.
///
/// Unit: `extent_bytes`, bytes.
pub fn missing(
    lvs: &[Lvm2Lv],
    vg: &str,
    extent_bytes: u64,
    layout: &Layout,
    create: bool,
) -> Result<Vec<Command>, Vec<VolumeProblem>> {
    let (mut commands, mut problems) = (Vec::new(), Vec::new());
    for wanted in &layout.volumes {
        let name = wanted.name.as_str();
        let mut problem = |why: String| problems.push(VolumeProblem::new(name, why));
        match lvs.iter().find(|lv| lv.name == name).map(|lv| (lv, lv.usage())) {
            Some((lv, Lvm2Use::Served(_))) => {
                problems.extend(size_problem(name, lv.bytes, wanted.bytes, create));
            }
            Some((_, Lvm2Use::NoVolume(why))) => problem(format!("cannot be written: {why}")),
            Some((_, Lvm2Use::Unfit(why))) => problem(why),
            None if !fits(wanted.bytes, extent_bytes) => {
                problem(no_multiple(wanted.bytes, vg, extent_bytes));
            }
            None if create => commands.push(lvcreate_command(vg, &wanted.name, wanted.bytes)),
            None => {
                let command = lvcreate_command(vg, &wanted.name, wanted.bytes).join(" ");
                problem(format!("is missing; make it with: {command}"));
            }
        }
    }
    if problems.is_empty() { Ok(commands) } else { Err(problems) }
}

/// The commands that make a replica's LVs as large as the layout says, or why that cannot be.
/// Sizes that LVM2 would round up are refused here as they are in [`missing`].
///
/// Unit: `extent_bytes`, bytes.
pub fn to_grow(
    lvs: &[Lvm2Lv],
    vg: &str,
    extent_bytes: u64,
    layout: &Layout,
) -> Result<Vec<Command>, Vec<VolumeProblem>> {
    let (mut commands, mut problems) = (Vec::new(), Vec::new());
    for wanted in &layout.volumes {
        let (name, bytes) = (wanted.name.as_str(), wanted.bytes);
        let mut problem = |why: String| problems.push(VolumeProblem::new(name, why));
        match lvs.iter().find(|lv| lv.name == name).map(|lv| (lv.bytes, lv.usage())) {
            Some((found, Lvm2Use::Served(_))) if found >= bytes => {}
            Some((_, Lvm2Use::Served(_))) if !fits(bytes, extent_bytes) => {
                problem(no_multiple(bytes, vg, extent_bytes));
            }
            Some((_, Lvm2Use::Served(name))) => commands.push(lvextend_command(vg, &name, bytes)),
            Some((_, Lvm2Use::NoVolume(why))) => problem(format!("cannot be written: {why}")),
            Some((_, Lvm2Use::Unfit(why))) => problem(why),
            None => problem("is missing".to_owned()),
        }
    }
    if problems.is_empty() { Ok(commands) } else { Err(problems) }
}

/// The commands that make new LVs of these names and sizes, or which names are taken. A size that
/// the VG does not allocate is rounded up.
///
/// Unit: `extent_bytes` and sizes, bytes.
pub fn to_clone(
    lvs: &[Lvm2Lv],
    vg: &str,
    extent_bytes: u64,
    wanted: &[(Name, u64)],
    tag: &str,
) -> Result<Vec<Command>, Vec<VolumeProblem>> {
    let taken = wanted.iter().filter(|(name, _)| lvs.iter().any(|lv| lv.name == name.as_str()));
    let why = "is there already; choose other names with --rename";
    let problems: Vec<_> = taken.map(|(name, _)| VolumeProblem::new(name, why)).collect();
    let command = |(name, bytes): &(Name, u64)| {
        lvcreate_tagged_command(vg, name, bytes.next_multiple_of(extent_bytes.max(1)), tag)
    };
    if problems.is_empty() { Ok(wanted.iter().map(command).collect()) } else { Err(problems) }
}

/// The commands that remove what has the tag. LVM2 would remove its snapshots with it, and those
/// that have no tag are others'.
pub fn to_remove(lvs: &[Lvm2Tagged], vg: &str) -> Result<Vec<Command>, Vec<VolumeProblem>> {
    let tagged = |name: &str| lvs.iter().any(|lv| lv.has_tag && lv.name == name);
    let others = lvs.iter().filter(|lv| !lv.has_tag && tagged(&lv.origin));
    let problem = |lv: &Lvm2Tagged| {
        let name = &lv.name;
        let why = format!(
            "has a snapshot {name} that would go with it; remove that first: lvremove {vg}/{name}"
        );
        VolumeProblem::new(&lv.origin, why)
    };
    match others.map(problem).collect::<Vec<_>>() {
        problems if problems.is_empty() => {
            let tagged = lvs.iter().filter(|lv| lv.has_tag);
            Ok(tagged.map(|lv| lvremove_command(vg, &lv.name)).collect())
        }
        problems => Err(problems),
    }
}

const fn fits(bytes: u64, extent_bytes: u64) -> bool {
    extent_bytes == 0 || bytes.is_multiple_of(extent_bytes)
}

fn no_multiple(bytes: u64, vg: &str, extent_bytes: u64) -> String {
    format!(
        "has {bytes} bytes at its source, which is no multiple of the {extent_bytes} that {vg} \
         allocates by; make a VG with a smaller extent (vgcreate -s)"
    )
}

#[cfg(test)]
mod tests {
    use vgship_base::extent::ExtentSize;
    use vgship_base::layout::VolumeLayout;

    use super::super::lvm2::parse_lvs;
    use super::*;

    const LVS: &[u8] = include_bytes!("fixtures/lvm2/lvs.json");

    #[test]
    fn an_lv_with_a_snapshot_of_others_is_not_removed() {
        let lv = |name: &str, origin: &str, has_tag| Lvm2Tagged {
            name: name.to_owned(),
            origin: origin.to_owned(),
            has_tag,
        };
        let mut lvs = vec![lv("a", "", true), lv("mine", "theirs", false), lv("b", "a", true)];
        let commands = to_remove(&lvs, "vg").unwrap();
        let typed: Vec<_> = commands.iter().map(|command| command.join(" ")).collect();
        assert_eq!(typed, ["lvremove --yes vg/a", "lvremove --yes vg/b"]);
        lvs.push(lv("snap", "a", false));
        let problems = to_remove(&lvs, "vg").unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.to_string().starts_with("a has a snapshot snap"), "{problem}");
    }

    #[test]
    fn only_volumes_are_served_and_each_other_lv_says_why_not() {
        let lvs = parse_lvs(LVS).unwrap();
        let usage = |name: &str| lvs.iter().find(|lv| lv.name == name).unwrap().usage();
        for name in ["dbdatalv", "dbloglv", "thinlv", "root"] {
            assert_eq!(usage(name), Lvm2Use::Served(name.parse().unwrap()));
        }
        let why_not = |name| match usage(name) {
            Lvm2Use::NoVolume(why) => why,
            other => panic!("{name}: {other:?}"),
        };
        assert!(why_not("dbdatasnap").contains("snapshot of dbdatalv"));
        assert!(why_not("thinsnap").contains("snapshot of thinlv"));
        assert!(why_not("pool0").contains("pool"));
        for name in ["[pool0_tdata]", "[pool0_tmeta]", "[lvol0_pmspare]"] {
            assert!(why_not(name).contains("internal"), "{name}");
        }
        let Lvm2Use::Unfit(why) = usage("idlelv") else { panic!("an inactive LV is served") };
        assert!(why.contains("lvchange -ay datavg/idlelv"), "{why}");
        let open = lvs.iter().filter(|lv| lv.is_open() && lv.vg == "datavg");
        assert_eq!(open.map(|lv| &lv.name[..]).collect::<Vec<_>>()[0], "dbloglv");
    }

    #[test]
    fn a_replica_lacks_what_is_not_there_and_refuses_what_differs() {
        let lvs = parse_lvs(LVS).unwrap();
        let layout = |volumes: &[(&str, u64)]| Layout {
            extent: ExtentSize::from_log2(16).unwrap(),
            volumes: volumes
                .iter()
                .map(|&(name, bytes)| VolumeLayout {
                    name: name.parse().unwrap(),
                    bytes,
                    masked: 0,
                })
                .collect(),
        };
        let wanted = layout(&[("dbloglv", 2 << 30), ("newlv", 8 << 20)]);
        let made = missing(&lvs, "datavg", 4 << 20, &wanted, true).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].join(" "), "lvcreate --yes -n newlv -L 8388608b datavg");
        let problems = missing(&lvs, "datavg", 4 << 20, &wanted, false).unwrap_err();
        assert!(problems[0].reason.contains("make it with: lvcreate"), "{problems:?}");
        let wrong =
            layout(&[("dbloglv", 1 << 30), ("odd", 512), ("pool0", 4 << 30), ("idlelv", 512)]);
        let problems = missing(&lvs, "datavg", 4 << 20, &wrong, true).unwrap_err();
        let texts = ["2147483648 bytes, its source", "vgcreate -s", "pool", "lvchange -ay"];
        assert_eq!(problems.len(), texts.len());
        for (problem, text) in problems.iter().zip(texts) {
            assert!(problem.reason.contains(text), "{problem:?}");
        }
        // Larger is no obstacle to a replica that had been opened before.
        let smaller = layout(&[("dbloglv", 1 << 30)]);
        assert_eq!(missing(&lvs, "datavg", 4 << 20, &smaller, false), Ok(vec![]));
    }

    #[test]
    fn a_clone_makes_new_lvs_and_touches_none_that_is_there() {
        let lvs = parse_lvs(LVS).unwrap();
        let wanted = |names: &[&str]| -> Vec<(Name, u64)> {
            names.iter().map(|name| (name.parse().unwrap(), (8 << 20) + 512)).collect()
        };
        let made = to_clone(&lvs, "datavg", 4 << 20, &wanted(&["c_data"]), "tag").unwrap();
        let typed = "lvcreate --yes -n c_data -L 12582912b --addtag tag datavg";
        assert_eq!(made.iter().map(|it| it.join(" ")).collect::<Vec<_>>(), [typed]);
        let all = wanted(&["c_data", "dbloglv", "pool0"]);
        let problems = to_clone(&lvs, "datavg", 4 << 20, &all, "tag").unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].to_string().contains("dbloglv is there already"), "{problems:?}");
    }

    #[test]
    fn a_replica_grows_what_is_smaller_and_nothing_else() {
        let lvs = parse_lvs(LVS).unwrap();
        let extent = ExtentSize::from_log2(16).unwrap();
        let grow = |volumes: &[(&str, u64)]| {
            let volume = |&(name, bytes): &(&str, u64)| VolumeLayout {
                name: name.parse().unwrap(),
                bytes,
                masked: 0,
            };
            let layout = Layout { extent, volumes: volumes.iter().map(volume).collect() };
            to_grow(&lvs, "datavg", 4 << 20, &layout)
        };
        let commands = grow(&[("dbdatalv", 8 << 30), ("dbloglv", 3 << 30)]).unwrap();
        let typed: Vec<_> = commands.iter().map(|command| command.join(" ")).collect();
        assert_eq!(typed, ["lvextend -L 3221225472b datavg/dbloglv"]);
        let wrong = [("dbloglv", (3 << 30) + 512), ("gone", 512), ("pool0", 8 << 30)];
        let problems = grow(&wrong).unwrap_err();
        for (problem, text) in problems.iter().zip(["vgcreate -s", "is missing", "pool"]) {
            assert!(problem.reason.contains(text), "{problem:?}");
        }
        assert_eq!(problems.len(), 3);
    }
}
