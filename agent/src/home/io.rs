//! The home on disk: the only file of it that reads, writes or locks.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vgship_base::ids::{GroupId, Name};
use vgship_snapshot::seal::KeyEncryptionKey;
use zeroize::Zeroizing;

use super::config::{CONFIG_BYTES_MAX, Config};
use super::error::HomeError;
use super::group::{GroupConfig, GroupSpec, Role};
use super::text::hex;
use super::{GroupHome, Home, command};

/// Permissions of what only the owner may read.
pub const SECRET: u32 = 0o600;

/// Permissions of what everybody who may enter the folder may read.
pub const PLAIN: u32 = 0o644;

const FOLDER: u32 = 0o700;

/// How often it is looked again whether a home is free, and after how long each time.
const LOCK_TRIES: u32 = 20;
const LOCK_LOOK: std::time::Duration = std::time::Duration::from_millis(10);

impl Home {
    /// Reads and checks the agent's configuration.
    pub fn load_config(&self) -> Result<Config, HomeError> {
        let path = self.config();
        if !path.exists() {
            let init = format!("{} init --name NAME", self.command());
            return Err(HomeError::Missing { path, init });
        }
        Config::parse(&read_text(&path)?, &path)
    }

    /// Reads the key-encryption key; refuses one that others can read.
    pub fn load_key(&self) -> Result<Zeroizing<[u8; 32]>, HomeError> {
        read_key(&self.key())
    }

    /// The same of a key file of any name, where there is one.
    pub fn load_key_at(&self, path: &Path) -> Result<Option<KeyEncryptionKey>, HomeError> {
        let key = path.exists().then(|| read_key(path)).transpose()?;
        Ok(key.map(KeyEncryptionKey::from_bytes))
    }

    /// The key-encryption key: what the command of the configuration prints, else the file `key`.
    pub fn wrapping_key(&self) -> Result<KeyEncryptionKey, HomeError> {
        // Before there is a configuration there is the file alone.
        let configured = self.config().exists().then(|| self.load_config()).transpose()?;
        match configured.and_then(|config| config.key_command) {
            Some(command) => command::key_of(&command, command::PATIENCE),
            None => Ok(KeyEncryptionKey::from_bytes(self.load_key()?)),
        }
    }

    /// The key-encryption key, and behind it those that it has replaced and that are still kept: for
    /// stores of templates that were not wrapped anew.
    pub fn opening_keys(&self) -> Result<Vec<KeyEncryptionKey>, HomeError> {
        let mut keys = vec![self.wrapping_key()?];
        let place = self.key();
        let folder = place.parent().unwrap_or(Path::new("."));
        for entry in std::fs::read_dir(folder).map_err(HomeError::io("list", folder))? {
            let path = entry.map_err(HomeError::io("list", folder))?.path();
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            if name.starts_with("key.former-") {
                keys.extend(self.load_key_at(&path)?);
            }
        }
        Ok(keys)
    }

    /// The names of all groups, sorted.
    pub fn group_names(&self) -> Result<Vec<Name>, HomeError> {
        let folder = self.groups();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(HomeError::io("list", folder)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(HomeError::io("list", &folder))?;
            let name: Option<Name> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            names.extend(name.filter(|name| self.group(name).config().exists()));
        }
        names.sort();
        Ok(names)
    }

    /// Reads and checks one group.
    pub fn load_group(&self, name: &Name) -> Result<GroupConfig, HomeError> {
        let path = self.group(name).config();
        if !path.exists() {
            return Err(HomeError::NoGroup { name: name.clone(), known: self.group_names()? });
        }
        let config = GroupConfig::parse(&read_text(&path)?, &path)?;
        if config.name != *name {
            let why = format!("it says {} and stands in the folder of {name}", config.name);
            return Err(HomeError::Value { path, key: "name", why });
        }
        Ok(config)
    }

    /// Reads and checks all groups.
    pub fn load_groups(&self) -> Result<Vec<GroupConfig>, HomeError> {
        self.group_names()?.iter().map(|name| self.load_group(name)).collect()
    }

    /// Makes the folders where they are missing, readable by the owner alone.
    pub fn make_folders(&self) -> Result<(), HomeError> {
        self.folders().into_iter().try_for_each(make_folder)
    }

    /// Takes the home for this process, until the result is dropped.
    pub fn lock(&self) -> Result<LockedHome, HomeError> {
        let path = self.lock_file();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(SECRET)
            .open(&path)
            .map_err(HomeError::io("open", &path))?;
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(LockedHome { home: self.clone(), _file: file }),
                // Who let go of it just now may be starting a program, which has it for a moment.
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_LOOK);
                }
                Err(TryLockError::WouldBlock) => return Err(HomeError::Locked { path }),
                Err(TryLockError::Error(error)) => return Err(HomeError::io("lock", path)(error)),
            }
        }
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, HomeError> {
    check_secret(path)?;
    let text = Zeroizing::new(read_text(path)?);
    hex(text.trim()).map(Zeroizing::new).ok_or_else(|| HomeError::Text {
        path: path.to_owned(),
        line: 1,
        key: None,
        why: "this is not a key: 64 hexadecimal digits".to_owned(),
    })
}

/// A home that no other process changes or runs while this value lives.
#[derive(Debug)]
pub struct LockedHome {
    home: Home,
    _file: File,
}

impl Deref for LockedHome {
    type Target = Home;

    fn deref(&self) -> &Home {
        &self.home
    }
}

impl LockedHome {
    /// Makes the key-encryption key where there is none.
    ///
    /// Durable: once this has returned.
    pub fn make_key(&self) -> Result<(), HomeError> {
        if self.key().exists() {
            return self.load_key().map(drop);
        }
        let mut key = Zeroizing::new([0; 32]);
        fill_random(key.as_mut_slice(), &self.key())?;
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in *key {
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a hexadecimal digit"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("a hexadecimal digit"));
        }
        text.push('\n');
        replace(&self.key(), text.as_bytes(), SECRET)
    }

    /// Writes the configuration of a new agent.
    ///
    /// Durable: once this has returned.
    pub fn write_config(&self, text: &str) -> Result<(), HomeError> {
        replace(&self.config(), text.as_bytes(), PLAIN)
    }

    /// Adds a group of which this agent is the source. The caller has found that its volumes open.
    ///
    /// Durable: once this has returned.
    pub fn add_group(&self, spec: GroupSpec) -> Result<GroupConfig, HomeError> {
        let mut id = [0; 16];
        fill_random(&mut id, &self.groups())?;
        let config = spec.into_config(GroupId(id), Role::Source);
        self.create_group(&config)?;
        Ok(config)
    }

    /// Adds a group as it is, for instance the replica's side of a pairing.
    ///
    /// Durable: once this has returned.
    pub fn create_group(&self, config: &GroupConfig) -> Result<GroupHome, HomeError> {
        let group = self.group(&config.name);
        if group.config().exists() {
            return Err(HomeError::GroupExists { name: config.name.clone() });
        }
        config.check(&group.config())?;
        // A write through one of two groups would be unseen by the other.
        let same = |known: &GroupConfig| known.volumes == config.volumes;
        if let Some(known) = self.load_groups()?.into_iter().find(same) {
            return Err(HomeError::VolumesTaken { name: known.name, volumes: known.volumes });
        }
        make_folder(&self.groups())?;
        make_folder(group.folder())?;
        sync_folder(&self.groups())?;
        replace(&group.config(), config.to_text().as_bytes(), PLAIN)?;
        Ok(group)
    }

    /// Takes a group out: its folder is kept under another name, which is returned. Deletes nothing.
    ///
    /// Durable: once this has returned.
    pub fn remove_group(&self, name: &Name) -> Result<PathBuf, HomeError> {
        let group = self.group(name);
        if !group.config().exists() {
            return Err(HomeError::NoGroup { name: name.clone(), known: self.group_names()? });
        }
        let removed = self.removed();
        make_folder(&removed)?;
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        // Two in one second are told apart.
        let places = (1..).map(|number| match number {
            1 => removed.join(format!("{name}-{time}")),
            _ => removed.join(format!("{name}-{time}-{number}")),
        });
        let place = places.into_iter().find(|place| !place.exists()).expect("numbers do not end");
        std::fs::rename(group.folder(), &place)
            .map_err(HomeError::io("move away", group.folder()))?;
        // Where it is now first: a power cut in between shows it twice, not nowhere.
        sync_folder(&removed)?;
        sync_folder(&self.groups())?;
        sync_folder(removed.parent().unwrap_or(&removed))?;
        Ok(place)
    }

    /// Replaces a group's configuration, for instance once it is paired.
    ///
    /// Durable: once this has returned.
    pub fn save_group(&self, config: &GroupConfig) -> Result<(), HomeError> {
        let path = self.group(&config.name).config();
        config.check(&path)?;
        if !path.exists() {
            let known = self.group_names()?;
            return Err(HomeError::NoGroup { name: config.name.clone(), known });
        }
        replace(&path, config.to_text().as_bytes(), PLAIN)
    }
}

/// The address that this machine has towards others. Asks the routing table; sends nothing.
pub fn own_address() -> Option<IpAddr> {
    // Addresses that are kept for documentation: they are routed like any far one.
    let far = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    far.into_iter().find_map(|(any, there)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(there).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    })
}

/// Refuses a secret that others than its owner can read or change.
pub fn check_secret(path: &Path) -> Result<(), HomeError> {
    let found = std::fs::metadata(path).map_err(HomeError::io("read", path))?;
    let mode = found.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(HomeError::Open { path: path.to_owned(), mode }),
    }
}

/// Replaces a file as a whole: after a power cut it is the old one or the new one.
///
/// Durable: the new content, once this has returned.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), HomeError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let failed = || HomeError::io("write", path);
    let mut fresh = tempfile::Builder::new()
        .prefix(".fresh-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(failed())?;
    fresh.write_all(content).map_err(failed())?;
    fresh.as_file().sync_all().map_err(failed())?;
    fresh.persist(path).map_err(|error| failed()(error.error))?;
    sync_folder(folder)
}

/// Reads a text of at most as many bytes, or nothing where there is no file, or no such text.
pub fn read_if_any(path: &Path, most: u64) -> Result<Option<String>, HomeError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(HomeError::io("read", path))?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(HomeError::io("read", path))?;
    let fits = bytes.len() as u64 <= most;
    Ok(String::from_utf8(bytes).ok().filter(|_| fits))
}

/// Reads a text of bounded length.
pub fn read_text(path: &Path) -> Result<String, HomeError> {
    let file = File::open(path).map_err(HomeError::io("read", path))?;
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(HomeError::io("read", path))?;
    match text.len() as u64 > CONFIG_BYTES_MAX {
        true => Err(HomeError::Text {
            path: path.to_owned(),
            line: 1,
            key: None,
            why: format!("it is longer than the {CONFIG_BYTES_MAX} bytes that are read"),
        }),
        false => Ok(text),
    }
}

/// Makes the names around a file durable.
pub fn make_durable(path: &Path) -> Result<(), HomeError> {
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn make_folder(path: &Path) -> Result<(), HomeError> {
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(FOLDER);
    folder.create(path).map_err(HomeError::io("make the folder", path))
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), HomeError> {
    let folder = File::open(path).map_err(HomeError::io("open", path))?;
    folder.sync_all().map_err(HomeError::io("make durable", path))
}

fn fill_random(bytes: &mut [u8], for_path: &Path) -> Result<(), HomeError> {
    getrandom::fill(bytes).map_err(|error| {
        let source = std::io::Error::other(error.to_string());
        HomeError::io("get random bytes for", for_path)(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, Home) {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path().join("h"));
        home.make_folders().unwrap();
        (place, home)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn spec(name: &str) -> GroupSpec {
        GroupSpec::new(name.parse().unwrap(), format!("images:/srv/{name}"))
    }

    #[test]
    fn a_home_has_one_owner_at_a_time() {
        let (_place, home) = fresh();
        let locked = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(HomeError::Locked { .. })));
        drop(locked);
        assert!(home.lock().is_ok());
    }

    #[test]
    fn secrets_are_closed_and_one_that_is_open_is_refused() {
        let (place, home) = fresh();
        let locked = home.lock().unwrap();
        locked.make_key().unwrap();
        assert_eq!((mode(&home.key()), mode(&place.path().join("h"))), (0o600, 0o700));
        let key = home.load_key().unwrap();
        assert!(key.iter().any(|byte| *byte != 0));
        locked.make_key().unwrap();
        assert_eq!(home.load_key().unwrap(), key, "a key is never replaced");
        std::fs::set_permissions(home.key(), Permissions::from_mode(0o640)).unwrap();
        let error = home.load_key().unwrap_err();
        assert!(error.to_string().contains("0640"), "{error}");
        std::fs::set_permissions(home.key(), Permissions::from_mode(0o600)).unwrap();
        std::fs::write(home.key(), "12").unwrap();
        assert!(home.load_key().unwrap_err().to_string().contains("not a key"));
    }

    #[test]
    fn groups_are_kept_and_a_name_is_given_once() {
        let (_place, home) = fresh();
        let locked = home.lock().unwrap();
        assert_eq!(home.group_names().unwrap(), []);
        let mut beta = locked.add_group(spec("beta")).unwrap();
        let alpha = locked.add_group(spec("alpha")).unwrap();
        assert_ne!(alpha.id, beta.id);
        assert_eq!(home.load_groups().unwrap(), [alpha, beta.clone()]);
        assert!(matches!(locked.add_group(spec("beta")), Err(HomeError::GroupExists { .. })));
        let shared = GroupSpec { volumes: "images:/srv/beta".to_owned(), ..spec("gamma") };
        let error = locked.add_group(shared).unwrap_err();
        assert_eq!(error.to_string(), "group beta has the volumes images:/srv/beta already");
        beta.peer = Some(vgship_base::ids::PeerId([7; 32]));
        locked.save_group(&beta).unwrap();
        assert_eq!(home.load_group(&beta.name).unwrap(), beta);
        let error = home.load_group(&"gamma".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(error, "there is no group gamma here; there are: alpha, beta");
    }

    #[test]
    fn a_removed_group_is_kept_and_its_name_and_volumes_are_free() {
        let (_place, home) = fresh();
        let locked = home.lock().unwrap();
        let mut kept = Vec::new();
        for text in ["one", "two", "three"] {
            locked.add_group(spec("g")).unwrap();
            locked.add_group(spec(text)).unwrap();
            let name = "g".parse().unwrap();
            std::fs::write(home.group(&name).layout(), text).unwrap();
            kept.push(locked.remove_group(&name).unwrap());
            assert!(!home.group(&name).folder().exists());
        }
        for (place, text) in kept.iter().zip(["one", "two", "three"]) {
            assert!(place.starts_with(home.removed()), "{}", place.display());
            assert_eq!(std::fs::read_to_string(place.join("layout")).unwrap(), text);
            assert!(place.join("group.toml").exists());
        }
        assert_eq!(home.group_names().unwrap().len(), 3, "the others stay");
        let error = locked.remove_group(&"g".parse().unwrap()).unwrap_err();
        assert!(error.is_refusal() && error.to_string().contains("there is no group g here"));
    }

    #[test]
    fn a_group_that_cannot_be_leaves_nothing_behind() {
        let (_place, home) = fresh();
        let locked = home.lock().unwrap();
        let mut wrong = spec("g");
        wrong.policy.sync_timeout = "1 ms".parse().unwrap();
        assert!(locked.add_group(wrong).is_err());
        assert_eq!(home.group_names().unwrap(), []);
        assert!(!home.groups().exists());
    }

    #[test]
    fn a_group_in_the_wrong_folder_is_noticed() {
        let (_place, home) = fresh();
        let locked = home.lock().unwrap();
        locked.add_group(spec("one")).unwrap();
        std::fs::rename(home.groups().join("one"), home.groups().join("two")).unwrap();
        let error = home.load_groups().unwrap_err().to_string();
        assert!(error.contains("it says one and stands in the folder of two"), "{error}");
    }

    #[test]
    fn a_missing_or_endless_configuration_is_said() {
        let (_place, home) = fresh();
        let error = home.load_config().unwrap_err();
        assert!(error.hint().unwrap().contains("init --name NAME"));
        std::fs::write(home.config(), "#".repeat(70_000)).unwrap();
        assert!(home.load_config().unwrap_err().to_string().contains("longer than"));
    }
}
