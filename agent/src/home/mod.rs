//! The agent's folder: where everything lies, how it is configured, who may change it.
//!
//! ```text
//! file                  holds                                       secret  written by
//! config.toml           name, addresses, logging                    no      init, then a person
//! key                   the key that wraps all data keys            0600    init
//! identity/             this agent's certificate and its key        0600    init
//! peers.toml            who may do what                             0600    pairing
//! groups/G/group.toml   one group: volumes, role, policy            no      group add, pairing
//! groups/G/layout       the layout manifest                         no      the running agent
//! groups/G/identities   which volumes a source's were               no      the running agent
//! groups/G/keys/        the group's data keys, wrapped by key       wrapped agent, key rotate
//! groups/G/source/      a source's ledger                           no      the running agent
//! groups/G/spill-N/     what waits on disk for replica N            sealed  the running agent
//! groups/G/journal/     a replica's journal                         sealed  the running agent
//! groups/G/replica/     the checkpoint that belongs to it           no      the running agent
//! sets/S/set.toml       one set: its groups, its commands           no      the running agent
//! sets/S/snapshots/N    one snapshot of a set                       no      the running agent
//! removed/G-TIME/       what groups/G was when it was removed       as it was group remove
//! nbd.sock, api.sock    where applications and commands connect     0600    the running agent
//! lock                  held by whoever changes or runs this home   no      everyone
//! ```
//!
//! With `--home` all of it lies under one folder; without, in the platform's places.

pub mod command;

pub mod config;

pub mod error;

pub mod group;

pub mod io;

pub mod keep;

pub mod quantity;

pub mod settings;

pub mod text;

use std::path::{Path, PathBuf};

use vgship_base::ids::Name;
use vgship_snapshot::seal::KeyId;

pub use config::Config;
pub use error::HomeError;
pub use group::{GroupConfig, GroupSpec, Role};
pub use io::LockedHome;
pub use quantity::{Amount, Period, QuantityError, Size};
pub use settings::{MaxLag, Settings, SettingsChange};

pub use crate::capture::source::Overflow;
pub use crate::ship::pace::OnLag;
pub use crate::ship::standing::{Mode, OnTimeout};

/// Names the folder when `--home` is not given.
pub const HOME_VARIABLE: &str = "VGSHIP_HOME";

/// The places that a platform gives to a service.
#[cfg(not(target_os = "aix"))]
const PLATFORM: [&str; 3] = ["/etc/vgship", "/var/lib/vgship", "/run/vgship"];

/// AIX has no `/run` and keeps a service's state in `/var`.
#[cfg(target_os = "aix")]
const PLATFORM: [&str; 3] = ["/etc/vgship", "/var/vgship", "/var/run/vgship"];

/// Where one agent's files lie. Names paths only; reads and writes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    chosen: Option<PathBuf>,
    settings: PathBuf,
    state: PathBuf,
    sockets: PathBuf,
}

impl Home {
    /// Everything under one folder.
    pub fn at(folder: impl Into<PathBuf>) -> Home {
        let folder = folder.into();
        Home {
            settings: folder.clone(),
            state: folder.clone(),
            sockets: folder.clone(),
            chosen: Some(folder),
        }
    }

    /// The platform's places.
    pub fn platform() -> Home {
        let [settings, state, sockets] = PLATFORM.map(PathBuf::from);
        Home { chosen: None, settings, state, sockets }
    }

    /// The folder of `--home`, else that of the environment, else the platform's places.
    pub fn choose(flag: Option<PathBuf>, variable: Option<PathBuf>) -> Home {
        let named = flag.or(variable).filter(|path| !path.as_os_str().is_empty());
        named.map_or_else(Home::platform, Home::at)
    }

    /// What to type before a command so that it acts on this home: `vgship --home H`.
    pub fn command(&self) -> String {
        match &self.chosen {
            Some(folder) => format!("vgship --home {}", folder.display()),
            None => "vgship".to_owned(),
        }
    }

    /// The folders themselves, each once.
    pub fn folders(&self) -> Vec<&Path> {
        let mut all = vec![self.settings.as_path(), &self.state, &self.sockets];
        all.dedup();
        all
    }

    /// The agent's configuration.
    pub fn config(&self) -> PathBuf {
        self.settings.join("config.toml")
    }

    /// The key-encryption key.
    pub fn key(&self) -> PathBuf {
        self.settings.join("key")
    }

    /// The key-encryption key that is about to take the place of the present one.
    pub fn next_key(&self) -> PathBuf {
        self.settings.join("key.next")
    }

    /// A key-encryption key that was replaced.
    pub fn former_key(&self, id: KeyId) -> PathBuf {
        self.settings.join(format!("key.former-{id}"))
    }

    /// The folder of the agent's certificate and its private key.
    pub fn identity(&self) -> PathBuf {
        self.settings.join("identity")
    }

    /// Who may do what.
    pub fn peers(&self) -> PathBuf {
        self.state.join("peers.toml")
    }

    /// The folder of all groups.
    pub fn groups(&self) -> PathBuf {
        self.state.join("groups")
    }

    /// The folder of all sets.
    pub fn sets(&self) -> PathBuf {
        self.state.join("sets")
    }

    /// The folder of one group.
    pub fn group(&self, name: &Name) -> GroupHome {
        GroupHome { folder: self.groups().join(name.as_str()) }
    }

    /// The folder of a group that was removed.
    pub fn removed_group(&self, folder: &str) -> GroupHome {
        GroupHome { folder: self.removed().join(folder) }
    }

    /// The folder of all environments.
    pub fn environments(&self) -> PathBuf {
        self.state.join("environments")
    }

    /// The home's own store of templates.
    pub fn templates(&self) -> PathBuf {
        self.state.join("templates")
    }

    /// Where the folders of removed groups are kept.
    pub fn removed(&self) -> PathBuf {
        self.state.join("removed")
    }

    /// Where applications connect.
    pub fn nbd_socket(&self) -> PathBuf {
        self.sockets.join("nbd.sock")
    }

    /// Where commands connect.
    pub fn api_socket(&self) -> PathBuf {
        self.sockets.join("api.sock")
    }

    /// The file that is locked by whoever changes or runs this home.
    pub fn lock_file(&self) -> PathBuf {
        self.state.join("lock")
    }
}

/// Where one group's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHome {
    folder: PathBuf,
}

impl GroupHome {
    /// The folder of all its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("group.toml")
    }

    /// The layout manifest: a source's own, or the one that a replica's source sent.
    pub fn layout(&self) -> PathBuf {
        self.folder.join("layout")
    }

    /// The folder of its data keys.
    pub fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// What a source's volumes are, whatever they are called.
    pub fn identities(&self) -> PathBuf {
        self.folder.join("identities")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_variable_and_both_over_the_platform() {
        let (flag, variable) = (Some(PathBuf::from("/a")), Some(PathBuf::from("/b")));
        assert_eq!(Home::choose(flag, variable.clone()), Home::at("/a"));
        assert_eq!(Home::choose(None, variable), Home::at("/b"));
        assert_eq!(Home::choose(None, Some(PathBuf::new())), Home::platform());
        assert_eq!(Home::choose(None, None), Home::platform());
    }

    #[test]
    fn one_folder_holds_all_that_the_contract_names() {
        let home = Home::at("/h");
        assert_eq!(home.folders(), [Path::new("/h")]);
        assert_eq!(home.nbd_socket(), Path::new("/h/nbd.sock"));
        assert_eq!(home.api_socket(), Path::new("/h/api.sock"));
        let group = home.group(&"g".parse().unwrap());
        assert_eq!(group.config(), Path::new("/h/groups/g/group.toml"));
        assert_eq!(home.command(), "vgship --home /h");
        assert_eq!(Home::platform().folders().len(), 3);
    }
}
