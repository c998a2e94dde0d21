//! The refusal of rootvg: no option lifts it. Each rule gives its reason.

use super::aix::Member;

/// What of this machine holds the running root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningRoot {
    /// Device numbers, major and minor: the file system's own and all that it lies on.
    pub devices: Vec<(u32, u32)>,
    /// VGs of LVM2 that it lies in.
    pub vgs: Vec<String>,
}

impl RunningRoot {
    /// Why a device must not be touched, if so.
    pub fn refuses_device(&self, device: (u32, u32)) -> Option<String> {
        let (major, minor) = device;
        self.devices.contains(&device).then(|| {
            format!("it is device {major}:{minor}, which holds the running root file system")
        })
    }

    /// Why a VG of LVM2 must not be touched, if so.
    pub fn refuses_vg(&self, vg: &str) -> Option<String> {
        let holds = self.vgs.iter().any(|held| held == vg);
        holds.then(|| "it holds the running root file system".to_owned())
    }
}

/// Why a VG of this name must not be touched, if so.
pub fn refuses_vg_name(vg: &str) -> Option<String> {
    let root = vg.to_ascii_lowercase().ends_with("rootvg");
    root.then(|| format!("by its name {vg} it is a system's volume group"))
}

/// Why a VG with an LV of this name must not be touched, if so: AIX boots from an LV that is
/// called hd5, with a prefix in alternate installations.
pub fn refuses_lv_name(lv: &str) -> Option<String> {
    let boot = lv.split(['_', '-', '.']).any(|word| word.eq_ignore_ascii_case("hd5"));
    boot.then(|| format!("its LV {lv} is by its name a boot LV"))
}

/// Why a disk must not be touched, if so.
pub fn refuses_disk(member: &Member) -> Option<String> {
    let (start, len) = member.ipl.boot;
    member.ipl.boots().then(|| {
        let label = &member.label;
        format!("{label} boots: its IPL record names a boot LV at sector {start}, {len} sectors")
    })
}

/// What is mounted as `/`, from the text of `/proc/self/mountinfo`: device number and source. The
/// last line counts, because later mounts cover earlier ones.
pub fn mounted_root(mountinfo: &str) -> Option<((u32, u32), String)> {
    let mut roots = mountinfo.lines().rev().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let (device, _, point) = (fields.next()?, fields.next()?, fields.next()?);
        let source = after.split(' ').nth(1)?;
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        (point == "/").then(|| (device, source.to_owned()))
    });
    roots.next()
}

/// The VG in a device-mapper name, where a single `-` parts VG and LV and `--` stands for one.
pub fn vg_of_dm_name(name: &str) -> Option<String> {
    let (mut vg, mut letters) = (String::new(), name.chars().peekable());
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('-', Some('-')) => {
                letters.next();
                vg.push('-');
            }
            ('-', Some(_)) if !vg.is_empty() => return Some(vg),
            _ => vg.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_groups_are_known_by_name() {
        for name in ["rootvg", "old_rootvg", "altinst_rootvg", "prod_rootvg", "ROOTVG"] {
            assert!(refuses_vg_name(name).is_some(), "{name}");
        }
        for name in ["datavg", "rootvg2", "vgroot"] {
            assert_eq!(refuses_vg_name(name), None, "{name}");
        }
    }

    #[test]
    fn boot_lvs_are_known_by_name() {
        for name in ["hd5", "alt_hd5", "bos_hd5", "hd5_old", "HD5"] {
            assert!(refuses_lv_name(name).is_some(), "{name}");
        }
        for name in ["hd50", "datahd5", "hd4", "lv05"] {
            assert_eq!(refuses_lv_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_last_mount_at_the_root_counts() {
        let text = "\
21 1 0:20 / / rw - rootfs rootfs rw
22 21 0:5 / /proc rw,nosuid shared:13 - proc proc rw
25 21 253:2 / / rw,relatime shared:1 master:2 - xfs /dev/mapper/sys--a-root rw,attr2
26 25 8:1 / /boot rw - ext4 /dev/sda1 rw
";
        let expected = ((253, 2), "/dev/mapper/sys--a-root".to_owned());
        assert_eq!(mounted_root(text), Some(expected));
        assert_eq!(mounted_root("nonsense\n1 2 x:y / / - a b c\n"), None);
    }

    #[test]
    fn a_mapped_name_tells_its_group() {
        assert_eq!(vg_of_dm_name("sys--a-root").as_deref(), Some("sys-a"));
        assert_eq!(vg_of_dm_name("vg-lv--x").as_deref(), Some("vg"));
        assert_eq!(vg_of_dm_name("a----b-c").as_deref(), Some("a--b"));
        assert_eq!(vg_of_dm_name("cryptroot"), None);
        assert_eq!(vg_of_dm_name(""), None);
    }

    #[test]
    fn what_holds_the_root_is_refused_and_nothing_else() {
        let root = RunningRoot { devices: vec![(253, 2), (8, 0)], vgs: vec!["sys".to_owned()] };
        assert!(root.refuses_device((8, 0)).unwrap().contains("running root"));
        assert_eq!(root.refuses_device((8, 16)), None);
        assert!(root.refuses_vg("sys").is_some());
        assert_eq!(root.refuses_vg("sys2"), None);
    }
}
