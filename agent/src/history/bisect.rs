//! Finding the last point at which something was still right, by halving. Decides what to try
//! next; whoever asks opens the points.

use vgship_base::ids::Seq;

use super::spec::At;

/// What a point that was tried came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It is right there.
    Good,
    /// It is wrong there.
    Bad,
    /// Nobody can tell.
    Unknown,
}

/// A search between a point that is right and a later one that is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Bisect {
    good: Seq,
    bad: Seq,
    /// Nothing is to be found at or before this.
    lower: Seq,
    /// The last question, and whether its record itself was asked for.
    asked: Option<(Seq, bool)>,
}

impl Bisect {
    /// Between these two.
    pub fn new(good: Seq, bad: Seq) -> Bisect {
        Bisect { good, bad, lower: good, asked: None }
    }

    /// The last point that was found right.
    pub const fn good(&self) -> Seq {
        self.good
    }

    /// The first point that was found wrong.
    pub const fn bad(&self) -> Seq {
        self.bad
    }

    /// At most so many points are still to be tried.
    pub fn left(&self) -> u32 {
        (self.bad.0 - self.lower.0).max(1).ilog2() + 1
    }

    /// The next point to try. `None` when it is found.
    pub fn next(&mut self) -> Option<At> {
        if self.bad.0 - self.lower.0 <= 1 {
            return None;
        }
        let middle = Seq(self.lower.0 + (self.bad.0 - self.lower.0) / 2);
        // Between two starts of the source most numbers were never given.
        let exact = self.lower.start() == self.bad.start();
        self.asked = Some((middle, exact));
        Some(if exact { At::Seq(middle) } else { At::Epoch(middle) })
    }

    /// There is no point where it was asked for: the epoch end before it is as good.
    pub fn not_there(&mut self) -> Option<At> {
        match self.asked {
            Some((middle, true)) => {
                self.asked = Some((middle, false));
                Some(At::Epoch(middle))
            }
            Some((middle, false)) => {
                self.lower = middle;
                None
            }
            None => None,
        }
    }

    /// Whether a point that was opened for the last question was not tried before.
    pub fn is_new(&mut self, found: Seq) -> bool {
        let Some((middle, _)) = self.asked else { return false };
        let fresh = found > self.lower && found < self.bad;
        if !fresh {
            self.lower = middle;
        }
        fresh
    }

    /// The point of the last question was tried; it is `found`.
    pub fn tried(&mut self, found: Seq, tried: Tried) {
        let middle = self.asked.take().map_or(found, |(middle, _)| middle);
        match tried {
            Tried::Good => {
                self.good = found;
                // Up to the record that was asked for there is no other point.
                self.lower = found.max(if found == middle { found } else { middle });
            }
            Tried::Bad => self.bad = found,
            Tried::Unknown => self.lower = middle,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vgship_base::ids::Start;

    use super::*;

    /// Searches among `points`, of which those before `first_bad` are right. What it finds, and how
    /// many were tried.
    fn search(points: &[Seq], ends: &[Seq], first_bad: usize) -> (Seq, Seq, u32) {
        let mut bisect = Bisect::new(points[0], points[points.len() - 1]);
        let mut tries = 0;
        while let Some(mut at) = bisect.next() {
            assert!(tries < 200, "it does not end");
            let found = loop {
                let found = match &at {
                    At::Seq(seq) => points.iter().find(|it| *it == seq).copied(),
                    At::Epoch(seq) => ends.iter().rfind(|it| *it <= seq).copied(),
                    _ => None,
                };
                match found {
                    Some(found) => break Some(found),
                    None => match bisect.not_there() {
                        Some(other) => at = other,
                        None => break None,
                    },
                }
            };
            let Some(found) = found.filter(|it| bisect.is_new(*it)) else { continue };
            tries += 1;
            let bad = points.iter().position(|it| *it == found).unwrap() >= first_bad;
            bisect.tried(found, if bad { Tried::Bad } else { Tried::Good });
        }
        (bisect.good(), bisect.bad(), tries)
    }

    proptest! {
        /// Every record is a point: the border is found exactly, in as many tries as halving takes.
        #[test]
        fn the_border_is_found(len in 2u64..5000, pick in 0.0..1.0f64) {
            let points: Vec<Seq> = (0..len).map(|it| Seq(Seq::before(Start(3)).0 + it)).collect();
            let first_bad = 1 + usize::try_from((pick * (len - 1) as f64) as u64).unwrap();
            let first_bad = first_bad.min(points.len() - 1);
            let (good, bad, tries) = search(&points, &[], first_bad);
            prop_assert_eq!((good, bad), (points[first_bad - 1], points[first_bad]));
            prop_assert!(tries <= 13);
        }
    }

    #[test]
    fn between_starts_of_the_source_it_goes_by_epochs() {
        let at = |start, count| Seq(Seq::before(Start(start)).0 + count);
        let points: Vec<Seq> =
            (1..=30).map(|it| at(1, it)).chain((1..=30).map(|it| at(4, it))).collect();
        let ends: Vec<Seq> = points.iter().filter(|it| it.count() % 5 == 0).copied().collect();
        for first_bad in 1..points.len() {
            let (good, bad, _) = search(&points, &ends, first_bad);
            assert!(good < points[first_bad] && bad >= points[first_bad], "{first_bad}");
            let (low, high) =
                (points.binary_search(&good).unwrap(), points.binary_search(&bad).unwrap());
            assert!(high - low <= 6, "{first_bad}: from {good} to {bad}");
        }
    }
}
