//! A new key-encryption key. First everything is wrapped by it as well, then it takes the place of the
//! former one, then what the former one wraps is taken away. So at each moment the key that is in
//! place opens everything, and each step can be repeated.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgship_snapshot::seal::KeyEncryptionKey;
use vgship_snapshot::template::SharedObjects;

use super::files::KeyFiles;
use super::ring::{take_single, with_files};
use super::{KeyError, alone};
use crate::api::ControlError;
use crate::home::command::{PATIENCE, key_of};
use crate::home::io::{SECRET, make_durable, replace};
use crate::home::{GroupConfig, GroupHome, Home};
use crate::templates::{open_store, store_error, wrap_keys_also, wrap_keys_only};

/// Where the new key comes from, or that it is in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum To {
    /// A new key file.
    NewFile,
    /// What this command prints.
    Command(String),
    /// The key file, which is made where there is none; so far the key came from a command.
    File,
    /// The key that is configured now: what others wrap is taken away.
    Finish,
}

/// Body of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewrapRequest {
    /// To which key.
    pub to: To,
    /// Further stores of templates, by their URLs; the home's own always is one.
    #[serde(default)]
    pub stores: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrapped {
    /// The key-encryption key that was in place.
    pub from: String,
    /// The key-encryption key that now opens everything.
    pub to: String,
    /// How many data keys it wraps that it did not wrap before.
    pub wrapped: usize,
    /// How many wrapped keys of others were taken away.
    pub removed: usize,
    /// Where the former key is kept, if it was replaced.
    pub former: Option<PathBuf>,
    /// What is left to be done by a person.
    pub next: Option<String>,
}

fn told(error: &KeyError) -> ControlError {
    error.told()
}

/// The groups of a home, those that were removed among them.
fn groups(home: &Home) -> Result<Vec<(GroupHome, GroupConfig)>, ControlError> {
    let mut found = Vec::new();
    for config in home.load_groups()? {
        found.push((home.group(&config.name), config));
    }
    let Ok(entries) = std::fs::read_dir(home.removed()) else { return Ok(found) };
    for entry in entries {
        let entry = entry.map_err(ControlError::failed)?;
        let group = home.removed_group(&entry.file_name().to_string_lossy());
        let path = group.config();
        if path.exists() {
            let text = crate::home::io::read_text(&path)?;
            found.push((group, GroupConfig::parse(&text, &path)?));
        }
    }
    Ok(found)
}

fn stores(home: &Home, urls: &[String]) -> Result<Vec<SharedObjects>, ControlError> {
    let own = home.templates().exists().then_some(None);
    let all = own.into_iter().chain(urls.iter().map(|url| Some(url.as_str())));
    all.map(|url| open_store(home, url).map_err(|it| store_error(&it))).collect()
}

/// Does what is asked for. To be called by whoever holds the home.
///
/// # Errors
/// The first thing that failed. What was done until then stays, opens with the key that is in place,
/// and is gone on with when it is repeated.
pub fn rewrap(home: &Home, request: &RewrapRequest) -> Result<Rewrapped, ControlError> {
    // From the first look at the key that is in place to the last wrapped key that goes: what another
    // would do in between would be wrapped by a key that is about to go.
    let _alone = alone();
    let refused = |why: &str| told(&KeyError::Refused(why.to_owned()));
    let by_command = home.load_config()?.key_command.is_some();
    let own = home.wrapping_key()?;
    if request.to == To::Finish {
        let (from, to) = (own.id().to_string(), own.id().to_string());
        let removed = wrap_only(home, &own, &request.stores)?;
        return Ok(Rewrapped { from, to, wrapped: 0, removed, former: None, next: None });
    }
    let next = match &request.to {
        To::NewFile if by_command => {
            return Err(refused(
                "this agent's key comes from a command: have a new one made where that gets it",
            )
            .hint(
                "then name the command that prints the new one: vgship key rewrap --to-command",
            ));
        }
        To::NewFile => made(&home.next_key(), home)?,
        To::File if !by_command => {
            return Err(refused("this agent's key is in its key file already")
                .hint("for a new key file: vgship key rewrap"));
        }
        To::File => made(&home.key(), home)?,
        To::Command(command) => key_of(command, PATIENCE)?,
        To::Finish => unreachable!("it was done above"),
    };
    if next.id() == own.id() {
        return Err(refused("the new key is the one that is in place already"));
    }
    let (from, to) = (own.id().to_string(), next.id().to_string());
    let mut wrapped = 0;
    for (group, config) in groups(home)? {
        wrapped += with_files(&group, config.id, |files| {
            take_single(&own, &group, files)?;
            Ok(files.wrap_also(&own, &next)? + files.wrap_veil_also(&own, &next)?)
        })
        .map_err(|it| told(&it))?;
    }
    let with = home.opening_keys()?;
    for store in stores(home, &request.stores)? {
        wrapped += wrap_keys_also(&*store, &with, &next).map_err(|it| store_error(&it))?;
    }
    if request.to != To::NewFile {
        let line = match &request.to {
            To::Command(command) => format!("set key_command = {}", toml::Value::from(&**command)),
            _ => "remove key_command".to_owned(),
        };
        let next = format!(
            "both keys open everything now; {line} in {}, then take away what the former key \
             opens: {} key rewrap --finish",
            home.config().display(),
            home.command()
        );
        return Ok(Rewrapped { from, to, wrapped, removed: 0, former: None, next: Some(next) });
    }
    // Where a store was not named, its keys are still wrapped by the former key alone.
    let former = home.former_key(own.id());
    replace(&former, &own.to_file_bytes(), SECRET)?;
    std::fs::rename(home.next_key(), home.key())
        .map_err(crate::home::HomeError::io("replace", home.key()))?;
    make_durable(&home.key())?;
    // Others may still have the former key: from stores that were named nothing is taken away.
    let removed = wrap_only(home, &next, &[])?;
    Ok(Rewrapped { from, to, wrapped, removed, former: Some(former), next: None })
}

/// The key of a file, which is made where there is none.
fn made(path: &Path, home: &Home) -> Result<KeyEncryptionKey, ControlError> {
    if let Some(known) = home.load_key_at(path)? {
        return Ok(known);
    }
    let fresh = KeyEncryptionKey::generate().map_err(|it| ControlError::from_error(&it))?;
    replace(path, &fresh.to_file_bytes(), SECRET)?;
    Ok(fresh)
}

/// To be called by whoever is alone with the keys, with the key that is in place.
fn wrap_only(home: &Home, own: &KeyEncryptionKey, urls: &[String]) -> Result<usize, ControlError> {
    let groups = groups(home)?;
    // All of it is proven before anything goes.
    for (group, config) in &groups {
        let proven = with_files(group, config.id, |files| {
            files.load(own)?;
            files.veil(own).map(drop)
        });
        proven.map_err(|it| told(&it))?;
    }
    let mut removed = 0;
    for (group, config) in &groups {
        let only = |files: &KeyFiles<'_>| Ok(files.wrap_only(own)? + files.wrap_veil_only(own)?);
        removed += with_files(group, config.id, only).map_err(|it| told(&it))?;
    }
    for store in stores(home, urls)? {
        removed += wrap_keys_only(&*store, own).map_err(|it| store_error(&it))?;
    }
    Ok(removed)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::home::GroupSpec;
    use crate::keys::{ring, rotate, veil_or_make};
    use crate::templates::template_key;

    /// A home with a key and one group.
    pub(in crate::keys) fn home() -> (tempfile::TempDir, Home, GroupConfig) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.make_folders().unwrap();
        let locked = home.lock().unwrap();
        locked.make_key().unwrap();
        locked.write_config("name = \"a\"\n").unwrap();
        let spec = GroupSpec::new("g".parse().unwrap(), "images:/srv/g");
        let config = locked.add_group(spec).unwrap();
        drop(locked);
        (folder, home, config)
    }

    fn request(to: To) -> RewrapRequest {
        RewrapRequest { to, stores: Vec::new() }
    }

    #[test]
    fn a_new_key_file_opens_all_that_the_former_one_did() {
        let (_folder, home, config) = home();
        let group = home.group(&config.name);
        let first = ring(&home, &group, config.id).unwrap().current_id();
        let second = rotate(&home, &group, config.id, None).unwrap().id();
        let store = open_store(&home, None).unwrap();
        let template = template_key(&home, &*store).unwrap().id();
        let veil = veil_or_make(&home, &group, config.id).unwrap().id();
        let own = home.wrapping_key().unwrap();
        // One that was cut off has left its key.
        replace(&home.next_key(), "2e".repeat(32).as_bytes(), SECRET).unwrap();
        let done = rewrap(&home, &request(To::NewFile)).unwrap();
        assert_eq!((done.from, done.wrapped, done.removed), (own.id().to_string(), 4, 4));
        let now = home.wrapping_key().unwrap();
        assert_eq!(std::fs::read(home.key()).unwrap(), "2e".repeat(32).as_bytes());
        assert!(!home.next_key().exists() && done.former.unwrap().exists());
        let opened = ring(&home, &group, config.id).unwrap();
        assert!(opened.holds(first) && opened.current_id() == second);
        assert_eq!(template_key(&home, &*store).unwrap().id(), template);
        assert_eq!(crate::keys::veil(&home, &group, config.id).unwrap().unwrap().id(), veil);
        let known = crate::keys::list(&group, config.id).unwrap();
        assert!(known.iter().all(|it| it.wrappers == [now.id()]));
        assert_eq!(home.opening_keys().unwrap().len(), 2);
    }

    /// Goal: whatever is asked for at once, the key that is in place opens everything in the end.
    #[test]
    fn who_rotates_and_who_wraps_anew_wait_for_each_other() {
        let (_folder, home, config) = home();
        let group = home.group(&config.name);
        let (home, group) = (&home, &group);
        std::thread::scope(|all| {
            let anew = || (0..4).try_for_each(|_| rewrap(home, &request(To::NewFile)).map(drop));
            let made = || (0..8).try_for_each(|_| rotate(home, group, config.id, None).map(drop));
            let wrapping = [all.spawn(anew), all.spawn(anew)];
            let making = [all.spawn(made), all.spawn(made)];
            wrapping.into_iter().for_each(|it| assert_eq!(it.join().unwrap(), Ok(())));
            making.into_iter().for_each(|it| it.join().unwrap().unwrap());
        });
        ring(home, group, config.id).unwrap();
        let own = home.wrapping_key().unwrap().id();
        let known = crate::keys::list(group, config.id).unwrap();
        assert_eq!(known.len(), 17, "the first is made with the second");
        assert!(known.iter().all(|it| it.wrappers == [own]));
    }

    #[test]
    fn a_command_takes_over_when_it_is_configured_and_the_file_again() {
        let (_folder, home, config) = home();
        let group = home.group(&config.name);
        let key = ring(&home, &group, config.id).unwrap().current_id();
        let command = format!("echo {}", "3d".repeat(32));
        let done = rewrap(&home, &request(To::Command(command.clone()))).unwrap();
        assert!(done.next.unwrap().contains("key_command = "));
        let holds = || ring(&home, &group, config.id).unwrap().current_id() == key;
        assert!(holds(), "the file still opens it");
        let refused = rotate(&home, &group, config.id, None).unwrap_err().told();
        assert!(refused.kind.exit_code() == 3 && refused.message.contains("--finish"), "{refused}");
        let config_of = |line: &str| {
            let text = format!("name = \"a\"\n{line}\n");
            home.lock().unwrap().write_config(&text).unwrap();
        };
        config_of(&format!("key_command = \"{command}\""));
        assert!(holds(), "so does the command");
        assert_eq!(rewrap(&home, &request(To::Finish)).unwrap().removed, 1);
        assert!(holds());
        rotate(&home, &group, config.id, None).unwrap();
        let holds = || ring(&home, &group, config.id).unwrap().holds(key);
        assert_eq!(rewrap(&home, &request(To::NewFile)).unwrap_err().kind.exit_code(), 3);
        std::fs::remove_file(home.key()).unwrap();
        assert!(holds(), "the file is not needed");
        rewrap(&home, &request(To::File)).unwrap();
        config_of("");
        assert!(holds());
        rewrap(&home, &request(To::Finish)).unwrap();
        config_of(&format!("key_command = \"{command}\""));
        let error = ring(&home, &group, config.id).unwrap_err();
        assert!(matches!(error, KeyError::Wrapped { .. }), "{error}");
        let error = rewrap(&home, &request(To::Finish)).unwrap_err();
        assert!(error.message.contains("is wrapped by"), "{error}");
    }
}
