//! The thinning grid: its text, its rows, and when a snapshot is due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::{Moment, micros};

/// Which snapshots stay as time goes, and how often they are taken: `4x15m, 24x1h, 14x1d, 8x1w`.
///
/// Each row `COUNTxSTEP` wants the oldest snapshot of each of the last COUNT slots. Slots are
/// aligned to whole steps since 1970, so they do not move as time goes. The oldest, because that
/// never changes once the slot has one: what a row wants today it has wanted ever since that was
/// taken, so no thinning before can have taken it away, and it makes no difference how often
/// thinning runs. (1970 began on a Thursday, and so do slots of a week.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Finest first; never empty.
    rows: Vec<Row>,
}

/// One row of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// How many slots it reaches back, the present one included.
    pub(super) count: u64,
    /// A slot's length.
    pub(super) step: Duration,
}

/// Most rows of a grid: enough for any, and a line to read.
pub const ROWS_MAX: usize = 16;

/// Most slots of a row, so that no grid asks for more snapshots than can be listed.
const COUNT_MAX: u64 = 10_000;

/// Longest step: beyond ten years nobody has an intention. Unit: seconds.
const STEP_MAX: u64 = 520 * 604_800;

/// What errors show. It is also the default.
const EXAMPLE: &str = "4x15m, 24x1h, 14x1d, 8x1w";

/// The rows of [`EXAMPLE`]. Unit: count, seconds.
const DEFAULT: [(u64, u64); 4] = [(4, 900), (24, 3600), (14, 86_400), (8, 604_800)];

/// Units of a step, in seconds, largest first.
const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// Longest part of a text that an error repeats. Unit: characters.
const SHOWN_MAX: usize = 40;

/// Why a text is not a grid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("row {number} of the grid, {text:?}: {why}; write for example {EXAMPLE:?}")]
pub struct GridError {
    /// From 1.
    number: usize,
    text: String,
    why: &'static str,
}

impl Row {
    /// The slot that a moment lies in. Unit: steps since 1970.
    pub(super) fn slot(&self, at: Moment) -> u64 {
        at.0 / micros(self.step).max(1)
    }

    /// How old a snapshot may be that the row surely still wants, if it is the oldest of its slot.
    fn reach(&self) -> Duration {
        let slots = u32::try_from(self.count.saturating_sub(1)).unwrap_or(u32::MAX);
        self.step.saturating_mul(slots)
    }

    fn parse(text: &str) -> Result<Row, &'static str> {
        let (count, step) = text.split_once('x').ok_or("it is not COUNTxSTEP")?;
        let count = number(count.trim()).ok_or("the count is not a whole number")?;
        if !(1..=COUNT_MAX).contains(&count) {
            return Err("the count is not 1 to 10000");
        }
        let step = step.trim();
        let digits = step.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(step.len());
        let (length, unit) = step.split_at(digits);
        let length = number(length).ok_or("the step does not begin with a whole number")?;
        let known = UNITS.iter().find(|(name, _)| *name == unit.trim());
        let (_, factor) = known.ok_or("the unit of the step is not s, m, h, d or w")?;
        match length.checked_mul(*factor) {
            Some(0) => Err("the step is nothing"),
            Some(seconds) if seconds <= STEP_MAX => {
                Ok(Row { count, step: Duration::from_secs(seconds) })
            }
            _ => Err("the step is longer than ten years"),
        }
    }
}

/// A number of plain digits; one that is too large to hold counts as the largest.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

impl Grid {
    /// The finest step: how often snapshots are taken.
    pub fn interval(&self) -> Duration {
        self.finest().step
    }

    /// Whether a snapshot is to be taken now, when the clock of the last automatic one is `last`. A
    /// clock that was set back makes one due, so that a wrong time never stops them.
    pub fn due(&self, last: Option<Moment>, now: Moment) -> bool {
        let finest = self.finest();
        last.is_none_or(|last| finest.slot(last) != finest.slot(now))
    }

    /// When the next one will be due that is not yet: where the slot of `now` ends.
    pub fn next_due(&self, now: Moment) -> Moment {
        let ended = self.finest().slot(now).saturating_add(1);
        Moment(ended.saturating_mul(micros(self.interval())))
    }

    /// The rows, finest first.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How old snapshots become before no row wants any of them.
    pub(super) fn reach(&self) -> Duration {
        self.rows.iter().map(Row::reach).max().unwrap_or_default()
    }

    fn finest(&self) -> &Row {
        self.rows.first().expect("a grid has a row")
    }
}

impl Default for Grid {
    /// An hour of quarters, a day of hours, a fortnight of days, eight weeks of weeks.
    fn default() -> Grid {
        let row = |(count, step)| Row { count, step: Duration::from_secs(step) };
        Grid { rows: DEFAULT.map(row).to_vec() }
    }
}

impl FromStr for Grid {
    type Err = GridError;

    fn from_str(whole: &str) -> Result<Grid, GridError> {
        let mut rows: Vec<Row> = Vec::new();
        for (text, number) in whole.split(',').map(str::trim).zip(1..) {
            let error = |why| {
                let text = text.chars().take(SHOWN_MAX).collect();
                GridError { number, text, why }
            };
            if number > ROWS_MAX {
                return Err(error("a grid has at most 16 rows"));
            }
            let row = Row::parse(text).map_err(error)?;
            if let Some(last) = rows.last() {
                if row.step <= last.step {
                    return Err(error("the step is not longer than the one before"));
                }
                if !row.step.as_secs().is_multiple_of(last.step.as_secs()) {
                    return Err(error("the step is not a whole multiple of the one before"));
                }
            }
            rows.push(row);
        }
        Ok(Grid { rows })
    }
}

impl fmt::Display for Grid {
    /// Each step in the largest unit that holds it exactly.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, row) in self.rows.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let seconds = row.step.as_secs();
            let exact = UNITS.into_iter().find(|(_, unit)| seconds.is_multiple_of(*unit));
            let (name, unit) = exact.unwrap_or(("s", 1));
            write!(out, "{comma}{}x{}{name}", row.count, seconds / unit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000_000;

    fn refused(text: &str) -> String {
        text.parse::<Grid>().expect_err(text).to_string()
    }

    #[test]
    fn a_grid_reads_and_writes_as_people_do() {
        for (text, shown) in [
            (EXAMPLE, EXAMPLE),
            (" 4 x 15 m,24x60m , 14x24h,8x7d", EXAMPLE),
            ("1x1s", "1x1s"),
            ("10000x90m", "10000x90m"),
            ("2x14d", "2x2w"),
        ] {
            assert_eq!(text.parse::<Grid>().unwrap().to_string(), shown);
        }
        assert_eq!(Grid::default().to_string(), EXAMPLE);
    }

    #[test]
    fn what_is_wrong_with_a_grid_is_said() {
        let unit = r#"row 2 of the grid, "24x1y": the unit of the step is not s, m, h, d or w; "#;
        let example = r#"write for example "4x15m, 24x1h, 14x1d, 8x1w""#;
        assert_eq!(refused("4x15m, 24x1y"), format!("{unit}{example}"));
        let many = (0..17).map(|power| format!("1x{}s", 1 << power)).collect::<Vec<_>>();
        for (bad, row, why) in [
            ("", 1, "not COUNTxSTEP"),
            ("4x15m,", 2, "not COUNTxSTEP"),
            ("15m", 1, "not COUNTxSTEP"),
            ("-4x15m", 1, "count is not a whole number"),
            ("0x15m", 1, "count is not 1 to 10000"),
            ("10001x15m", 1, "count is not 1 to 10000"),
            ("99999999999999999999x15m", 1, "count is not 1 to 10000"),
            ("4xm", 1, "step does not begin"),
            ("4x15", 1, "unit of the step"),
            ("4x1.5h", 1, "unit of the step"),
            ("4x0m", 1, "step is nothing"),
            ("4x521w", 1, "longer than ten years"),
            ("4x99999999999999999999w", 1, "longer than ten years"),
            ("4x1h, 4x60m", 2, "not longer than the one before"),
            ("4x1h, 4x1d, 4x15m", 3, "not longer than the one before"),
            ("4x45m, 24x1h", 2, "not a whole multiple"),
            (&many.join(","), 17, "at most 16 rows"),
            (&"9".repeat(1000), 1, "not COUNTxSTEP"),
        ] {
            let said = refused(bad);
            assert!(said.starts_with(&format!("row {row} of")), "{bad}: {said}");
            assert!(said.contains(why) && said.len() < 200, "{bad}: {said}");
        }
    }

    #[test]
    fn a_snapshot_is_due_once_in_each_slot() {
        let grid = Grid::default();
        let at = |minutes: u64| Moment(1_750_000_500_000_000 / MINUTE * MINUTE + minutes * MINUTE);
        let start = grid.next_due(at(0));
        assert!(start.0.is_multiple_of(15 * MINUTE) && start > at(0));
        assert!(grid.due(None, start));
        assert!(!grid.due(Some(start), start));
        assert!(!grid.due(Some(start), Moment(start.0 + 15 * MINUTE - 1)));
        assert!(grid.due(Some(start), Moment(start.0 + 15 * MINUTE)));
        assert_eq!(grid.next_due(start), Moment(start.0 + 15 * MINUTE));
        assert!(grid.due(Some(Moment(u64::MAX)), start), "a clock from the future stops nothing");
        assert!(grid.next_due(Moment(u64::MAX)).0 > u64::MAX - 15 * MINUTE);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            first in 1..100_000_u64,
            more in prop::collection::vec((1..=COUNT_MAX, 2..5_u64), 0..6),
            count in 1..=COUNT_MAX,
        ) {
            let mut rows = vec![Row { count, step: Duration::from_secs(first) }];
            for (count, times) in more {
                let step = rows[rows.len() - 1].step * u32::try_from(times).unwrap();
                rows.push(Row { count, step });
            }
            let grid = Grid { rows };
            prop_assert_eq!(grid.to_string().parse::<Grid>(), Ok(grid));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9xsmhdw, ]{0,40}") {
            if let Ok(grid) = text.parse::<Grid>() {
                prop_assert_eq!(grid.to_string().parse::<Grid>(), Ok(grid));
            }
        }
    }
}
