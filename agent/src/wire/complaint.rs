//! What is said of something that is tried again and again: at once when it begins to fail, then
//! at most once a minute, with the count of tries. Pure: time comes in, lines go out.

use std::time::Duration;

use super::retry::SOUND;

/// Shortest time between two complaints of one thing.
pub const PACE: Duration = Duration::from_mins(1);

/// The complaints of one thing that should stand and may not: the stream to one peer in one group,
/// or a replica's engine. Times are those of one clock that never goes back.
///
/// A try counts once: when it fails, or when what it made is lost before it was sound. Invariants:
/// two complaints are at least [`PACE`] apart, and between two recoveries that are told there is a
/// complaint. So what flaps says two lines a minute at most.
#[derive(Clone, Debug, Default)]
pub struct Complaint {
    /// When it came to stand; `None` while it does not.
    standing: Option<Duration>,
    /// Tries since it was last sound.
    tries: u64,
    /// When the first loss or failure since then came.
    since: Option<Duration>,
    /// When the last complaint was told.
    told: Option<Duration>,
    /// Whether the last line told says that it stands.
    said_stands: bool,
    /// A failure that no line has told of, and when the next try comes.
    untold: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Failure {
    why: String,
    next: Option<Duration>,
}

impl Complaint {
    /// A try failed, or what stood was lost. The next try begins `wait` from now, if this side
    /// tries. Gives the line to log, if it is time for one.
    pub fn failed(&mut self, now: Duration, why: &str, wait: Option<Duration>) -> Option<String> {
        match self.standing.take() {
            Some(stands) if now.saturating_sub(stands) >= SOUND => {
                self.tries = 0;
                self.since = Some(now);
            }
            _ => {
                self.tries = self.tries.saturating_add(1);
                self.since.get_or_insert(now);
            }
        }
        let next = wait.map(|wait| now.saturating_add(wait));
        self.untold = Some(Failure { why: why.to_owned(), next });
        self.due(now)
    }

    /// The last failure's line, when it had to wait and its time has come.
    pub fn due(&mut self, now: Duration) -> Option<String> {
        if self.told.is_some_and(|told| now.saturating_sub(told) < PACE) {
            return None;
        }
        let Failure { why, next } = self.untold.take()?;
        self.told = Some(now);
        self.said_stands = false;
        let since = now.saturating_sub(self.since.unwrap_or(now));
        let tries = (self.tries > 0).then(|| tries(self.tries, since));
        let wait = next.map(|next| next.saturating_sub(now)).filter(|wait| !wait.is_zero());
        let next = wait.map(|wait| format!("next in {}", span(wait)));
        let parts: Vec<String> = tries.into_iter().chain(next).collect();
        Some(match parts.is_empty() {
            true => why,
            false => format!("{why} ({})", parts.join(", ")),
        })
    }

    /// It stands. Gives the words to log after "connected" or the like, if that is news.
    pub fn succeeded(&mut self, now: Duration) -> Option<String> {
        self.untold = None;
        self.standing.get_or_insert(now);
        if std::mem::replace(&mut self.said_stands, true) {
            return None;
        }
        let since = now.saturating_sub(self.since.unwrap_or(now));
        Some(match self.tries {
            0 => String::new(),
            failed => format!(" after {}", tries(failed, since)),
        })
    }

    /// It was ended on purpose, which is nobody's failure.
    pub fn ended(&mut self) {
        self.untold = None;
        self.standing = None;
    }

    /// Tries that failed since it last stood soundly; 0 while it stands.
    pub const fn tries(&self) -> u64 {
        match self.standing {
            Some(_) => 0,
            None => self.tries,
        }
    }

    /// How long it has stood; `None` when it does not stand.
    pub fn stood(&self, now: Duration) -> Option<Duration> {
        self.standing.map(|stands| now.saturating_sub(stands))
    }
}

/// A count and the time it took. One try needs no time.
pub(super) fn tries(count: u64, took: Duration) -> String {
    match count {
        1 => "1 try".to_owned(),
        _ => format!("{count} tries in {}", span(took)),
    }
}

/// A time as a person says it.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
#[path = "complaint_tests.rs"]
mod tests;
