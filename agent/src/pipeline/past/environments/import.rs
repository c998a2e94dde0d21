//! The script that imports a new AIX VG beside its origin. Mount points stand in the LVs' control
//! blocks, whose layout AIX alone knows: so they are renamed there, by its own commands.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use vgship_base::disk::Disk;
use vgship_base::ids::Name;

use super::failed;
use crate::api::ControlError;
use crate::group::{MountRule, Rename};

/// What a control block begins with.
const CONTROL_BLOCK: &[u8; 8] = b"AIX LVCB";

/// The import of one VG.
pub(super) struct Import {
    pub(super) path: PathBuf,
    vg: Name,
    disks: usize,
}

impl Import {
    /// Of the disks `VG-1.img` ... in a folder.
    ///
    /// # Errors
    /// Refused if the script is there already.
    pub(super) fn new(folder: &Path, vg: &Name, disks: usize) -> Result<Import, ControlError> {
        let path = folder.join(format!("{vg}-import.sh"));
        match path.symlink_metadata() {
            Ok(_) => Err(ControlError::refused(format!("{} is there already", path.display()))
                .hint("name another folder, or another VG with --vg")),
            Err(_) => Ok(Import { path, vg: vg.clone(), disks }),
        }
    }

    /// Writes the script into its file, for LVs of which some know where they are mounted, or none.
    fn write(
        &self,
        mut file: &File,
        rules: &[MountRule<'_>],
        has_mounts: bool,
    ) -> Result<(), ControlError> {
        let text = if has_mounts { self.text(rules) } else { self.plain_text() };
        let write = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        write.map_err(|error: io::Error| {
            ControlError::failed(format!("cannot write {}: {error}", self.path.display()))
        })
    }

    fn head(&self) -> String {
        let Import { vg, disks, .. } = self;
        format!(
            "#!/bin/sh
# Imports volume group {vg} on AIX, beside its origin. Give the disks that hold
# {vg}-1.img ... in this order. VG=NAME in the environment calls it otherwise.
set -eu
vg=${{VG:-{vg}}}
[ $# -eq {disks} ] || {{ echo \"usage: $0 hdiskN ... ({disks} of them)\" >&2; exit 2; }}
"
        )
    }

    /// For LVs without control blocks.
    fn plain_text(&self) -> String {
        format!(
            "{}importvg -y \"$vg\" \"$1\"
echo \"The LVs of $vg have no control blocks. For each file system:\"
echo \"  chlv -t jfs2 -L /WHERE LV, an entry in /etc/filesystems, fsck, mount\"
",
            self.head()
        )
    }

    /// For LVs with control blocks. All file systems get a prefix first, so that none can meet
    /// that of its origin.
    fn text(&self, rules: &[MountRule<'_>]) -> String {
        let cases = rules.iter().fold(String::new(), |mut cases, rule| {
            let MountRule { before, behind, to_before, to_behind } = rule;
            let _ = match behind {
                None => writeln!(cases, "    {before}) echo \"{to_before}\" ;;"),
                Some(behind) => writeln!(
                    cases,
                    "    {before}*{behind}) it=${{1#\"{before}\"}}; it=${{it%\"{behind}\"}}
        echo \"{to_before}{star}{to_behind}\" ;;",
                    star = if to_behind.is_some() { "${it}" } else { "" },
                    to_behind = to_behind.unwrap_or_default(),
                ),
            };
            cases
        });
        format!(
            "{head}under=/$vg
renamed() {{
    case \"$1\" in
{cases}    *) echo \"$under$1\" ;;
    esac
}}
recreatevg -y \"$vg\" -Y NA -L \"$under\" \"$@\"
mounts=$(lsvgfs \"$vg\")
for at in $mounts; do
    new=$(renamed \"${{at#$under}}\")
    if [ \"$new\" != \"$at\" ]; then
        mkdir -p \"$new\"
        chfs -m \"$new\" \"$at\"
    fi
    echo \"$new: before its first mount: fsck -y $new\"
done
",
            head = self.head()
        )
    }
}

/// A VG's import, the new file of its script, and its LVs.
pub(super) type Part<'a> = (&'a Import, &'a File, Vec<&'a dyn Disk>);

/// Writes the scripts of VGs whose LVs have this content.
///
/// # Errors
/// Refused if there are rules for mount points, and no LV that knows where it is mounted.
pub(super) fn write(vgs: &[Part<'_>], rules: &[Rename]) -> Result<(), ControlError> {
    let rules: Vec<MountRule<'_>> = rules.iter().filter_map(Rename::mount).collect();
    let mut have = Vec::new();
    for (_, _, lvs) in vgs {
        let known = lvs.iter().map(|lv| has_control_block(*lv)).collect::<io::Result<Vec<_>>>();
        have.push(known.map_err(|it| failed(&it))?.contains(&true));
    }
    if !rules.is_empty() && !have.contains(&true) {
        let text = "none of these LVs has a control block, which says where it is mounted";
        return Err(ControlError::refused(text)
            .hint("make it without mount: rules, and set mount points after its import"));
    }
    let mut all = vgs.iter().zip(have);
    all.try_for_each(|((import, file, _), has_mounts)| import.write(file, &rules, has_mounts))
}

fn has_control_block(lv: &dyn Disk) -> io::Result<bool> {
    let mut head = [0; CONTROL_BLOCK.len()];
    if lv.len() >= head.len() as u64 {
        lv.read_at(0, &mut head)?;
    }
    Ok(head == *CONTROL_BLOCK)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Output};

    use vgship_base::sim::{Power, SimDisk};

    use super::*;

    fn lv(head: &[u8]) -> SimDisk {
        let disk = SimDisk::volume(&Power::default(), 64 << 10);
        disk.write_at(0, &[head, &[0; 512][head.len()..]].concat()).unwrap();
        disk
    }

    /// Runs a script where AIX's commands only say what they were told.
    fn run(place: &Path, script: &Path, vg: &str, disks: &[&str]) -> (Output, String) {
        let told = place.join("told");
        let programs = place.join("programs");
        std::fs::create_dir_all(&programs).unwrap();
        for name in ["recreatevg", "importvg", "lsvgfs", "chfs", "mkdir"] {
            let says = if name == "lsvgfs" {
                "printf '/clonevg/data/a\\n/clonevg/data/b/log\\n/clonevg/home\\n/clonevg/odd1%%x\\n/clonevg/x\\n'"
            } else {
                "true"
            };
            let text = format!("#!/bin/sh\necho \"{name} $*\" >> {}\n{says}\n", told.display());
            let path = programs.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("/bin/sh");
        let output =
            shell.arg(script).args(disks).env("PATH", path).env("VG", vg).output().unwrap();
        (output, std::fs::read_to_string(told).unwrap_or_default())
    }

    fn rules(all: &[&str]) -> Vec<Rename> {
        all.iter().map(|rule| rule.parse().unwrap()).collect()
    }

    #[test]
    fn file_systems_are_mounted_where_the_rules_say_and_never_where_they_were() {
        let place = tempfile::tempdir().unwrap();
        let import = Import::new(place.path(), &"clonevg".parse().unwrap(), 2).unwrap();
        let rules = rules(&[
            "mount:/data/*/log=/logs/*log",
            "mount:/home=/clone/home",
            "mount:/odd*%x=/odd*",
            "lv:*=c_*",
            "mount:/data/*=/test",
        ]);
        let (with, without) = (lv(b"AIX LVCB"), lv(&[0; 8]));
        let file = File::create_new(&import.path).unwrap();
        write(&[(&import, &file, vec![&without, &with])], &rules).unwrap();
        assert!(Import::new(place.path(), &"clonevg".parse().unwrap(), 2).is_err());
        let (output, told) = run(place.path(), &import.path, "", &["hdisk4", "hdisk5"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            told,
            "recreatevg -y clonevg -Y NA -L /clonevg hdisk4 hdisk5\nlsvgfs clonevg\n\
             mkdir -p /test\nchfs -m /test /clonevg/data/a\n\
             mkdir -p /logs/blog\nchfs -m /logs/blog /clonevg/data/b/log\n\
             mkdir -p /clone/home\nchfs -m /clone/home /clonevg/home\n\
             mkdir -p /odd1\nchfs -m /odd1 /clonevg/odd1%x\n"
        );
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("fsck -y /clonevg/x"), "{said}");
        let (output, told_again) = run(place.path(), &import.path, "", &["hdisk4"]);
        assert_eq!((output.status.code(), told_again), (Some(2), told), "one disk is missing");
    }

    #[test]
    fn without_control_blocks_there_is_nothing_to_rename() {
        let place = tempfile::tempdir().unwrap();
        let import = Import::new(place.path(), &"clonevg".parse().unwrap(), 1).unwrap();
        let without = lv(&[0; 8]);
        let file = File::create_new(&import.path).unwrap();
        let vgs = [(&import, &file, vec![&without as &dyn Disk])];
        let error = write(&vgs, &rules(&["mount:/a=/b"])).unwrap_err().to_string();
        assert!(error.contains("has a control block"), "{error}");
        assert_eq!(file.metadata().unwrap().len(), 0);
        write(&vgs, &rules(&["lv:*=c_*"])).unwrap();
        let (output, told) = run(place.path(), &import.path, "other", &["hdisk4"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(told, "importvg -y other hdisk4\n");
    }
}
