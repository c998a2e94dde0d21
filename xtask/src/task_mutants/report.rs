//! What is printed: a table per file, the survivors, the guards.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::judge::Outcome;
use super::list::Guard;
use super::place::Mutant;

/// A mutant that was judged.
pub struct Judged<'a> {
    /// It.
    pub mutant: &'a Mutant,
    /// What became of it.
    pub outcome: Outcome,
}

/// A guard of the list that was taken out.
pub struct Watched<'a> {
    /// It.
    pub guard: &'a Guard,
    /// Named tests that did not notice.
    pub blind: Vec<String>,
    /// What the whole suite said, when one was blind.
    pub else_: Option<Outcome>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    all: usize,
    killed: usize,
    late: usize,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        self.all += 1;
        match outcome {
            Outcome::Killed(_) => self.killed += 1,
            Outcome::TimedOut(_) => self.late += 1,
            Outcome::Survived => {}
        }
    }

    /// Parts of a hundred that did not survive, rounded down.
    fn percent(self) -> usize {
        ((self.killed + self.late) * 100).checked_div(self.all).unwrap_or(100)
    }

    fn row(self, name: &str) -> String {
        let Sums { all, killed, late } = self;
        let left = all - killed - late;
        format!("| {name} | {all} | {killed} | {late} | {left} | {} % |\n", self.percent())
    }
}

/// The table per file with a last row for all, then the survivors.
pub fn table(judged: &[Judged<'_>]) -> String {
    let mut files: BTreeMap<&str, Sums> = BTreeMap::new();
    let mut all = Sums::default();
    for Judged { mutant, outcome } in judged {
        files.entry(short(&mutant.file)).or_default().add(outcome);
        all.add(outcome);
    }
    let mut out = "| file | mutants | killed | timed out | survived | |\n".to_owned();
    out.push_str("|---|---|---|---|---|---|\n");
    files.iter().for_each(|(file, sums)| out.push_str(&sums.row(file)));
    out.push_str(&all.row("all"));
    for Judged { mutant, .. } in judged.iter().filter(|it| it.outcome == Outcome::Survived) {
        let _ = writeln!(out, "survived: {}\n    {}", mutant.name, mutant.line);
    }
    out
}

/// Parts of a hundred that did not survive.
pub fn percent(judged: &[Judged<'_>]) -> usize {
    let mut all = Sums::default();
    judged.iter().for_each(|it| all.add(&it.outcome));
    all.percent()
}

/// One line for each guard that was taken out.
pub fn guards(watched: &[Watched<'_>]) -> String {
    let mut out = String::new();
    for Watched { guard, blind, else_ } in watched {
        let (class, name) = (&guard.class, &guard.name);
        let how = match else_ {
            None => format!("killed by the named scenario: {}", guard.killers.join(", ")),
            Some(Outcome::Survived) => "SURVIVED".to_owned(),
            Some(Outcome::Killed(by)) => {
                format!("KILLED ONLY BY ANOTHER: {by}, not by {}", blind.join(", "))
            }
            Some(Outcome::TimedOut(step)) => {
                format!("KILLED ONLY BY ANOTHER: {step} did not end; not by {}", blind.join(", "))
            }
        };
        let _ = writeln!(out, "{class}: {name}: {how}");
    }
    let seen = watched.iter().filter(|it| it.else_.is_none()).count();
    let _ = writeln!(out, "guards: {seen} of {} killed by the named scenario", watched.len());
    out
}

/// How names call a file.
pub fn short(file: &str) -> &str {
    file.strip_prefix(super::SOURCES).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::super::place::Form;
    use super::*;

    #[test]
    fn a_hang_counts_as_killed_and_survivors_are_named() {
        let mutant = |file: &str| Mutant {
            name: format!("{file}:1:1 < -> <="),
            file: format!("agent/src/{file}"),
            range: 0..0,
            form: Form::Expr,
            text: String::new(),
            line: "a < b".to_owned(),
            change: "< -> <=".to_owned(),
        };
        let mutants = [mutant("a.rs"), mutant("a.rs"), mutant("b.rs")];
        let outcomes =
            [Outcome::Killed("t".into()), Outcome::TimedOut("seeds".into()), Outcome::Survived];
        let judged: Vec<Judged<'_>> = mutants
            .iter()
            .zip(outcomes)
            .map(|(mutant, outcome)| Judged { mutant, outcome })
            .collect();
        assert_eq!(percent(&judged), 66);
        let told = table(&judged);
        assert!(told.contains("| a.rs | 2 | 1 | 1 | 0 | 100 % |"), "{told}");
        assert!(told.contains("| all | 3 | 1 | 1 | 1 | 66 % |"), "{told}");
        assert!(told.ends_with("survived: b.rs:1:1 < -> <=\n    a < b\n"), "{told}");
    }
}
