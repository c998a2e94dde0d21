//! Columns for people.

use std::fmt;

/// Rows of equal columns; each is as wide as its widest cell, the last one runs free.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// With these headings.
    pub(super) fn new(headings: [&str; N]) -> Table<N> {
        Table { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| cell.replace(char::is_control, " ")));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: [usize; N] = std::array::from_fn(|column| {
            let width = |row: &[String; N]| row[column].chars().count();
            self.rows.iter().map(width).max().unwrap_or(0)
        });
        for row in &self.rows {
            let cells = row.iter().zip(widths);
            let line: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(out, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}
