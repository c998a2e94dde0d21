//! Writing an escrow: the veil key of a group, for the day on which its source is lost.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgship_base::io::Clock;
use vgship_base::layout::Layout;
use vgship_snapshot::seal::KeyEncryptionKey;
use vgship_snapshot::veil::Escrow;

use super::ring::with_files;
use super::{KeyError, alone};
use crate::api::ControlError;
use crate::home::io::SECRET;
use crate::home::{GroupConfig, Home, Role};

/// Body of a request. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscrowRequest {
    /// The file to be made.
    pub to: PathBuf,
    /// The key file whose key opens it; without it the agent's own key does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// An escrow that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escrowed {
    /// Of which group.
    pub group: String,
    /// Names the veil key.
    pub key: String,
    /// Names the key-encryption key that opens it.
    pub opens_with: String,
    /// The file.
    pub path: PathBuf,
}

/// Writes the veil key of a group to a file that only its owner may read, and notes that.
///
/// Durable: the file, once this has returned.
///
/// # Errors
/// A refusal where the group has no veil key or the file is there already; else what failed. Then
/// there is no file.
pub fn escrow(
    home: &Home,
    config: &GroupConfig,
    request: &EscrowRequest,
) -> Result<Escrowed, ControlError> {
    let group = home.group(&config.name);
    let nothing = |why: &str| {
        Err(ControlError::refused(format!("group {} has no veil key here: {why}", config.name)))
    };
    if config.role == Role::Replica {
        return nothing("its source has it").map_err(|it: ControlError| it.hint("run this there"));
    }
    let _alone = alone();
    let own = home.wrapping_key()?;
    let given = request.key_file.as_deref().map(|path| key_at(home, path)).transpose()?;
    let by = given.as_ref().unwrap_or(&own);
    let found = with_files(&group, config.id, |files| files.veil(&own));
    let Some((key, made)) = found.map_err(|it: KeyError| it.told())? else {
        return nothing("it is made with the first invitation of a blind replica").map_err(
            |it: ControlError| it.hint("vgship pair invite --group G --role replica --blind"),
        );
    };
    let path = group.layout();
    let layout = std::fs::read(&path).map_err(|error| {
        ControlError::failed(format!("cannot read {}: {error}", path.display()))
    })?;
    let layout = Layout::decode(&layout).map_err(|it| {
        ControlError::failed(format!("the layout in {} is damaged: {it}", path.display()))
    })?;
    let (id, now) = (key.id(), Clock::start().wall());
    let of = (&key, config.id, made);
    let escrow = Escrow::new(of, by, now, config.name.clone(), layout)
        .map_err(|it| ControlError::from_error(&it))?;
    write_new(&request.to, &escrow.encode())?;
    with_files(&group, config.id, |files| files.note_escrow(id, by.id(), now))
        .map_err(|it| it.told())?;
    Ok(Escrowed {
        group: config.name.to_string(),
        key: id.to_string(),
        opens_with: by.id().to_string(),
        path: request.to.clone(),
    })
}

/// The key of a key file that must be there.
///
/// # Errors
/// It is not there, others may read it, or it is no key.
pub fn key_at(home: &Home, path: &Path) -> Result<KeyEncryptionKey, ControlError> {
    home.load_key_at(path)?.ok_or_else(|| {
        ControlError::failed(format!("there is no key file {}", path.display()))
            .hint("a key file holds 64 hexadecimal digits: openssl rand -hex 32")
    })
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), ControlError> {
    let taken = || {
        ControlError::refused(format!("{} is there already", path.display()))
            .hint("name a file that is not there yet")
    };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => taken(),
        _ => ControlError::failed(format!("cannot write {}: {error}", path.display())),
    };
    let folder = path.parent().ok_or_else(|| ControlError::usage("name a file to be made"))?;
    let mut fresh = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(failed)?;
    let private = PermissionsExt::from_mode(SECRET);
    fresh.as_file().set_permissions(private).map_err(failed)?;
    fresh.write_all(content).map_err(failed)?;
    fresh.as_file().sync_all().map_err(failed)?;
    fresh.persist_noclobber(path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|it| it.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{known_veil, veil_or_make};
    use vgship_base::extent::ExtentSize;
    use vgship_base::layout::VolumeLayout;

    fn home() -> (tempfile::TempDir, Home, GroupConfig) {
        let (folder, home, config) = crate::keys::rewrap::tests::home();
        let volume = VolumeLayout { name: "data".parse().unwrap(), bytes: 1 << 20, masked: 0 };
        let layout = Layout { extent: ExtentSize::from_log2(16).unwrap(), volumes: vec![volume] };
        std::fs::write(home.group(&config.name).layout(), layout.encode()).unwrap();
        (folder, home, config)
    }

    #[test]
    fn an_escrow_opens_with_the_key_that_was_given_and_is_noted() {
        let (place, home, config) = home();
        let group = home.group(&config.name);
        let to = |name: &str| EscrowRequest { to: place.path().join(name), key_file: None };
        let refused = escrow(&home, &config, &to("early")).unwrap_err();
        assert!(refused.kind.exit_code() == 3 && !place.path().join("early").exists());
        let id = veil_or_make(&home, &group, config.id).unwrap().id();
        assert_eq!(known_veil(&group, config.id).unwrap().unwrap().escrow, None);
        let own = home.wrapping_key().unwrap();
        let made = escrow(&home, &config, &to("one")).unwrap();
        assert_eq!((made.key, made.opens_with), (id.to_string(), own.id().to_string()));
        let found = Escrow::decode(&std::fs::read(place.path().join("one")).unwrap()).unwrap();
        assert_eq!(found.open(&own).unwrap().id(), id);
        assert_eq!((found.name, found.layout.bytes()), (config.name.clone(), 1 << 20));
        let mode = std::fs::metadata(place.path().join("one")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let noted = || known_veil(&group, config.id).unwrap().unwrap().escrow.unwrap().0;
        assert_eq!(noted(), own.id());
        let refused = escrow(&home, &config, &to("one")).unwrap_err();
        assert!(refused.kind.exit_code() == 3 && refused.message.contains("already"), "{refused}");

        let file = place.path().join("elsewhere");
        let asked = EscrowRequest { key_file: Some(file.clone()), ..to("two") };
        assert!(escrow(&home, &config, &asked).unwrap_err().message.contains("no key file"));
        crate::home::io::replace(&file, "7e".repeat(32).as_bytes(), SECRET).unwrap();
        escrow(&home, &config, &asked).unwrap();
        let found = Escrow::decode(&std::fs::read(&asked.to).unwrap()).unwrap();
        assert!(found.open(&own).is_err(), "the agent's own key does not open it");
        assert_eq!(found.open(&key_at(&home, &file).unwrap()).unwrap().id(), id);
        assert_eq!(noted(), key_at(&home, &file).unwrap().id());
    }
}
