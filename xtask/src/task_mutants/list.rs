//! The list by hand, `xtask/mutants.toml`: guards of known bug classes with the scenarios that
//! must notice when they are gone, and generated mutants that change nothing.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::place::{Form, Mutant, line_of};

/// The whole list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Guards to be taken out.
    #[serde(default)]
    pub guard: Vec<Guard>,
    /// Mutants that no test can tell from the original.
    #[serde(default)]
    pub equivalent: Vec<Equivalent>,
}

/// One guard.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Its name: what goes wrong without it.
    pub name: String,
    /// The rule, or the class of bugs.
    pub class: String,
    /// How the path of its file begins, from `agent/src`; or from the root, if that is
    /// `snapshot/src`.
    pub file: String,
    /// Text that stands once in all cores whose paths begin so.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// Tests that must fail, each of them; `seeds` is the simulation.
    pub killers: Vec<String>,
}

/// Generated mutants that change nothing that counts.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalent {
    /// How the path of its file begins, from `agent/src`.
    pub file: String,
    /// The line, without indentation.
    pub line: String,
    /// As its name says: `< -> <=`.
    pub change: String,
    /// Why no test can tell.
    pub reason: String,
}

impl Equivalent {
    /// Whether it means this mutant.
    pub fn means(&self, mutant: &Mutant) -> bool {
        mutant.file.starts_with(&format!("{}{}", super::SOURCES, self.file))
            && mutant.line == self.line
            && mutant.change == self.change
            && !self.reason.is_empty()
    }
}

/// Reads the list's text.
///
/// # Errors
/// When it is no list.
pub fn parse(text: &str) -> Result<List> {
    toml::from_str(text).context("xtask/mutants.toml")
}

impl Guard {
    /// The mutant that is the cores without the guard: the smallest statement or block around what
    /// changes. `cores` are paths and texts.
    ///
    /// # Errors
    /// When the text stands there more or less than once, or in no body.
    pub fn mutant(&self, cores: &[(String, String)]) -> Result<Mutant> {
        let begins = match self.file.starts_with(super::SNAPSHOT) {
            true => self.file.clone(),
            false => format!("{}{}", super::SOURCES, self.file),
        };
        let meant = cores.iter().filter(|(file, _)| file.starts_with(&begins));
        let found: Vec<(&str, &str, usize)> = meant
            .flat_map(|(file, text)| {
                text.match_indices(&self.find).map(move |(at, _)| (&**file, &**text, at))
            })
            .collect();
        let [(file, text, at)] = found[..] else {
            let (name, times) = (&self.name, found.len());
            bail!("{name}: its text stands {times} times, not once, in {begins}*");
        };
        ensure!(!self.killers.is_empty(), "{}: no test is named", self.name);
        let wanted = at..at + self.find.len();
        let parsed = syn::parse_file(text).with_context(|| file.to_owned())?;
        let mut around = Around { wanted: wanted.clone(), best: None };
        around.visit_file(&parsed);
        let Some((range, form)) = around.best else {
            bail!("{}: its text in {file} lies in no body", self.name);
        };
        let (before, behind) = (&text[range.start..wanted.start], &text[wanted.end..range.end]);
        Ok(Mutant {
            name: self.name.clone(),
            file: file.to_owned(),
            form,
            text: format!("{before}{}{behind}", self.replace),
            line: line_of(text, at).to_owned(),
            change: self.class.clone(),
            range,
        })
    }
}

/// Looks for the smallest place that can be chosen as a whole.
struct Around {
    wanted: Range<usize>,
    best: Option<(Range<usize>, Form)>,
}

impl Around {
    fn offer(&mut self, range: Range<usize>, form: Form) {
        let holds = range.start <= self.wanted.start && self.wanted.end <= range.end;
        let smaller = self.best.as_ref().is_none_or(|(best, _)| range.len() < best.len());
        if holds && smaller {
            self.best = Some((range, form));
        }
    }
}

impl<'ast> Visit<'ast> for Around {
    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.offer(block.span().byte_range(), Form::Block);
        visit::visit_block(self, block);
    }

    fn visit_stmt(&mut self, stmt: &'ast syn::Stmt) {
        if let syn::Stmt::Expr(expr, _) = stmt
            && !matches!(expr, syn::Expr::Block(_))
        {
            self.offer(stmt.span().byte_range(), Form::Stmt);
        }
        visit::visit_stmt(self, stmt);
    }
}
