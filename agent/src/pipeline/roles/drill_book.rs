//! The drills of a replica whose reports are kept, in the group's folder `drills`: `TIME.json`, its
//! signature `TIME.json.sig` and its page `TIME.html`. Beside them `first-synced` says since when there
//! has been something to drill.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::ControlError;
use crate::api::drills::{DrillRow, LastDrill};
use crate::history::spec::rfc3339;
use crate::home::{GroupHome, io as files};
use crate::pipeline::agent::{Group, Inner};
use crate::role::drill::due::{Every, is_overdue};
use crate::role::drill::{Outcome, REPORT_MAX, Report, seal};

/// How many reports are kept.
const KEPT_MAX: usize = 100;

/// How often it is looked whether a drill is overdue.
const LOOK: Duration = Duration::from_secs(1);

/// How often that is said.
const SAY_EVERY: Duration = Duration::from_hours(24);

const SYNCED: &str = "first-synced";

/// Longest text of a time. Unit: bytes.
const TIME_MAX: u64 = 64;

/// A report as it is kept.
pub(super) struct Kept<'a> {
    pub(super) report: &'a Report,
    pub(super) json: &'a [u8],
    pub(super) signature: &'a [u8],
    pub(super) page: &'a str,
}

/// The drills of one replica.
pub(in crate::pipeline) struct DrillBook {
    folder: PathBuf,
    running: AtomicBool,
    known: Mutex<Known>,
}

/// Unit of times: microseconds since 1970.
#[derive(Default)]
struct Known {
    last: Option<LastDrill>,
    /// The name and the beginning of the last one that passed.
    passed: Option<(String, u64)>,
    /// When the replica was consistent first.
    synced: Option<u64>,
    /// When it was said that a drill is overdue.
    said: Option<Instant>,
}

/// A drill under way; there is one at a time.
pub(super) struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

fn micros(time: &str) -> Option<u64> {
    u64::try_from(time.trim().parse::<Timestamp>().ok()?.as_microsecond()).ok()
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> ControlError {
    ControlError::failed(format!("cannot {what} {}: {error}", path.display()))
}

impl DrillBook {
    /// Those of a group.
    pub(in crate::pipeline) fn open(group: &GroupHome) -> DrillBook {
        let folder = group.folder().join("drills");
        let book = DrillBook { folder, running: AtomicBool::new(false), known: Mutex::default() };
        if let Err(error) = book.load() {
            tracing::warn!(%error, "earlier drills are not known");
        }
        book
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> Result<(), ControlError> {
        let synced = files::read_if_any(&self.folder.join(SYNCED), TIME_MAX)?;
        self.known().synced = synced.as_deref().and_then(micros);
        for name in self.names()?.into_iter().rev() {
            // One that cannot be read is in the list; here it says nothing.
            let Ok(report) = self.read(&name) else { continue };
            if self.know(&name, &report) {
                break;
            }
        }
        Ok(())
    }

    /// Remembers a report, newest first; whether none before it is of interest.
    fn know(&self, name: &str, report: &Report) -> bool {
        let passed = report.result == Outcome::Passed;
        let mut known = self.known();
        known.last.get_or_insert_with(|| LastDrill { time: report.started.clone(), passed });
        known.passed = micros(&report.started).filter(|_| passed).map(|it| (name.to_owned(), it));
        passed
    }

    /// The names of all reports, without their endings, oldest first: they begin with the time.
    fn names(&self) -> Result<Vec<String>, ControlError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed("look into", &self.folder, &error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("look into", &self.folder, &error))?;
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn place(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }

    fn signature(&self, name: &str) -> PathBuf {
        self.place(name, &format!("json.{}", seal::ENDING))
    }

    fn read(&self, name: &str) -> Result<Report, ControlError> {
        let path = self.place(name, "json");
        let text = files::read_if_any(&path, REPORT_MAX)?;
        let none = || ControlError::failed(format!("{} cannot be read", path.display()));
        let text = text.ok_or_else(none)?;
        Report::parse(text.as_bytes()).map_err(|error| ControlError::from_error(&error))
    }

    /// All that are kept, oldest first.
    pub(super) fn list(&self) -> Result<Vec<DrillRow>, ControlError> {
        let row = |name: String| {
            let path = self.place(&name, "json");
            match self.read(&name) {
                Ok(report) => DrillRow {
                    time: Some(report.started),
                    at: report.point.as_ref().map(|it| it.at.clone()),
                    point_time: report.point.map(|it| it.time),
                    result: Some(report.result),
                    rto_seconds: report.rto_seconds,
                    path,
                    error: report.error,
                },
                Err(error) => DrillRow {
                    time: None,
                    at: None,
                    point_time: None,
                    result: None,
                    rto_seconds: None,
                    path,
                    error: Some(error.to_string()),
                },
            }
        };
        Ok(self.names()?.into_iter().map(row).collect())
    }

    /// Begins a drill, unless one is under way.
    pub(super) fn begin(&self) -> Option<Running<'_>> {
        let first = !self.running.swap(true, Ordering::SeqCst);
        first.then(|| Running(&self.running))
    }

    /// Keeps a report, of which the JSON comes last; gives where. The oldest of too many go, but never
    /// the last one that passed.
    ///
    /// Durable: once this has returned.
    pub(super) fn keep(&self, name: &str, kept: &Kept<'_>) -> Result<PathBuf, ControlError> {
        files::make_folder(&self.folder)?;
        let path = self.place(name, "json");
        files::replace(&self.place(name, "html"), kept.page.as_bytes(), files::PLAIN)?;
        files::replace(&self.signature(name), kept.signature, files::PLAIN)?;
        files::replace(&path, kept.json, files::PLAIN)?;
        {
            let before = self.known().passed.take();
            self.known().last = None;
            if !self.know(name, kept.report) {
                self.known().passed = before;
            }
        }
        self.prune();
        Ok(path)
    }

    fn prune(&self) {
        let names = match self.names() {
            Ok(names) => names,
            Err(error) => return tracing::warn!(%error, "old reports of drills stay"),
        };
        let passed = self.known().passed.as_ref().map(|it| it.0.clone());
        let over = names.len().saturating_sub(KEPT_MAX);
        for name in names.into_iter().take(over).filter(|it| Some(it) != passed.as_ref()) {
            // First what makes it one: a crash leaves rests that nobody takes for a report.
            let all = [self.place(&name, "json"), self.signature(&name), self.place(&name, "html")];
            for path in all {
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "an old report stays");
                }
            }
        }
    }

    /// The last drill.
    pub(in crate::pipeline) fn last(&self) -> Option<LastDrill> {
        self.known().last.clone()
    }

    /// Whether none has passed for too long. Unit: `now`, microseconds since 1970.
    pub(in crate::pipeline) fn are_overdue(&self, every: Every, now: u64) -> bool {
        let known = self.known();
        is_overdue(every, known.synced, known.passed.as_ref().map(|it| it.1), now)
    }

    /// The replica is consistent: from the first time on there is something to drill.
    fn is_synced(&self, now: u64) {
        if self.known().synced.is_some() {
            return;
        }
        self.known().synced = Some(now);
        let text = format!("{}\n", rfc3339(now));
        let stored = files::make_folder(&self.folder)
            .and_then(|()| files::replace(&self.folder.join(SYNCED), text.as_bytes(), 0o644));
        if let Err(error) = stored {
            tracing::warn!(%error, "the time since which drills are due counts from the next start");
        }
    }

    /// Whether it is to be said now that a drill is overdue.
    fn is_to_be_said(&self, every: Every, now: u64) -> bool {
        let overdue = self.are_overdue(every, now);
        let mut known = self.known();
        if !overdue {
            known.said = None;
            return false;
        }
        let due = known.said.is_none_or(|since| since.elapsed() >= SAY_EVERY);
        if due {
            known.said = Some(Instant::now());
        }
        due
    }
}

/// Says once a day which groups' drills are overdue, for as long as the agent runs.
pub(in crate::pipeline) async fn look_after(agent: Weak<Inner>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(agent) = agent.upgrade() else { return };
        // One that panicked has said so; the next look comes.
        let _ = tokio::task::spawn_blocking(move || agent.look_at_drills()).await;
    }
}

impl Inner {
    fn look_at_drills(&self) {
        let now = self.clock.wall();
        for group in self.groups() {
            let Group::Replica(replica) = group else { continue };
            if replica.look_at().is_ok_and(|view| view.applied.consistent()) {
                replica.drills.is_synced(now);
            }
            let every = replica.settings().drill_every;
            if replica.drills.is_to_be_said(every, now) {
                let group = &replica.config.name;
                tracing::error!(%group, drill_every = %every,
                    "ALERT: no drill has passed for longer than drill_every: vgship drill G --check COMMAND");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::role::drill::tests::hostile;

    fn keep(book: &DrillBook, number: usize, result: Outcome) -> PathBuf {
        let started = format!("2026-05-01T08:{:02}:{:02}Z", number / 60, number % 60);
        let report = Report { started, result, ..hostile() };
        let (json, page) = (report.json(), String::new());
        let kept = Kept { report: &report, json: &json, signature: b"s", page: &page };
        book.keep(&format!("{number:04}"), &kept).unwrap()
    }

    /// Goal: the newest hundred stay, and the last one that passed, also over a start.
    #[test]
    fn old_reports_go_and_the_last_good_one_stays() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path()).group(&"g".parse().unwrap());
        let book = DrillBook::open(&home);
        assert!(book.last().is_none() && book.list().unwrap().is_empty());
        let good = keep(&book, 0, Outcome::Passed);
        for number in 1..KEPT_MAX + 5 {
            keep(&book, number, Outcome::Failed);
        }
        let all = book.list().unwrap();
        assert_eq!(all.len(), KEPT_MAX + 1);
        assert_eq!((all[0].path.clone(), all[0].result), (good, Some(Outcome::Passed)));
        assert!(all[1].path.ends_with("0005.json"), "{:?}", all[1].path);
        let files = fs::read_dir(home.folder().join("drills")).unwrap().count();
        assert_eq!(files, 3 * all.len());
        for book in [&book, &DrillBook::open(&home)] {
            let last = LastDrill { time: "2026-05-01T08:01:44Z".into(), passed: false };
            assert_eq!(book.last(), Some(last));
            assert_eq!(book.known().passed.as_ref().unwrap().0, "0000");
        }
        // What is damaged is shown as such, and hides no other.
        fs::write(book.place("0104", "json"), "{}").unwrap();
        let again = DrillBook::open(&home);
        assert_eq!(again.last().unwrap().time, "2026-05-01T08:01:43Z");
        let all = again.list().unwrap();
        assert!(all[KEPT_MAX].result.is_none() && all[KEPT_MAX].error.is_some());
    }

    #[test]
    fn an_overdue_drill_is_said_once_a_day_and_again_after_a_good_one() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path()).group(&"g".parse().unwrap());
        let (book, every) = (DrillBook::open(&home), "1 h".parse().unwrap());
        let minute = 60_000_000;
        let begun = micros("2026-05-01T08:00:00Z").unwrap();
        assert!(!book.is_to_be_said(every, begun + 600 * minute), "nothing was ever synced");
        book.is_synced(begun);
        book.is_synced(begun + minute);
        for book in [&book, &DrillBook::open(&home)] {
            assert!(!book.is_to_be_said(every, begun + 60 * minute));
            assert!(book.is_to_be_said(every, begun + 61 * minute));
            assert!(!book.is_to_be_said(every, begun + 62 * minute));
        }
        keep(&book, 59 * 60, Outcome::Passed);
        assert!(!book.is_to_be_said(every, begun + 119 * minute));
        assert!(book.is_to_be_said(every, begun + 120 * minute));
    }

    #[test]
    fn one_drill_runs_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let book = DrillBook::open(&Home::at(place.path()).group(&"g".parse().unwrap()));
        let running = book.begin();
        assert!(running.is_some() && book.begin().is_none());
        drop(running);
        assert!(book.begin().is_some());
    }
}
