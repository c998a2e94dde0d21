//! What is told of keys, and whether one may go.

use vgship_base::units::ByteLen;
use vgship_snapshot::seal::KeyId;

use super::files::KnownKey;
use super::needs::{Kind, Need, Needs};
use super::veil::KnownVeil;
use crate::api::ControlError;
use crate::api::keys::{KeyRow, KeyState, Ring, VeilRow};
use crate::history::spec::rfc3339;

/// The keys of a group with what needs each, as of `now`. Unit: microseconds since 1970.
pub fn ring_of(
    group: &str,
    (known, veil): (&[KnownKey], Option<&KnownVeil>),
    needs: &Needs,
    now: u64,
) -> Ring {
    let last = known.last().map(|it| it.number);
    let row = |key: &KnownKey| KeyRow {
        id: key.kept.id.to_string(),
        state: match key.is_usable() {
            false => KeyState::Destroyed,
            true if Some(key.number) == last => KeyState::Current,
            true => KeyState::Old,
        },
        made: rfc3339(key.kept.made),
        age_seconds: now.saturating_sub(key.kept.made) / 1_000_000,
        ended: key.kept.key.as_ref().err().map(|ended| rfc3339(*ended)),
        wrapped_by: key.wrappers.iter().map(ToString::to_string).collect(),
        needs: needs.get(&key.kept.id).cloned().unwrap_or_default(),
    };
    let keys = known.iter().map(row).collect();
    Ring { group: Some(group.to_owned()), store: None, keys, veil: veil.map(veil_row) }
}

/// What is told of a veil key.
pub fn veil_row(known: &KnownVeil) -> VeilRow {
    VeilRow {
        id: known.id.to_string(),
        made: rfc3339(known.made),
        wrapped_by: known.wrappers.iter().map(ToString::to_string).collect(),
        escrowed: known.escrow.map(|(_, made)| rfc3339(made)),
        escrow_opens_with: known.escrow.map(|(by, _)| by.to_string()),
    }
}

fn texts(needs: &[Need]) -> String {
    needs.iter().map(Need::text).collect::<Vec<_>>().join("; ")
}

/// Whether a key may be destroyed that `needs` need, when what is named in `lose` may be lost.
///
/// # Errors
/// A refusal that says what needs it.
pub fn may_end(key: KeyId, needs: &[Need], lose: Option<&[Kind]>) -> Result<(), ControlError> {
    let Some(lose) = lose else {
        return match needs {
            [] => Ok(()),
            _ => Err(ControlError::refused(format!("key {key} is still needed: {}", texts(needs)))
                .hint(
                    "wait until that history is over, or delete it; to make it unreadable at once: \
                 vgship key destroy",
                )),
        };
    };
    if let Some(spill) = needs.iter().find(|it| it.kind == Kind::Spill) {
        let bytes = spill.bytes.map_or_else(String::new, |it| format!(" of {}", ByteLen(it)));
        return Err(ControlError::refused(format!(
            "key {key} seals records{bytes} that a replica has not got yet"
        ))
        .hint("wait until the replica has caught up: they go from the spill then"));
    }
    let unnamed: Vec<Need> = needs.iter().filter(|it| !lose.contains(&it.kind)).cloned().collect();
    if unnamed.is_empty() {
        return Ok(());
    }
    let kinds: Vec<&str> = needs.iter().map(|it| it.kind.as_str()).collect();
    let text = format!("destroying key {key} also makes unreadable: {}", texts(&unnamed));
    Err(ControlError::refused(text)
        .hint(format!("if that may be lost for good, say so: --i-lose {}", kinds.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_key_keeps_it_unless_it_is_named() {
        let need = |kind, names: &[&str], all_names| Need {
            kind,
            files: 2,
            bytes: Some(1 << 20),
            oldest: None,
            names: names.iter().map(ToString::to_string).collect(),
            all_names,
        };
        let key = KeyId([1; 8]);
        let needs =
            [need(Kind::Journal, &[], true), need(Kind::Snapshots, &["monday", "tuesday"], false)];
        assert_eq!(may_end(key, &[], None), Ok(()));
        let refused = may_end(key, &needs, None).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        let told = "2 files of journal (1 MiB); 2 files of snapshots (1 MiB): monday, tuesday and \
                    perhaps others";
        assert!(refused.message.ends_with(told), "{refused}");
        let refused = may_end(key, &needs, Some(&[Kind::Journal])).unwrap_err();
        assert!(!refused.message.contains("journal") && refused.message.contains("monday"));
        assert!(refused.hint.unwrap().ends_with("--i-lose journal,snapshots"));
        assert_eq!(may_end(key, &needs, Some(&[Kind::Snapshots, Kind::Journal])), Ok(()));
        let spill = [need(Kind::Spill, &[], true)];
        assert!(may_end(key, &spill, Some(&[Kind::Spill])).is_err(), "never what is under way");
    }
}
