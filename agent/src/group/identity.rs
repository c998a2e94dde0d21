//! What a volume is, whatever it is called, and how it is remembered beside the layout. Version 1 of
//! the file is text, at most 1 MiB:
//!
//! ```text
//! vgship identities 1
//! NAME IDENTITY        one line per volume whose identity is known
//! ```
//!
//! An identity is at most 128 bytes of ASCII without blanks: a file's inode number and when it was
//! made, the UUID of an LV of LVM2, the VG's id and the minor number of an LV of AIX.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use vgship_base::ids::Name;
use vgship_base::layout::Layout;
use vgship_base::limits::VOLUMES_MAX;

const HEAD: &str = "vgship identities 1";

/// Longest identity. Unit: bytes.
const IDENTITY_MAX: usize = 128;

/// Longest file that is read: more than 4096 volumes with the longest names and identities take.
/// Unit: bytes.
pub const IDENTITIES_BYTES_MAX: u64 = 2 << 20;

/// What a volume is, whatever it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity(String);

impl Identity {
    /// From a text, or `None` when it is none that can be remembered.
    pub fn new(text: impl Into<String>) -> Option<Identity> {
        let text = text.into();
        let fits = (1..=IDENTITY_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Identity(text))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The file's text.
pub fn encode(layout: &Layout, identities: &[Option<Identity>]) -> String {
    let mut text = format!("{HEAD}\n");
    for (volume, identity) in layout.volumes.iter().zip(identities) {
        if let Some(identity) = identity {
            let _ = writeln!(text, "{} {identity}", volume.name);
        }
    }
    text
}

/// The identities of a layout's volumes, or `None` when the text is not one of these files.
pub fn decode(text: &str, layout: &Layout) -> Option<Vec<Option<Identity>>> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != HEAD {
        return None;
    }
    let mut known: BTreeMap<Name, Identity> = BTreeMap::new();
    for line in lines {
        let (name, identity) = line.split_once(' ')?;
        let before = known.insert(name.parse().ok()?, Identity::new(identity)?);
        if before.is_some() || known.len() > VOLUMES_MAX {
            return None;
        }
    }
    Some(layout.volumes.iter().map(|volume| known.remove(&volume.name)).collect())
}

#[cfg(test)]
mod tests {
    use vgship_base::extent::ExtentSize;
    use vgship_base::layout::VolumeLayout;

    use super::*;

    fn layout() -> Layout {
        let volume =
            |name: &str| VolumeLayout { name: name.parse().unwrap(), bytes: 512, masked: 0 };
        let extent = ExtentSize::from_log2(16).unwrap();
        Layout { extent, volumes: vec![volume("one"), volume("two")] }
    }

    #[test]
    fn the_text_is_as_documented_both_ways() {
        let identities = vec![None, Identity::new("inode-7-born-8")];
        let text = encode(&layout(), &identities);
        assert_eq!(text, "vgship identities 1\ntwo inode-7-born-8\n");
        assert_eq!(decode(&text, &layout()), Some(identities));
    }

    #[test]
    fn what_is_no_such_file_is_not_believed_in_part() {
        for text in [
            "",
            "vgship identities 1",
            "vgship identities 2\n",
            "vgship identities 1\none\n",
            "vgship identities 1\none \n",
            "vgship identities 1\none a b\n",
            "vgship identities 1\n/ a\n",
            "vgship identities 1\none a\none b\n",
        ] {
            assert_eq!(decode(text, &layout()), None, "{text:?}");
        }
        assert_eq!(decode("vgship identities 1\n", &layout()), Some(vec![None, None]));
        assert_eq!(Identity::new("x".repeat(129)), None);
    }
}
