//! What the commands need of the rest of the program. `main.rs` joins both.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgship_base::ids::PeerId;

use super::Output;
use crate::api::ControlError;
use crate::api::control::{Answer, Invitation, InviteRequest, Pairings, Revoked, SharedControl};
use crate::home::{Config, Home, LockedHome};

/// The parts of the program behind the commands.
pub trait Parts: Sync {
    /// Makes this agent's identity in a folder where there is none, or returns the one there is.
    ///
    /// Durable: once this has returned. The files are readable by the owner alone.
    fn make_identity(&self, folder: &Path) -> Result<PeerId, ControlError>;

    /// Reads the identity; says what is wrong with it.
    fn check_identity(&self, folder: &Path) -> Result<PeerId, ControlError>;

    /// A volumes spec with its paths made absolute, as the agent runs in another folder; says what
    /// is wrong with one that cannot be ([`crate::api::ErrorKind::Usage`]).
    fn resolve_volumes(&self, spec: &str) -> Result<String, ControlError>;

    /// Whether the volumes of a group can be opened; nothing stays open. A rootvg is refused.
    fn check_volumes(&self, spec: &str) -> Result<Vec<FoundVolume>, ControlError>;

    /// The volume groups found on this machine, or on the disks and images named.
    fn find_groups(&self, paths: &[PathBuf]) -> Result<Found, ControlError>;

    /// Makes a one-time token while no agent runs. The running agent's `Control` does the same.
    fn pair_invite(
        &self,
        home: &LockedHome,
        invite: InviteRequest,
    ) -> Result<Invitation, ControlError>;

    /// Who may do what, from the home.
    fn pair_list(&self, home: &Home) -> Result<Pairings, ControlError>;

    /// Takes away all that a peer may do while no agent runs.
    fn pair_revoke(&self, home: &LockedHome, peer: &str) -> Result<Revoked, ControlError>;

    /// Starts the agent of a home. It keeps the home until it has stopped.
    fn start(&self, home: LockedHome, config: Config) -> Answer<'static, Box<dyn Running>>;
}

/// An agent that serves.
pub trait Running: Send {
    /// What commands ask of it.
    fn control(&self) -> SharedControl;

    /// Ends when the agent cannot go on by itself, with the reason; else never.
    fn failed(&mut self) -> Answer<'_, ()>;

    /// Stops it cleanly: what was taken is durable, what was promised is kept.
    fn stop(self: Box<Self>) -> Answer<'static, ()>;
}

/// All volume groups that were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// In the order to show them.
    pub groups: Vec<FoundGroup>,
    /// Places that could not be looked at, each with the reason.
    pub problems: Vec<String>,
}

/// One volume group that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundGroup {
    /// Its name, or its id where it has none on disk.
    pub name: String,
    /// Of what kind: `aix original`, `aix big`, `aix scalable`, `lvm2`.
    pub kind: String,
    /// Its size. Unit: bytes.
    pub bytes: u64,
    /// The disks or images it lies on.
    pub disks: Vec<String>,
    /// Its volumes.
    pub volumes: Vec<FoundVolume>,
    /// What to give to `group add --volumes`; none when it cannot be replicated.
    pub spec: Option<String>,
    /// Why it is never replicated or cannot be served.
    pub excluded: Option<String>,
}

/// One volume that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVolume {
    /// Its name.
    pub name: String,
    /// Its size. Unit: bytes.
    pub bytes: u64,
    /// What is special: its type, how often it is mirrored, its head that is never overwritten.
    pub note: Option<String>,
}

impl Output {
    /// Text that a person reads when the volumes of a group were opened.
    pub(crate) fn volumes(found: &[FoundVolume]) -> String {
        let total = found.iter().fold(0_u64, |sum, volume| sum.saturating_add(volume.bytes));
        let total = vgship_base::units::ByteLen(total);
        match found.len() {
            1 => format!("1 volume, {total}"),
            many => format!("{many} volumes, {total}"),
        }
    }
}
