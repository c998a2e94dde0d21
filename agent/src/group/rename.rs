//! Renames LVs and mount points by rule, for clones that stand beside their origin.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use vgship_base::ids::Name;

use crate::home::text;

/// A rule `lv:PATTERN=REPLACEMENT` or `mount:PATTERN=REPLACEMENT`. A `*` in the pattern stands for
/// any letters, one in the replacement for what it stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    of: What,
    pattern: Pattern,
    replacement: Pattern,
}

/// What a rule renames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Lv,
    Mount,
}

/// A rule for mount points; a `*` stands between its halves. All of it can stand in a shell script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountRule<'a> {
    /// Before the pattern's star, or all of it.
    pub before: &'a str,
    /// Behind the pattern's star, if it has one.
    pub behind: Option<&'a str>,
    /// Before the replacement's star, or all of it.
    pub to_before: &'a str,
    /// Behind the replacement's star, if it has one.
    pub to_behind: Option<&'a str>,
}

/// A name, or what stands before and behind a `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    before: String,
    behind: Option<String>,
}

/// Why a text is no [`Rename`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Not `lv:`.
    #[error(
        "{0:?} is no rule: write lv:PATTERN=REPLACEMENT, for example 'lv:*=c_*', or \
         mount:PATTERN=REPLACEMENT, for example 'mount:/data*=/clone/data*'"
    )]
    Kind(String),
    /// No path, or letters that a mount point cannot have here.
    #[error("{0:?}: mount points begin with '/' and have letters, digits and /._-+,:@% alone")]
    Mount(String),
    /// Two stars, or one too many in the replacement.
    #[error("{0:?}: a pattern has at most one '*', a replacement none that its pattern has not")]
    Star(String),
}

/// Why names cannot be made by rules.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RenameError {
    /// Not a name.
    #[error("LV {old} would be called {new:?}, which is not a name")]
    Illegal {
        /// As it is.
        old: Name,
        /// As it would be.
        new: String,
    },
    /// More letters than the system takes.
    #[error("LV {old} would be called {new}, which is longer than {most} letters")]
    TooLong {
        /// As it is.
        old: Name,
        /// As it would be.
        new: Name,
        /// Unit: letters.
        most: usize,
    },
    /// Two of one name.
    #[error("two LVs would be called {0}")]
    Twice(Name),
}

impl FromStr for Rename {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rename, RuleError> {
        let (of, rule) = match text.split_once(':') {
            Some(("lv", rule)) => (What::Lv, rule),
            Some(("mount", rule)) => (What::Mount, rule),
            _ => return Err(RuleError::Kind(text.to_owned())),
        };
        let (from, to) = rule.split_once('=').ok_or_else(|| RuleError::Kind(text.to_owned()))?;
        let (pattern, replacement) = (Pattern::of(from), Pattern::of(to));
        let stars = |it: &Pattern| it.behind.as_ref().is_some_and(|it| it.contains('*'));
        let extra = replacement.behind.is_some() && pattern.behind.is_none();
        if stars(&pattern) || stars(&replacement) || extra {
            return Err(RuleError::Star(text.to_owned()));
        }
        if from.is_empty() || to.is_empty() {
            return Err(RuleError::Kind(text.to_owned()));
        }
        if of == What::Mount && !(is_mount(from) && is_mount(to)) {
            return Err(RuleError::Mount(text.to_owned()));
        }
        Ok(Rename { of, pattern, replacement })
    }
}

/// Whether a pattern is one of mount points. What it may hold means nothing to a shell, but the
/// star.
fn is_mount(text: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || "/._-+,:@%*".contains(it);
    text.starts_with('/') && text.chars().all(plain)
}

impl fmt::Display for Rename {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            What::Lv => "lv",
            What::Mount => "mount",
        };
        write!(out, "{of}:{}={}", self.pattern, self.replacement)
    }
}

impl Serialize for Rename {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        text::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Rename {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Rename, D::Error> {
        text::deserialize(from)
    }
}

impl Pattern {
    fn of(text: &str) -> Pattern {
        let (before, behind) = match text.split_once('*') {
            Some((before, behind)) => (before, Some(behind.to_owned())),
            None => (text, None),
        };
        Pattern { before: before.to_owned(), behind }
    }

    /// What the star stands for in this name, if the pattern fits it.
    fn fits<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(&self.before)?;
        match &self.behind {
            Some(behind) => rest.strip_suffix(behind.as_str()),
            None => Some(rest).filter(|rest| rest.is_empty()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.behind {
            Some(behind) => write!(out, "{}*{behind}", self.before),
            None => out.write_str(&self.before),
        }
    }
}

impl Rename {
    /// The rule, if it is one for mount points.
    pub fn mount(&self) -> Option<MountRule<'_>> {
        let rule = MountRule {
            before: &self.pattern.before,
            behind: self.pattern.behind.as_deref(),
            to_before: &self.replacement.before,
            to_behind: self.replacement.behind.as_deref(),
        };
        (self.of == What::Mount).then_some(rule)
    }

    /// What this rule makes of an LV's name, if it fits.
    fn renames(&self, name: &str) -> Option<String> {
        if self.of != What::Lv {
            return None;
        }
        let star = self.pattern.fits(name)?;
        let Pattern { before, behind } = &self.replacement;
        Some(match behind {
            Some(behind) => format!("{before}{star}{behind}"),
            None => before.clone(),
        })
    }

    /// Whether it is one for LVs that fits none of these names.
    pub fn is_idle<'a>(&self, mut names: impl Iterator<Item = &'a Name>) -> bool {
        self.of == What::Lv && !names.any(|name| self.pattern.fits(name.as_str()).is_some())
    }
}

/// The names of one group's LVs by the first rule that fits each; as they are where none does.
///
/// Unit: `most`, letters.
pub fn renamed(rules: &[Rename], names: &[Name], most: usize) -> Result<Vec<Name>, RenameError> {
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for old in names {
        let new = match rules.iter().find_map(|rule| rule.renames(old.as_str())) {
            None => old.clone(),
            Some(new) => new.parse().map_err(|_| RenameError::Illegal { old: old.clone(), new })?,
        };
        if new.as_str().len() > most {
            return Err(RenameError::TooLong { old: old.clone(), new, most });
        }
        if !seen.insert(new.clone()) {
            return Err(RenameError::Twice(new));
        }
        all.push(new);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rules: &[&str], names: &[&str], most: usize) -> Result<Vec<String>, String> {
        let rules: Vec<Rename> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let names: Vec<Name> = names.iter().map(|name| name.parse().unwrap()).collect();
        let new = renamed(&rules, &names, most).map_err(|error| error.to_string())?;
        Ok(new.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = ["lv:data*lv=test*lv", "lv:log=protocol", "lv:d*=c_*"];
        let new = names(&rules, &["data01lv", "log", "d2", "other", "datalv"], 128).unwrap();
        assert_eq!(new, ["test01lv", "protocol", "c_2", "other", "testlv"]);
        // What stands before and behind the star does not overlap.
        assert_eq!(names(&["lv:aba*ba=x"], &["aba"], 128).unwrap(), ["aba"]);
        assert_eq!(names(&["lv:*=*_clone"], &["a", "b"], 128).unwrap(), ["a_clone", "b_clone"]);
    }

    #[test]
    fn names_that_collide_or_are_none_are_refused() {
        let error = |rules: &[&str], olds: &[&str], most| names(rules, olds, most).unwrap_err();
        assert!(
            error(&["lv:a*=same"], &["a1", "a2"], 128).contains("two LVs would be called same")
        );
        assert!(error(&["lv:a=b"], &["a", "b"], 128).contains("two LVs"));
        assert!(error(&["lv:*=a/*"], &["x"], 128).contains("not a name"));
        assert!(error(&["lv:*=.*"], &["x"], 128).contains("not a name"));
        assert!(error(&["lv:*=c_*"], &["fourteen_chars"], 15).contains("longer than 15"));
        assert!(error(&[], &["sixteen_letters_"], 15).contains("longer than 15"));
        assert!(names(&["lv:*=c*"], &["fourteen_chars"], 15).is_ok());
    }

    #[test]
    fn rules_are_shown_as_they_are_typed_and_mistakes_are_said() {
        let mount = "mount:/data*=/clone/data*";
        for text in ["lv:*=c_*", "lv:data*=test", "lv:a=b", "lv:a*b=*", mount] {
            assert_eq!(text.parse::<Rename>().unwrap().to_string(), text);
        }
        let error = |text: &str| text.parse::<Rename>().unwrap_err().to_string();
        assert!(error("data=x").contains("lv:PATTERN=REPLACEMENT"));
        assert!(error("lv:data").contains("lv:PATTERN=REPLACEMENT"));
        assert!(error("lv:=x").contains("lv:PATTERN=REPLACEMENT"));
        for bad in
            ["mount:data=/x", "mount:/data=x", "mount:/a=/$(x)", "mount:/a b=/c", "mount:/*=/`*"]
        {
            assert!(error(bad).contains("begin with '/'"), "{bad}");
        }
        for bad in ["lv:a=*", "lv:**=x", "lv:*=**"] {
            assert!(error(bad).contains("at most one '*'"), "{bad}");
        }
        let rule: Rename = "lv:data*=x*".parse().unwrap();
        let names: [Name; 2] = ["log".parse().unwrap(), "data1".parse().unwrap()];
        assert!(!rule.is_idle(names.iter()) && rule.is_idle(names[..1].iter()));
        // Where file systems are mounted is not known here.
        let rule: Rename = "mount:/data*=/x*".parse().unwrap();
        assert!(!rule.is_idle(names.iter()));
        assert_eq!(renamed(std::slice::from_ref(&rule), &names, 15).unwrap(), names);
        let expected =
            MountRule { before: "/data", behind: Some(""), to_before: "/x", to_behind: Some("") };
        assert_eq!(rule.mount(), Some(expected));
    }
}
