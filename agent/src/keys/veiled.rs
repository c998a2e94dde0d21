//! What stands beside images of a blind replica, so that nobody unveils them with another key: the
//! file `veiled.json`, version 1, with the group's id and the veil key's id in hexadecimal.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgship_base::ids::GroupId;
use vgship_snapshot::seal::KeyId;

use crate::api::ControlError;
use crate::home::io::{SECRET, replace};
use crate::home::text;

/// The file's name.
const NAME: &str = "veiled.json";

/// Longest file that is read. Unit: bytes.
const LONGEST: u64 = 4096;

const VERSION: u32 = 1;

/// Whose images they are, and what veils them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Veiled {
    version: u32,
    /// The group.
    #[serde(with = "text::id")]
    pub group: GroupId,
    /// The veil key.
    #[serde(with = "text::id")]
    pub veil: KeyId,
}

impl Veiled {
    /// Says so.
    pub const fn new(group: GroupId, veil: KeyId) -> Veiled {
        Veiled { version: VERSION, group, veil }
    }

    /// Where it stands in a folder of images.
    pub fn place(images: &Path) -> PathBuf {
        images.join(NAME)
    }

    /// Puts it into a folder of images.
    ///
    /// # Errors
    /// The disk refused.
    pub fn write(&self, images: &Path) -> Result<(), ControlError> {
        let mut text = serde_json::to_string(self).map_err(ControlError::failed)?;
        text.push('\n');
        Ok(replace(&Veiled::place(images), text.as_bytes(), SECRET)?)
    }

    /// What stands in a folder of images; `None` when nothing does.
    ///
    /// # Errors
    /// It cannot be read, is no such file, or of a newer version.
    pub fn read(images: &Path) -> Result<Option<Veiled>, ControlError> {
        let path = Veiled::place(images);
        let wrong = |why: &dyn std::fmt::Display| {
            ControlError::failed(format!("{} cannot be used: {why}", path.display()))
                .hint("export the images anew, or take the file away if you know whose they are")
        };
        let bytes = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(&error)),
            Ok(found) if found.len() > LONGEST => return Err(wrong(&"it is too long")),
            Ok(_) => std::fs::read(&path).map_err(|it| wrong(&it))?,
        };
        let found: Veiled = serde_json::from_slice(&bytes).map_err(|it| wrong(&it))?;
        match found.version {
            VERSION => Ok(Some(found)),
            newer => Err(wrong(&format!("it is of version {newer}, run a newer program"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_file_holds_both_ways() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(Veiled::read(place.path()).unwrap(), None);
        let said = Veiled::new(GroupId([0x1f; 16]), KeyId([0xa0; 8]));
        said.write(place.path()).unwrap();
        let text = std::fs::read_to_string(Veiled::place(place.path())).unwrap();
        let golden = format!(
            "{{\"version\":1,\"group\":\"{}\",\"veil\":\"a0a0a0a0a0a0a0a0\"}}\n",
            "1f".repeat(16)
        );
        assert_eq!(text, golden);
        assert_eq!(Veiled::read(place.path()).unwrap(), Some(said));
        for bad in [&b"{}"[..], b"", &b" ".repeat(5000), text.replace(":1,", ":2,").as_bytes()] {
            std::fs::write(Veiled::place(place.path()), bad).unwrap();
            assert_eq!(Veiled::read(place.path()).unwrap_err().kind.exit_code(), 1);
        }
    }
}
