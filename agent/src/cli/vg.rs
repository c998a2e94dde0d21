//! `vgship vg`: what could be replicated.

use std::path::PathBuf;

use vgship_base::units::ByteLen;

use super::Context;
use super::parts::Found;
use super::table::Table;
use crate::api::ControlError;

/// Look at volume groups
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List volume groups, those that are excluded with the reason
    ///
    /// Looks at this machine, or at the disks and images named. rootvg is shown and always
    /// excluded.
    List {
        /// Disks or disk images to look at instead of this machine's
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

pub(super) fn run(command: Command, context: &Context<'_>) -> Result<(), ControlError> {
    let Command::List { paths } = command;
    let found = context.parts.find_groups(&paths)?;
    context.output.result(&found, rendered)
}

pub(super) fn rendered(found: &Found) -> String {
    let mut table = Table::new(["GROUP", "KIND", "SIZE", "VOLUMES", "VOLUMES SPEC"]);
    for group in &found.groups {
        let spec = match (&group.excluded, &group.spec) {
            (Some(reason), _) => format!("excluded: {reason}"),
            (None, Some(spec)) => spec.clone(),
            (None, None) => String::new(),
        };
        table.row([
            group.name.clone(),
            group.kind.clone(),
            ByteLen(group.bytes).to_string(),
            group.volumes.len().to_string(),
            spec,
        ]);
        for volume in &group.volumes {
            table.row([
                format!("  {}", volume.name),
                String::new(),
                ByteLen(volume.bytes).to_string(),
                String::new(),
                volume.note.clone().unwrap_or_default(),
            ]);
        }
    }
    let shown = match found.groups.is_empty() {
        true => "no volume group was found\n".to_owned(),
        false => table.to_string(),
    };
    let problems = found.problems.iter().map(|problem| format!("not looked at: {problem}\n"));
    std::iter::once(shown).chain(problems).collect()
}

#[cfg(test)]
mod tests {
    use super::super::parts::{FoundGroup, FoundVolume};
    use super::super::tests::golden;
    use super::*;

    #[test]
    fn groups_are_shown_with_why_they_are_excluded() {
        let volume = |name: &str, bytes, note: Option<&str>| FoundVolume {
            name: name.into(),
            bytes,
            note: note.map(Into::into),
        };
        let groups = vec![
            FoundGroup {
                name: "datavg".into(),
                kind: "aix original".into(),
                bytes: 3 << 30,
                disks: vec!["/d/a.img".into(), "/d/b.img".into()],
                volumes: vec![
                    volume("lv00", 1 << 30, Some("jfs2, 2 copies")),
                    volume("loglv00", 16 << 20, None),
                ],
                spec: Some("aix-disks:/d/a.img,/d/b.img".into()),
                excluded: None,
            },
            FoundGroup {
                name: "rootvg".into(),
                kind: "aix original".into(),
                bytes: 32 << 30,
                disks: vec!["/dev/hdisk0".into()],
                volumes: Vec::new(),
                spec: None,
                excluded: Some("it holds the boot volume hd5".into()),
            },
        ];
        let found = Found { groups, problems: vec!["/dev/hdisk9: permission denied".into()] };
        golden("vg.txt", &rendered(&found));
        let none = Found { groups: Vec::new(), problems: Vec::new() };
        assert_eq!(rendered(&none), "no volume group was found\n");
    }
}
