//! The sets of this agent and their snapshots, in memory and on disk.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use vgship_base::ids::Name;

use super::templates::Making;
use crate::api::ControlError;
use crate::home::{Home, HomeError, io as files};
use crate::sets::config::SetConfig;
use crate::sets::record::{BYTES_MAX, Record, State};

const CONFIG: &str = "set.toml";
const SNAPSHOTS: &str = "snapshots";

/// All sets.
pub(in crate::pipeline) struct Shelf {
    folder: PathBuf,
    sets: Mutex<BTreeMap<Name, Set>>,
    /// Those that could not be read when the agent started, and why. They stay as they are.
    unread: BTreeMap<Name, ControlError>,
    /// Told when there may be something to take away.
    kicked: Notify,
    pub(super) making: Making,
}

/// A set.
#[derive(Clone)]
pub(super) struct Set {
    pub(super) config: SetConfig,
    pub(super) records: BTreeMap<Name, Record>,
}

impl Shelf {
    /// Reads all sets. A snapshot that an earlier life began and did not make is going from now on.
    /// A set that cannot be read is left alone, which is said: groups are replicated without it.
    ///
    /// # Errors
    /// The folder of all sets cannot be read.
    pub(in crate::pipeline) fn load(home: &Home) -> Result<Shelf, ControlError> {
        let folder = home.sets();
        let (mut sets, mut unread) = (BTreeMap::new(), BTreeMap::new());
        for name in names_in(&folder)? {
            match load_set(&folder.join(name.as_str()), &name) {
                Ok(Some(set)) => drop(sets.insert(name, set)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(set = %name, %error, "a set cannot be read");
                    let hint = "mend the file, or move the set's folder away; then start the agent";
                    unread.insert(name, error.hint(hint));
                }
            }
        }
        Ok(Shelf {
            folder,
            sets: Mutex::new(sets),
            unread,
            kicked: Notify::new(),
            making: Making::default(),
        })
    }

    fn sets(&self) -> MutexGuard<'_, BTreeMap<Name, Set>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looks at what is going soon.
    pub(in crate::pipeline) fn kick(&self) {
        self.kicked.notify_one();
    }

    /// Until somebody says so.
    pub(super) async fn kicked(&self) {
        self.kicked.notified().await;
    }

    /// All sets, by name.
    pub(super) fn all(&self) -> Vec<Set> {
        self.sets().values().cloned().collect()
    }

    /// One set.
    pub(super) fn get(&self, name: &Name) -> Result<Set, ControlError> {
        self.unread.get(name).map_or(Ok(()), |error| Err(error.clone()))?;
        let sets = self.sets();
        sets.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = sets.keys().map(Name::as_str).collect();
            let hint = match known.is_empty() {
                true => "this agent has no sets yet: make one with vgship set create".to_owned(),
                false => format!("its sets are: {}", known.join(", ")),
            };
            ControlError::refused(format!("this agent has no set {name}")).hint(hint)
        })
    }

    /// One snapshot.
    pub(super) fn record(&self, set: &Name, name: &Name) -> Result<Record, ControlError> {
        self.get(set)?.records.remove(name).ok_or_else(|| {
            ControlError::refused(format!("set {set} has no snapshot {name}"))
                .hint(format!("see which there are with: vgship snapshot list --set {set}"))
        })
    }

    /// Makes a set, or changes it.
    ///
    /// Durable: once this has returned.
    pub(super) fn put(&self, config: SetConfig, is_new: bool) -> Result<(), ControlError> {
        self.unread.get(&config.name).map_or(Ok(()), |error| Err(error.clone()))?;
        let mut sets = self.sets();
        if is_new && sets.contains_key(&config.name) {
            let why = format!("there is a set {} already", config.name);
            return Err(ControlError::refused(why)
                .hint("change it with vgship set add or remove, or choose another name"));
        }
        let place = self.folder.join(config.name.as_str());
        files::make_folder(&place.join(SNAPSHOTS))?;
        files::sync_folder(&self.folder)?;
        files::sync_folder(self.folder.parent().unwrap_or(&self.folder))?;
        files::replace(&place.join(CONFIG), config.to_text().as_bytes(), files::PLAIN)?;
        if let Some(known) = sets.get_mut(&config.name) {
            known.config = config;
        } else {
            let records = BTreeMap::new();
            sets.insert(config.name.clone(), Set { config, records });
        }
        Ok(())
    }

    /// Takes a set out that has no snapshots.
    ///
    /// Durable: once this has returned.
    pub(super) fn remove(&self, name: &Name) -> Result<(), ControlError> {
        let mut sets = self.sets();
        if let Some(set) = sets.get(name)
            && let Some(first) = set.records.keys().next()
        {
            let why =
                format!("set {name} has snapshots: {first} and {} more", set.records.len() - 1);
            return Err(ControlError::refused(why)
                .hint(format!("delete them first: vgship snapshot delete --set {name}@{first}")));
        }
        let place = self.folder.join(name.as_str());
        let failed = |error| ControlError::from(HomeError::io("remove", &place)(error));
        std::fs::remove_file(place.join(CONFIG)).map_err(failed)?;
        files::sync_folder(&place)?;
        sets.remove(name);
        // It is no set any more; what cannot be removed now is in nobody's way.
        let _ = std::fs::remove_dir_all(&place);
        Ok(())
    }

    /// Notes a snapshot that begins.
    ///
    /// Durable: once this has returned.
    pub(super) fn begin(&self, record: &Record) -> Result<(), ControlError> {
        let mut sets = self.sets();
        let (set, name) = (&record.set, &record.name);
        let gone = || ControlError::refused(format!("this agent has no set {set} any more"));
        let found = sets.get_mut(set).ok_or_else(gone)?;
        if let Some(under_way) = found.records.values().find(|it| it.state == State::Begun) {
            let why = format!("a snapshot of set {set} is being made already: {}", under_way.name);
            return Err(ControlError::refused(why).hint("wait for that command's end"));
        }
        if let Some(known) = found.records.get(name) {
            let (why, hint) = match known.state {
                State::Going => ("is still being taken away", "repeat this when it is gone"),
                _ => ("is there already", "choose another name"),
            };
            return Err(ControlError::refused(format!("{set}@{name} {why}")).hint(hint));
        }
        let path = self.path(record);
        if path.exists() {
            let why = format!("{} is in the way, and damaged", path.display());
            return Err(ControlError::failed(why).hint("look into it, and remove it"));
        }
        files::replace(&path, &record.encode(), files::PLAIN)?;
        found.records.insert(name.clone(), record.clone());
        Ok(())
    }

    /// Notes what became of a snapshot.
    ///
    /// Durable: once this has returned. When it fails, it is as it was.
    pub(super) fn save(&self, record: &Record) -> Result<(), ControlError> {
        let mut sets = self.sets();
        files::replace(&self.path(record), &record.encode(), files::PLAIN)?;
        if let Some(set) = sets.get_mut(&record.set) {
            set.records.insert(record.name.clone(), record.clone());
        }
        Ok(())
    }

    /// A snapshot is going from now on, whether or not that can be noted: what has begun and was not
    /// made is going after a restart, too.
    pub(super) fn give_up(&self, record: &Record) {
        let going = Record { state: State::Going, ..record.clone() };
        if let Err(error) = self.save(&going) {
            tracing::error!(set = %record.set, snapshot = %record.name, %error, "cannot be noted");
            let mut sets = self.sets();
            if let Some(set) = sets.get_mut(&record.set) {
                set.records.insert(record.name.clone(), going);
            }
        }
        self.kick();
    }

    /// Nothing is left of a snapshot.
    pub(super) fn forget(&self, record: &Record) -> Result<(), ControlError> {
        let mut sets = self.sets();
        let path = self.path(record);
        let failed = |error| ControlError::from(HomeError::io("remove", &path)(error));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(failed)?,
        }
        files::sync_folder(path.parent().unwrap_or(&path))?;
        if let Some(set) = sets.get_mut(&record.set) {
            set.records.remove(&record.name);
        }
        Ok(())
    }

    fn path(&self, record: &Record) -> PathBuf {
        let set = self.folder.join(record.set.as_str());
        set.join(SNAPSHOTS).join(record.name.as_str())
    }
}

/// The names in a folder; none when there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<Name>, ControlError> {
    let failed = |error| ControlError::from(HomeError::io("list", folder)(error));
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // What has no such name is a file that was being written, or a person's.
        names.extend(entry.map_err(failed)?.file_name().to_str().and_then(|it| it.parse().ok()));
    }
    Ok(names)
}

/// A set; `None` where it was not made, or is deleted.
fn load_set(folder: &Path, name: &Name) -> Result<Option<Set>, ControlError> {
    let path = folder.join(CONFIG);
    let text = match files::read_text(&path) {
        Err(HomeError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        text => text?,
    };
    let config = SetConfig::parse(&text, &path)?;
    if config.name != *name {
        let why = format!("{} says that it is set {}", path.display(), config.name);
        return Err(ControlError::failed(why));
    }
    Ok(Some(Set { config, records: load_records(&folder.join(SNAPSHOTS), name)? }))
}

fn load_records(folder: &Path, set: &Name) -> Result<BTreeMap<Name, Record>, ControlError> {
    let mut records = BTreeMap::new();
    for name in names_in(folder)? {
        let path = folder.join(name.as_str());
        let failed = |error| ControlError::from(HomeError::io("read", &path)(error));
        let size = std::fs::metadata(&path).map_err(failed)?.len();
        let read = match size <= BYTES_MAX {
            true => {
                Record::decode(&std::fs::read(&path).map_err(failed)?).map_err(|it| it.to_string())
            }
            false => Err(format!("it is longer than {BYTES_MAX} bytes")),
        };
        match read {
            Ok(record) if record.name != name || record.set != *set => {
                let (path, says) = (path.display(), format!("{}@{}", record.set, record.name));
                tracing::error!(%path, says, "a set's snapshot lies under another name");
            }
            Ok(mut record) => {
                if record.state == State::Begun {
                    record.state = State::Going;
                    tracing::warn!(set = %record.set, snapshot = %record.name,
                        "it was being made when the agent ended; what is there of it is taken back");
                }
                records.insert(name, record);
            }
            Err(why) => {
                tracing::error!(path = %path.display(), why, "a set's snapshot cannot be read: what \
                    it is made of stays on the replicas");
            }
        }
    }
    Ok(records)
}
