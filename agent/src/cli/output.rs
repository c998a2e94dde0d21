//! Where commands print: results on stdout, messages on stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use vgship_base::layout::Layout;
use vgship_base::units::ByteLen;

use crate::api::ControlError;

/// For people, or one JSON document.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// With `json`, for programs.
    pub const fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether programs read it.
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person looks at stdout.
    pub fn is_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Prints a result: as JSON, or as `text` says it.
    pub fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), ControlError> {
        match self.json {
            true => {
                let json = serde_json::to_string(value).map_err(ControlError::failed)?;
                self.line(&json)
            }
            false => self.line(text(value).trim_end()),
        }
    }

    /// Prints a line, at once. A reader that has gone away ends the process quietly.
    pub fn line(self, text: &str) -> Result<(), ControlError> {
        self.raw(&format!("{text}\n"))
    }

    /// Prints text as it is, at once.
    pub fn raw(self, text: &str) -> Result<(), ControlError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(ControlError::failed(format!("cannot write to stdout: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// A group's volumes in a few words.
pub(crate) fn volumes(layout: &Layout) -> String {
    let bytes = ByteLen(layout.bytes());
    match layout.volumes.len() {
        1 => format!("1 volume, {bytes}"),
        many => format!("{many} volumes, {bytes}"),
    }
}

/// Says on stderr what went wrong and what to do next.
pub(crate) fn report(error: &ControlError) {
    note(&reported(error));
}

/// Says something on stderr; nobody listening there is no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn reported(error: &ControlError) -> String {
    match &error.hint {
        Some(hint) => format!("vgship: {}\n  next: {hint}", error.message),
        None => format!("vgship: {}", error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_next() {
        let error = ControlError::failed("cannot do it: it is too late");
        assert_eq!(reported(&error), "vgship: cannot do it: it is too late");
        let text = reported(&error.hint("come back tomorrow"));
        assert_eq!(text, "vgship: cannot do it: it is too late\n  next: come back tomorrow");
    }
}
