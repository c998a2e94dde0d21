//! What can be wrong with an agent's folder, and what a person does about it.

use std::io;
use std::path::PathBuf;

use vgship_base::ids::Name;

use super::quantity::Size;

/// Why a home cannot be read, changed or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The system refused an operation; `action` is a verb.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// There is no agent configured here.
    #[error("there is no agent in this home: {} does not exist", path.display())]
    Missing {
        /// The configuration that was looked for.
        path: PathBuf,
        /// How to make one.
        init: String,
    },

    /// `init` found what an earlier one made.
    #[error("this home has been set up already: {} exists", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },

    /// Another process runs or changes this home.
    #[error("another vgship process is at work on this home: it holds {}", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },

    /// A file's text is not what it must be.
    #[error("{}, line {line}{}: {why}", path.display(), in_key(key.as_deref()))]
    Text {
        /// Which file.
        path: PathBuf,
        /// Where. Unit: lines from 1.
        line: usize,
        /// The key at fault, where it is known.
        key: Option<String>,
        /// What is wrong.
        why: String,
    },

    /// A file's value is well formed and yet cannot be.
    #[error("{}, key `{key}`: {why}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// The key at fault.
        key: &'static str,
        /// What is wrong.
        why: String,
    },

    /// A size that extents cannot have.
    #[error("{size} is no extent size: a power of two from 4 KiB to 1 MiB")]
    Extent {
        /// Which.
        size: Size,
    },

    /// Others than the owner can read a secret.
    #[error("{} is a secret and its mode is {mode:04o}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },

    /// The command that prints the key-encryption key.
    #[error("key_command gives no key: {why}")]
    KeyCommand {
        /// Why. Never what it printed.
        why: String,
    },

    /// The group's name is taken.
    #[error("there is a group {name} already")]
    GroupExists {
        /// Which.
        name: Name,
    },

    /// Another group has the same volumes.
    #[error("group {name} has the volumes {volumes} already")]
    VolumesTaken {
        /// Which group.
        name: Name,
        /// Its volumes.
        volumes: String,
    },

    /// No such group.
    #[error("there is no group {name} here{}", known_groups(known))]
    NoGroup {
        /// Which was asked for.
        name: Name,
        /// Those that there are.
        known: Vec<Name>,
    },
}

fn in_key(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!(", key `{key}`"))
}

fn known_groups(known: &[Name]) -> String {
    match known {
        [] => "; there is none yet".to_owned(),
        names => {
            let names: Vec<_> = names.iter().map(Name::as_str).collect();
            format!("; there are: {}", names.join(", "))
        }
    }
}

impl HomeError {
    /// Whether the state of things forbids it, rather than a failure.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Exists { .. }
                | Self::GroupExists { .. }
                | Self::VolumesTaken { .. }
                | Self::NoGroup { .. }
        )
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as the user that owns the home, or name another with --home".into())
            }
            Self::Io { .. } | Self::Extent { .. } => None,
            Self::Missing { init, .. } => Some(format!("set one up with: {init}")),
            Self::Exists { path } => Some(format!(
                "use it as it is, choose another --home, or move it away first; \
                 its key opens all that was sealed with it: {}",
                path.with_file_name("key").display()
            )),
            Self::Locked { .. } => {
                Some("wait until it has ended, or ask the running agent instead".into())
            }
            Self::Text { .. } | Self::Value { .. } => {
                Some("correct it, then try: vgship agent --check".into())
            }
            Self::KeyCommand { .. } => Some(
                "run the command of config.toml by hand, as the agent's user; it must print the key \
                 and end with 0 within 10 s"
                    .into(),
            ),
            Self::Open { path, .. } => Some(format!("close it with: chmod 600 {}", path.display())),
            Self::GroupExists { .. } => Some("choose another name".into()),
            Self::VolumesTaken { .. } => {
                Some("a volume belongs to one group: name others, or use that group".into())
            }
            Self::NoGroup { .. } => Some("see them with: vgship group list".into()),
        }
    }

    /// For `map_err`: the system refused `action` on `path`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
