//! Drills: rehearsals of a failover on a clone, as commands ask for them and the status shows them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::control::ControlError;
use crate::home::Period;
use crate::role::drill::{Outcome, Report};

/// Body of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// The shell command that runs on the clone.
    pub check: String,
    /// Which snapshot or point; without it the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// How long the check may take; without it an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Do not hash the clone's LVs.
    #[serde(default)]
    pub no_hash: bool,
}

/// A drill that is over and whose report is kept, whatever it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drilled {
    /// The report.
    pub report: Report,
    /// Where it is kept, as JSON; its signature and its page lie beside it.
    pub path: PathBuf,
    /// The bytes that were signed.
    pub json: String,
    /// Their signature, as it is kept.
    pub signature: String,
    /// The page.
    pub page: String,
    /// Why it did not pass.
    pub error: Option<ControlError>,
}

/// One drill of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillRow {
    /// When it began, RFC 3339; `null` when its report cannot be read.
    pub time: Option<String>,
    /// The last record of the point, as `start.count`; `null` when none was found.
    pub at: Option<String>,
    /// The source's clock there, RFC 3339.
    pub point_time: Option<String>,
    /// What it came to; `null` when its report cannot be read.
    pub result: Option<Outcome>,
    /// Time to recover. Unit: seconds.
    pub rto_seconds: Option<f64>,
    /// Its report.
    pub path: PathBuf,
    /// Why it did not pass, or cannot be read.
    pub error: Option<String>,
}

/// The drills of a group whose reports are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drills {
    /// Of which group.
    pub group: String,
    /// Oldest first.
    pub drills: Vec<DrillRow>,
}

/// The last drill, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDrill {
    /// When it began, RFC 3339.
    pub time: String,
    /// Whether its check passed.
    pub passed: bool,
}
