//! The key rings of a home's groups, on its real disks.

use std::path::Path;

use vgship_base::folder::read_small;
use vgship_base::ids::GroupId;
use vgship_base::io::{Clock, RealFolder};
use vgship_snapshot::seal::{DataKey, KeyEncryptionKey, KeyId, KeyRing, WRAPPED_LEN};

use super::files::{KeyFiles, KnownKey};
use super::{KeyError, alone};
use crate::home::{GroupHome, Home};

/// How one key of a group was kept before there were rings.
const SINGLE: &str = "data.key";

/// The same on its way: not named yet, or about to go. Nothing needs it.
const SINGLE_PASSING: &str = "data.key.new";

fn io(action: &'static str, name: &str, folder: &Path) -> impl FnOnce(std::io::Error) -> KeyError {
    let (name, folder) = (name.to_owned(), folder.to_owned());
    move |source| KeyError::Io { action, name, folder, source }
}

/// Does something with the files of a group's keys.
pub(super) fn with_files<T>(
    group: &GroupHome,
    id: GroupId,
    work: impl FnOnce(&KeyFiles<'_>) -> Result<T, KeyError>,
) -> Result<T, KeyError> {
    let place = group.keys();
    let folder = RealFolder::open(&place).map_err(io("open", "it", &place))?;
    work(&KeyFiles { folder: &folder, place, group: id })
}

/// The keys of a group. The first is made on first use; the one key of an older version is taken in.
///
/// Durable: a new key is on stable storage before anything is sealed with it.
///
/// # Errors
/// The agent's own key cannot be had or opens them not, the disk refused, or a file is damaged.
pub fn ring(home: &Home, group: &GroupHome, id: GroupId) -> Result<KeyRing, KeyError> {
    let _alone = alone(); // before the key is asked for, which may just be replaced
    load(&home.wrapping_key()?, group, id)
}

pub(super) fn load(
    own: &KeyEncryptionKey,
    group: &GroupHome,
    id: GroupId,
) -> Result<KeyRing, KeyError> {
    with_files(group, id, |files| {
        take_single(own, group, files)?;
        if let Some(ring) = files.load(own)? {
            return Ok(ring);
        }
        Ok(files.make(own, Clock::start().wall())?.into())
    })
}

/// Takes the one key of an older version into the ring, as its first.
pub(super) fn take_single(
    own: &KeyEncryptionKey,
    group: &GroupHome,
    files: &KeyFiles<'_>,
) -> Result<(), KeyError> {
    let place = group.folder();
    let folder = RealFolder::open(place).map_err(io("open", "it", place))?;
    let beside = KeyFiles { folder: &folder, place: place.to_owned(), group: files.group };
    if place.join(SINGLE_PASSING).exists() {
        beside.scrub(SINGLE_PASSING)?; // a crash while it was made, or went
    }
    let found =
        read_small(&folder, SINGLE, WRAPPED_LEN as u64).map_err(io("read", SINGLE, place))?;
    let Some(wrapped) = found else { return Ok(()) };
    let sealed = |source| KeyError::Seal { name: SINGLE.into(), folder: place.to_owned(), source };
    let key = own.unwrap(files.group, &wrapped).map_err(sealed)?;
    files.mend()?;
    let known = files.list()?;
    if known.iter().all(|it| it.kept.id != key.id()) {
        if !known.is_empty() {
            let why = format!("{SINGLE} beside it is a key that it lacks; move that file away");
            return Err(KeyError::Strange { folder: files.place.clone(), why });
        }
        files.add(own, &key, made(&place.join(SINGLE)))?;
    }
    beside.scrub(SINGLE) // the ring has it now
}

/// When a file was written. Unit: microseconds since 1970; 0 where nobody knows.
pub(super) fn made(path: &Path) -> u64 {
    let modified = std::fs::metadata(path).and_then(|it| it.modified()).ok();
    let since = modified.and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX))
}

/// Makes a new key, which is current from then on, also in `open`, the ring of a group that is at
/// work.
///
/// Durable: the key, before anything can be sealed with it.
///
/// # Errors
/// As [`ring`]; [`KeyError::Refused`] while another key-encryption key takes over.
pub fn rotate(
    home: &Home,
    group: &GroupHome,
    id: GroupId,
    open: Option<&KeyRing>,
) -> Result<DataKey, KeyError> {
    let _alone = alone(); // as in `ring`
    let own = home.wrapping_key()?;
    load(&own, group, id)?;
    let key = with_files(group, id, |files| {
        let known = files.list()?;
        if known.last().is_some_and(|it| it.wrappers.len() > 1) {
            // The key-encryption key that is to follow is not at hand, and would not open it.
            let text = "the keys are being wrapped anew: vgship key rewrap --finish ends that";
            return Err(KeyError::Refused(text.to_owned()));
        }
        files.make(&own, Clock::start().wall())
    })?;
    if let Some(ring) = open {
        ring.add(key.clone());
    }
    Ok(key)
}

/// All keys of a group, ascending. Needs no key. What a crash left of one that is told to be
/// destroyed goes first. To be called by whoever holds the home.
///
/// # Errors
/// The disk refused, or a file is damaged.
pub fn list(group: &GroupHome, id: GroupId) -> Result<Vec<KnownKey>, KeyError> {
    if !group.keys().exists() {
        return Ok(Vec::new());
    }
    let _alone = alone();
    with_files(group, id, |files| {
        files.mend()?;
        files.list()
    })
}

/// Whether each key of a group opens with the agent's own key. Changes nothing.
///
/// # Errors
/// [`KeyError::Wrapped`] when one does not, [`KeyError::Seal`] when one is damaged.
pub fn check(own: &KeyEncryptionKey, group: &GroupHome, id: GroupId) -> Result<usize, KeyError> {
    if !group.keys().exists() {
        return Ok(0);
    }
    let _alone = alone();
    with_files(group, id, |files| {
        let known = files.list()?;
        let mut usable = known.iter().filter(|it| it.is_usable());
        usable.try_for_each(|it| files.open(it, own).map(drop))?;
        Ok(known.len())
    })
}

/// The key that a person names by its id or the beginning of it, to be destroyed.
///
/// # Errors
/// [`KeyError::Unknown`], [`KeyError::Current`], or as [`list`].
pub fn find_old(group: &GroupHome, id: GroupId, text: &str) -> Result<KeyId, KeyError> {
    let _alone = alone();
    with_files(group, id, |files| {
        let (found, all) = (files.find(text)?, files.list()?);
        match all.last().is_some_and(|last| last.number == found.number) {
            // Before anything is given up for it.
            true => Err(KeyError::Current(found.kept.id)),
            false => Ok(found.kept.id),
        }
    })
}

/// Destroys a key, also in `open`, the ring of a group that is at work.
///
/// Durable: that it is no more, and that its files are overwritten, once this has returned.
///
/// # Errors
/// As [`KeyFiles::destroy`].
pub fn destroy(
    group: &GroupHome,
    id: GroupId,
    key: KeyId,
    open: Option<&KeyRing>,
) -> Result<(), KeyError> {
    let _alone = alone();
    // The files may know of a newer one that a failed rotation left, and the ring not.
    if open.is_some_and(|ring| ring.current_id() == key) {
        return Err(KeyError::Current(key));
    }
    let done = with_files(group, id, |files| files.destroy(key, Clock::start().wall()));
    // Also where an earlier try had failed half way, and a listing ended it since.
    if let (Ok(()) | Err(KeyError::Ended(_)), Some(ring)) = (&done, open) {
        ring.destroy(key);
    }
    done
}

#[cfg(test)]
mod tests {
    use vgship_snapshot::seal::DataKey;

    use super::*;
    use crate::home::io::replace;

    const GROUP: GroupId = GroupId([7; 16]);

    fn home() -> (tempfile::TempDir, Home, GroupHome) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        replace(&home.key(), "1f".repeat(32).as_bytes(), 0o600).unwrap();
        let group = home.group(&"g".parse().unwrap());
        std::fs::create_dir_all(group.folder()).unwrap();
        (folder, home, group)
    }

    #[test]
    fn the_one_key_of_an_older_version_becomes_the_first_of_the_ring() {
        let (_folder, home, group) = home();
        let key = DataKey::generate().unwrap();
        let wrapped = home.wrapping_key().unwrap().wrap(GROUP, &key).unwrap();
        let single = group.folder().join(SINGLE);
        replace(&single, &wrapped, 0o600).unwrap();
        assert_eq!(ring(&home, &group, GROUP).unwrap().current_id(), key.id());
        assert!(!single.exists());
        // A crash before it was taken away.
        replace(&single, &wrapped, 0o600).unwrap();
        assert_eq!(ring(&home, &group, GROUP).unwrap().current_id(), key.id());
        assert!(!single.exists());
        assert_eq!(list(&group, GROUP).unwrap().len(), 1);
        let other = home.wrapping_key().unwrap();
        let other = other.wrap(GROUP, &DataKey::generate().unwrap()).unwrap();
        replace(&single, &other, 0o600).unwrap();
        assert!(matches!(ring(&home, &group, GROUP), Err(KeyError::Strange { .. })));
        assert!(single.exists(), "what is not known is not destroyed");
    }

    /// Goal: what a crash left of the one key on its way into the ring does not stay behind, where a
    /// key that is destroyed later could still be found.
    #[test]
    fn what_a_crash_left_of_the_one_key_goes() {
        let (_folder, home, group) = home();
        let first = ring(&home, &group, GROUP).unwrap().current_id();
        let wrapped = [7; WRAPPED_LEN];
        let passing = group.folder().join(SINGLE_PASSING);
        std::fs::write(&passing, wrapped).unwrap();
        rotate(&home, &group, GROUP, None).unwrap();
        assert!(!passing.exists());
        destroy(&group, GROUP, first, None).unwrap();
    }

    /// Goal: after a destruction that failed half way the next one ends it, in files and memory; and
    /// no listing says that a key is destroyed which is still there.
    #[test]
    fn a_destruction_that_was_cut_off_is_ended() {
        let (_folder, home, group) = home();
        let open = ring(&home, &group, GROUP).unwrap();
        let first = open.current_id();
        rotate(&home, &group, GROUP, Some(&open)).unwrap();
        let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
        let files = || {
            let found =
                std::fs::read_dir(group.keys()).unwrap().map(|it| name(&it.unwrap().path()));
            found.collect::<Vec<_>>()
        };
        let key = files().into_iter().find(|it| it.starts_with("0000000000000001")).unwrap();
        let bytes = std::fs::read(group.keys().join(&key)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(group.keys().join(&key)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        destroy(&group, GROUP, first, None).unwrap();
        let cut_off = || {
            std::fs::write(group.keys().join(format!("{key}.new")), &bytes).unwrap();
            assert_eq!(files().len(), 3);
        };
        cut_off();
        list(&group, GROUP).unwrap();
        assert_eq!(files().len(), 2, "a listing ends it");
        cut_off();
        destroy(&group, GROUP, first, None).unwrap();
        assert_eq!(files().len(), 2, "so does another try");
        assert!(open.holds(first));
        let ended = destroy(&group, GROUP, first, Some(&open));
        assert!(matches!(ended, Err(KeyError::Ended(_))));
        assert!(!open.holds(first), "the ring that is open learns of it");
    }

    #[test]
    fn a_rotation_is_seen_by_the_ring_that_is_open_and_by_the_next_start() {
        let (_folder, home, group) = home();
        let open = ring(&home, &group, GROUP).unwrap();
        let first = open.current_id();
        let second = rotate(&home, &group, GROUP, Some(&open)).unwrap().id();
        assert_eq!((open.current_id(), open.holds(first)), (second, true));
        let again = ring(&home, &group, GROUP).unwrap();
        assert_eq!((again.current_id(), again.holds(first)), (second, true));
        assert!(matches!(destroy(&group, GROUP, second, Some(&open)), Err(KeyError::Current(_))));
        destroy(&group, GROUP, first, Some(&open)).unwrap();
        assert!(!open.holds(first) && !ring(&home, &group, GROUP).unwrap().holds(first));
    }
}
