//! Writes all mutants of a file into one text, each behind a switch that is set at run time.
//!
//! What a mutation replaces is written twice: as it was, with the switches of whatever lies
//! within, and mutated, without any. Only one mutant is ever on, so nothing is lost by that, and
//! the text grows by what the mutants say, not by how deep they are nested.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use super::place::{Form, Mutant};

/// What switches ask. Written into the copy of `vgship-base` alone.
pub const SWITCH: &str = r#"//! Which mutation is on: the number in `VGSHIP_MUTANT`, or 0.

use std::sync::atomic::{AtomicU32, Ordering};

/// Which one.
#[inline]
pub fn on() -> u32 {
    static ON: AtomicU32 = AtomicU32::new(u32::MAX);
    match ON.load(Ordering::Relaxed) {
        u32::MAX => {
            let set = std::env::var("VGSHIP_MUTANT").ok().and_then(|it| it.parse().ok());
            let on = set.unwrap_or(0);
            ON.store(on, Ordering::Relaxed);
            on
        }
        on => on,
    }
}
"#;

const ASK: &str = "::vgship_base::mutant::on()";

/// A file with its switches.
pub struct Schema {
    /// The whole text.
    pub text: String,
    /// Where what was written for which mutants stands; a range of one mutant is its own text,
    /// one of several is the switch around them.
    pub places: Vec<(Range<usize>, Vec<u32>)>,
}

impl Schema {
    /// The mutants that are to blame for an error at these bytes of the text.
    pub fn blamed(&self, at: &Range<usize>) -> &[u32] {
        let around = self.places.iter().filter(|(place, _)| {
            place.start <= at.start && at.end <= place.end && !place.is_empty()
        });
        around.min_by_key(|(place, _)| place.len()).map_or(&[], |(_, mutants)| mutants)
    }
}

type Groups<'a> = BTreeMap<(usize, std::cmp::Reverse<usize>, Form), Vec<(u32, &'a Mutant)>>;

/// Puts the mutants of one file, with their numbers, into its text.
pub fn write(text: &str, mutants: &[(u32, &Mutant)]) -> Schema {
    let mut groups = Groups::new();
    for (number, mutant) in mutants {
        let Range { start, end } = mutant.range;
        let key = (start, std::cmp::Reverse(end), mutant.form);
        groups.entry(key).or_default().push((*number, mutant));
    }
    let groups: Vec<_> = groups.into_iter().collect();
    let mut writer = Writer { text, out: String::new(), places: Vec::new() };
    writer.range(0..text.len(), &groups);
    Schema { text: writer.out, places: writer.places }
}

type Group<'a> = ((usize, std::cmp::Reverse<usize>, Form), Vec<(u32, &'a Mutant)>);

struct Writer<'a> {
    text: &'a str,
    out: String,
    places: Vec<(Range<usize>, Vec<u32>)>,
}

impl Writer<'_> {
    /// Writes a range of the original; `groups` are all that lie within, outer ones first.
    fn range(&mut self, range: Range<usize>, groups: &[Group<'_>]) {
        let (mut at, mut rest) = (range.start, groups);
        while let Some((((start, std::cmp::Reverse(end), form), mutants), behind)) =
            rest.split_first()
        {
            let inner = behind.partition_point(|((inner, ..), _)| inner < end);
            self.out.push_str(&self.text[at..*start]);
            self.group(*start..*end, *form, mutants, &behind[..inner]);
            (at, rest) = (*end, &behind[inner..]);
        }
        self.out.push_str(&self.text[at..range.end]);
    }

    fn group(
        &mut self,
        range: Range<usize>,
        form: Form,
        mutants: &[(u32, &Mutant)],
        inner: &[Group<'_>],
    ) {
        let begin = self.out.len();
        if form == Form::Entry {
            for (number, mutant) in mutants {
                let begin = self.out.len();
                let _ = write!(self.out, " if {ASK} == {number} {{ {} }} ", mutant.text);
                self.places.push((begin..self.out.len(), vec![*number]));
            }
            return;
        }
        let (open, arm, close) = match form {
            Form::Block => ("{ ", ("", ""), " }"),
            Form::Stmt => ("", ("{ ", " }"), ""),
            _ => ("(", ("(", ")"), ")"),
        };
        let _ = write!(self.out, "{open}match {ASK} {{ ");
        for (number, mutant) in mutants {
            let _ = write!(self.out, "{number} => ");
            let begin = self.out.len();
            let _ = write!(self.out, "{}{}{}", arm.0, mutant.text, arm.1);
            self.places.push((begin..self.out.len(), vec![*number]));
            self.out.push_str(", ");
        }
        let _ = write!(self.out, "_ => {}", arm.0);
        self.range(range, inner);
        let _ = write!(self.out, "{} }}{close}", arm.1);
        let numbers = mutants.iter().map(|(number, _)| *number).collect();
        self.places.push((begin..self.out.len(), numbers));
    }
}
