//! The veil key of a group with blind replicas, in the folder of the group's data keys. It is made
//! once, with the first invitation of a blind replica, and never exchanged: what blind replicas hold
//! would have to be shipped anew.
//!
//! ```text
//! WRAPPER.veil             the veil key, wrapped by the key-encryption key of that id; two of them
//!                          while another key-encryption key takes over
//! VEIL-WRAPPER.escrowed    when an escrow of that veil key was made last that opens with that
//!                          key-encryption key: microseconds since 1970, 8 bytes, big-endian
//! ```

use std::path::PathBuf;

use vgship_base::folder::{number_of, read_small, replace};
use vgship_base::ids::GroupId;
use vgship_base::io::Clock;
use vgship_snapshot::seal::{KeyEncryptionKey, KeyId};
use vgship_snapshot::veil::{VEIL_LEN, VeilKey, WrappedVeil};

use super::files::KeyFiles;
use super::ring::with_files;
use super::{KeyError, alone};
use crate::home::{GroupHome, Home};

const VEIL: &str = ".veil";
const ESCROWED: &str = ".escrowed";

/// What is known of a veil key without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownVeil {
    /// Names it.
    pub id: KeyId,
    /// When it was made. Unit: microseconds since 1970.
    pub made: u64,
    /// Which key-encryption keys open it.
    pub wrappers: Vec<KeyId>,
    /// The last escrow: which key-encryption key opens it, and when it was made. Unit: microseconds
    /// since 1970.
    pub escrow: Option<(KeyId, u64)>,
}

fn veil_name(by: KeyId) -> String {
    format!("{by}{VEIL}")
}

fn id_of(digits: &str) -> Option<KeyId> {
    number_of(digits).map(|number| KeyId(number.to_be_bytes()))
}

impl KeyFiles<'_> {
    fn wrapped_veils(&self) -> Result<Vec<(String, WrappedVeil)>, KeyError> {
        let mut found: Vec<(String, WrappedVeil)> = Vec::new();
        for name in self.names()? {
            let Some(by) = name.strip_suffix(VEIL).and_then(id_of) else { continue };
            let bytes = read_small(self.folder, &name, VEIL_LEN as u64);
            let bytes = bytes.map_err(self.failed("read", &name))?.unwrap_or_default();
            let wrapped = WrappedVeil::decode(&bytes).map_err(self.sealed(&name))?;
            let fits = wrapped.by == by
                && wrapped.group == self.group
                && found.first().is_none_or(|(_, first)| first.id == wrapped.id);
            if !fits {
                return Err(self.strange(format!("{name} is not the veil key that it should be")));
            }
            found.push((name, wrapped));
        }
        Ok(found)
    }

    /// The veil key and when it was made; `None` when there is none.
    ///
    /// # Errors
    /// The disk refused, it is damaged, or not wrapped by this key-encryption key.
    pub fn veil(&self, by: &KeyEncryptionKey) -> Result<Option<(VeilKey, u64)>, KeyError> {
        let found = self.wrapped_veils()?;
        let Some((_, first)) = found.first() else { return Ok(None) };
        let Some((name, wrapped)) = found.iter().find(|(_, it)| it.by == by.id()) else {
            let (id, folder) = (first.id, self.place.clone());
            return Err(KeyError::Wrapped { id, folder, by: first.by, ours: by.id() });
        };
        let key = wrapped.unwrap(by, self.group).map_err(self.sealed(name))?;
        Ok(Some((key, wrapped.made)))
    }

    /// Makes the veil key.
    ///
    /// Durable: once this has returned; only then may anything be veiled with it.
    ///
    /// # Errors
    /// The disk refused, or the system has no random bytes.
    pub fn make_veil(&self, by: &KeyEncryptionKey, now: u64) -> Result<VeilKey, KeyError> {
        let name = veil_name(by.id());
        let key = VeilKey::generate().map_err(self.sealed(&name))?;
        self.put_veil(by, &key, now)?;
        Ok(key)
    }

    fn put_veil(&self, by: &KeyEncryptionKey, key: &VeilKey, made: u64) -> Result<(), KeyError> {
        let name = veil_name(by.id());
        let wrapped = WrappedVeil::wrap(by, self.group, key, made).map_err(self.sealed(&name))?;
        replace(self.folder, &name, &wrapped.encode()).map_err(self.failed("write", &name))
    }

    /// What is known of it without opening it.
    ///
    /// # Errors
    /// The disk refused, or a file is damaged.
    pub fn known_veil(&self) -> Result<Option<KnownVeil>, KeyError> {
        let found = self.wrapped_veils()?;
        let Some((_, first)) = found.first() else { return Ok(None) };
        let mut escrow = None;
        for name in self.names()? {
            let ids = name.strip_suffix(ESCROWED).and_then(|it| it.split_once('-'));
            let Some((veil, by)) = ids.and_then(|(veil, by)| id_of(veil).zip(id_of(by))) else {
                continue;
            };
            let bytes = read_small(self.folder, &name, 8).map_err(self.failed("read", &name))?;
            let made = bytes.and_then(|it| it.try_into().ok()).map_or(0, u64::from_be_bytes);
            if veil == first.id && escrow.is_none_or(|(_, last)| last <= made) {
                escrow = Some((by, made));
            }
        }
        let wrappers = found.iter().map(|(_, it)| it.by).collect();
        Ok(Some(KnownVeil { id: first.id, made: first.made, wrappers, escrow }))
    }

    /// Notes that an escrow was made, so that nobody is reminded any more.
    pub(super) fn note_escrow(&self, veil: KeyId, by: KeyId, now: u64) -> Result<(), KeyError> {
        let name = format!("{veil}-{by}{ESCROWED}");
        replace(self.folder, &name, &now.to_be_bytes()).map_err(self.failed("write", &name))
    }

    /// As [`KeyFiles::wrap_also`], for the veil key.
    pub(super) fn wrap_veil_also(
        &self,
        by: &KeyEncryptionKey,
        also: &KeyEncryptionKey,
    ) -> Result<usize, KeyError> {
        if self.wrapped_veils()?.iter().any(|(_, it)| it.by == also.id()) {
            return self.veil(also).map(|_| 0);
        }
        let Some((key, made)) = self.veil(by)? else { return Ok(0) };
        self.put_veil(also, &key, made)?;
        Ok(1)
    }

    /// As [`KeyFiles::wrap_only`], for the veil key.
    pub(super) fn wrap_veil_only(&self, by: &KeyEncryptionKey) -> Result<usize, KeyError> {
        self.veil(by)?;
        let others: Vec<_> =
            self.wrapped_veils()?.into_iter().filter(|(_, it)| it.by != by.id()).collect();
        others.iter().try_for_each(|(name, _)| self.scrub(name))?;
        Ok(others.len())
    }
}

/// The veil key of a group; `None` when it never had a blind replica.
///
/// # Errors
/// The agent's own key cannot be had or does not open it, the disk refused, or it is damaged.
pub fn veil(home: &Home, group: &GroupHome, id: GroupId) -> Result<Option<VeilKey>, KeyError> {
    let _alone = alone();
    let own = home.wrapping_key()?;
    with_files(group, id, |files| Ok(files.veil(&own)?.map(|(key, _)| key)))
}

/// The same, made where there is none.
///
/// Durable: once this has returned.
///
/// # Errors
/// As [`veil`].
pub fn veil_or_make(home: &Home, group: &GroupHome, id: GroupId) -> Result<VeilKey, KeyError> {
    let _alone = alone();
    let own = home.wrapping_key()?;
    with_files(group, id, |files| {
        files.mend()?;
        match files.veil(&own)? {
            Some((key, _)) => Ok(key),
            None => files.make_veil(&own, Clock::start().wall()),
        }
    })
}

/// What is known of a group's veil key. Needs no key. To be called by whoever holds the home.
///
/// # Errors
/// The disk refused, or a file is damaged.
pub fn known_veil(group: &GroupHome, id: GroupId) -> Result<Option<KnownVeil>, KeyError> {
    if !group.keys().exists() {
        return Ok(None);
    }
    let _alone = alone();
    with_files(group, id, |files| {
        files.mend()?;
        files.known_veil()
    })
}

/// That the veil key of a group is gone, which no new one can replace.
pub fn lost_veil(group: &GroupHome) -> KeyError {
    let folder: PathBuf = group.keys();
    let why = "the veil key is missing, and blind replicas hold what only it opens; put its file \
               (*.veil) back from a backup of the home";
    KeyError::Strange { folder, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimFolder};

    use super::*;

    const GROUP: GroupId = GroupId([7; 16]);

    fn kek(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::from_bytes([byte; 32].into())
    }

    fn with<T>(folder: &SimFolder, work: impl FnOnce(&KeyFiles<'_>) -> T) -> T {
        work(&KeyFiles { folder, place: "keys".into(), group: GROUP })
    }

    #[test]
    fn a_group_has_one_veil_key_which_only_its_agents_key_opens() {
        let folder = SimFolder::new(&Power::default());
        with(&folder, |files| {
            assert!(files.veil(&kek(1)).unwrap().is_none());
            assert_eq!(files.known_veil().unwrap(), None);
            let made = files.make_veil(&kek(1), 5).unwrap();
            let (found, at) = files.veil(&kek(1)).unwrap().unwrap();
            assert_eq!((found.id(), at), (made.id(), 5));
            let refused = files.veil(&kek(2)).unwrap_err();
            assert!(matches!(refused, KeyError::Wrapped { .. }), "{refused}");
            assert_eq!(files.list().unwrap(), [], "it is none of the data keys");
            files.mend().unwrap();
            assert!(files.veil(&kek(1)).unwrap().is_some());
        });
        let other = KeyFiles { folder: &folder, place: "keys".into(), group: GroupId([8; 16]) };
        assert!(matches!(other.veil(&kek(1)), Err(KeyError::Strange { .. })));
    }

    #[test]
    fn it_is_wrapped_anew_with_the_rest() {
        let folder = SimFolder::new(&Power::default());
        with(&folder, |files| {
            assert_eq!(files.wrap_veil_also(&kek(1), &kek(2)).unwrap(), 0, "there is none");
            let id = files.make_veil(&kek(1), 5).unwrap().id();
            assert_eq!(files.wrap_veil_also(&kek(1), &kek(2)).unwrap(), 1);
            assert_eq!(files.wrap_veil_also(&kek(1), &kek(2)).unwrap(), 0, "repeated");
            let known = files.known_veil().unwrap().unwrap();
            assert_eq!((known.id, known.made, known.wrappers.len()), (id, 5, 2));
            assert!(files.wrap_veil_only(&kek(3)).is_err(), "one that opens it not");
            assert_eq!(files.wrap_veil_only(&kek(2)).unwrap(), 1);
            assert!(files.veil(&kek(1)).is_err());
            assert_eq!(files.veil(&kek(2)).unwrap().unwrap().0.id(), id);
        });
    }

    #[test]
    fn the_last_escrow_is_known() {
        let folder = SimFolder::new(&Power::default());
        with(&folder, |files| {
            let id = files.make_veil(&kek(1), 5).unwrap().id();
            let escrow = || files.known_veil().unwrap().unwrap().escrow;
            assert_eq!(escrow(), None);
            files.note_escrow(KeyId([9; 8]), kek(1).id(), 99).unwrap();
            assert_eq!(escrow(), None, "of another veil key");
            files.note_escrow(id, kek(1).id(), 6).unwrap();
            files.note_escrow(id, kek(2).id(), 7).unwrap();
            assert_eq!(escrow(), Some((kek(2).id(), 7)));
            files.note_escrow(id, kek(1).id(), 8).unwrap();
            assert_eq!(escrow(), Some((kek(1).id(), 8)));
        });
    }
}
