//! What the commands need of the rest of the program. `main.rs` joins both.

use std::path::{Path, PathBuf};

use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Name, PeerId};
use vgship_base::layout::Layout;

use crate::api::ControlError;
use crate::api::control::{
    Answer, Invitation, InviteRequest, Pairings, Removed, Revoked, SharedControl,
};
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

    /// Whether the volumes of a group can be opened, and which they are; nothing stays open. With
    /// `replica_of` they must be those of this layout. A rootvg is refused, always.
    fn check_volumes(
        &self,
        spec: &str,
        extent: ExtentSize,
        replica_of: Option<&Layout>,
    ) -> Result<Layout, ControlError>;

    /// The volume groups of this machine and of the disks, images and folders named.
    fn find_groups(&self, paths: &[PathBuf]) -> Result<Listing, ControlError>;

    /// Makes a one-time token while no agent runs. The running agent's `Control` does the same.
    fn pair_invite(
        &self,
        home: &LockedHome,
        invite: InviteRequest,
    ) -> Result<Invitation, ControlError>;

    /// Takes a group out of the home while no agent runs. The running agent's `Control` does the
    /// same.
    fn group_remove(&self, home: &LockedHome, group: &Name) -> Result<Removed, ControlError>;

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

/// Volume groups that were found, for people and for programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// What is printed for people.
    pub text: String,
    /// The JSON document.
    pub json: serde_json::Value,
}
