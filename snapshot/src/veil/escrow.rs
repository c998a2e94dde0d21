//! An escrow: a veil key to be kept away from its source, with what is needed to use it. Version 1:
//!
//! ```text
//! at   size  field    unit   rule
//!   0     4  magic    -      the letters VGVE
//!   4     2  version  -      1
//!   6     2  reserved -      0, else refused
//!   8   144  key      -      the wrapped veil key (`kept.rs`); names group, wrapping and veil key
//! 152     8  made     us     since 1970, when the escrow was made
//! 160    32  check    -      HKDF-SHA256 of the veil key (no salt, info `vgship veil check v1` and
//!                            the key's id)
//!       2+n  name     -      what the source calls the group, at most 128 bytes
//!         4  len      bytes  of the layout, at most 1 MiB
//!       len  layout   -      the layout manifest (`vgship_base::layout`): volumes and sizes
//!         4  crc      -      CRC-32C of all before
//! ```
//!
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Writer, checked, require, with_checksum};
use vgship_base::ids::{NAME_MAX, Name};
use vgship_base::layout::Layout;

use super::VeilKey;
use super::kept::{VEIL_LEN, WrappedVeil};
use crate::seal::key::version;
use crate::seal::{KeyEncryptionKey, SealError};

/// Longest escrow. Unit: bytes.
pub const ESCROW_MAX: usize = LAYOUT_MAX as usize + 1024;

const LAYOUT_MAX: u32 = 1 << 20;
const MAGIC: [u8; 4] = *b"VGVE";
const VERSION: u16 = 1;
const WHAT: &str = "escrow";
const CHECK_AT: u64 = 160;

/// A veil key and what it veils, to be kept away from the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escrow {
    /// The key, wrapped.
    pub key: WrappedVeil,
    /// When it was made. Unit: microseconds since 1970.
    pub made: u64,
    check: [u8; 32],
    /// What the source calls the group.
    pub name: Name,
    /// The group's volumes when it was made; they may have grown since.
    pub layout: Layout,
}

impl Escrow {
    /// An escrow of a veil key.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn new(
        (key, group, key_made): (&VeilKey, vgship_base::ids::GroupId, u64),
        by: &KeyEncryptionKey,
        made: u64,
        name: Name,
        layout: Layout,
    ) -> Result<Escrow, SealError> {
        let check = key.check();
        Ok(Escrow { key: WrappedVeil::wrap(by, group, key, key_made)?, made, check, name, layout })
    }

    /// The veil key.
    ///
    /// # Errors
    /// As [`WrappedVeil::unwrap`]; [`SealError::Broken`] when it is not the key that was put in.
    pub fn open(&self, by: &KeyEncryptionKey) -> Result<VeilKey, SealError> {
        let key = self.key.unwrap(by, self.key.group)?;
        match key.check() == self.check {
            true => Ok(key),
            false => Err(SealError::Broken { what: WHAT, offset: CHECK_AT }),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let layout = self.layout.encode();
        let len = u32::try_from(layout.len()).expect("layout manifests are below 1 MiB");
        let mut out = Writer::default();
        out.put(&MAGIC).u16(VERSION).u16(0).put(&self.key.encode()).u64(self.made);
        out.put(&self.check).text(self.name.as_str()).u32(len).put(&layout);
        with_checksum(out)
    }

    /// From its bytes.
    ///
    /// # Errors
    /// [`SealError::Format`] when that is not what they are.
    pub fn decode(bytes: &[u8]) -> Result<Escrow, SealError> {
        let format = |source| SealError::Format { what: WHAT, source };
        let (wrapped, made, check, name, layout) = read(bytes).map_err(format)?;
        Ok(Escrow { key: WrappedVeil::decode(wrapped)?, made, check, name, layout })
    }
}

type Fields<'a> = (&'a [u8], u64, [u8; 32], Name, Layout);

fn read(bytes: &[u8]) -> Result<Fields<'_>, FormatError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(FormatError::Magic { expected: "VGVE" });
    }
    let mut from = checked(bytes)?;
    from.take("magic", MAGIC.len())?;
    version(&mut from, VERSION)?;
    let reserved = from.u16("reserved")?;
    require("reserved", reserved, "0", reserved == 0)?;
    let wrapped = from.take("key", VEIL_LEN)?;
    let (made, check) = (from.u64("made")?, from.array("check")?);
    let text = from.text("name", NAME_MAX)?;
    let rule = "letters, digits, '.', '_' and '-'";
    let wrong = FormatError::Field { field: "name", found: text.len() as u64, rule };
    let name = text.parse().map_err(|_| wrong)?;
    let len = from.u32("len")?;
    require("len", len, "at most 1 MiB", len <= LAYOUT_MAX)?;
    let layout = Layout::decode(from.take("layout", len as usize)?)?;
    from.finish()?;
    Ok((wrapped, made, check, name, layout))
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use vgship_base::extent::ExtentSize;
    use vgship_base::layout::VolumeLayout;

    use super::*;
    use crate::veil::kept::tests::{GOLDEN as KEPT, GROUP, wrapping_key};
    use crate::veil::tests::key;

    /// What follows the wrapped key; by another implementation of HKDF and CRC-32C.
    const REST: &[u8] = &hex!(
        "0000000000000009a2d0dfad733160b4e127a9a1584abcc7481261de973807ba"
        "b185275427fc68d70007706179726f6c6c0000002256474c4d00011000000000"
        "0100046461746100000000001000000000020058088f45d450d151"
    );

    fn golden() -> Vec<u8> {
        [&hex!("56475645" "0001" "0000")[..], &KEPT, REST].concat()
    }

    fn escrow() -> Escrow {
        let volume = VolumeLayout { name: "data".parse().unwrap(), bytes: 1 << 20, masked: 512 };
        let layout = Layout { extent: ExtentSize::from_log2(16).unwrap(), volumes: vec![volume] };
        let of = (&key(), GROUP, 3);
        let made = Escrow::new(of, &wrapping_key(), 9, "payroll".parse().unwrap(), layout);
        // Its nonce is as in the golden bytes.
        Escrow { key: WrappedVeil::decode(&KEPT).unwrap(), ..made.unwrap() }
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(escrow().encode(), golden());
        let found = Escrow::decode(&golden()).unwrap();
        assert_eq!(found, escrow());
        assert_eq!(found.open(&wrapping_key()).unwrap().id(), key().id());
    }

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        let golden = golden();
        let opens =
            |bytes: &[u8]| Escrow::decode(bytes).and_then(|it| it.open(&wrapping_key())).is_ok();
        for bit in 0..golden.len() * 8 {
            let mut bytes = golden.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&bytes), "bit {bit}");
        }
        assert!((0..golden.len()).all(|len| !opens(&golden[..len])));
        // The check is looked at even where checksums are right.
        let mut forged = golden[..golden.len() - 4].to_vec();
        forged[160] ^= 1;
        forged.extend(crc32c::crc32c(&forged).to_be_bytes());
        let found = Escrow::decode(&forged).unwrap().open(&wrapping_key()).unwrap_err();
        assert!(matches!(found, SealError::Broken { what: WHAT, .. }), "{found}");
    }

    #[test]
    fn another_key_is_named() {
        let other = KeyEncryptionKey::generate().unwrap();
        let refused = escrow().open(&other).unwrap_err();
        assert!(refused.to_string().contains(&wrapping_key().id().to_string()), "{refused}");
    }
}
