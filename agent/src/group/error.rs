//! Why a group's volumes cannot be had.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::aix::{AixError, ProbeError};
use super::lvm2::ReportError;

/// Why a group's volumes cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A system's volume group. There is no option to override it.
    #[error("{what} is not replicated, because {reason}; vgship never replicates a rootvg")]
    Rootvg {
        /// The VG, as it was named.
        what: String,
        /// Which rule holds, and by what.
        reason: String,
    },
    /// A file, folder or device fails.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another process; stop it, or choose another place", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Not a disk of an AIX VG.
    #[error("{}", path.display())]
    Probe {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: ProbeError,
    },
    /// The disks do not make an AIX VG that can be served.
    #[error(transparent)]
    Aix(#[from] AixError),
    /// A command of LVM2 fails.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// With its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it said, shortened.
        stderr: String,
    },
    /// A command's report does not read as documented.
    #[error("the report of `{command}` cannot be read")]
    Report {
        /// With its arguments.
        command: String,
        /// What is wrong with it.
        source: ReportError,
    },
    /// Volumes that do not fit, each with its reason.
    #[error("{}: {}", place, Problems(problems))]
    Volumes {
        /// The spec.
        place: String,
        /// One per volume.
        problems: Vec<VolumeProblem>,
    },
    /// Nothing to serve.
    #[error("{place} holds no volume that can be served{}", hint(problems))]
    Nothing {
        /// The spec.
        place: String,
        /// Why not those that are there.
        problems: Vec<VolumeProblem>,
    },
    /// More volumes than a group may have.
    #[error("{place} holds {count} volumes, a group may have 4096; choose fewer")]
    TooMany {
        /// The spec.
        place: String,
        /// How many there are.
        count: usize,
    },
    /// `aix:VG` on another system.
    #[error(
        "aix:{vg} needs AIX and its LVM commands, which this build does not drive; \
         use aix-disks:PATH,... for the VG's disks"
    )]
    NeedsAix {
        /// Which VG.
        vg: String,
    },
}

/// One volume that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeProblem {
    /// Which.
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
}

impl VolumeProblem {
    /// A problem of the volume `name`.
    pub fn new(name: impl fmt::Display, reason: impl Into<String>) -> VolumeProblem {
        VolumeProblem { name: name.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for VolumeProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.name, self.reason)
    }
}

struct Problems<'a>(&'a [VolumeProblem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        out.write_str(&texts.join("; "))
    }
}

fn hint(problems: &[VolumeProblem]) -> String {
    if problems.is_empty() { String::new() } else { format!(": {}", Problems(problems)) }
}
