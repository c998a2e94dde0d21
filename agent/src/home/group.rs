//! `group.toml`: one group of one agent.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{GroupId, Name, PeerId};
use vgship_base::limits::EXTENT_LOG2_DEFAULT;
use vgship_base::units::ByteLen;
use vgship_snapshot::seal::KeyId;

use super::config::parse;
use super::error::HomeError;
use super::quantity::{Period, Size};
use super::settings::Settings;
use super::text;

/// Memory for records that no replica has yet, unless the group says otherwise.
pub const OUTBOX_RAM_DEFAULT: Size = Size(ByteLen(64 << 20));

/// Least memory for such records: one largest record and what comes in while it is sent.
pub const OUTBOX_RAM_MIN: Size = Size(ByteLen(4 << 20));

/// Disk for records that no longer fit the memory, unless the group says otherwise.
pub const SPILL_DEFAULT: Size = Size(ByteLen(1 << 30));

/// How often an epoch ends, unless the group says otherwise.
pub const EPOCH_DEFAULT: Period = Period(Duration::from_secs(1));

/// Bounds of an epoch: shorter costs more than it tells, longer hides the lag.
pub const EPOCH_BOUNDS: [Period; 2] =
    [Period(Duration::from_millis(50)), Period(Duration::from_mins(1))];

pub use crate::wire::peers::Role;

/// What a person says of a new group; what is left out takes its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// What this agent calls it.
    #[serde(with = "text")]
    pub name: Name,
    /// Which volumes: `images:DIR`, `aix-disks:PATH,...`, `lvm2:VG`, `aix:VG`.
    pub volumes: String,
    /// Unit of dirty tracking: a power of two from 4 KiB to 1 MiB.
    #[serde(default = "extent_default")]
    pub extent: Size,
    /// Memory of the outbox.
    #[serde(default = "outbox_ram_default")]
    pub outbox_ram: Size,
    /// Disk of the outbox; zero means none.
    #[serde(default = "spill_default")]
    pub spill: Size,
    /// How often an epoch ends.
    #[serde(default = "epoch_default")]
    pub epoch: Period,
    /// What may be changed while it runs.
    #[serde(default)]
    pub policy: Settings,
}

/// One group of one agent, as stored in `group.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// What this agent calls it.
    #[serde(with = "text")]
    pub name: Name,
    /// What it is on all its sides.
    #[serde(with = "text::id")]
    pub id: GroupId,
    /// Which side this agent is.
    pub role: Role,
    /// Which volumes: `images:DIR`, `aix-disks:PATH,...`, `lvm2:VG`, `aix:VG`.
    pub volumes: String,
    /// Unit of dirty tracking.
    #[serde(default = "extent_default")]
    pub extent: Size,
    /// Memory of the outbox.
    #[serde(default = "outbox_ram_default")]
    pub outbox_ram: Size,
    /// Disk of the outbox; zero means none.
    #[serde(default = "spill_default")]
    pub spill: Size,
    /// How often an epoch ends.
    #[serde(default = "epoch_default")]
    pub epoch: Period,
    /// The other side, once paired.
    #[serde(default, with = "text::some_id", skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerId>,
    /// A blind replica: what its source veils the content with.
    #[serde(default, with = "text::some_id", skip_serializing_if = "Option::is_none")]
    pub blind: Option<KeyId>,
    /// What may be changed while it runs: `vgship group set`.
    #[serde(default)]
    pub policy: Settings,
}

fn extent_default() -> Size {
    Size(ByteLen(1 << EXTENT_LOG2_DEFAULT))
}

fn outbox_ram_default() -> Size {
    OUTBOX_RAM_DEFAULT
}

fn spill_default() -> Size {
    SPILL_DEFAULT
}

fn epoch_default() -> Period {
    EPOCH_DEFAULT
}

fn extent_size(size: Size) -> Result<ExtentSize, HomeError> {
    ExtentSize::from_bytes(size.0.0).ok_or(HomeError::Extent { size })
}

impl GroupSpec {
    /// A group of these volumes with every default.
    pub fn new(name: Name, volumes: impl Into<String>) -> GroupSpec {
        GroupSpec {
            name,
            volumes: volumes.into(),
            extent: extent_default(),
            outbox_ram: OUTBOX_RAM_DEFAULT,
            spill: SPILL_DEFAULT,
            epoch: EPOCH_DEFAULT,
            policy: Settings::default(),
        }
    }

    /// The extent size, checked.
    pub fn extent_size(&self) -> Result<ExtentSize, HomeError> {
        extent_size(self.extent)
    }

    /// Whether all values can be.
    pub fn check(&self) -> Result<(), HomeError> {
        self.clone().into_config(GroupId::default(), Role::Source).check(Path::new("group.toml"))
    }

    /// The group that it becomes on this side.
    pub fn into_config(self, id: GroupId, role: Role) -> GroupConfig {
        GroupConfig {
            name: self.name,
            id,
            role,
            volumes: self.volumes,
            extent: self.extent,
            outbox_ram: self.outbox_ram,
            spill: self.spill,
            epoch: self.epoch,
            peer: None,
            blind: None,
            policy: self.policy,
        }
    }
}

impl GroupConfig {
    /// Reads and checks a group; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<GroupConfig, HomeError> {
        let config: GroupConfig = parse(text, path)?;
        config.check(path)?;
        Ok(config)
    }

    /// Its text in `group.toml`.
    pub fn to_text(&self) -> String {
        let fields = toml::to_string(self).expect("a group's fields are plain values");
        format!(
            "# A group of this agent. Change it only while the agent is stopped; for the policy there is\n# vgship group set.\n{fields}"
        )
    }

    /// The extent size, checked.
    pub fn extent_size(&self) -> Result<ExtentSize, HomeError> {
        extent_size(self.extent)
    }

    /// Whether all values can be; `path` is named in errors.
    pub fn check(&self, path: &Path) -> Result<(), HomeError> {
        let wrong = |key, why| Err(HomeError::Value { path: path.to_owned(), key, why });
        if let Err(error) = self.extent_size() {
            return wrong("extent", error.to_string());
        }
        if self.outbox_ram < OUTBOX_RAM_MIN {
            let why = format!("{} is less than {OUTBOX_RAM_MIN}", self.outbox_ram);
            return wrong("outbox_ram", why);
        }
        let [least, most] = EPOCH_BOUNDS;
        if !(least..=most).contains(&self.epoch) {
            return wrong("epoch", format!("{} is not from {least} to {most}", self.epoch));
        }
        if self.volumes.is_empty() || self.volumes.contains(['\n', '\0']) {
            return wrong("volumes", "it names no volumes".to_owned());
        }
        match self.policy.wrong() {
            Some((key, why)) => wrong(key, why),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> GroupConfig {
        let spec = GroupSpec::new("payroll".parse().unwrap(), "images:/srv/payroll");
        spec.into_config(GroupId([0x1f; 16]), Role::Source)
    }

    fn read(text: &str) -> Result<GroupConfig, String> {
        GroupConfig::parse(text, Path::new("group.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_golden_group_holds_both_ways() {
        let mut group = example();
        group.policy.history_window = "48 h".parse().unwrap();
        group.peer = Some(PeerId([0xa0; 32]));
        assert_eq!(group.to_text(), include_str!("golden/group.toml"));
        assert_eq!(read(&group.to_text()), Ok(group));
        assert_eq!(read(&example().to_text()), Ok(example()));
    }

    #[test]
    fn what_is_left_out_takes_its_default() {
        let id = "1f".repeat(16);
        let text = format!(
            "name = \"payroll\"\nid = \"{id}\"\nrole = \"source\"\nvolumes = \"images:/srv/payroll\""
        );
        assert_eq!(read(&text), Ok(example()));
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_key() {
        let good = example().to_text();
        for (from, to, said) in [
            ("extent = \"64 KiB\"", "extent = \"48 KiB\"", "`extent`: 48 KiB is no extent size"),
            (
                "extent = \"64 KiB\"",
                "extent = 65536",
                "line 7, key `extent`: \"65536\" is not a size",
            ),
            ("outbox_ram = \"64 MiB\"", "outbox_ram = \"1 MiB\"", "less than 4 MiB"),
            ("epoch = \"1 s\"", "epoch = \"2 h\"", "not from 50 ms to 1 m"),
            (
                "max_lag = \"none\"",
                "max_lag = \"1 B\"",
                "`max_lag`: 1 B is less than 500 ms or 1 MiB",
            ),
            (
                "freeze = \"\"",
                "freeze = \"f\"",
                "`thaw`: a freeze command needs one that undoes it",
            ),
            ("mode = \"async\"", "mode = \"both\"", "unknown variant `both`"),
            ("id = \"1f", "id = \"1x", "this is not a group's id"),
            ("images:/srv/payroll", "", "`volumes`: it names no volumes"),
            ("role", "roll", "unknown field `roll`"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = read(&good.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(said), "{to}: {error}");
        }
    }

    #[test]
    fn zero_spill_means_none() {
        let text = example().to_text().replace("\"1 GiB\"", "\"0\"");
        assert_eq!(read(&text).unwrap().spill, Size(ByteLen(0)));
    }
}
