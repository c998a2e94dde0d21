//! What is said of those who come and are turned away: at once the first time, then at most once a
//! minute, with the count of tries and of addresses. Pure: time comes in, lines go out.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;
use std::time::Duration;

use super::complaint::{PACE, span};

/// Addresses that are told apart between two lines; of more it is only said that there are more.
const ADDRESSES_MAX: usize = 256;

/// Knocks at one door that were refused. Times are those of one clock that never goes back.
///
/// Invariants: two lines are at least [`PACE`] apart, and each refusal is counted in exactly one.
#[derive(Clone, Debug, Default)]
pub struct Knocks {
    told: Option<Duration>,
    /// Since the last line.
    tries: u64,
    from: BTreeSet<IpAddr>,
    /// Somebody came from an address that found no place in `from`.
    more: bool,
    last: Option<(SocketAddr, String)>,
}

impl Knocks {
    /// Somebody was refused. Gives the line to log, if it is time for one.
    pub fn refused(&mut self, now: Duration, from: SocketAddr, why: &str) -> Option<String> {
        self.tries = self.tries.saturating_add(1);
        match self.from.len() < ADDRESSES_MAX || self.from.contains(&from.ip()) {
            true => drop(self.from.insert(from.ip())),
            false => self.more = true,
        }
        self.last = Some((from, why.to_owned()));
        self.due(now)
    }

    /// The line for refusals that had to wait, when its time has come.
    pub fn due(&mut self, now: Duration) -> Option<String> {
        if self.told.is_some_and(|told| now.saturating_sub(told) < PACE) {
            return None;
        }
        let (from, why) = self.last.take()?;
        let past = self.told.replace(now).map(|told| now.saturating_sub(told));
        let (tries, more) = (std::mem::take(&mut self.tries), std::mem::take(&mut self.more));
        let addresses = std::mem::take(&mut self.from).len();
        if tries == 1 {
            return Some(format!("{why} (1 try from {from})"));
        }
        let more = if more { "more than " } else { "" };
        let places = if addresses == 1 { "address" } else { "addresses" };
        let past = past.map_or_else(String::new, |past| format!(" in {}", span(past)));
        Some(format!("{why} ({tries} tries from {more}{addresses} {places}{past}, last {from})"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn from(host: u16, port: u16) -> SocketAddr {
        let [high, low] = host.to_be_bytes();
        SocketAddr::from(([10, 0, high, low], port))
    }

    #[test]
    fn a_storm_is_a_line_a_minute_that_counts_tries_and_addresses() {
        let mut knocks = Knocks::default();
        let first = knocks.refused(at(5), from(1, 1000), "not paired here");
        assert_eq!(first.unwrap(), "not paired here (1 try from 10.0.0.1:1000)");
        for number in 0..600 {
            let from = from(number % 3, number);
            assert_eq!(knocks.refused(at(6), from, "not paired here"), None);
        }
        assert_eq!(knocks.due(at(64)), None);
        assert_eq!(
            knocks.due(at(65)).unwrap(),
            "not paired here (600 tries from 3 addresses in 60 s, last 10.0.0.2:599)"
        );
        assert_eq!(knocks.due(at(1000)), None, "nothing came since");
    }

    #[test]
    fn memory_for_addresses_is_bounded() {
        let mut knocks = Knocks::default();
        knocks.refused(at(0), from(0, 1), "no");
        for host in 0..1000 {
            knocks.refused(at(1), from(host, 1), "no");
        }
        assert_eq!(knocks.from.len(), ADDRESSES_MAX);
        let line = knocks.due(at(60)).unwrap();
        assert!(line.contains("1000 tries from more than 256 addresses"), "{line}");
        knocks.refused(at(61), from(1, 1), "no");
        knocks.refused(at(62), from(1, 2), "no");
        let line = knocks.due(at(120)).unwrap();
        assert!(line.contains("2 tries from 1 address in 60 s"), "{line}");
    }

    /// The count in a line.
    fn counted(line: &str) -> u64 {
        let inner = line.split('(').nth(1).unwrap();
        inner.split(' ').next().unwrap().parse().unwrap()
    }

    proptest! {
        #[test]
        fn any_knocks_are_a_line_a_minute_and_counts_add_up(
            events in prop::collection::vec((0_u64..90_000, 0_u16..600, any::<bool>()), 1..400),
        ) {
            let (mut knocks, mut now) = (Knocks::default(), Duration::ZERO);
            let (mut refused, mut told) = (0, 0);
            let mut last: Option<Duration> = None;
            for (pause, host, look) in events {
                now += Duration::from_millis(pause);
                let line = if look {
                    knocks.due(now)
                } else {
                    refused += 1;
                    knocks.refused(now, from(host, host), "no")
                };
                if let Some(line) = line {
                    told += counted(&line);
                    prop_assert!(last.is_none_or(|last| now.saturating_sub(last) >= PACE));
                    last = Some(now);
                }
            }
            told += knocks.due(now + PACE).map_or(0, |line| counted(&line));
            prop_assert_eq!(told, refused);
        }
    }
}
