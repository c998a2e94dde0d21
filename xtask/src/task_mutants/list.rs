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
    /// The file, from `agent/src`.
    pub file: String,
    /// Text that stands in the file once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// Tests that must fail, each of them.
    pub killers: Vec<String>,
}

/// Generated mutants that change nothing that counts.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalent {
    /// The file, from `agent/src`.
    pub file: String,
    /// The line, without indentation.
    pub line: String,
    /// As its name says: `< -> <=`.
    pub change: String,
    /// Why no test can tell.
    pub reason: String,
}

impl Equivalent {
    /// Whether it means this mutant; `short` is how names call the file.
    pub fn means(&self, mutant: &Mutant) -> bool {
        mutant.file == format!("{}{}", super::SOURCES, self.file)
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
    /// The mutant that is this file without the guard: the smallest statement or block around
    /// what changes.
    ///
    /// # Errors
    /// When the text stands there more or less than once, or in no body.
    pub fn mutant(&self, file: &str, text: &str) -> Result<Mutant> {
        let found: Vec<usize> = text.match_indices(&self.find).map(|(at, _)| at).collect();
        let [at] = found[..] else {
            bail!("{}: {file} has its text {} times, not once", self.name, found.len());
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
