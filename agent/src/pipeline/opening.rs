//! How the tries to open a replica's engine go: when the next comes, what is said of them.

use std::time::{Duration, Instant};

use vgship_base::ids::Name;

use crate::wire::complaint::Complaint;
use crate::wire::retry::{Backoff, Ended};

/// Shortest wait before an engine is opened again.
const SHORTEST: Duration = Duration::from_secs(1);

/// The tries of one engine since its group was started.
pub(super) struct Opening {
    group: Name,
    begun: Instant,
    retry: Backoff,
    complaint: Complaint,
}

impl Opening {
    /// None yet.
    pub(super) fn new(group: Name, retry: Backoff) -> Opening {
        Opening { group, begun: Instant::now(), retry, complaint: Complaint::default() }
    }

    /// The engine works.
    pub(super) fn works(&mut self) {
        if let Some(after) = self.complaint.succeeded(self.begun.elapsed()) {
            tracing::info!(group = %self.group, "the replica works{after}");
        }
    }

    /// The engine could not be opened, or stopped by itself. Gives the wait before the next try.
    pub(super) fn failed(&mut self, why: &str) -> Duration {
        let now = self.begun.elapsed();
        let ended = self.complaint.stood(now).map_or(Ended::Unreachable, Ended::LostAfter);
        let wait = self.retry.after(ended).max(SHORTEST);
        if let Some(line) = self.complaint.failed(now, why, Some(wait)) {
            self.say(&line);
        } else {
            tracing::debug!(group = %self.group, why, "the replica cannot work");
        }
        wait
    }

    /// Logs a failure that had to wait, when its time has come.
    pub(super) fn remind(&mut self) {
        if let Some(line) = self.complaint.due(self.begun.elapsed()) {
            self.say(&line);
        }
    }

    fn say(&self, line: &str) {
        tracing::error!(group = %self.group, "the replica cannot work: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening {
        Opening::new("g".parse().unwrap(), Backoff::new(3))
    }

    #[test]
    fn an_engine_that_cannot_open_is_tried_in_a_second_and_at_the_end_in_half_a_minute() {
        let mut opening = opening();
        assert_eq!(opening.failed("no disk"), SHORTEST);
        let waits = [(); 12].map(|()| opening.failed("no disk"));
        assert!(waits[9..].iter().all(|wait| *wait >= Duration::from_secs(30)), "{waits:?}");
    }

    #[test]
    fn an_engine_that_opens_and_fails_at_once_is_no_better() {
        let mut opening = opening();
        let waits = [(); 12].map(|()| {
            opening.works();
            opening.failed("no disk")
        });
        assert!(waits[9..].iter().all(|wait| *wait >= Duration::from_secs(30)), "{waits:?}");
        assert_eq!(opening.complaint.tries(), 12);
    }
}
