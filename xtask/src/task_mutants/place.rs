//! A mutant: one small change of one place, written so that it can be chosen at run time.

use std::ops::Range;

/// What stands at a place, hence how the choice between original and mutation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A block with its braces.
    Block,
    /// A statement, or an expression that ends a block.
    Stmt,
    /// A part of an expression.
    Expr,
    /// Nothing yet: the place behind a body's opening brace.
    Entry,
}

/// One change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// `ship/replica.rs:213:17 < -> <=`; for one of the list, its name.
    pub name: String,
    /// The file, from the root of the repository.
    pub file: String,
    /// What is replaced. Unit: bytes from the file's start.
    pub range: Range<usize>,
    /// How it is replaced.
    pub form: Form,
    /// The source text that stands there instead.
    pub text: String,
    /// The line it begins in, without indentation.
    pub line: String,
    /// `< -> <=`; for one of the list, what it is about.
    pub change: String,
}

/// Line and column of a byte, both from 1.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, at - start + 1)
}

/// The line in which a byte stands, without indentation.
pub fn line_of(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |len| at + len);
    text[start..end].trim()
}
