//! What the interface says of environments.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use crate::group::Rename;
use crate::home::{Period, Size, text};

/// Body of a new environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvRequest {
    /// What it is called.
    #[serde(with = "text")]
    pub name: Name,
    /// Which points, `G@NAME` or `G@POINT`, and which templates: one for each group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Which snapshot of a set, `S@NAME`; then `from` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// The templates' store; without it the home's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Which volumes to write, `images:DIR`, `aix-disks:DIR` or `lvm2:VG`; without it clones are
    /// served over NBD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What a new AIX VG is called; without it as its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vg: Option<String>,
    /// How LVs are renamed; the first rule that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rename: Vec<Rename>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// After which it is destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Period>,
    /// What may be written to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Size>,
    /// A program that must succeed before anybody else sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<PathBuf>,
    /// Shell commands that must succeed, in this order, before it is handed out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// How long each of them, and the teardown, may take; without it an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_timeout: Option<Period>,
    /// Whether it stays, to be looked into, when a step fails.
    #[serde(default)]
    pub keep_failed: bool,
    /// A shell command that runs before it is destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<String>,
    /// Whether it goes when the agent ends, whatever way. Only the agent itself asks for that.
    #[serde(skip)]
    pub fleeting: bool,
}

impl EnvRequest {
    /// Clones of one point or template over NBD, and nothing else.
    pub fn of(name: Name, from: String) -> EnvRequest {
        EnvRequest {
            name,
            from: vec![from],
            set: None,
            store: None,
            to: None,
            vg: None,
            rename: Vec::new(),
            owner: None,
            lease: None,
            quota: None,
            mask: None,
            steps: Vec::new(),
            step_timeout: None,
            keep_failed: false,
            teardown: None,
            fleeting: false,
        }
    }
}

/// One group of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvPart {
    /// Which group.
    pub group: String,
    /// The template that it builds on, if it does.
    pub template: Option<String>,
    /// The last record that it was made of, as `start.count`.
    pub at: String,
    /// The source's clock there, RFC 3339.
    pub time: String,
}

/// A volume that was written outside of the agent's home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVolume {
    /// Of which group.
    pub group: String,
    /// What it is called there.
    pub lv: String,
    /// Its image or device; of an LV on AIX disks all of them, parted by commas.
    pub place: String,
    /// Its size. Unit: bytes.
    pub bytes: u64,
}

/// A program that ran while an environment was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvStep {
    /// What was run.
    pub command: String,
    /// How long it took. Unit: seconds.
    pub seconds: f64,
    /// How it ended.
    pub ended: String,
}

/// An environment: writable clones of points' volumes, or copies of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// `ready`; `failed` when a step failed and it was to be kept; `broken` when its clones cannot
    /// be opened; `ending` while it is being destroyed.
    pub state: String,
    /// Why it failed or is broken.
    pub reason: Option<String>,
    /// `nbd`, or what was written: `images:DIR`, `aix-disks:DIR`, `lvm2:VG`.
    pub kind: String,
    /// The set's snapshot that it was made of, `S@NAME`, if it was.
    pub set: Option<String>,
    /// Its groups.
    pub parts: Vec<EnvPart>,
    /// Which group's; of several the first, as the next three.
    pub group: String,
    /// The template that it builds on, if it does.
    pub template: Option<String>,
    /// The last record that it was made of, as `start.count`.
    pub at: String,
    /// The source's clock there, RFC 3339.
    pub time: String,
    /// Whose it is.
    pub owner: Option<String>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it is destroyed, RFC 3339.
    pub expires: Option<String>,
    /// What was written to its clones. Unit: bytes.
    pub written_bytes: u64,
    /// What may be. Unit: bytes.
    pub quota_bytes: Option<u64>,
    /// Its exports at the NBD socket.
    pub exports: Vec<String>,
    /// The volumes that were written.
    pub volumes: Vec<EnvVolume>,
    /// The mask and the steps that ran, in their order.
    pub steps: Vec<EnvStep>,
    /// What runs before it is destroyed.
    pub teardown: Option<String>,
    /// Where the output of its programs is.
    pub log: PathBuf,
}

/// Body of the end of an environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvEnd {
    /// Do not wait for volumes in a volume group that is gone.
    #[serde(default)]
    pub forget_volumes: bool,
}

/// What an environment's programs said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvLog {
    /// Of which.
    pub name: String,
    /// The end of it.
    pub text: String,
    /// Whether that is all of it.
    pub whole: bool,
}

/// All environments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environments {
    /// By name.
    pub environments: Vec<Environment>,
}
