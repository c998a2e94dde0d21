//! The keys that seal the templates of a store. They lie in the store, each wrapped by the key of
//! an agent, so that agents with the same key file share templates, and nobody else can read them. A
//! template that is copied to another store takes its key along.

use vgship_base::ids::{GroupId, Name};
use vgship_snapshot::seal::{DataKey, KeyEncryptionKey, SealError};
use vgship_snapshot::template::{Objects, SharedObjects, Template, TemplateError};

use super::{StoreError, store_error, template_error};
use crate::api::ControlError;
use crate::home::Home;

/// What wrapped keys of templates are bound to: no group has this id.
const TEMPLATES: GroupId = GroupId(*b"vgship templates");

/// Where wrapped keys lie: `keys/WRAPPED BY/KEY`.
const KEYS: &str = "keys/";

/// All keys of the store's templates that this home's agent can open, in an order that stays.
fn keys(own: &KeyEncryptionKey, store: &dyn Objects) -> Result<Vec<DataKey>, StoreError> {
    let mut places = Vec::new();
    store.list(&format!("{KEYS}{}/", own.id()), &mut |found| places.push(found.key))?;
    let mut keys = Vec::new();
    for place in places {
        let Some(wrapped) = store.get(&place)? else { continue };
        keys.push(own.unwrap(TEMPLATES, &wrapped)?);
    }
    Ok(keys)
}

/// The key that new templates of the store are sealed with, made on first use.
///
/// Durable: a new key is in the store before anything is sealed with it.
pub fn template_key(home: &Home, store: &dyn Objects) -> Result<DataKey, StoreError> {
    let own = wrapping_key(home)?;
    if let Some(key) = keys(&own, store)?.into_iter().next() {
        return Ok(key);
    }
    let fresh = DataKey::generate()?;
    let place = format!("{KEYS}{}/{}", own.id(), fresh.id());
    store.put_if_absent(&place, &own.wrap(TEMPLATES, &fresh)?)?;
    // Another agent with the same key file may have made one meanwhile: both take the same.
    let first = keys(&own, store)?.into_iter().next();
    Ok(first.unwrap_or(fresh))
}

/// Opens a template with whichever key it needs.
pub fn open_template(
    home: &Home,
    store: &SharedObjects,
    name: &Name,
) -> Result<Template, ControlError> {
    let own = wrapping_key(home).map_err(|it| store_error(&it))?;
    let keys = keys(&own, &**store).map_err(|it| store_error(&it))?;
    let mut last = None;
    for key in &keys {
        match Template::open(store, key, name) {
            Err(error @ TemplateError::Sealed { source: SealError::OtherKey { .. }, .. }) => {
                last = Some(error);
            }
            done => return done.map_err(|it| template_error(&it)),
        }
    }
    Err(match last {
        Some(error) => template_error(&error),
        None => {
            ControlError::refused("the store has no template that was sealed for this agent's key")
                .hint("agents share templates when they have the same key file")
        }
    })
}

/// Takes the keys of one store's templates along to another.
pub fn copy_keys(from: &dyn Objects, to: &dyn Objects) -> Result<(), StoreError> {
    let mut places = Vec::new();
    from.list(KEYS, &mut |found| places.push(found.key))?;
    for place in places {
        if let Some(wrapped) = from.get(&place)? {
            to.put_if_absent(&place, &wrapped)?;
        }
    }
    Ok(())
}

/// The agent's own key, by which data keys are wrapped.
fn wrapping_key(home: &Home) -> Result<KeyEncryptionKey, StoreError> {
    home.load_key()?; // says what is wrong with the file, and with who may read it
    let path = home.key();
    let file = std::fs::read(&path).map(zeroize::Zeroizing::new);
    let file = file.map_err(|source| StoreError::Folder { path, source })?;
    Ok(KeyEncryptionKey::from_file_bytes(&file)?)
}

#[cfg(test)]
mod tests {
    use vgship_snapshot::template::MemoryObjects;

    use super::*;

    #[test]
    fn a_store_has_one_key_for_agents_of_one_key_file() {
        let home = |key: &str| {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::at(folder.path());
            crate::home::io::replace(&home.key(), key.repeat(32).as_bytes(), 0o600).unwrap();
            (folder, home)
        };
        let store = MemoryObjects::default();
        let (one, same, other) = (home("1f"), home("1f"), home("2e"));
        let key = template_key(&one.1, &store).unwrap().id();
        assert_eq!(template_key(&one.1, &store).unwrap().id(), key);
        assert_eq!(template_key(&same.1, &store).unwrap().id(), key);
        assert_ne!(template_key(&other.1, &store).unwrap().id(), key);
    }
}
