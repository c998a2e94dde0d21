//! Volume groups of Linux's LVM2: which commands to run and what their reports say. Runs nothing.
//!
//! The reports are those of `--reportformat json --units b --nosuffix`: an object `report` with an
//! array of one object, whose array is called after the command. All values are texts.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use vgship_base::ids::Name;

/// Largest report that is read. Unit: bytes. 4096 LVs take about 1 MiB.
pub const REPORT_BYTES_MAX: u64 = 64 << 20;

const JSON: [&str; 5] = ["--reportformat", "json", "--units", "b", "--nosuffix"];
const VG_FIELDS: &str = "vg_name,vg_uuid,vg_extent_size";
const LV_FIELDS: &str = "vg_name,lv_name,lv_uuid,lv_attr,lv_size,origin,segtype,seg_count";
const TAG_FIELDS: &str = "lv_name,lv_tags,origin";
const PV_FIELDS: &str = "pv_name,vg_name,pv_size,pv_missing";

/// Why a report cannot be read.
#[derive(Debug, Error)]
pub enum ReportError {
    /// Not JSON, or not the report's shape.
    #[error("it is not the JSON that LVM2 documents")]
    Json(#[from] serde_json::Error),
    /// A number is not one.
    #[error("{field} of {of} is {found:?}, which is no number of bytes")]
    Number {
        /// Which field.
        field: &'static str,
        /// Which VG or LV.
        of: String,
        /// As reported.
        found: String,
    },
}

/// A command with its arguments.
pub type Command = Vec<String>;

fn command(words: &[&str]) -> Command {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Reports all VGs, or one.
pub fn vgs_command(vg: Option<&str>) -> Command {
    let mut words = vec!["vgs"];
    words.extend(JSON);
    words.extend(["-o", VG_FIELDS]);
    words.extend(vg);
    command(&words)
}

/// Reports all LVs with the internal ones, or those of one VG. An LV stands once per segment type.
pub fn lvs_command(vg: Option<&str>) -> Command {
    let mut words = vec!["lvs", "--all"];
    words.extend(JSON);
    words.extend(["-o", LV_FIELDS]);
    words.extend(vg);
    command(&words)
}

/// Reports the LVs of one VG without a lock, so that no command of LVM2 waits for this one. It
/// cannot tell whether they are active or open.
pub fn lvs_peek_command(vg: &str) -> Command {
    let mut words = lvs_command(Some(vg));
    words.insert(1, "--readonly".to_owned());
    words
}

/// Reports all PVs.
pub fn pvs_command() -> Command {
    let mut words = vec!["pvs"];
    words.extend(JSON);
    words.extend(["-o", PV_FIELDS]);
    command(&words)
}

/// Makes an LV.
pub fn lvcreate_command(vg: &str, name: &Name, bytes: u64) -> Command {
    let size = format!("{bytes}b");
    command(&["lvcreate", "--yes", "-n", name.as_str(), "-L", &size, vg])
}

/// Makes an LV that a tag tells from all others.
pub fn lvcreate_tagged_command(vg: &str, name: &Name, bytes: u64, tag: &str) -> Command {
    let size = format!("{bytes}b");
    command(&["lvcreate", "--yes", "-n", name.as_str(), "-L", &size, "--addtag", tag, vg])
}

/// Reports which LVs of a VG have which tags.
pub fn lv_tags_command(vg: &str) -> Command {
    let mut words = vec!["lvs"];
    words.extend(JSON);
    words.extend(["-o", TAG_FIELDS, vg]);
    command(&words)
}

/// Removes an LV.
pub fn lvremove_command(vg: &str, lv: &str) -> Command {
    command(&["lvremove", "--yes", &format!("{vg}/{lv}")])
}

/// Makes an LV larger.
pub fn lvextend_command(vg: &str, name: &Name, bytes: u64) -> Command {
    command(&["lvextend", "-L", &format!("{bytes}b"), &format!("{vg}/{name}")])
}

/// A VG of LVM2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lvm2Vg {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// LVs have a multiple of it. Unit: bytes.
    pub extent_bytes: u64,
}

/// An LV of LVM2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lvm2Lv {
    /// Its VG.
    pub vg: String,
    /// Its name, in brackets when it is internal.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// The ten letters of its attributes.
    pub attr: String,
    /// Unit: bytes.
    pub bytes: u64,
    /// What it is a snapshot of; empty for most.
    pub origin: String,
    /// What its first segment is: linear, striped, raid1, thin ...
    pub segtype: String,
    /// In how many pieces it lies.
    pub segments: u64,
}

/// A PV of LVM2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lvm2Pv {
    /// Its device.
    pub name: String,
    /// Its VG; empty when it has none.
    pub vg: String,
    /// Unit: bytes.
    pub bytes: u64,
    /// Whether its device is missing.
    pub missing: bool,
}

#[derive(Deserialize)]
struct Report<T> {
    report: Vec<T>,
}

fn rows<T: DeserializeOwned, Row>(
    json: &[u8],
    table: impl Fn(T) -> Vec<Row>,
) -> Result<Vec<Row>, ReportError> {
    let parsed: Report<T> = serde_json::from_slice(json)?;
    Ok(parsed.report.into_iter().flat_map(table).collect())
}

fn number(field: &'static str, of: &str, text: String) -> Result<u64, ReportError> {
    text.parse().map_err(|_| ReportError::Number { field, of: of.to_owned(), found: text })
}

/// Reads the report of [`vgs_command`].
pub fn parse_vgs(json: &[u8]) -> Result<Vec<Lvm2Vg>, ReportError> {
    #[derive(Deserialize)]
    struct Table {
        vg: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        vg_name: String,
        vg_uuid: String,
        vg_extent_size: String,
    }
    let read = |row: Row| {
        let extent_bytes = number("vg_extent_size", &row.vg_name, row.vg_extent_size)?;
        Ok(Lvm2Vg { name: row.vg_name, uuid: row.vg_uuid, extent_bytes })
    };
    rows(json, |table: Table| table.vg)?.into_iter().map(read).collect()
}

/// Reads the report of [`lvs_command`].
pub fn parse_lvs(json: &[u8]) -> Result<Vec<Lvm2Lv>, ReportError> {
    #[derive(Deserialize)]
    struct Table {
        lv: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        vg_name: String,
        lv_name: String,
        lv_uuid: String,
        lv_attr: String,
        lv_size: String,
        origin: String,
        segtype: String,
        seg_count: String,
    }
    let read = |row: Row| {
        Ok(Lvm2Lv {
            bytes: number("lv_size", &row.lv_name, row.lv_size)?,
            segments: number("seg_count", &row.lv_name, row.seg_count)?,
            vg: row.vg_name,
            name: row.lv_name,
            uuid: row.lv_uuid,
            attr: row.lv_attr,
            origin: row.origin,
            segtype: row.segtype,
        })
    };
    let lvs = rows(json, |table: Table| table.lv)?.into_iter().map(read);
    let mut lvs = lvs.collect::<Result<Vec<_>, ReportError>>()?;
    lvs.dedup_by(|second, first| (&first.vg, &first.name) == (&second.vg, &second.name));
    Ok(lvs)
}

/// Reads the report of [`pvs_command`].
pub fn parse_pvs(json: &[u8]) -> Result<Vec<Lvm2Pv>, ReportError> {
    #[derive(Deserialize)]
    struct Table {
        pv: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        pv_name: String,
        vg_name: String,
        pv_size: String,
        pv_missing: String,
    }
    let read = |row: Row| {
        let bytes = number("pv_size", &row.pv_name, row.pv_size)?;
        let missing = !row.pv_missing.is_empty();
        Ok(Lvm2Pv { name: row.pv_name, vg: row.vg_name, bytes, missing })
    };
    rows(json, |table: Table| table.pv)?.into_iter().map(read).collect()
}

/// An LV of LVM2, and whether it has a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lvm2Tagged {
    /// Its name.
    pub name: String,
    /// What it is a snapshot of; empty for most.
    pub origin: String,
    /// Whether it has the tag.
    pub has_tag: bool,
}

/// Reads the report of [`lv_tags_command`]: all LVs, and which have this tag.
pub fn parse_tagged(json: &[u8], tag: &str) -> Result<Vec<Lvm2Tagged>, ReportError> {
    #[derive(Deserialize)]
    struct Table {
        lv: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        lv_name: String,
        lv_tags: String,
        origin: String,
    }
    let read = |row: Row| Lvm2Tagged {
        has_tag: row.lv_tags.split(',').any(|known| known == tag),
        name: row.lv_name,
        origin: row.origin,
    };
    Ok(rows(json, |table: Table| table.lv)?.into_iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VGS: &[u8] = include_bytes!("fixtures/lvm2/vgs.json");
    const LVS: &[u8] = include_bytes!("fixtures/lvm2/lvs.json");
    const PVS: &[u8] = include_bytes!("fixtures/lvm2/pvs.json");

    #[test]
    fn groups_and_disks_are_read() {
        let vgs = parse_vgs(VGS).unwrap();
        let names: Vec<_> = vgs.iter().map(|vg| vg.name.as_str()).collect();
        assert_eq!(names, ["datavg", "emptyvg", "sys-a"]);
        assert_eq!(vgs[0].extent_bytes, 4 << 20);
        let pvs = parse_pvs(PVS).unwrap();
        let missing: Vec<_> = pvs.iter().filter(|pv| pv.missing).map(|pv| &pv.vg[..]).collect();
        assert_eq!((pvs.len(), pvs[0].bytes, missing), (5, 53_684_994_048, vec!["lostvg"]));
    }

    #[test]
    fn an_empty_group_and_a_failed_command_have_no_lv() {
        for json in ["fixtures/lvm2/lvs-empty.json", "fixtures/lvm2/no-such-vg.stdout"] {
            let path =
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/group").join(json);
            assert_eq!(parse_lvs(&std::fs::read(path).unwrap()).unwrap(), []);
        }
    }

    #[test]
    fn a_report_of_another_shape_is_an_error() {
        for json in ["", "{}", r#"{"report":[{"vg":[]}]}"#, r#"{"report":[{"lv":[{}]}]}"#] {
            assert!(matches!(parse_lvs(json.as_bytes()), Err(ReportError::Json(_))), "{json}");
        }
        let broken = String::from_utf8(LVS.to_vec()).unwrap().replace("8589934592", "8.00g");
        let error = parse_lvs(broken.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("dbdatalv") && error.contains("8.00g"), "{error}");
    }

    #[test]
    fn only_lvs_with_that_very_tag_are_found() {
        let json = br#"{"report":[{"lv":[{"lv_name":"a","lv_tags":"x,vgship.env.e.1","origin":""},
            {"lv_name":"b","lv_tags":"vgship.env.e.12","origin":"a"},
            {"lv_name":"c","lv_tags":"","origin":""},
            {"lv_name":"d","lv_tags":"vgship.env.e.1","origin":""}]}]}"#;
        let all = parse_tagged(json, "vgship.env.e.1").unwrap();
        let tagged: Vec<_> = all.iter().map(|lv| (lv.name.as_str(), lv.has_tag)).collect();
        assert_eq!(tagged, [("a", true), ("b", false), ("c", false), ("d", true)]);
        assert_eq!((all[0].origin.as_str(), all[1].origin.as_str()), ("", "a"));
        assert!(parse_tagged(b"{}", "x").is_err());
    }

    #[test]
    fn commands_are_built_as_they_are_typed() {
        let name = "dbdatalv".parse().unwrap();
        assert_eq!(
            lvcreate_tagged_command("datavg", &name, 8 << 20, "vgship.env.e.1").join(" "),
            "lvcreate --yes -n dbdatalv -L 8388608b --addtag vgship.env.e.1 datavg"
        );
        assert_eq!(
            lv_tags_command("datavg").join(" "),
            "lvs --reportformat json --units b --nosuffix -o lv_name,lv_tags,origin datavg"
        );
        assert_eq!(lvremove_command("datavg", "x").join(" "), "lvremove --yes datavg/x");
        assert_eq!(
            lvcreate_command("datavg", &name, 8 << 30).join(" "),
            "lvcreate --yes -n dbdatalv -L 8589934592b datavg"
        );
        assert_eq!(
            lvs_command(Some("datavg")).join(" "),
            "lvs --all --reportformat json --units b --nosuffix -o \
             vg_name,lv_name,lv_uuid,lv_attr,lv_size,origin,segtype,seg_count datavg"
        );
        assert!(lvs_peek_command("datavg").join(" ").starts_with("lvs --readonly --all "));
        assert_eq!(
            lvextend_command("datavg", &name, 9 << 30).join(" "),
            "lvextend -L 9663676416b datavg/dbdatalv"
        );
        assert!(vgs_command(None).last().unwrap().contains("vg_uuid"));
        assert_eq!(pvs_command()[0], "pvs");
    }
}
