//! The layout manifest of a group: which volumes, how large, what of them is never replicated.
//!
//! ```text
//! at  size  field     unit    rule
//!  0     4  magic     -       the letters VGLM
//!  4     2  version   -       1
//!  6     1  extent    log2 B  12 ..= 20
//!  7     1  reserved  -       0
//!  8     4  volumes   -       1 ..= 4096; then per volume:
//!        2+n  name    -       a name, at most 128 bytes
//!        8    bytes   bytes   1 ..= 128 TiB, a multiple of 512
//!        4    masked  bytes   0 ..= 4096: head that is neither compared nor overwritten
//!        4  crc       CRC-32C of all before
//! ```
//!
//! Integers are big-endian. The order of the volumes is their [`VolumeId`].

use crate::bytes::{FormatError, Writer, checked, require, with_checksum};
use crate::extent::{Extent, ExtentSize};
use crate::ids::{NAME_MAX, Name, VolumeId};
use crate::limits::{VOLUME_BYTES_MAX, VOLUMES_MAX};
use crate::units::{SECTOR, Span};

/// Largest masked head of a volume. Unit: bytes. An AIX LVCB is 512.
pub const MASKED_MAX: u32 = 4096;

const MAGIC: [u8; 4] = *b"VGLM";
const VERSION: u16 = 1;

/// One volume of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeLayout {
    /// The LV's name.
    pub name: Name,
    /// Its size. Unit: bytes.
    pub bytes: u64,
    /// Its head that belongs to the host's LVM and not to the data: reads as zero in hashes and
    /// comparisons, is skipped when applied (R13). Unit: bytes.
    pub masked: u32,
}

/// All volumes of a group, in the order of their ids, the same on source and replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of every extent.
    pub extent: ExtentSize,
    /// The volumes; [`VolumeId`] is the index.
    pub volumes: Vec<VolumeLayout>,
}

impl Layout {
    /// The volume of this id.
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeLayout> {
        self.volumes.get(id.index())
    }

    /// The volume of this name.
    pub fn find(&self, name: &str) -> Option<(VolumeId, &VolumeLayout)> {
        self.ids().zip(&self.volumes).find(|(_, volume)| volume.name.as_str() == name)
    }

    /// All ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = VolumeId> + use<> {
        (0..u16::try_from(self.volumes.len()).expect("at most VOLUMES_MAX volumes")).map(VolumeId)
    }

    /// Bytes of all volumes together.
    pub fn bytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.bytes).sum()
    }

    /// The bytes of `extent`, or `None` when it lies outside its volume.
    pub fn span(&self, extent: Extent) -> Option<Span> {
        let volume = self.volume(extent.volume)?;
        let inside = extent.index < self.extent.count(volume.bytes);
        inside.then(|| self.extent.span(extent.index, volume.bytes))
    }

    /// Whether `span` lies within its volume and is not empty.
    pub fn holds(&self, volume: VolumeId, span: Span) -> bool {
        span.len > 0 && self.volume(volume).is_some_and(|known| span.within(known.bytes))
    }

    /// Whether `other` is this layout with nothing but volumes that are as large or larger.
    pub fn grows_to(&self, other: &Layout) -> bool {
        let grows = |(old, new): (&VolumeLayout, &VolumeLayout)| {
            old.name == new.name && old.masked == new.masked && old.bytes <= new.bytes
        };
        self.extent == other.extent
            && self.volumes.len() == other.volumes.len()
            && self.volumes.iter().zip(&other.volumes).all(grows)
    }

    /// BLAKE3 of the layout's bytes, by which two sides know that they mean the same.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// The layout as its format has it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        let count = u32::try_from(self.volumes.len()).expect("at most VOLUMES_MAX volumes");
        out.put(&MAGIC).u16(VERSION).u8(self.extent.log2()).u8(0).u32(count);
        for volume in &self.volumes {
            out.text(volume.name.as_str()).u64(volume.bytes).u32(volume.masked);
        }
        with_checksum(out)
    }

    /// Reads and checks a layout.
    pub fn decode(bytes: &[u8]) -> Result<Layout, FormatError> {
        let mut from = checked(bytes)?;
        if from.array("magic")? != MAGIC {
            return Err(FormatError::Magic { expected: "VGLM" });
        }
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let log2 = from.u8("extent")?;
        let extent = ExtentSize::from_log2(log2).ok_or(FormatError::Field {
            field: "extent",
            found: log2.into(),
            rule: "12 to 20",
        })?;
        let reserved = from.u8("reserved")?;
        require("reserved", reserved, "zero", reserved == 0)?;
        let count = from.u32("volumes")?;
        let fits = (1..=VOLUMES_MAX).contains(&(count as usize));
        require("volumes", count, "1 to 4096", fits)?;
        let mut layout = Layout { extent, volumes: Vec::new() };
        for _ in 0..count {
            let text = from.text("name", NAME_MAX)?;
            let name = text.parse().map_err(|_| FormatError::Field {
                field: "name",
                found: text.len() as u64,
                rule: "letters, digits, '.', '_' and '-'",
            })?;
            let (bytes, masked) = (from.u64("bytes")?, from.u32("masked")?);
            let whole = (1..=VOLUME_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(SECTOR);
            require("bytes", bytes, "whole sectors, up to 128 TiB", whole)?;
            require("masked", masked, "at most 4096", masked <= MASKED_MAX)?;
            let known = layout.find(text).is_some();
            require("name", text.len() as u64, "not used twice", !known)?;
            layout.volumes.push(VolumeLayout { name, bytes, masked });
        }
        from.finish()?;
        Ok(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Layout {
        let volume =
            |name: &str, bytes, masked| VolumeLayout { name: name.parse().unwrap(), bytes, masked };
        Layout {
            extent: ExtentSize::from_log2(16).unwrap(),
            volumes: vec![volume("data", 1 << 20, 512), volume("log", 4096, 0)],
        }
    }

    /// Written by hand from the table; the checksum by an independent program.
    const GOLDEN: &[u8] = &hex_literal::hex!(
        "56474c4d" "0001" "10" "00" "00000002"
        "0004" "64617461" "0000000000100000" "00000200"
        "0003" "6c6f67" "0000000000001000" "00000000"
        "296aeb2f"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(example().encode(), GOLDEN);
        assert_eq!(Layout::decode(GOLDEN), Ok(example()));
    }

    #[test]
    fn every_bit_flip_and_every_cut_is_noticed() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Layout::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..GOLDEN.len() {
            assert!(Layout::decode(&GOLDEN[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn only_larger_volumes_are_growth() {
        let old = example();
        let changed = |change: fn(&mut Layout)| {
            let mut new = example();
            change(&mut new);
            old.grows_to(&new)
        };
        assert!(changed(|_| ()) && changed(|new| new.volumes[1].bytes += 512));
        for change in [
            (|new| new.volumes[1].bytes -= 512) as fn(&mut Layout),
            |new| new.volumes[0].masked = 0,
            |new| new.volumes.swap(0, 1),
            |new| new.volumes.truncate(1),
            |new| new.extent = ExtentSize::from_log2(17).unwrap(),
        ] {
            assert!(!changed(change));
        }
    }

    #[test]
    fn a_volume_may_not_stand_twice() {
        let mut twice = example();
        twice.volumes[1].name = twice.volumes[0].name.clone();
        assert!(Layout::decode(&twice.encode()).is_err());
    }
}
