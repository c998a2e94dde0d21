//! What a drill came to: a report that is kept as JSON, signed, and shown as a page.
//!
//! The report is one JSON document, indented, with a line feed behind it; the fields are those of
//! [`Report`] in their order. `format` is `vgship-drill` and `version` is 1: a reader refuses another.
//! What is signed is the file's bytes.

pub mod due;
pub mod page;
pub mod seal;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::procedure::Step;

/// What stands in `format`.
pub const FORMAT: &str = "vgship-drill";

/// What stands in `version`.
pub const VERSION: u16 = 1;

/// Longest report that is read. Unit: bytes. Thousands of LVs fit.
pub const REPORT_MAX: u64 = 4 << 20;

/// A drill that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u16,
    /// Of which group.
    pub group: String,
    /// Who drilled.
    pub agent: Agent,
    /// When it began, by the agent's clock, RFC 3339.
    pub started: String,
    /// When the clone was gone, or it was given up, likewise.
    pub ended: String,
    /// What it came to.
    pub result: Outcome,
    /// Why it did not pass.
    pub error: Option<String>,
    /// Time to recover: the steps of recovery together, once the check passed. Unit: seconds.
    pub rto_seconds: Option<f64>,
    /// The point that was cloned; `null` when none was found.
    pub point: Option<Point>,
    /// What ran on the clone.
    pub check: Check,
    /// Whether the clone's LVs were hashed before the check.
    pub hashed: bool,
    /// The clone's LVs, in the order of the layout.
    pub volumes: Vec<Volume>,
    /// What was done, in order.
    pub steps: Vec<Timed>,
}

/// Who drilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// What it is called.
    pub name: String,
    /// Its program's version.
    pub version: String,
    /// Its id, as pairing shows it: the fingerprint of the key that signs this.
    pub key: String,
}

/// What a drill came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The check passed.
    Passed,
    /// The check did not pass, or did not come to run.
    Failed,
    /// The check took too long.
    TimedOut,
}

impl Outcome {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed-out",
        }
    }
}

/// A point that was cloned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// As it was asked for.
    pub asked: String,
    /// Its last record, as one number.
    pub seq: u64,
    /// The same, as `start.count`.
    pub at: String,
    /// The end of its last epoch by the source's clock, RFC 3339.
    pub time: String,
    /// The history that it is of; `null` when the agent did not learn it.
    pub generation: Option<String>,
    /// How long before the newest record that a failover would have kept when the drill began. Unit:
    /// seconds of the source's clock.
    pub behind_seconds: f64,
    /// How many records before it; `null` when the source was started in between.
    pub behind_records: Option<u64>,
}

/// What ran on the clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The shell command.
    pub command: String,
    /// What it ended with; `null` after a signal, or when it did not run.
    pub exit: Option<i32>,
    /// How it ended, in words; `null` when it did not run.
    pub ended: Option<String>,
    /// The end of what it said.
    pub output: String,
}

/// One LV of the clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its size. Unit: bytes.
    pub bytes: u64,
    /// BLAKE3 of its whole content before the check; `null` when it was not hashed.
    pub blake3: Option<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// From 1.
    pub number: usize,
    /// What it did.
    pub what: String,
    /// Whether a failover would have to do it too: such steps make the time to recover.
    pub recovery: bool,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took. Unit: seconds.
    pub seconds: f64,
    /// What came of it.
    pub outcome: Option<String>,
}

impl Timed {
    /// A step of a procedure that is over.
    pub fn new(step: &Step, recovery: bool) -> Timed {
        Timed {
            number: step.number,
            what: step.what.clone(),
            recovery,
            started: step.started.clone(),
            seconds: step.seconds.unwrap_or_default(),
            outcome: step.outcome.clone(),
        }
    }
}

/// The time to recover that steps make. Unit: seconds.
pub fn rto(steps: &[Timed]) -> f64 {
    steps.iter().filter(|it| it.recovery).map(|it| it.seconds).sum()
}

/// Why bytes are no report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// No JSON, or not with the fields of a report.
    #[error("it is no report of a drill")]
    Form(#[source] serde_json::Error),
    /// JSON of something else.
    #[error("it is no report of a drill: its format is {0:?}, not {FORMAT:?}")]
    Format(String),
    /// A report of a later program.
    #[error("it is a report of version {0}, and this program reads version {VERSION}")]
    Version(u16),
}

/// What tells a report from everything else.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u16,
}

impl Report {
    /// The report as it is kept and signed.
    pub fn json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("plain fields");
        json.push(b'\n');
        json
    }

    /// Reads a report.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn parse(json: &[u8]) -> Result<Report, ReportError> {
        let head: Head = serde_json::from_slice(json).map_err(ReportError::Form)?;
        if head.format != FORMAT {
            return Err(ReportError::Format(head.format));
        }
        if head.version != VERSION {
            return Err(ReportError::Version(head.version));
        }
        serde_json::from_slice(json).map_err(ReportError::Form)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with whatever a command or a name could hold against who reads it.
    pub(crate) fn hostile() -> Report {
        let step = |number, what: &str, recovery, seconds, outcome: Option<&str>| Timed {
            number,
            what: what.to_owned(),
            recovery,
            started: "2026-05-01T08:00:00Z".to_owned(),
            seconds,
            outcome: outcome.map(str::to_owned),
        };
        Report {
            format: FORMAT.to_owned(),
            version: VERSION,
            group: "g<script>alert(1)</script>".to_owned(),
            agent: Agent {
                name: "\"><img src=x onerror='a'>".to_owned(),
                version: "0.1.0".to_owned(),
                key: "a0".repeat(32),
            },
            started: "2026-05-01T08:00:00Z".to_owned(),
            ended: "2026-05-01T08:00:09Z".to_owned(),
            result: Outcome::Failed,
            error: Some("the check ended with exit status: 1".to_owned()),
            rto_seconds: None,
            point: Some(Point {
                asked: "now".to_owned(),
                seq: 0x0001_0000_0000_0005,
                at: "1.5".to_owned(),
                time: "2026-05-01T07:59:59Z".to_owned(),
                generation: Some("4f".repeat(16)),
                behind_seconds: 0.5,
                behind_records: Some(3),
            }),
            check: Check {
                command: "echo '</pre><b>&amp;' | fsck".to_owned(),
                exit: Some(1),
                ended: Some("exit status: 1".to_owned()),
                output: "</pre></body>\u{1b}[31m\u{0} \"quoted\"\nand more".to_owned(),
            },
            hashed: true,
            volumes: vec![
                Volume { name: "data".to_owned(), bytes: 2 << 20, blake3: Some("0b".repeat(32)) },
                Volume { name: "<lv>&".to_owned(), bytes: 4096, blake3: None },
            ],
            steps: vec![
                step(1, "find the point", true, 0.25, Some("1.5")),
                step(2, "hash the clone", false, 3.0, None),
                step(3, "run the <check>", true, 0.5, Some("failed: \"1\"")),
            ],
        }
    }

    #[test]
    fn the_form_of_a_report_does_not_change() {
        let json = hostile().json();
        let known = include_str!("golden/report.json");
        assert_eq!(String::from_utf8(json.clone()).unwrap(), known);
        assert_eq!(Report::parse(&json).unwrap(), hostile());
    }

    #[test]
    fn what_is_no_report_is_told_from_what_is() {
        let text = String::from_utf8(hostile().json()).unwrap();
        let error = |text: &str| Report::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("x"), "it is no report of a drill");
        assert_eq!(error("{}"), "it is no report of a drill");
        assert!(error(&text.replace(FORMAT, "other")).contains("\"other\""));
        assert!(error(&text.replace("\"version\": 1,", "\"version\": 2,")).contains("version 2"));
        assert_eq!(error(&text.replace("\"hashed\"", "\"hashes\"")), "it is no report of a drill");
    }

    #[test]
    fn only_steps_of_recovery_count() {
        let sum = rto(&hostile().steps);
        assert!((sum - 0.75).abs() < 1e-9, "{sum}");
    }
}
