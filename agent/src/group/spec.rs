//! How a person says where a group's volumes are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where a group's volumes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumesSpec {
    /// A folder with one file per LV.
    Images(PathBuf),
    /// The disks of one AIX VG: images or devices.
    AixDisks(Vec<PathBuf>),
    /// A VG of Linux's LVM2.
    Lvm2(String),
    /// A VG of the AIX that this program runs on.
    Aix(String),
}

/// Why a text is no [`VolumesSpec`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// No known word before the colon.
    #[error(
        "{0:?} does not say where volumes are: use images:DIR, \
         aix-disks:PATH[,PATH...], lvm2:VG or aix:VG"
    )]
    Kind(String),
    /// Nothing behind the colon, or between two commas.
    #[error("{0:?} lacks a name or path behind the colon, or between commas")]
    Empty(String),
    /// Not a VG's name.
    #[error(
        "{0:?} is not the name of a volume group: use letters, digits, \
         '.', '_', '+' or '-', not starting with '-'"
    )]
    VgName(String),
}

impl FromStr for VolumesSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<VolumesSpec, SpecError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| SpecError::Kind(text.to_owned()))?;
        let full = |part: &str| match part {
            "" => Err(SpecError::Empty(text.to_owned())),
            part => Ok(PathBuf::from(part)),
        };
        match kind {
            "images" => full(rest).map(VolumesSpec::Images),
            "aix-disks" => {
                rest.split(',').map(full).collect::<Result<_, _>>().map(VolumesSpec::AixDisks)
            }
            "lvm2" => vg_name(text, rest).map(VolumesSpec::Lvm2),
            "aix" => vg_name(text, rest).map(VolumesSpec::Aix),
            _ => Err(SpecError::Kind(text.to_owned())),
        }
    }
}

/// A name that is safe as an argument and as a part of a path.
fn vg_name(text: &str, name: &str) -> Result<String, SpecError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    if name.is_empty() {
        Err(SpecError::Empty(text.to_owned()))
    } else if name.len() <= 127
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !matches!(name, "." | "..")
    {
        Ok(name.to_owned())
    } else {
        Err(SpecError::VgName(name.to_owned()))
    }
}

impl fmt::Display for VolumesSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumesSpec::Images(dir) => write!(out, "images:{}", dir.display()),
            VolumesSpec::AixDisks(paths) => {
                let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
                write!(out, "aix-disks:{}", paths.join(","))
            }
            VolumesSpec::Lvm2(vg) => write!(out, "lvm2:{vg}"),
            VolumesSpec::Aix(vg) => write!(out, "aix:{vg}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed_again() {
        for text in ["images:/srv/lvs", "aix-disks:/a.img,/dev/b", "lvm2:data+vg", "aix:datavg"] {
            assert_eq!(text.parse::<VolumesSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_said() {
        let error = |text: &str| text.parse::<VolumesSpec>().unwrap_err().to_string();
        assert!(error("/srv/lvs").contains("images:DIR"));
        assert!(error("zfs:tank").contains("lvm2:VG"));
        for empty in ["images:", "aix-disks:", "aix-disks:/a,,/b", "lvm2:"] {
            assert!(error(empty).contains("behind the colon"), "{empty}");
        }
        for bad in ["lvm2:-y", "lvm2:..", "aix:a b", "lvm2:a/b"] {
            assert!(error(bad).contains("not the name"), "{bad}");
        }
    }
}
