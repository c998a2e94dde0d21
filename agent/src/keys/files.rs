//! The files of one key ring. Each change is a file that is written whole under its own name, or one
//! that is overwritten and taken away; none is changed in place. So a crash leaves a ring that opens.
//!
//! ```text
//! NUMBER-WRAPPER.key   a data key, wrapped by the key-encryption key of that id; the key with the
//!                      highest number is current. While another key-encryption key takes over there
//!                      are two files of each key
//! NUMBER.gone          that key is destroyed: files of it that are still there are overwritten
//! *.new                a file that has not got its name yet, or is about to go: what a crash leaves
//!                      of it is overwritten
//! ```
//!
//! NUMBER and WRAPPER are 16 hexadecimal digits. Beside them lies the veil key: `veil.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use vgship_base::folder::{self, Folder};
use vgship_base::ids::GroupId;
use vgship_snapshot::seal::{DataKey, KEPT_LEN, Kept, KeyEncryptionKey, KeyId, KeyRing, SealError};

use super::KeyError;

const KEY: &str = ".key";
const GONE: &str = ".gone";
const FRESH: &str = ".new";

/// A data key of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its place among the others.
    pub number: u64,
    /// As it is kept.
    pub kept: Kept,
    /// Which key-encryption keys open it; none once it is destroyed.
    pub wrappers: Vec<KeyId>,
}

impl KnownKey {
    /// Whether it can still be used.
    pub const fn is_usable(&self) -> bool {
        self.kept.key.is_ok()
    }
}

/// The files of the keys of one group.
pub struct KeyFiles<'a> {
    /// Where they lie.
    pub folder: &'a dyn Folder,
    /// The same, for people.
    pub place: PathBuf,
    /// Whose they are.
    pub group: GroupId,
}

fn key_name(number: u64, by: KeyId) -> String {
    format!("{}-{by}{KEY}", folder::digits_of(number))
}

fn gone_name(number: u64) -> String {
    format!("{}{GONE}", folder::digits_of(number))
}

/// What a name says.
enum Named {
    Key(u64, KeyId),
    Gone(u64),
    Fresh,
    Other,
}

fn named(name: &str) -> Named {
    if name.ends_with(FRESH) {
        return Named::Fresh;
    }
    if let Some(number) = name.strip_suffix(GONE).and_then(folder::number_of) {
        return Named::Gone(number);
    }
    let parts = name.strip_suffix(KEY).and_then(|it| it.split_once('-'));
    let parts = parts.map(|(number, by)| (folder::number_of(number), folder::number_of(by)));
    match parts {
        Some((Some(number), Some(by))) => Named::Key(number, KeyId(by.to_be_bytes())),
        _ => Named::Other,
    }
}

impl KeyFiles<'_> {
    pub(super) fn failed<'a>(
        &'a self,
        action: &'static str,
        name: &'a str,
    ) -> impl FnOnce(io::Error) -> KeyError + 'a {
        let (name, folder) = (name.to_owned(), self.place.clone());
        move |source| KeyError::Io { action, name, folder, source }
    }

    pub(super) fn sealed(&self, name: &str) -> impl FnOnce(SealError) -> KeyError {
        let (name, folder) = (name.to_owned(), self.place.clone());
        move |source| KeyError::Seal { name, folder, source }
    }

    pub(super) fn strange(&self, why: impl Into<String>) -> KeyError {
        KeyError::Strange { folder: self.place.clone(), why: why.into() }
    }

    pub(super) fn names(&self) -> Result<Vec<String>, KeyError> {
        self.folder.list().map_err(self.failed("list", "*"))
    }

    fn read(&self, name: &str) -> Result<Kept, KeyError> {
        let bytes = folder::read_small(self.folder, name, KEPT_LEN as u64);
        let bytes = bytes.map_err(self.failed("read", name))?.unwrap_or_default();
        let kept = Kept::decode(&bytes).map_err(self.sealed(name))?;
        match kept.group == self.group {
            true => Ok(kept),
            false => Err(self.strange(format!("{name} belongs to group {}", kept.group))),
        }
    }

    /// All keys, ascending, those that are no more among them.
    ///
    /// # Errors
    /// The disk refused, or a file is damaged.
    pub fn list(&self) -> Result<Vec<KnownKey>, KeyError> {
        let mut found: BTreeMap<u64, KnownKey> = BTreeMap::new();
        let names = self.names()?;
        let is_gone = |number: u64| names.contains(&gone_name(number));
        for name in &names {
            let (number, wrapper) = match named(name) {
                Named::Key(number, _) if is_gone(number) => continue, // see `mend`
                Named::Key(number, by) => (number, Some(by)),
                Named::Gone(number) => (number, None),
                Named::Fresh | Named::Other => continue,
            };
            let kept = self.read(name)?;
            let known = KnownKey { number, kept, wrappers: Vec::new() };
            let id = known.kept.id;
            let known = found.entry(number).or_insert(known);
            if known.kept.id != id {
                return Err(self.strange(format!("{name} is another key than its number says")));
            }
            known.wrappers.extend(wrapper);
        }
        Ok(found.into_values().collect())
    }

    /// Ends what a crash cut off: keys that were being destroyed go, and files that never got their
    /// name. How many files that were.
    ///
    /// # Errors
    /// The disk refused.
    pub fn mend(&self) -> Result<usize, KeyError> {
        let names = self.names()?;
        let mut mended = 0;
        for name in &names {
            let left = match named(name) {
                Named::Fresh => true,
                Named::Key(number, _) => names.contains(&gone_name(number)),
                Named::Gone(_) | Named::Other => false,
            };
            if left {
                self.scrub(name)?;
                mended += 1;
            }
        }
        Ok(mended)
    }

    /// Overwrites a file and takes it away.
    ///
    /// Durable: both, once this has returned.
    ///
    /// # Errors
    /// The disk refused.
    pub fn scrub(&self, name: &str) -> Result<(), KeyError> {
        // Half overwritten it must not look like a key that is damaged.
        let passing = if name.ends_with(FRESH) {
            name.to_owned()
        } else {
            let passing = format!("{name}{FRESH}");
            self.folder.rename(name, &passing).map_err(self.failed("overwrite", name))?;
            self.folder.sync().map_err(self.failed("overwrite", name))?;
            passing
        };
        let name = passing.as_str();
        let file = self.folder.open(name).map_err(self.failed("open", name))?;
        let zeroes = vec![0; usize::try_from(file.len().min(4096)).unwrap_or(0)];
        file.write_at(0, &zeroes).map_err(self.failed("overwrite", name))?;
        file.flush().map_err(self.failed("overwrite", name))?;
        self.folder.remove(name).map_err(self.failed("remove", name))?;
        self.folder.sync().map_err(self.failed("remove", name))
    }

    fn put(&self, name: &str, kept: &Kept) -> Result<(), KeyError> {
        folder::replace(self.folder, name, &kept.encode()).map_err(self.failed("write", name))
    }

    /// One key, unwrapped.
    pub(super) fn open(
        &self,
        known: &KnownKey,
        by: &KeyEncryptionKey,
    ) -> Result<DataKey, KeyError> {
        if !known.wrappers.contains(&by.id()) {
            let (id, folder, ours) = (known.kept.id, self.place.clone(), by.id());
            let wrapper = *known.wrappers.first().unwrap_or(&ours);
            return Err(KeyError::Wrapped { id, folder, by: wrapper, ours });
        }
        let name = key_name(known.number, by.id());
        self.read(&name)?.unwrap(by).map_err(self.sealed(&name))
    }

    /// The ring; `None` when there is no key yet.
    ///
    /// # Errors
    /// The disk refused, a file is damaged, or a key is not wrapped by this key-encryption key.
    pub fn load(&self, by: &KeyEncryptionKey) -> Result<Option<KeyRing>, KeyError> {
        self.mend()?;
        let known = self.list()?;
        if known.is_empty() {
            return Ok(None);
        }
        let (usable, gone): (Vec<_>, Vec<_>) = known.iter().partition(|it| it.is_usable());
        if !known.last().is_some_and(KnownKey::is_usable) {
            return Err(self.strange("the current key is missing; put its file back"));
        }
        let keys = usable.into_iter().map(|it| self.open(it, by)).collect::<Result<Vec<_>, _>>()?;
        let destroyed: BTreeSet<KeyId> = gone.into_iter().map(|it| it.kept.id).collect();
        Ok(Some(KeyRing::new(keys, destroyed)))
    }

    /// Takes a key as the newest one.
    ///
    /// Durable: once this has returned; only then may anything be sealed with it.
    ///
    /// # Errors
    /// The disk refused, or the system has no random bytes.
    pub fn add(&self, by: &KeyEncryptionKey, key: &DataKey, made: u64) -> Result<(), KeyError> {
        let last = self.list()?.last().map(|it| it.number);
        let number = folder::number_after(last).map_err(self.failed("continue", "*"))?;
        let name = key_name(number, by.id());
        let kept = Kept::wrap(by, self.group, key, made).map_err(self.sealed(&name))?;
        self.put(&name, &kept)
    }

    /// Makes a new key, which is current from then on.
    ///
    /// Durable: once this has returned; only then may anything be sealed with it.
    ///
    /// # Errors
    /// The disk refused, or the system has no random bytes.
    pub fn make(&self, by: &KeyEncryptionKey, now: u64) -> Result<DataKey, KeyError> {
        let key = DataKey::generate().map_err(self.sealed("*"))?;
        self.add(by, &key, now)?;
        Ok(key)
    }

    /// The key that a person names by its id or the beginning of it.
    ///
    /// # Errors
    /// [`KeyError::Unknown`] when there is none, or more than one.
    pub fn find(&self, text: &str) -> Result<KnownKey, KeyError> {
        let all = self.list()?;
        let fits = |it: &&KnownKey| text.len() >= 4 && it.kept.id.to_string().starts_with(text);
        let mut fitting = all.iter().filter(fits);
        if let (Some(one), None) = (fitting.next(), fitting.next()) {
            return Ok(one.clone());
        }
        let known: Vec<String> = all.iter().map(|it| it.kept.id.to_string()).collect();
        Err(KeyError::Unknown { text: text.to_owned(), known: known.join(", ") })
    }

    /// Destroys a key: first it is noted that it is no more, then its files are overwritten and go.
    ///
    /// Durable: once this has returned; after a crash in between [`KeyFiles::load`] ends it, and so
    /// does this when it is repeated.
    ///
    /// # Errors
    /// [`KeyError::Current`], [`KeyError::Ended`], [`KeyError::Unknown`]: nothing was changed. The
    /// disk refused: to be repeated.
    pub fn destroy(&self, id: KeyId, now: u64) -> Result<(), KeyError> {
        let all = self.list()?;
        let known = all.iter().find(|it| it.kept.id == id);
        let known = known.ok_or_else(|| KeyError::Unknown {
            text: id.to_string(),
            known: all.iter().map(|it| it.kept.id.to_string()).collect::<Vec<_>>().join(", "),
        })?;
        if !known.is_usable() {
            // What was cut off ends now; only what had ended is refused.
            return match self.mend()? {
                0 => Err(KeyError::Ended(id)),
                _ => Ok(()),
            };
        }
        if all.last().is_some_and(|last| last.number == known.number) {
            return Err(KeyError::Current(id));
        }
        let gone = Kept { key: Err(now), ..known.kept.clone() };
        self.put(&gone_name(known.number), &gone)?;
        self.mend().map(drop)
    }

    /// Wraps every key by a second key-encryption key, too; how many.
    ///
    /// Durable: once this has returned. What was wrapped so before is left alone, so that it can be
    /// repeated.
    ///
    /// # Errors
    /// As [`KeyFiles::load`].
    pub fn wrap_also(
        &self,
        by: &KeyEncryptionKey,
        also: &KeyEncryptionKey,
    ) -> Result<usize, KeyError> {
        self.mend()?;
        let mut wrapped = 0;
        for known in self.list()?.iter().filter(|it| it.is_usable()) {
            if known.wrappers.contains(&also.id()) {
                self.open(known, also)?;
                continue;
            }
            let key = self.open(known, by)?;
            let name = key_name(known.number, also.id());
            let kept = Kept::wrap(also, self.group, &key, known.kept.made);
            self.put(&name, &kept.map_err(self.sealed(&name))?)?;
            wrapped += 1;
        }
        Ok(wrapped)
    }

    /// Takes away what other key-encryption keys wrap; how many files. First it is proven that this
    /// one opens every key.
    ///
    /// Durable: once this has returned. Can be repeated.
    ///
    /// # Errors
    /// As [`KeyFiles::load`]; then nothing was taken away.
    pub fn wrap_only(&self, by: &KeyEncryptionKey) -> Result<usize, KeyError> {
        self.load(by)?;
        let mut gone = 0;
        for name in self.names()? {
            if let Named::Key(_, wrapper) = named(&name)
                && wrapper != by.id()
            {
                self.scrub(&name)?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
