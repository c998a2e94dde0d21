//! The veil: how a source hides content from a replica that keeps it without a key.
//!
//! Each sector of 512 bytes is encrypted by itself with AES-256 in XTS mode (IEEE 1619), under the
//! *veil key* of the group. The length stays what it is and a sector depends on nothing but its own
//! content and place, so what is veiled can be written, hashed, offered and compared like any other
//! content. What that gives and what it does not: `docs/security.md`.
//!
//! ```text
//! veil key   64 bytes: key 1 (32), key 2 (32), as IEEE 1619 has them
//! tweak      16 bytes, little-endian as IEEE 1619 has it: sector number u64, volume index u64
//! ```
//!
//! A sector of zeroes stays one, and what is veiled to zeroes reads as zeroes: holes stay holes,
//! records of zeroes and masked heads pass as they are. (One content in 2^4096 would be veiled to
//! zeroes by the cipher and is lost so; nobody without the key can find it.)

mod escrow;
mod kept;

use std::fmt;

use aes::Aes256;
use aes::cipher::KeyInit;
use vgship_base::bytes::is_zero;
use vgship_base::ids::VolumeId;
use vgship_base::units::SECTOR;
use xts_mode::Xts128;
use zeroize::Zeroizing;

pub use escrow::{ESCROW_MAX, Escrow};
pub use kept::{VEIL_LEN, WrappedVeil};

use crate::seal::key::derive;
use crate::seal::{KeyId, SealError, random};

/// Length of a veil key. Unit: bytes.
const KEY_LEN: usize = 64;

const SECTOR_LEN: usize = 512;

const _: () = assert!(SECTOR_LEN as u64 == SECTOR, "a sector is a sector");

/// What veils the content of one group. Wiped when dropped.
pub struct VeilKey {
    bytes: Box<Zeroizing<[u8; KEY_LEN]>>,
    id: KeyId,
    cipher: Box<Xts128<Aes256>>,
}

impl fmt::Debug for VeilKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "VeilKey({})", self.id)
    }
}

impl VeilKey {
    /// The key that these bytes are.
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_LEN]>) -> VeilKey {
        let (one, two) = bytes.split_at(KEY_LEN / 2);
        let ready = |key: &[u8]| Aes256::new(key.into());
        let cipher = Box::new(Xts128::new(ready(one), ready(two)));
        let mut id = [0; 8];
        derive(bytes.as_slice(), None, &[b"vgship veil key id v1"], &mut id);
        VeilKey { bytes: Box::new(bytes), id: KeyId(id), cipher }
    }

    /// A new key.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system has no random bytes.
    pub fn generate() -> Result<VeilKey, SealError> {
        loop {
            let bytes = Zeroizing::new(random::<KEY_LEN>()?);
            // IEEE 1619 wants two keys.
            if bytes[..KEY_LEN / 2] != bytes[KEY_LEN / 2..] {
                return Ok(VeilKey::from_bytes(bytes));
            }
        }
    }

    /// Names it without telling anything of it.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Veils whole sectors of a volume in place. `offset` is where they begin. Unit: bytes.
    ///
    /// # Panics
    /// When offset or length are no whole sectors.
    pub fn veil(&self, volume: VolumeId, offset: u64, content: &mut [u8]) {
        for (tweak, sector) in sectors(volume, offset, content) {
            self.cipher.encrypt_sector(sector, tweak);
        }
    }

    /// Takes the veil off again.
    ///
    /// # Panics
    /// As [`VeilKey::veil`].
    pub fn unveil(&self, volume: VolumeId, offset: u64, content: &mut [u8]) {
        for (tweak, sector) in sectors(volume, offset, content) {
            self.cipher.decrypt_sector(sector, tweak);
        }
    }

    /// By which an escrow shows that what it was opened to is this key.
    fn check(&self) -> [u8; 32] {
        let mut check = [0; 32];
        derive(self.bytes.as_slice(), None, &[b"vgship veil check v1", &self.id.0], &mut check);
        check
    }
}

/// Whether a range is made of whole sectors: only those can be veiled. Unit: bytes.
pub const fn is_whole(offset: u64, len: u64) -> bool {
    offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR)
}

/// The sectors of a run that are not zero, each with its tweak.
fn sectors(
    volume: VolumeId,
    offset: u64,
    content: &mut [u8],
) -> impl Iterator<Item = ([u8; 16], &mut [u8])> {
    assert!(is_whole(offset, content.len() as u64), "only whole sectors are veiled");
    let tweak = move |sector: u64| {
        let mut tweak = [0; 16];
        tweak[..8].copy_from_slice(&sector.to_le_bytes());
        tweak[8..].copy_from_slice(&u64::from(volume.0).to_le_bytes());
        tweak
    };
    (offset / SECTOR..)
        .zip(content.chunks_exact_mut(SECTOR_LEN))
        .filter(|(_, sector)| !is_zero(sector))
        .map(move |(number, sector)| (tweak(number), sector))
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::*;

    pub(super) fn key() -> VeilKey {
        VeilKey::from_bytes(Zeroizing::new(hex!(
            "2718281828459045235360287471352662497757247093699959574966967627"
            "3141592653589793238462643383279502884197169399375105820974944592"
        )))
    }

    /// Vector 10 of IEEE 1619: XTS-AES-256, data unit 0xff, bytes 0 to 255 twice.
    const VEILED: [u8; 512] = hex!(
        "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
        "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
        "5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
        "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
        "2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
        "b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
        "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
        "583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
        "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
        "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
        "9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
        "a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
        "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
        "645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
        "1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
        "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"
    );

    fn counted() -> Vec<u8> {
        (0..=255).cycle().take(512).collect()
    }

    #[test]
    fn the_published_vector_comes_out_and_back() {
        let mut content = counted();
        key().veil(VolumeId(0), 0xff * 512, &mut content);
        assert_eq!(content, VEILED);
        key().unveil(VolumeId(0), 0xff * 512, &mut content);
        assert_eq!(content, counted());
    }

    /// Made by another implementation: data unit 2^64 + 0xff.
    #[test]
    fn the_volume_is_the_upper_half_of_the_tweak() {
        let mut content = counted();
        key().veil(VolumeId(1), 0xff * 512, &mut content);
        assert_eq!(content[..16], hex!("927fec38cf38deb9963cf0f3027c8b02"));
    }

    #[test]
    fn a_key_shows_nothing_and_two_are_never_the_same() {
        assert_eq!(format!("{:?}", key()), "VeilKey(2b5a16e13dd750c7)");
        assert_ne!(VeilKey::generate().unwrap().id(), VeilKey::generate().unwrap().id());
    }

    #[test]
    #[should_panic(expected = "whole sectors")]
    fn half_a_sector_is_nobodys_to_veil() {
        key().veil(VolumeId(0), 256, &mut [1; 512]);
    }

    proptest! {
        #[test]
        fn what_was_veiled_comes_back_and_zeroes_stay_zeroes(
            volume in any::<u16>(),
            at in 0..u64::from(u32::MAX),
            sectors in prop::collection::vec(prop::option::of(any::<u8>()), 0..20),
        ) {
            let fill = |fill: &Option<u8>| vec![fill.unwrap_or(0); 512];
            let plain: Vec<u8> = sectors.iter().flat_map(fill).collect();
            let (mut content, offset) = (plain.clone(), at * 512);
            key().veil(VolumeId(volume), offset, &mut content);
            for (one, other) in content.chunks(512).zip(plain.chunks(512)) {
                prop_assert_eq!(is_zero(one), is_zero(other));
                prop_assert!(is_zero(one) || one != other);
            }
            // A sector is veiled by itself, whatever comes with it.
            for (number, sector) in (at..).zip(plain.chunks(512)) {
                let mut alone = sector.to_vec();
                key().veil(VolumeId(volume), number * 512, &mut alone);
                let place = usize::try_from(number - at).unwrap() * 512;
                prop_assert_eq!(&alone[..], &content[place..place + 512]);
            }
            key().unveil(VolumeId(volume), offset, &mut content);
            prop_assert_eq!(content, plain);
        }
    }
}
