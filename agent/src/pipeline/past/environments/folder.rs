//! The folder of an environment: what it is, from its beginning to its end.
//!
//! A folder with readable facts is an environment. One with the mark, or whose name begins with a
//! dot, is the rest of one that was not made, or is gone. Whatever else is there is left alone:
//! facts that cannot be looked at now may be there tomorrow.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::facts::FACTS;
use super::outside::Outside;
use crate::api::ControlError;
use crate::home::io as files;

/// The mark of what is half made. It comes before all else and goes after the facts have come.
const MAKING: &str = "making";

/// What a folder among the environments is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has facts.
    Environment,
    /// Of one that was not made whole, or that is gone; or what an export left.
    Rest,
    /// It cannot be told; why.
    Unknown(String),
}

/// Whether nothing has this name, which is not so when it cannot be told.
pub(super) fn is_absent(path: &Path) -> bool {
    matches!(path.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound)
}

/// What a folder is.
pub(super) fn kind(folder: &Path) -> Kind {
    if folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
        return Kind::Rest;
    }
    // A link that leads nowhere may lead somewhere when a disk is mounted again: its folder has no
    // mark either, and so is no rest.
    let (facts, mark) = (folder.join(FACTS), folder.join(MAKING));
    match (facts.symlink_metadata(), mark.symlink_metadata()) {
        (Ok(_), _) => Kind::Environment,
        (Err(error), Ok(_)) if error.kind() == ErrorKind::NotFound => Kind::Rest,
        (Err(error), _) => Kind::Unknown(format!("cannot look at {}: {error}", facts.display())),
    }
}

/// Makes an environment's folder, with the mark.
///
/// Durable: once this has returned.
///
/// # Errors
/// Something is in its place.
pub(super) fn begin(folder: &Path) -> Result<(), ControlError> {
    if !is_absent(folder) {
        let text = format!("{} is in the way", folder.display());
        return Err(ControlError::failed(text).hint("the agent's log says why it is not opened"));
    }
    let fresh = hidden(folder, "making");
    clear(&fresh)?;
    fs::create_dir_all(&fresh).map_err(|it| failed("make", &fresh, &it))?;
    files::replace(&fresh.join(MAKING), b"", 0o600)?;
    rename(&fresh, folder)
}

/// The facts have come. A mark that stays all the same says nothing beside them.
pub(super) fn made(folder: &Path) {
    if let Err(error) = fs::remove_file(folder.join(MAKING)) {
        tracing::warn!(path = %folder.display(), %error, "a mark stays");
    }
}

/// Removes what is there if it is the rest of an environment.
pub(super) fn remove_rest(folder: &Path) -> Result<(), ControlError> {
    match kind(folder) {
        Kind::Rest => remove(folder),
        _ => Ok(()),
    }
}

/// Removes all that an environment, or the rest of one, has: outside first, for only its folder
/// knows of that. The folder goes at once, by its name, so that a crash leaves it or a rest.
pub(super) fn remove(folder: &Path) -> Result<(), ControlError> {
    if let Some(outside) = Outside::load(folder)? {
        outside.remove(false)?;
        Outside::forget(folder)?;
    }
    let gone = hidden(folder, "gone");
    if gone != folder && !is_absent(folder) {
        clear(&gone)?;
        rename(folder, &gone)?;
    }
    clear(&gone)
}

/// The name beside an environment's that no environment can have.
fn hidden(folder: &Path, what: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    match name.starts_with('.') {
        true => folder.to_owned(),
        false => folder.with_file_name(format!(".{what}-{name}")),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), ControlError> {
    fs::rename(from, to).map_err(|it| failed("move away", from, &it))?;
    Ok(files::sync_folder(to.parent().unwrap_or(Path::new(".")))?)
}

fn clear(folder: &Path) -> Result<(), ControlError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", folder, &error)),
        _ => Ok(()),
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> ControlError {
    ControlError::failed(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_is_a_rest() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("e");
        begin(&folder).unwrap();
        assert_eq!(kind(&folder), Kind::Rest);
        assert!(begin(&folder).unwrap_err().to_string().contains("in the way"));
        // Facts count, with the mark and without; a link that leads nowhere now is facts, too.
        std::os::unix::fs::symlink("nowhere", folder.join(FACTS)).unwrap();
        assert_eq!(kind(&folder), Kind::Environment);
        made(&folder);
        assert_eq!(kind(&folder), Kind::Environment);
        remove_rest(&folder).unwrap();
        assert!(!is_absent(&folder));
        // Without both it cannot be told; so of a folder that leads nowhere.
        fs::remove_file(folder.join(FACTS)).unwrap();
        assert!(matches!(kind(&folder), Kind::Unknown(why) if why.contains(FACTS)));
        let link = place.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(matches!(kind(&link), Kind::Unknown(_)) && !is_absent(&link));
    }

    #[test]
    fn a_folder_goes_at_once() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("e");
        for _ in 0..2 {
            begin(&folder).unwrap();
            // What an earlier end left is cleared, and is a rest to every start.
            fs::create_dir(place.path().join(".gone-e")).unwrap();
            fs::write(place.path().join(".gone-e/lv0.data"), "x").unwrap();
            assert_eq!(kind(&place.path().join(".gone-e")), Kind::Rest);
            remove(&folder).unwrap();
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        }
        let scratch = place.path().join(".export-7");
        fs::create_dir(&scratch).unwrap();
        remove(&scratch).unwrap();
        assert!(is_absent(&scratch));
    }
}
