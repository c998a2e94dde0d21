//! What `vg list` shows: every volume group found here, with what would be served and why not the
//! rest.

use std::fmt::Write as _;

use serde::Serialize;
use vgship_base::units::ByteLen;

/// What a volume group is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VgKind {
    /// AIX, up to 32 disks.
    Original,
    /// AIX, up to 128 disks.
    Big,
    /// AIX, up to 1024 disks.
    Scalable,
    /// Linux's LVM2.
    Lvm2,
    /// A folder of images.
    Images,
    /// What was named could not be read.
    Unknown,
}

/// One PV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PvListing {
    /// Its device or file; its identity when it is not at hand.
    pub name: String,
    /// Whether it is at hand and up to date.
    pub state: String,
}

/// One LV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LvListing {
    /// Its name.
    pub name: String,
    /// Unit: bytes.
    pub bytes: u64,
    /// Copies of each of its partitions.
    pub copies: usize,
    /// Contiguous, or in how many runs.
    pub placement: String,
    /// `ok`, or what is wrong with it.
    pub state: String,
    /// Why it is not served, if it is not.
    pub excluded: Option<String>,
}

/// One volume group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VgListing {
    /// Its name. AIX keeps none on the disks: there it is made from the VGID.
    pub name: String,
    /// VGID or UUID; empty for a folder.
    pub id: String,
    /// What it is made of.
    pub kind: VgKind,
    /// What `--volumes` takes for it.
    pub volumes: String,
    /// Size of a partition or extent. Unit: bytes. None for a folder.
    pub pp_bytes: Option<u64>,
    /// Its disks.
    pub pvs: Vec<PvListing>,
    /// Its LVs.
    pub lvs: Vec<LvListing>,
    /// `ok`, or what is wrong with it.
    pub state: String,
    /// Why it is never replicated, or cannot be, if so.
    pub excluded: Option<String>,
}

impl VgListing {
    /// A group of which nothing is known yet.
    pub(super) fn new(name: String, kind: VgKind, volumes: String) -> VgListing {
        VgListing {
            name,
            id: String::new(),
            kind,
            volumes,
            pp_bytes: None,
            pvs: Vec::new(),
            lvs: Vec::new(),
            state: "ok".to_owned(),
            excluded: None,
        }
    }

    /// The same, excluded for `reason`, unless it already is for another.
    pub(super) fn exclude(&mut self, reason: Option<String>) {
        self.excluded = self.excluded.take().or(reason);
    }
}

/// The listing as text for people: a paragraph per group.
pub fn render_table(groups: &[VgListing]) -> String {
    if groups.is_empty() {
        return "no volume group found\n".to_owned();
    }
    groups.iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

fn paragraph(group: &VgListing) -> String {
    let mut text = String::new();
    let kind = format!("{:?}", group.kind).to_lowercase();
    let mut head = vec![group.name.clone(), kind];
    head.extend(group.pp_bytes.map(|bytes| format!("partitions of {}", ByteLen(bytes))));
    head.extend((!group.id.is_empty()).then(|| format!("id {}", group.id)));
    let mut line = |words: &str| writeln!(text, "{words}").expect("a text takes more text");
    line(&head.join("  "));
    line(&format!("  volumes   {}", group.volumes));
    if let Some(reason) = &group.excluded {
        line(&format!("  EXCLUDED  {reason}"));
    }
    if group.state != "ok" {
        line(&format!("  state     {}", group.state));
    }
    for pv in &group.pvs {
        line(&format!("  disk      {}  {}", pv.name, pv.state));
    }
    if !group.lvs.is_empty() {
        let head = ["LV", "SIZE", "COPIES", "PLACEMENT", "STATE"].map(str::to_owned);
        let rows: Vec<[String; 5]> =
            std::iter::once(head).chain(group.lvs.iter().map(row)).collect();
        let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for [name, size, copies, placement, state] in &rows {
            let [one, two, three, four] = widths;
            let cells = format!(
                "  {name:<one$}  {size:>two$}  {copies:>three$}  {placement:<four$}  {state}"
            );
            line(cells.trim_end());
        }
    }
    text
}

fn row(lv: &LvListing) -> [String; 5] {
    let state = match &lv.excluded {
        Some(reason) => format!("not served: {reason}"),
        None => lv.state.clone(),
    };
    let (size, copies) = (ByteLen(lv.bytes).to_string(), lv.copies.to_string());
    [lv.name.clone(), size, copies, lv.placement.clone(), state]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> VgListing {
        let lv = |name: &str, bytes, excluded: Option<&str>| LvListing {
            name: name.to_owned(),
            bytes,
            copies: 1,
            placement: "contiguous".to_owned(),
            state: "ok".to_owned(),
            excluded: excluded.map(str::to_owned),
        };
        let volumes = "aix-disks:/dev/sdb".to_owned();
        VgListing {
            id: "00f6000102030405".to_owned(),
            pp_bytes: Some(64 << 20),
            pvs: vec![PvListing { name: "/dev/sdb".to_owned(), state: "ok".to_owned() }],
            lvs: vec![lv("dbdatalv", 1 << 30, None), lv("s", 64 << 20, Some("it is striped"))],
            ..VgListing::new("vg-00f60001".to_owned(), VgKind::Original, volumes)
        }
    }

    #[test]
    fn a_group_reads_as_a_table() {
        let expected = "\
vg-00f60001  original  partitions of 64 MiB  id 00f6000102030405
  volumes   aix-disks:/dev/sdb
  disk      /dev/sdb  ok
  LV          SIZE  COPIES  PLACEMENT   STATE
  dbdatalv   1 GiB       1  contiguous  ok
  s         64 MiB       1  contiguous  not served: it is striped
";
        assert_eq!(render_table(&[example()]), expected);
        let mut root = VgListing::new("rootvg".to_owned(), VgKind::Lvm2, "lvm2:rootvg".to_owned());
        root.exclude(Some("it holds /".to_owned()));
        root.exclude(Some("later reasons do not matter".to_owned()));
        let expected = "rootvg  lvm2\n  volumes   lvm2:rootvg\n  EXCLUDED  it holds /\n";
        assert_eq!(render_table(&[root]), expected);
        assert_eq!(render_table(&[]), "no volume group found\n");
    }

    #[test]
    fn programs_get_plain_data() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["kind"], "original");
        assert_eq!(json["lvs"][1]["excluded"], "it is striped");
        assert_eq!(json["excluded"], serde_json::Value::Null);
    }
}
