//! A folder with one file per LV: which files are volumes, and what a replica's folder lacks.

use vgship_base::ids::Name;
use vgship_base::layout::Layout;
use vgship_base::limits::VOLUME_BYTES_MAX;
use vgship_base::units::SECTOR;

use super::error::VolumeProblem;
use super::identity::Identity;

/// Something in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as text.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Which file it is, whatever it is called.
    pub identity: Option<Identity>,
}

/// What something in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of so many bytes.
    File(u64),
    /// A symbolic link, which may lead out of the folder.
    Link,
    /// A folder, a device, a socket ...
    Other,
}

/// A file that is a volume.
pub type Image = (Name, u64);

/// The folder that some file systems keep at their root, so that one made for images has it.
const LOST_AND_FOUND: &str = "lost+found";

/// Sorts a folder's entries into volumes and problems. What begins with a dot is passed over.
pub fn volumes(entries: &[Entry]) -> (Vec<Image>, Vec<VolumeProblem>) {
    let (mut images, mut problems) = (Vec::new(), Vec::new());
    let passed_over = |name: &str| name.starts_with('.') || name == LOST_AND_FOUND;
    for entry in entries.iter().filter(|entry| !passed_over(&entry.name)) {
        match volume(entry) {
            Ok(image) => images.push(image),
            Err(reason) => problems.push(VolumeProblem::new(&entry.name, reason)),
        }
    }
    (images, problems)
}

fn volume(entry: &Entry) -> Result<Image, String> {
    let EntryKind::File(bytes) = entry.kind else {
        let what = if entry.kind == EntryKind::Link { "a symbolic link" } else { "no file" };
        return Err(format!("is {what}: put regular files into the folder, and nothing else"));
    };
    let name = entry.name.parse().map_err(|error| format!("is refused: {error}"))?;
    match bytes {
        0 => Err("is empty".to_owned()),
        VOLUME_BYTES_MAX.. if bytes > VOLUME_BYTES_MAX => Err("is over 128 TiB".to_owned()),
        _ if !bytes.is_multiple_of(SECTOR) => {
            Err(format!("has {bytes} bytes, which is no multiple of {SECTOR}"))
        }
        _ => Ok((name, bytes)),
    }
}

/// What a replica's folder lacks of the layout, or which of its files do not fit. Files that the
/// layout does not name are left alone. With `create` sizes must be equal; later a file may be
/// larger, as one is that grew before a crash.
pub fn missing(
    entries: &[Entry],
    layout: &Layout,
    create: bool,
) -> Result<Vec<Image>, Vec<VolumeProblem>> {
    let (mut missing, mut problems) = (Vec::new(), Vec::new());
    for wanted in &layout.volumes {
        let name = wanted.name.as_str();
        match entries.iter().find(|entry| entry.name == name).map(volume) {
            Some(Ok((_, bytes))) => {
                problems.extend(size_problem(name, bytes, wanted.bytes, create));
            }
            Some(Err(reason)) => problems.push(VolumeProblem::new(name, reason)),
            None if create => missing.push((wanted.name.clone(), wanted.bytes)),
            None => problems.push(VolumeProblem::new(name, "is missing")),
        }
    }
    if problems.is_empty() { Ok(missing) } else { Err(problems) }
}

/// What a replica's folder must make larger: files with their new sizes.
pub fn to_grow(entries: &[Entry], layout: &Layout) -> Result<Vec<Image>, Vec<VolumeProblem>> {
    let (mut grow, mut problems) = (Vec::new(), Vec::new());
    for wanted in &layout.volumes {
        let name = wanted.name.as_str();
        match entries.iter().find(|entry| entry.name == name).map(volume) {
            Some(Ok((_, bytes))) if bytes < wanted.bytes => {
                grow.push((wanted.name.clone(), wanted.bytes));
            }
            Some(Ok(_)) => {}
            Some(Err(reason)) => problems.push(VolumeProblem::new(name, reason)),
            None => problems.push(VolumeProblem::new(name, "is missing")),
        }
    }
    if problems.is_empty() { Ok(grow) } else { Err(problems) }
}

/// Says so when a volume has not the size that its source has; when `exact`, also when it has more.
pub(super) fn size_problem(
    name: &str,
    found: u64,
    wanted: u64,
    exact: bool,
) -> Option<VolumeProblem> {
    let differs = if exact { found != wanted } else { found < wanted };
    differs.then(|| {
        let text = format!("has {found} bytes, its source {wanted}: make it the same size");
        VolumeProblem::new(name, text)
    })
}

#[cfg(test)]
mod tests {
    use vgship_base::extent::ExtentSize;
    use vgship_base::layout::VolumeLayout;

    use super::*;

    fn entry(name: &str, kind: EntryKind) -> Entry {
        Entry { name: name.to_owned(), kind, identity: None }
    }

    #[test]
    fn only_regular_files_of_whole_sectors_are_volumes() {
        let entries = [
            entry(".lock", EntryKind::File(1)),
            entry("lost+found", EntryKind::Other),
            entry("datalv", EntryKind::File(1 << 20)),
            entry("odd", EntryKind::File(513)),
            entry("empty", EntryKind::File(0)),
            entry("huge", EntryKind::File((128 << 40) + 512)),
            entry("link", EntryKind::Link),
            entry("folder", EntryKind::Other),
            entry("a b", EntryKind::File(512)),
        ];
        let (images, problems) = volumes(&entries);
        assert_eq!(images, [("datalv".parse().unwrap(), 1 << 20)]);
        let named: Vec<_> = problems.iter().map(|problem| problem.name.as_str()).collect();
        assert_eq!(named, ["odd", "empty", "huge", "link", "folder", "a b"]);
    }

    #[test]
    fn a_replica_lacks_what_is_not_there_and_refuses_what_differs() {
        let volume =
            |name: &str| VolumeLayout { name: name.parse().unwrap(), bytes: 4096, masked: 0 };
        let layout = Layout {
            extent: ExtentSize::from_log2(16).unwrap(),
            volumes: vec![volume("one"), volume("two")],
        };
        let entries = [entry("one", EntryKind::File(4096)), entry("other", EntryKind::Link)];
        let lacks = missing(&entries, &layout, true).unwrap();
        assert_eq!(lacks, [("two".parse().unwrap(), 4096)]);
        assert_eq!(missing(&entries, &layout, false).unwrap_err()[0].name, "two");
        let entries = [entry("one", EntryKind::File(512)), entry("two", EntryKind::Link)];
        let problems = missing(&entries, &layout, true).unwrap_err();
        assert!(problems[0].reason.contains("512 bytes, its source 4096"), "{problems:?}");
        assert!(problems[1].reason.contains("symbolic link"), "{problems:?}");
        // One that grew before a crash is no obstacle; one that was never as large is.
        let entries = [entry("one", EntryKind::File(8192)), entry("two", EntryKind::File(4096))];
        assert_eq!(missing(&entries, &layout, false), Ok(vec![]));
        assert!(missing(&entries, &layout, true).is_err());
        let entries = [entry("one", EntryKind::File(512)), entry("two", EntryKind::File(4096))];
        assert!(missing(&entries, &layout, false).is_err());
        assert_eq!(to_grow(&entries, &layout).unwrap(), [("one".parse().unwrap(), 4096)]);
        assert!(to_grow(&entries[..1], &layout).is_err());
    }
}
