//! What is known of an environment over restarts, and its file.
//!
//! The file is JSON. Version 2 has a list of groups; version 1, which is read too, had one.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use super::failed;
use crate::api::ControlError;
use crate::home::{io as files, text};

/// The file that makes an environment one.
pub(super) const FACTS: &str = "environment.json";

/// Longest file of facts that is read: 4096 names of a few groups. Unit: bytes.
const FACTS_MAX: u64 = 8 << 20;

const VERSION: u32 = 2;

/// What is known of an environment over restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    /// Of these facts.
    version: u32,
    #[serde(with = "text")]
    pub(super) name: Name,
    /// The set's snapshot that it was made of, `S@NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) set: Option<String>,
    pub(super) parts: Vec<PartFacts>,
    pub(super) owner: Option<String>,
    /// Unit: microseconds since 1970.
    pub(super) created: u64,
    /// Unit: microseconds since 1970.
    pub(super) expires: Option<u64>,
    /// Unit: bytes.
    pub(super) quota: Option<u64>,
    /// Which step failed and how, if it was to be kept all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) steps: Vec<StepFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) teardown: Option<TeardownFacts>,
    /// Whether it is being destroyed: parts of it may be gone, and its teardown is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ending: bool,
}

/// One group of an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartFacts {
    #[serde(with = "text")]
    pub(super) group: Name,
    /// The snapshot that it builds on; 0 for a template.
    pub(super) base: u64,
    /// The template that it builds on, and its store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) template: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<String>,
    /// The last record that it was made of.
    pub(super) seq: u64,
    /// The source's clock there. Unit: microseconds since 1970.
    pub(super) clock: u64,
    /// What its LVs are called here, in the layout's order; nothing when as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) names: Vec<String>,
}

/// A program that ran while the environment was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepFacts {
    pub(super) command: String,
    /// How long it took. Unit: milliseconds.
    pub(super) millis: u64,
    pub(super) ended: String,
}

/// What runs before the environment is destroyed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TeardownFacts {
    pub(super) command: String,
    /// How long it may take. Unit: milliseconds.
    pub(super) most_millis: u64,
}

/// The facts of version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsOfOne {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(with = "text")]
    name: Name,
    #[serde(with = "text")]
    group: Name,
    base: u64,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    store: Option<String>,
    seq: u64,
    clock: u64,
    owner: Option<String>,
    created: u64,
    expires: Option<u64>,
    quota: Option<u64>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Facts {
    /// Of an environment that is made now. Unit: `created`, microseconds since 1970.
    pub(super) fn new(name: Name, created: u64) -> Facts {
        Facts {
            version: VERSION,
            name,
            set: None,
            parts: Vec::new(),
            owner: None,
            created,
            expires: None,
            quota: None,
            failed: None,
            steps: Vec::new(),
            teardown: None,
            ending: false,
        }
    }

    fn parse(text: &str) -> Result<Facts, ControlError> {
        let unknown = |it: serde_json::Error| {
            ControlError::failed(format!("its facts are not understood: {it}"))
        };
        let Versioned { version } = serde_json::from_str(text).map_err(unknown)?;
        match version {
            1 => serde_json::from_str::<FactsOfOne>(text).map(Facts::from).map_err(unknown),
            VERSION => serde_json::from_str(text).map_err(unknown),
            _ => {
                let text = format!("its facts are of version {version}, this agent reads 1 and 2");
                Err(ControlError::failed(text))
            }
        }
    }

    /// Those in an environment's folder.
    pub(super) fn load(folder: &Path) -> Result<Facts, ControlError> {
        let path = folder.join(FACTS);
        let text = files::read_if_any(&path, FACTS_MAX)?;
        Facts::parse(
            &text.ok_or_else(|| {
                ControlError::failed(format!("{} cannot be read", path.display()))
            })?,
        )
    }

    /// Puts them into an environment's folder: from here on it is one.
    ///
    /// Durable: once this has returned.
    pub(super) fn store(&self, folder: &Path) -> Result<(), ControlError> {
        let text = serde_json::to_vec_pretty(self).map_err(|it| failed(&it))?;
        if text.len() as u64 > FACTS_MAX {
            return Err(ControlError::refused("these are too many LVs for one environment")
                .hint("make several environments"));
        }
        Ok(files::replace(&folder.join(FACTS), &text, 0o600)?)
    }
}

impl From<FactsOfOne> for Facts {
    fn from(old: FactsOfOne) -> Facts {
        let FactsOfOne { group, base, template, store, seq, clock, .. } = old;
        let part = PartFacts { group, base, template, store, seq, clock, names: Vec::new() };
        Facts {
            parts: vec![part],
            owner: old.owner,
            expires: old.expires,
            quota: old.quota,
            ..Facts::new(old.name, old.created)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"version": 1, "name": "e", "group": "g", "base": 7, "seq": 9,
        "clock": 11, "owner": "me", "created": 13, "expires": null, "quota": 4096}"#;

    #[test]
    fn facts_of_version_1_are_an_environment_of_one_group() {
        let facts = Facts::parse(OLD).unwrap();
        let part = PartFacts {
            group: "g".parse().unwrap(),
            base: 7,
            template: None,
            store: None,
            seq: 9,
            clock: 11,
            names: Vec::new(),
        };
        let expected = Facts {
            parts: vec![part],
            owner: Some("me".to_owned()),
            quota: Some(4096),
            ..Facts::new("e".parse().unwrap(), 13)
        };
        assert_eq!(facts, expected);
        // What is stored from then on is of version 2, and the same.
        let text = serde_json::to_string(&facts).unwrap();
        assert!(text.starts_with(r#"{"version":2,"#), "{text}");
        assert_eq!(Facts::parse(&text).unwrap(), expected);
    }

    #[test]
    fn the_text_of_version_2_does_not_change() {
        let text = concat!(
            r#"{"version":2,"name":"e","set":"s@n","parts":[{"group":"g","base":7,"template":"t","#,
            r#""store":"file:///s","seq":9,"clock":11,"names":["c_data"]}],"owner":null,"#,
            r#""created":13,"expires":17,"quota":null,"failed":"step 1","steps":[{"command":"#,
            r#""true","millis":5,"ended":"exit status: 0"}],"teardown":{"command":"false","#,
            r#""most_millis":100},"ending":true}"#
        );
        let facts = Facts::parse(text).unwrap();
        assert_eq!(serde_json::to_string(&facts).unwrap(), text);
        let newer = text.replace(r#""version":2"#, r#""version":3"#);
        assert!(Facts::parse(&newer).unwrap_err().to_string().contains("version 3"));
        assert!(Facts::parse(&text.replace("owner", "whose")).is_err());
        assert!(Facts::parse("").is_err());
    }
}
