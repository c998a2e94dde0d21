//! Manifests and differences as text for people.

use std::fmt;

use vgship_base::units::ByteLen;

use super::diff::{Difference, FieldDifference};
use super::manifest::{Facts, Manifest};
use super::place::hex;

/// A clock of microseconds since 1970 as a date in UTC, as ISO 8601 has it.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000_000;
        let (days, time) = (seconds / 86_400, seconds % 86_400);
        // Days from civil, turned round (Hinnant, "chrono-compatible low-level date algorithms"):
        // years begin in March, so that the leap day is the last.
        let shifted = days + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

fn show_facts(facts: &Facts, indent: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    // What a fact holds may be anything: escaped, it stays on its line.
    facts.iter().try_for_each(|(key, value)| writeln!(out, "{indent}{key:?} = {value:?}"))
}

impl fmt::Display for Manifest {
    /// Several lines; each volume has one, and those of its facts are indented below it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.source;
        writeln!(out, "template    {}", self.name)?;
        writeln!(out, "created     {}", Date(self.created))?;
        writeln!(out, "group       {} ({})", source.group_name, source.group)?;
        writeln!(out, "generation  {}", source.generation)?;
        writeln!(out, "seq         {} of {}", source.seq, Date(source.clock))?;
        writeln!(out, "key         {}", self.key)?;
        writeln!(out, "extents     {}", ByteLen(self.extent.bytes()))?;
        writeln!(out, "chunks      {}", ByteLen(self.chunk.bytes()))?;
        show_facts(&self.facts, "  ", out)?;
        for volume in &self.volumes {
            let layout = &volume.layout;
            let data = (volume.chunks * self.chunk.bytes()).min(layout.bytes);
            let (bytes, data) = (ByteLen(layout.bytes), ByteLen(data));
            write!(out, "volume      {}: {bytes}, data {data}", layout.name)?;
            if layout.masked > 0 {
                write!(out, ", masked {}", ByteLen(layout.masked.into()))?;
            }
            writeln!(out, ", content {}", hex(&volume.content))?;
            show_facts(&volume.facts, "  ", out)?;
        }
        Ok(())
    }
}

fn show_fields(
    fields: &[FieldDifference],
    indent: &str,
    out: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let text = |it: &Option<String>| it.as_ref().map_or("-".to_owned(), |it| format!("{it:?}"));
    fields.iter().try_for_each(|it| {
        let (first, second) = (text(&it.first), text(&it.second));
        writeln!(out, "{indent}{}: {first} -> {second}", it.field)
    })
}

impl fmt::Display for Difference {
    /// A line per difference; nothing when there is none.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_fields(&self.fields, "", out)?;
        for volume in &self.volumes {
            match volume.bytes {
                Some(bytes) => {
                    writeln!(out, "volume {}: {} differ", volume.name, ByteLen(bytes))?;
                }
                None => {
                    writeln!(out, "volume {}: differs, how much is not known", volume.name)?;
                }
            }
            show_fields(&volume.fields, "  ", out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vgship_base::ids::Name;

    use super::*;
    use crate::template::diff::VolumeDifference;
    use crate::template::manifest::tests::example;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let shown = |seconds: u64| Date(seconds * 1_000_000).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(shown(4_107_542_400), "2100-03-01T00:00:00Z");
        assert!(!Date(u64::MAX).to_string().is_empty());
    }

    #[test]
    fn a_manifest_reads_as_a_table() {
        let mut manifest = example();
        manifest.facts.insert("k".into(), "two\nlines".into());
        let text = "\
template    gold
created     1970-01-01T00:00:00Z
group       erp (11111111111111111111111111111111)
generation  22222222222222222222222222222222
seq         0.772 of 1970-01-01T00:00:00Z
key         0909090909090909
extents     64 KiB
chunks      256 KiB
  \"k\" = \"two\\nlines\"
volume      data: 1 MiB, data 768 KiB, masked 512 B, content CC
  \"fs\" = \"jfs2\"
  \"mount\" = \"\"
volume      log: 4 KiB, data 0 B, content CC
";
        assert_eq!(manifest.to_string(), text.replace("CC", &"cc".repeat(32)));
    }

    #[test]
    fn differences_read_as_what_became_of_what() {
        let field = |first: Option<&str>, second: Option<&str>| FieldDifference {
            field: "bytes".to_owned(),
            first: first.map(str::to_owned),
            second: second.map(str::to_owned),
        };
        let name: Name = "data".parse().unwrap();
        let fields = vec![field(Some("1"), Some("2"))];
        let volume = VolumeDifference { name, fields, bytes: Some(4096) };
        let unknown = VolumeDifference { fields: vec![], bytes: None, ..volume.clone() };
        let fields = vec![field(None, Some("x"))];
        let found = Difference { fields, volumes: vec![volume, unknown] };
        let text = "bytes: - -> \"x\"\nvolume data: 4 KiB differ\n  bytes: \"1\" -> \"2\"\n\
                    volume data: differs, how much is not known\n";
        assert_eq!(found.to_string(), text);
        assert_eq!(Difference::default().to_string(), "");
    }
}
