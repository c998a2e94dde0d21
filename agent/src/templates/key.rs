//! The keys that seal the templates of a store. They lie in the store, each wrapped by the key of
//! an agent, so that agents with the same key file share templates, and nobody else can read them. A
//! template that is copied to another store takes its key along.
//!
//! ```text
//! keys/WRAPPER/NUMBER-KEY   a key as it is kept (see the seal), wrapped by the key-encryption key of
//!                           that id; the one with the highest number, then the highest id, is current
//! keys/WRAPPER/KEY          the same, without a place among the others: it came with a template. An
//!                           older version wrote its wrapped keys so, and nothing else
//! keys/gone/KEY             that key is destroyed
//! keys/going/KEY            it shall be, if nothing needs it: nobody makes or copies anything by it
//! ```
//!
//! NUMBER, WRAPPER and KEY are 16 hexadecimal digits. Nothing is written twice under one name.

use std::collections::BTreeMap;

use vgship_base::folder::{digits_of, number_of};
use vgship_base::ids::{GroupId, Name};
use vgship_base::io::Clock;
use vgship_snapshot::seal::{DataKey, Kept, KeyEncryptionKey, KeyId, SealError};
use vgship_snapshot::template::{self, Objects, SharedObjects, Template, TemplateError};

use super::{StoreError, store_error, template_error};
use crate::api::ControlError;
use crate::home::Home;

/// What wrapped keys of templates are bound to: no group has this id.
const TEMPLATES: GroupId = GroupId(*b"vgship templates");

/// Where wrapped keys lie.
const KEYS: &str = "keys/";

/// Where it is noted which are destroyed.
const GONE: &str = "keys/gone/";

/// Where it is noted which may be about to be destroyed.
const GOING: &str = "keys/going/";

/// A key of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreKey {
    /// Names it.
    pub id: KeyId,
    /// Its place among the others; 0 for those that have none.
    pub number: u64,
    /// When it was made, or came here. Unit: microseconds since 1970.
    pub made: u64,
    /// When it was destroyed. Unit: microseconds since 1970.
    pub ended: Option<u64>,
    /// Which key-encryption keys open it, and where that lies.
    pub wrapped: BTreeMap<KeyId, String>,
}

impl StoreKey {
    /// Whether it was to be destroyed, and something of it is left.
    pub fn is_half_gone(&self) -> bool {
        self.ended.is_some() && !self.wrapped.is_empty()
    }
}

fn id_of(digits: &str) -> Option<KeyId> {
    number_of(digits).map(|number| KeyId(number.to_be_bytes()))
}

/// What a place says: the wrapper, the number, the key.
fn parse(place: &str) -> Option<(KeyId, u64, KeyId)> {
    let (wrapper, name) = place.strip_prefix(KEYS)?.split_once('/')?;
    let (number, key) = match name.split_once('-') {
        Some((number, key)) => (number_of(number)?, key),
        None => (0, name),
    };
    Some((id_of(wrapper)?, number, id_of(key)?))
}

fn place(wrapper: KeyId, number: u64, key: KeyId) -> String {
    match number {
        0 => format!("{KEYS}{wrapper}/{key}"),
        _ => format!("{KEYS}{wrapper}/{}-{key}", digits_of(number)),
    }
}

/// All keys of a store, the current one last. Needs no key.
///
/// # Errors
/// What the store refuses.
pub fn list_keys(store: &dyn Objects) -> Result<Vec<StoreKey>, StoreError> {
    let mut found: BTreeMap<KeyId, StoreKey> = BTreeMap::new();
    let mut gone = BTreeMap::new();
    store.list(KEYS, &mut |object| {
        let time = object.modified.saturating_mul(1000);
        if let Some(id) = object.key.strip_prefix(GONE).and_then(id_of) {
            gone.insert(id, time);
        } else if let Some((wrapper, number, id)) = parse(&object.key) {
            let new = || StoreKey { id, number, made: time, ended: None, wrapped: BTreeMap::new() };
            let known = found.entry(id).or_insert_with(new);
            known.number = known.number.max(number);
            known.made = known.made.min(time);
            known.wrapped.insert(wrapper, object.key);
        }
    })?;
    for (id, time) in gone {
        let new = || StoreKey { id, number: 0, made: time, ended: None, wrapped: BTreeMap::new() };
        found.entry(id).or_insert_with(new).ended = Some(time);
    }
    let mut all: Vec<StoreKey> = found.into_values().collect();
    // Those without a place: the first by id is the one that an older version would take.
    all.sort_by_key(|it| match it.number {
        0 => (it.ended.is_none(), 0, std::cmp::Reverse(it.id), it.id),
        number => (it.ended.is_none(), number, std::cmp::Reverse(KeyId([0; 8])), it.id),
    });
    Ok(all)
}

/// Unwraps one key with whichever of `with` wrapped it; `None` when none of them did.
fn open(
    store: &dyn Objects,
    key: &StoreKey,
    with: &[KeyEncryptionKey],
) -> Result<Option<DataKey>, StoreError> {
    for own in with {
        let Some(place) = key.wrapped.get(&own.id()) else { continue };
        let Some(bytes) = store.get(place)? else { continue };
        let opened = match Kept::decode(&bytes) {
            Ok(kept) => kept.unwrap(own)?,
            // As an older version wrote it.
            Err(_) => own.unwrap(TEMPLATES, &bytes)?,
        };
        return match opened.id() == key.id {
            true => Ok(Some(opened)),
            false => Err(SealError::Broken { what: "key of templates", offset: 0 }.into()),
        };
    }
    Ok(None)
}

/// The key that new templates of the store are sealed with, made on first use.
///
/// Durable: a new key is in the store before anything is sealed with it.
pub fn template_key(home: &Home, store: &dyn Objects) -> Result<DataKey, StoreError> {
    let _alone = crate::keys::alone();
    let own = home.wrapping_key()?;
    if let Some(key) = current(store, &own)? {
        return Ok(key);
    }
    let fresh = make(store, &own)?;
    // Another agent with the same key file may have made one meanwhile: both take the same.
    Ok(current(store, &own)?.unwrap_or(fresh))
}

fn current(store: &dyn Objects, own: &KeyEncryptionKey) -> Result<Option<DataKey>, StoreError> {
    let all = list_keys(store)?;
    let ours = |it: &&StoreKey| it.ended.is_none() && it.wrapped.contains_key(&own.id());
    match all.iter().rfind(ours) {
        Some(key) => open(store, key, std::slice::from_ref(own)),
        None => Ok(None),
    }
}

fn make(store: &dyn Objects, own: &KeyEncryptionKey) -> Result<DataKey, StoreError> {
    let highest = list_keys(store)?.iter().map(|it| it.number).max().unwrap_or(0);
    let fresh = DataKey::generate()?;
    let kept = Kept::wrap(own, TEMPLATES, &fresh, Clock::start().wall())?;
    store.put_if_absent(&place(own.id(), highest.saturating_add(1), fresh.id()), &kept.encode())?;
    Ok(fresh)
}

/// Makes a new key, with which new templates of the store are sealed from then on.
///
/// Durable: once this has returned.
pub fn rotate_key(home: &Home, store: &dyn Objects) -> Result<KeyId, StoreError> {
    Ok(make(store, &home.wrapping_key()?)?.id())
}

/// Destroys a key: what it sealed cannot be read again. The caller has seen to it that it is not
/// the current one.
///
/// Durable: once this has returned. To be repeated after an error: [`StoreKey::is_half_gone`].
pub fn destroy_key(store: &dyn Objects, key: &StoreKey) -> Result<(), StoreError> {
    store.put_if_absent(&format!("{GONE}{}", key.id), &[])?;
    wipe(store, key.id)
}

/// Takes away what wraps a key.
fn wipe(store: &dyn Objects, id: KeyId) -> Result<(), StoreError> {
    let key = list_keys(store)?.into_iter().find(|it| it.id == id);
    for place in key.iter().flat_map(|it| it.wrapped.values()) {
        // Where the store keeps what it had before, see the store's own rules.
        store.put(place, &[0; 148])?;
        store.delete(place)?;
    }
    Ok(())
}

/// Destroys a key if `may_go` still says so when all who make or copy a template can see that the key
/// goes: who has come before is found by it, and who comes later refuses. Else all is as it was.
///
/// Durable: once this has returned. To be repeated after an error.
///
/// # Errors
/// What `may_go` says, or what the store refuses.
pub fn end_key(
    store: &dyn Objects,
    key: &StoreKey,
    may_go: impl FnOnce() -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    let going = format!("{GOING}{}", key.id);
    let told = |error: StoreError| store_error(&error);
    store.put_if_absent(&going, &[]).map_err(|it| told(it.into()))?;
    if let Err(why) = may_go() {
        store.delete(&going).map_err(|it| told(it.into()))?;
        return Err(why);
    }
    destroy_key(store, key).map_err(told)?;
    store.delete(&going).map_err(|it| told(it.into()))?;
    // Who has seen that it goes may have brought it just before.
    wipe(store, key.id).map_err(told)
}

/// Wraps all keys by another key-encryption key, too; how many.
pub fn wrap_keys_also(
    store: &dyn Objects,
    with: &[KeyEncryptionKey],
    also: &KeyEncryptionKey,
) -> Result<usize, StoreError> {
    let mut wrapped = 0;
    for key in list_keys(store)? {
        if key.ended.is_some() || key.wrapped.contains_key(&also.id()) {
            continue;
        }
        // One that no key of this home opens is other agents'.
        let Some(data) = open(store, &key, with)? else { continue };
        let kept = Kept::wrap(also, TEMPLATES, &data, key.made)?;
        store.put_if_absent(&place(also.id(), key.number, key.id), &kept.encode())?;
        wrapped += 1;
    }
    Ok(wrapped)
}

/// Takes away what other key-encryption keys wrap of the keys that this one opens; how many.
pub fn wrap_keys_only(store: &dyn Objects, by: &KeyEncryptionKey) -> Result<usize, StoreError> {
    let mut gone = 0;
    for key in list_keys(store)? {
        if open(store, &key, std::slice::from_ref(by))?.is_none() {
            continue;
        }
        for place in key.wrapped.iter().filter(|(wrapper, _)| **wrapper != by.id()) {
            store.delete(place.1)?;
            gone += 1;
        }
    }
    Ok(gone)
}

/// Opens a template with whichever key it needs.
pub fn open_template(
    home: &Home,
    store: &SharedObjects,
    name: &Name,
) -> Result<Template, ControlError> {
    let own = home.opening_keys()?;
    let known = list_keys(&**store).map_err(|it| store_error(&it))?;
    let mut last = None;
    for known in known.iter().rev().filter(|it| it.ended.is_none()) {
        let Some(key) = open(&**store, known, &own).map_err(|it| store_error(&it))? else {
            continue;
        };
        match Template::open(store, &key, name) {
            Err(error @ TemplateError::Sealed { source: SealError::OtherKey { .. }, .. }) => {
                last = Some(error);
            }
            done => return done.map_err(|it| template_error(&it)),
        }
    }
    let listed = template::list(store).map_err(|it| template_error(&it))?;
    let needs = listed.iter().find(|it| it.name == *name).map(|it| it.key);
    if let Some(Some(needs)) = needs
        && known.iter().any(|it| it.id == needs && it.ended.is_some())
    {
        return Err(ControlError::refused(format!(
            "template {name} needs key {needs}, which was destroyed: it cannot be read again"
        ))
        .hint("delete it: vgship template delete"));
    }
    Err(match (needs, last) {
        (None, _) => template_error(&TemplateError::Absent(name.clone())),
        (_, Some(error)) => template_error(&error),
        (_, None) => {
            ControlError::refused("the store has no template that was sealed for this agent's key")
                .hint("agents share templates when they have the same key file")
        }
    })
}

/// Takes the key of a template along to another store; all keys, when it cannot be told which. Which
/// they are.
///
/// # Errors
/// What a store refuses; [`StoreError::Gone`] when the key was destroyed there, or
/// [`StoreError::Going`].
pub fn copy_keys(
    from: &SharedObjects,
    to: &dyn Objects,
    name: &Name,
) -> Result<Vec<KeyId>, StoreError> {
    let mut taken = Vec::new();
    let listed = template::list(from).unwrap_or_default();
    let needs = listed.into_iter().find(|it| it.name == *name).and_then(|it| it.key);
    let there = list_keys(to)?;
    let is_gone = |id: KeyId| there.iter().any(|it| it.id == id && it.ended.is_some());
    for key in list_keys(&**from)? {
        if key.ended.is_some() || needs.is_some_and(|needs| needs != key.id) {
            continue;
        }
        if is_gone(key.id) {
            return Err(StoreError::Gone(key.id));
        }
        let known = there.iter().find(|it| it.id == key.id);
        for (wrapper, found) in &key.wrapped {
            if known.is_some_and(|it| it.wrapped.contains_key(wrapper)) {
                continue;
            }
            if let Some(wrapped) = from.get(found)? {
                // Without a number: it shall not become the one that new templates take there.
                to.put_if_absent(&place(*wrapper, 0, key.id), &wrapped)?;
            }
        }
        stays(to, key.id)?;
        taken.push(key.id);
    }
    Ok(taken)
}

/// Whether a key is neither destroyed nor about to be. Of one that was destroyed also what came back
/// of it meanwhile goes.
fn stays(store: &dyn Objects, id: KeyId) -> Result<(), StoreError> {
    // In this order: that it goes is said until it is gone.
    let goes = store.get(&format!("{GOING}{id}"))?.is_some();
    let known = list_keys(store)?.into_iter().find(|it| it.id == id && it.ended.is_some());
    match known {
        None if goes => Err(StoreError::Going(id)),
        None => Ok(()),
        Some(key) => {
            destroy_key(store, &key)?;
            Err(StoreError::Gone(id))
        }
    }
}

/// Sees that a template that was just copied or mended can be read: its keys were there all the while.
/// Else one that was `copied` goes, if the key is gone.
///
/// # Errors
/// [`StoreError::Gone`] when a key was destroyed meanwhile, [`StoreError::Going`] when it may be, or
/// what the store refuses.
pub fn confirm_keys(
    store: &dyn Objects,
    keys: &[KeyId],
    name: &Name,
    copied: bool,
) -> Result<(), StoreError> {
    keys.iter().try_for_each(|key| stays(store, *key)).inspect_err(|error| {
        if copied && matches!(error, StoreError::Gone(_)) {
            // As in `confirm_made`.
            let _ = template::delete(store, name);
        }
    })
}

/// Sees that a template that was just made can be read: its key was there all the while. Else the
/// template goes.
///
/// # Errors
/// [`StoreError::Gone`] when the key was destroyed meanwhile, [`StoreError::Going`] when it may be, or
/// what the store refuses.
pub fn confirm_made(store: &dyn Objects, key: KeyId, name: &Name) -> Result<(), StoreError> {
    stays(store, key).inspect_err(|error| {
        if matches!(error, StoreError::Gone(_) | StoreError::Going(_)) {
            // That it is not readable is what is told; that it is left over would be seen in the list.
            let _ = template::delete(store, name);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vgship_snapshot::template::{Gate, MemoryObjects};
    use zeroize::Zeroizing;

    use super::*;

    fn home(key: &str) -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        crate::home::io::replace(&home.key(), key.repeat(32).as_bytes(), 0o600).unwrap();
        (folder, home)
    }

    fn kek(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::from_bytes(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_store_has_one_key_for_agents_of_one_key_file() {
        let store = MemoryObjects::default();
        let (one, same, other) = (home("1f"), home("1f"), home("2e"));
        let key = template_key(&one.1, &store).unwrap().id();
        assert_eq!(template_key(&one.1, &store).unwrap().id(), key);
        assert_eq!(template_key(&same.1, &store).unwrap().id(), key);
        assert_ne!(template_key(&other.1, &store).unwrap().id(), key);
    }

    #[test]
    fn the_newest_key_is_current_and_what_came_with_a_template_is_not() {
        let store = MemoryObjects::default();
        let (_folder, home) = home("1f");
        let own = home.wrapping_key().unwrap();
        // As an older version wrote it.
        let old = DataKey::generate().unwrap();
        let wrapped = own.wrap(TEMPLATES, &old).unwrap();
        store.put(&format!("{KEYS}{}/{}", own.id(), old.id()), &wrapped).unwrap();
        assert_eq!(template_key(&home, &store).unwrap().id(), old.id());
        let second = rotate_key(&home, &store).unwrap();
        assert_eq!(template_key(&home, &store).unwrap().id(), second);
        let third = rotate_key(&home, &store).unwrap();
        assert_eq!(template_key(&home, &store).unwrap().id(), third);
        let came = DataKey::generate().unwrap();
        let kept = Kept::wrap(&own, TEMPLATES, &came, 1).unwrap();
        store.put(&place(own.id(), 0, came.id()), &kept.encode()).unwrap();
        assert_eq!(template_key(&home, &store).unwrap().id(), third);
        let all = list_keys(&store).unwrap();
        assert_eq!(all.len(), 4);
        for key in &all {
            let opened = open(&store, key, std::slice::from_ref(&own)).unwrap().unwrap();
            assert_eq!(opened.id(), key.id);
        }
        destroy_key(&store, all.iter().find(|it| it.id == second).unwrap()).unwrap();
        let all = list_keys(&store).unwrap();
        let gone = all.iter().find(|it| it.id == second).unwrap();
        assert!(gone.ended.is_some() && gone.wrapped.is_empty());
        assert_eq!(template_key(&home, &store).unwrap().id(), third);
    }

    fn known(store: &MemoryObjects, id: KeyId) -> StoreKey {
        list_keys(store).unwrap().into_iter().find(|it| it.id == id).unwrap()
    }

    #[test]
    fn a_key_that_was_half_destroyed_goes_when_it_is_tried_again() {
        let (_folder, home) = home("1f");
        for steps in 0.. {
            let store = MemoryObjects::default();
            let old = template_key(&home, &store).unwrap().id();
            rotate_key(&home, &store).unwrap();
            let done = destroy_key(&store.failing_after(steps), &known(&store, old)).is_ok();
            let left = known(&store, old);
            assert!(left.ended.is_none() || done != left.is_half_gone(), "{steps} steps");
            destroy_key(&store, &left).unwrap();
            assert!(known(&store, old).wrapped.is_empty() && known(&store, old).ended.is_some());
            if done {
                assert!(steps > 2);
                break;
            }
        }
    }

    /// Destroys a key just when it is brought to the store.
    struct Destroys(MemoryObjects, KeyId);

    impl Gate for Destroys {
        fn pass(&self, action: &'static str, key: &str) -> std::io::Result<()> {
            if action == "write" && key.starts_with(KEYS) {
                self.0.put(&format!("{GONE}{}", self.1), &[]).map_err(std::io::Error::other)?;
            }
            Ok(())
        }
    }

    #[test]
    fn a_key_that_was_destroyed_meanwhile_neither_comes_back_nor_seals_a_template() {
        let (_folder, home) = home("1f");
        let (from, to) = (MemoryObjects::default(), MemoryObjects::default());
        let old = template_key(&home, &from).unwrap().id();
        let name = "t".parse().unwrap();
        confirm_made(&from, old, &name).unwrap();
        let shared: SharedObjects = Arc::new(from);
        let meanwhile = to.through(Arc::new(Destroys(to.clone(), old)));
        let told = copy_keys(&shared, &meanwhile, &name);
        assert!(matches!(told, Err(StoreError::Gone(id)) if id == old));
        assert!(known(&to, old).wrapped.is_empty());
        assert!(matches!(confirm_made(&to, old, &name), Err(StoreError::Gone(id)) if id == old));
        let told = copy_keys(&shared, &to, &name);
        assert!(matches!(told, Err(StoreError::Gone(id)) if id == old));
    }

    /// Brings a key just before it is said no more that it goes.
    struct Brings(MemoryObjects, String);

    impl Gate for Brings {
        fn pass(&self, action: &'static str, key: &str) -> std::io::Result<()> {
            if action == "delete" && key.starts_with(GOING) {
                self.0.put(&self.1, &[7; 148]).map_err(std::io::Error::other)?;
            }
            Ok(())
        }
    }

    #[test]
    fn a_key_that_may_go_is_given_to_nobody_and_stays_where_somebody_came_before() {
        let (_folder, home) = home("1f");
        let (from, to) = (MemoryObjects::default(), MemoryObjects::default());
        let old = template_key(&home, &from).unwrap().id();
        let (name, shared): (Name, SharedObjects) = ("t".parse().unwrap(), Arc::new(from));
        assert_eq!(copy_keys(&shared, &to, &name).unwrap(), [old]);
        confirm_keys(&to, &[old], &name, true).unwrap();
        let needed = || {
            let made = confirm_made(&to, old, &name);
            assert!(matches!(made, Err(StoreError::Going(id)) if id == old));
            let copied = copy_keys(&shared, &to, &name);
            assert!(matches!(copied, Err(StoreError::Going(id)) if id == old));
            Err(ControlError::refused("a template needs it"))
        };
        let told = end_key(&to, &known(&to, old), needed).unwrap_err();
        assert_eq!(told.to_string(), "a template needs it");
        let stays = known(&to, old);
        assert!(stays.ended.is_none() && stays.wrapped.len() == 1, "{stays:?}");
        confirm_made(&to, old, &name).unwrap();

        let late = to.through(Arc::new(Brings(to.clone(), place(KeyId([3; 8]), 0, old))));
        end_key(&late, &stays, || Ok(())).unwrap();
        let gone = known(&to, old);
        assert!(gone.ended.is_some() && gone.wrapped.is_empty(), "{gone:?}");
        assert!(to.keys().iter().all(|key| !key.starts_with(GOING)));
        for copied in [true, false] {
            let told = confirm_keys(&to, &[old], &name, copied);
            assert!(matches!(told, Err(StoreError::Gone(id)) if id == old));
        }
    }

    #[test]
    fn keys_are_wrapped_anew_and_the_former_wrapper_opens_none() {
        let store = MemoryObjects::default();
        let (_folder, home) = home("1f");
        let own = home.wrapping_key().unwrap();
        let first = template_key(&home, &store).unwrap().id();
        let other = DataKey::generate().unwrap();
        let kept = Kept::wrap(&kek(9), TEMPLATES, &other, 1).unwrap();
        store.put(&place(kek(9).id(), 7, other.id()), &kept.encode()).unwrap();
        let with = std::slice::from_ref(&own);
        assert_eq!(wrap_keys_also(&store, with, &kek(2)).unwrap(), 1);
        assert_eq!(wrap_keys_also(&store, with, &kek(2)).unwrap(), 0);
        assert_eq!(current(&store, &own).unwrap().unwrap().id(), first);
        assert_eq!(current(&store, &kek(2)).unwrap().unwrap().id(), first);
        assert_eq!(wrap_keys_only(&store, &kek(2)).unwrap(), 1);
        assert!(current(&store, &own).unwrap().is_none());
        assert_eq!(current(&store, &kek(2)).unwrap().unwrap().id(), first);
        assert_eq!(current(&store, &kek(9)).unwrap().unwrap().id(), other.id(), "others' stays");
    }
}
