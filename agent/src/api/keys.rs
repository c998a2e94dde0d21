//! What the interface asks of the data keys, and what it answers.

use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use super::control::Answer;
pub use crate::keys::escrow::{EscrowRequest, Escrowed};
pub use crate::keys::needs::{Kind, Need};
pub use crate::keys::rewrap::{RewrapRequest, Rewrapped, To};

/// The data keys of an agent's groups, as commands and portal see them.
pub trait KeyRoom: Send + Sync {
    /// The keys of one group, or of all.
    fn key_list(&self, group: Option<Name>) -> Answer<'_, Rings>;

    /// Makes a new key for one group, or for each: what is new is sealed with it from then on.
    fn key_rotate(&self, group: Option<Name>) -> Answer<'_, Rotated>;

    /// Destroys a key: that nothing needs, or with what needs it.
    fn key_end(&self, group: Name, request: EndRequest) -> Answer<'_, Ended>;

    /// Writes the group's veil key to a file that is kept elsewhere.
    fn key_escrow(&self, group: Name, request: EscrowRequest) -> Answer<'_, Escrowed>;

    /// Has all keys wrapped by another key-encryption key.
    fn key_rewrap(&self, request: RewrapRequest) -> Answer<'_, Rewrapped>;
}

/// Body of a listing or a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Of one group; without it of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Body of an order to destroy a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndRequest {
    /// Its id, or the beginning of it.
    pub key: String,
    /// What may be lost with it; without it nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lose: Option<Vec<Kind>>,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// What is new is sealed with it.
    Current,
    /// It opens what was sealed with it.
    Old,
    /// It is no more.
    Destroyed,
}

impl KeyState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyState::Current => "current",
            KeyState::Old => "old",
            KeyState::Destroyed => "destroyed",
        }
    }
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Names it.
    pub id: String,
    /// What becomes of it.
    pub state: KeyState,
    /// When it was made, RFC 3339.
    pub made: String,
    /// How long ago that was. Unit: seconds.
    pub age_seconds: u64,
    /// When it was destroyed, RFC 3339.
    pub ended: Option<String>,
    /// The key-encryption keys that open it.
    pub wrapped_by: Vec<String>,
    /// What needs it.
    pub needs: Vec<Need>,
}

/// The keys of one group, or of a store of templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Whose.
    pub group: Option<String>,
    /// Or of which store.
    pub store: Option<String>,
    /// Oldest first; the current one is the last.
    pub keys: Vec<KeyRow>,
    /// What veils the content of blind replicas, once there was one.
    #[serde(default)]
    pub veil: Option<VeilRow>,
}

/// The veil key of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeilRow {
    /// Names it.
    pub id: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// The key-encryption keys that open it.
    pub wrapped_by: Vec<String>,
    /// When an escrow of it was made last, RFC 3339.
    pub escrowed: Option<String>,
    /// The key-encryption key that opens that escrow.
    pub escrow_opens_with: Option<String>,
}

/// Keys that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    /// By group.
    pub rings: Vec<Ring>,
}

/// A key that is current now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// Of which group.
    pub group: Option<String>,
    /// Or of which store.
    pub store: Option<String>,
    /// Names it.
    pub key: String,
}

/// What a rotation made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// By group.
    pub keys: Vec<NewKey>,
}

/// A key that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Of which group.
    pub group: Option<String>,
    /// Or of which store.
    pub store: Option<String>,
    /// Named it.
    pub key: String,
    /// What cannot be read any more.
    pub lost: Vec<Need>,
}
