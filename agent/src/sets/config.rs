//! A set as it is configured: `sets/S/set.toml`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use crate::home::settings::{HOLD_BOUNDS, HOLD_DEFAULT};
use crate::home::{HomeError, Period, config::parse, text};

/// As many groups as a set may have. Each holds applications until all are ready.
pub const MEMBERS_MAX: usize = 64;

/// Longest command. Unit: bytes. With both, however they are written, the file can be read again.
pub const COMMAND_MAX: usize = 4096;

/// A set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    /// What it is called.
    #[serde(with = "text")]
    pub name: Name,
    /// The groups, as this agent calls them.
    pub members: Vec<MemberName>,
    /// How long applications may be held.
    #[serde(default = "hold_default")]
    pub hold: Period,
    /// The shell command that freezes before the groups' own; empty for none.
    #[serde(default)]
    pub freeze: String,
    /// The shell command that thaws behind them; empty for none.
    #[serde(default)]
    pub thaw: String,
}

/// A group's name in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberName(#[serde(with = "text")] pub Name);

fn hold_default() -> Period {
    HOLD_DEFAULT
}

impl SetConfig {
    /// Reads and checks a set; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<SetConfig, HomeError> {
        let config: SetConfig = parse(text, path)?;
        match config.wrong() {
            Some((key, why)) => Err(HomeError::Value { path: path.to_owned(), key, why }),
            None => Ok(config),
        }
    }

    /// Its text in `set.toml`.
    pub fn to_text(&self) -> String {
        let fields = toml::to_string(self).expect("a set's fields are plain values");
        format!("# A set of this agent; change it with vgship set.\n{fields}")
    }

    /// What is wrong with a value, and with which.
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        let count = self.members.len();
        if count == 0 || count > MEMBERS_MAX {
            return Some(("members", format!("a set has 1 to {MEMBERS_MAX} groups, not {count}")));
        }
        let mut names: Vec<&str> = self.members.iter().map(|it| it.0.as_str()).collect();
        names.sort_unstable();
        if let Some([twice, ..]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Some(("members", format!("it names the group {twice} twice")));
        }
        let [least, most] = HOLD_BOUNDS;
        if !(least..=most).contains(&self.hold) {
            return Some(("hold", format!("{} is not from {least} to {most}", self.hold)));
        }
        if self.freeze.len().max(self.thaw.len()) > COMMAND_MAX {
            return Some(("freeze", format!("a command has at most {COMMAND_MAX} bytes")));
        }
        if self.freeze.contains('\0') || self.thaw.contains('\0') {
            return Some(("freeze", "a command has no zero byte".to_owned()));
        }
        let lacks = self.freeze.is_empty() != self.thaw.is_empty();
        lacks.then(|| ("thaw", "freeze and thaw commands come together".to_owned()))
    }

    /// Whether a group is a member.
    pub fn has(&self, group: &Name) -> bool {
        self.members.iter().any(|it| it.0 == *group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::config::CONFIG_BYTES_MAX;

    fn example() -> SetConfig {
        SetConfig {
            name: "erp".parse().unwrap(),
            members: ["app", "db"].map(|it| MemberName(it.parse().unwrap())).into(),
            hold: "8 s".parse().unwrap(),
            freeze: "/hooks/erp stop".to_owned(),
            thaw: "/hooks/erp go".to_owned(),
        }
    }

    fn read(text: &str) -> Result<SetConfig, String> {
        SetConfig::parse(text, Path::new("set.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_golden_set_holds_both_ways() {
        let golden = "# A set of this agent; change it with vgship set.\n\
                      name = \"erp\"\nmembers = [\"app\", \"db\"]\nhold = \"8 s\"\n\
                      freeze = \"/hooks/erp stop\"\nthaw = \"/hooks/erp go\"\n";
        assert_eq!(example().to_text(), golden);
        assert_eq!(read(golden), Ok(example()));
        let least = read("name = \"erp\"\nmembers = [\"app\"]").unwrap();
        assert_eq!((least.hold, least.freeze.as_str()), (HOLD_DEFAULT, ""));
    }

    /// Goal: what can be written can be read, whatever is in it.
    #[test]
    fn the_longest_set_can_be_read_again() {
        let command = "\u{1}".repeat(COMMAND_MAX);
        let member = |it| MemberName(format!("{it:0>128}").parse().unwrap());
        let longest = SetConfig {
            members: (0..MEMBERS_MAX).map(member).collect(),
            freeze: command.clone(),
            thaw: command.clone(),
            ..example()
        };
        assert_eq!(longest.wrong(), None);
        let text = longest.to_text();
        assert!(text.len() as u64 <= CONFIG_BYTES_MAX, "{}", text.len());
        assert_eq!(read(&text), Ok(longest.clone()));
        let longer = SetConfig { thaw: command + "x", ..longest };
        assert_eq!(longer.wrong().unwrap().1, "a command has at most 4096 bytes");
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_key() {
        let good = example().to_text();
        for (from, to, said) in [
            ("[\"app\", \"db\"]", "[]", "`members`: a set has 1 to 64 groups, not 0"),
            ("\"db\"", "\"app\"", "`members`: it names the group app twice"),
            ("8 s", "11 m", "`hold`: 11 m is not from 100 ms to 10 m"),
            ("/hooks/erp go", "", "`thaw`: freeze and thaw commands come together"),
            ("/hooks/erp stop", "", "`thaw`: freeze and thaw commands come together"),
            ("\"db\"", "\"../db\"", "members"),
            ("hold", "held", "unknown field `held`"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = read(&good.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(said), "{to}: {error}");
        }
    }
}
