//! What still needs which key, from the headers of the sealed files of a group.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgship_base::io::FileDisk;
use vgship_snapshot::seal::{KeyId, SealError, key_of_file};

use super::KeyError;
use super::ring::made;
use crate::history::spec::rfc3339;
use crate::home::GroupHome;

/// What is sealed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Segments of a replica's journal: points in time.
    Journal,
    /// Packs of preserved extents: snapshots.
    Snapshots,
    /// Segments of a source's spill: what replicas have not got yet.
    Spill,
    /// Templates of a store.
    Templates,
}

impl Kind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Journal => "journal",
            Kind::Snapshots => "snapshots",
            Kind::Spill => "spill",
            Kind::Templates => "templates",
        }
    }
}

/// What of one kind needs a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// What.
    pub kind: Kind,
    /// How many files, or templates.
    pub files: u64,
    /// What they take, where that is known. Unit: bytes.
    pub bytes: Option<u64>,
    /// When the oldest was written last, RFC 3339.
    pub oldest: Option<String>,
    /// Snapshots or templates by name, where that can be told.
    pub names: Vec<String>,
    /// Whether these are all names.
    pub all_names: bool,
}

impl Need {
    /// In words.
    pub fn text(&self) -> String {
        let files = match (self.kind, self.files) {
            (Kind::Templates, 1) => "1 template".to_owned(),
            (Kind::Templates, many) => format!("{many} templates"),
            (kind, 1) => format!("1 file of {}", kind.as_str()),
            (kind, many) => format!("{many} files of {}", kind.as_str()),
        };
        let bytes = self.bytes.map(|bytes| format!(" ({})", vgship_base::units::ByteLen(bytes)));
        let oldest = self.oldest.as_ref().map(|time| format!(", the oldest of {time}"));
        let names = match (self.names.is_empty(), self.all_names) {
            (true, _) => None,
            (false, true) => Some(format!(": {}", self.names.join(", "))),
            (false, false) => Some(format!(": {} and perhaps others", self.names.join(", "))),
        };
        [Some(files), bytes, oldest, names].into_iter().flatten().collect()
    }
}

/// Needs by key.
pub type Needs = BTreeMap<KeyId, Vec<Need>>;

#[derive(Default)]
struct Sum {
    files: u64,
    bytes: u64,
    oldest: Option<u64>,
}

/// What of a group's folder needs which key. What goes meanwhile needs none; neither does a file
/// whose header is not whole, which no key opens.
///
/// # Errors
/// The disk refused, or a file is of a version that this program does not know.
pub fn scan(group: &GroupHome) -> Result<Needs, KeyError> {
    let mut sums: BTreeMap<(KeyId, Kind), Sum> = BTreeMap::new();
    let folder = group.folder();
    scan_folder(&folder.join("journal"), ".segment", Kind::Journal, &mut sums)?;
    scan_folder(&folder.join("snapshots"), ".pack", Kind::Snapshots, &mut sums)?;
    for place in entries(folder)? {
        let name = place.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        if name.starts_with("spill-") {
            scan_folder(&place, ".segment", Kind::Spill, &mut sums)?;
        }
    }
    let mut needs = Needs::new();
    for ((key, kind), Sum { files, bytes, oldest }) in sums {
        let (bytes, oldest) = (Some(bytes), oldest.map(rfc3339));
        let need = Need { kind, files, bytes, oldest, names: Vec::new(), all_names: true };
        needs.entry(key).or_default().push(need);
    }
    Ok(needs)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let found = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.and_then(|it| it.map(|entry| entry.map(|it| it.path())).collect()),
    };
    found.map_err(|source| KeyError::Io {
        action: "list",
        name: "the sealed files".into(),
        folder: folder.to_owned(),
        source,
    })
}

fn scan_folder(
    folder: &Path,
    ending: &str,
    kind: Kind,
    sums: &mut BTreeMap<(KeyId, Kind), Sum>,
) -> Result<(), KeyError> {
    for path in entries(folder)? {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        if !name.ends_with(ending) {
            continue;
        }
        let failed = |source| KeyError::Io {
            action: "read",
            name: name.to_owned(),
            folder: folder.to_owned(),
            source,
        };
        let disk = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.and_then(FileDisk::fixed).map_err(failed)?,
        };
        let key = match key_of_file(&disk) {
            Ok(key) => key,
            Err(SealError::Io { source, .. }) => return Err(failed(source)),
            Err(error) if error.is_damage() => continue,
            // Of a newer version: it may need any key.
            Err(source) => {
                let (name, folder) = (name.to_owned(), folder.to_owned());
                return Err(KeyError::Sealed { name, folder, source });
            }
        };
        let sum = sums.entry((key, kind)).or_default();
        let written = made(&path);
        sum.files += 1;
        sum.bytes += vgship_base::disk::Disk::len(&disk);
        sum.oldest = Some(sum.oldest.map_or(written, |oldest| oldest.min(written)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vgship_base::ids::{GroupId, Seq};
    use vgship_base::io::RealFolder;
    use vgship_snapshot::seal::{DataKey, KeyRing};

    use super::*;
    use crate::home::Home;
    use crate::outbox::spill::Spill;
    use crate::receive::journal::Journal;

    #[test]
    fn each_kind_of_file_is_found_under_its_key() {
        let place = tempfile::tempdir().unwrap();
        let group = Home::at(place.path()).group(&"g".parse().unwrap());
        assert_eq!(scan(&group).unwrap(), Needs::new());
        let keys = KeyRing::from(DataKey::from_bytes([1; 32]));
        let first = keys.current_id();
        let folder = |name: &str| Arc::new(RealFolder::open(group.folder().join(name)).unwrap());
        let id = GroupId([7; 16]);
        let (mut journal, _) = Journal::recover(folder("journal"), &keys, id, Seq(0)).unwrap();
        let _spill = Spill::create(folder("spill-0"), &keys, id, 1 << 20).unwrap();
        std::fs::write(group.folder().join("journal/0000000000000099.segment"), b"torn").unwrap();
        let needs = scan(&group).unwrap();
        assert_eq!((needs.len(), needs[&first].len()), (1, 1));
        assert_eq!((needs[&first][0].kind, needs[&first][0].files), (Kind::Journal, 1));
        assert!(needs[&first][0].text().starts_with("1 file of journal ("));
        keys.add(DataKey::from_bytes([2; 32]));
        journal.renew().unwrap();
        assert_eq!(scan(&group).unwrap().len(), 2);
        journal.trim(Seq(0)).unwrap();
        let needs = scan(&group).unwrap();
        assert_eq!(needs.keys().copied().collect::<Vec<_>>(), [keys.current_id()]);
        // As a newer program may have left it: nobody can tell what it needs.
        let newer = group.folder().join("journal/0000000000000099.segment");
        let mut header = [0; 68];
        header[..6].copy_from_slice(b"VGSF\0\x02");
        let crc = crc32c::crc32c(&header[..64]).to_be_bytes();
        header[64..].copy_from_slice(&crc);
        std::fs::write(&newer, header).unwrap();
        let told = scan(&group).unwrap_err().told();
        assert!(told.message.contains("0000000000000099.segment"), "{told}");
    }
}
