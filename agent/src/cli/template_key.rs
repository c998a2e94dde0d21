//! `vgship template key`: the keys of a store of templates.

use std::collections::BTreeMap;

use vgship_base::io::Clock;
use vgship_snapshot::seal::KeyId;
use vgship_snapshot::template::{self, ListedTemplate, SharedObjects};

use super::Context;
use super::key::{ended_text, listed, rotated};
use super::template::Of;
use crate::api::ControlError;
use crate::api::keys::{Ended, KeyRow, KeyState, Kind, Need, NewKey, Ring, Rings, Rotated};
use crate::history::spec::rfc3339;
use crate::keys::report::may_end;
use crate::templates::{
    StoreKey, end_key, list_keys, open_store, rotate_key, store_error, template_error,
};

/// Make, list, retire and destroy the keys that seal the templates of a store
///
/// Agents with the same key file share them.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new key: new templates are sealed with it
    Rotate(Of),
    /// List keys, and which templates need each
    List(Of),
    /// Destroy a key that no template needs any more; refused while one does
    Retire(Retire),
    /// Destroy a key with the templates that it seals, which then nobody can read again
    Destroy(Destroy),
}

/// Destroy a key that no template needs
#[derive(Debug, clap::Args)]
pub struct Retire {
    /// Which key: its id, or the beginning of it
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    of: Of,
}

/// Destroy a key with the templates that it seals
#[derive(Debug, clap::Args)]
pub struct Destroy {
    /// Which key: its id, or the beginning of it
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    of: Of,
    /// What may be lost with it for good: templates
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', required = true)]
    i_lose: Vec<Kind>,
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    match command {
        Command::Rotate(of) => {
            let key = rotate_key(&context.home, &*opened(&of, context)?);
            let key = key.map_err(|it| store_error(&it))?.to_string();
            let made = NewKey { group: None, store: Some(name_of(&of)), key };
            context.output.result(&Rotated { keys: vec![made] }, rotated)
        }
        Command::List(of) => list(&of, context),
        Command::Retire(Retire { key, of }) => end(&key, &of, None, context),
        Command::Destroy(Destroy { key, of, i_lose }) => end(&key, &of, Some(&i_lose), context),
    }
}

fn opened(of: &Of, context: &Context<'_>) -> Result<SharedObjects, ControlError> {
    open_store(&context.home, of.store.as_deref()).map_err(|it| store_error(&it))
}

fn name_of(of: &Of) -> String {
    of.store.clone().unwrap_or_else(|| "the home's own".to_owned())
}

fn needs(
    store: &SharedObjects,
    known: &[StoreKey],
) -> Result<BTreeMap<KeyId, Vec<Need>>, ControlError> {
    Ok(needs_of(&template::list(store).map_err(|it| template_error(&it))?, known))
}

/// The templates of each key. One whose root is damaged does not tell its key: it stands under every
/// key that it may need, for it can be mended from another store.
fn needs_of(templates: &[ListedTemplate], known: &[StoreKey]) -> BTreeMap<KeyId, Vec<Need>> {
    let mut names: BTreeMap<KeyId, Vec<String>> = BTreeMap::new();
    for listed in templates {
        let usable = known.iter().filter(|it| it.ended.is_none()).map(|it| it.id);
        let keys = listed.key.map_or_else(|| usable.collect(), |key| vec![key]);
        for key in keys {
            names.entry(key).or_default().push(listed.name.to_string());
        }
    }
    let need = |names: Vec<String>| Need {
        kind: Kind::Templates,
        files: names.len() as u64,
        bytes: None,
        oldest: None,
        names,
        all_names: true,
    };
    names.into_iter().map(|(key, names)| (key, vec![need(names)])).collect()
}

fn list(of: &Of, context: &Context<'_>) -> Result<(), ControlError> {
    let store = opened(of, context)?;
    let known = list_keys(&*store).map_err(|it| store_error(&it))?;
    let mut needs = needs(&store, &known)?;
    let now = Clock::start().wall();
    let last = known.last().map(|it| it.id);
    let row = |key: &StoreKey| KeyRow {
        id: key.id.to_string(),
        state: match key.ended {
            Some(_) => KeyState::Destroyed,
            None if Some(key.id) == last => KeyState::Current,
            None => KeyState::Old,
        },
        made: rfc3339(key.made),
        age_seconds: now.saturating_sub(key.made) / 1_000_000,
        ended: key.ended.map(rfc3339),
        wrapped_by: key.wrapped.keys().map(ToString::to_string).collect(),
        needs: needs.remove(&key.id).unwrap_or_default(),
    };
    let keys = known.iter().map(row).collect();
    let ring = Ring { group: None, store: Some(name_of(of)), keys, veil: None };
    context.output.result(&Rings { rings: vec![ring] }, listed)
}

fn end(
    text: &str,
    of: &Of,
    lose: Option<&[Kind]>,
    context: &Context<'_>,
) -> Result<(), ControlError> {
    let store = opened(of, context)?;
    let known = list_keys(&*store).map_err(|it| store_error(&it))?;
    let fits = |it: &&StoreKey| text.len() >= 4 && it.id.to_string().starts_with(text);
    let mut fitting = known.iter().filter(fits);
    let (Some(key), None) = (fitting.next(), fitting.next()) else {
        let ids: Vec<String> = known.iter().map(|it| it.id.to_string()).collect();
        let text = format!("there is no key {text} in the store; there are: {}", ids.join(", "));
        return Err(ControlError::refused(text));
    };
    if key.ended.is_some() && !key.is_half_gone() {
        return Err(ControlError::refused(format!("key {} was destroyed already", key.id)));
    }
    if known.last().is_some_and(|last| last.id == key.id) {
        return Err(ControlError::refused(format!("key {} is the current one", key.id))
            .hint("make a new one first: vgship template key rotate"));
    }
    let lost = may_go(&store, &known, key, lose)?;
    // Once more when everybody can see that it goes: one may have come meanwhile.
    end_key(&*store, key, || may_go(&store, &known, key, lose).map(drop))?;
    let ended = Ended { group: None, store: Some(name_of(of)), key: key.id.to_string(), lost };
    context.output.result(&ended, ended_text)
}

/// What goes with a key, if that may.
fn may_go(
    store: &SharedObjects,
    known: &[StoreKey],
    key: &StoreKey,
    lose: Option<&[Kind]>,
) -> Result<Vec<Need>, ControlError> {
    let writers = template::writers(&**store).map_err(|it| template_error(&it))?;
    if writers > 0 {
        let text = format!("{writers} templates are being made or copied in the store");
        return Err(ControlError::refused(text)
            .hint("wait until they are there; one that was cut off ends with template gc"));
    }
    let lost = needs(store, known)?.remove(&key.id).unwrap_or_default();
    may_end(key.id, &lost, lose)?;
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_does_not_tell_its_key_keeps_all_that_it_may_need() {
        let key = |byte: u8, ended| StoreKey {
            id: KeyId([byte; 8]),
            number: byte.into(),
            made: 1,
            ended,
            wrapped: BTreeMap::new(),
        };
        let known = [key(1, Some(9)), key(2, None), key(3, None)];
        let template =
            |name: &str, key| ListedTemplate { name: name.parse().unwrap(), root: None, key };
        let templates = [template("damaged", None), template("whole", Some(known[1].id))];
        let needs = needs_of(&templates, &known);
        assert_eq!(needs.keys().copied().collect::<Vec<_>>(), [known[1].id, known[2].id]);
        assert_eq!(needs[&known[1].id][0].names, ["damaged", "whole"]);
        assert_eq!(needs[&known[2].id][0].names, ["damaged"]);
    }
}
