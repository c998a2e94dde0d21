//! AES-256-GCM, in place. The one place that chooses who computes it: aws-lc-rs on 64-bit Linux,
//! RustCrypto elsewhere. Each reads what the other wrote.

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(super) use fast::Cipher;
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(super) use portable::Cipher;

/// Length of a nonce. Unit: bytes.
pub(crate) const NONCE_LEN: usize = 12;
/// Length of what authenticates. Unit: bytes.
pub(crate) const TAG_LEN: usize = 16;

/// The seal does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod fast {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{NONCE_LEN, Refused, TAG_LEN};

    /// One key, ready to use.
    pub(in super::super) struct Cipher(LessSafeKey);

    impl Cipher {
        pub(in super::super) fn new(key: &[u8; 32]) -> Cipher {
            let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes fits AES-256");
            Cipher(LessSafeKey::new(key))
        }

        /// Encrypts `body` in place. A nonce is used once in the life of a key.
        pub(in super::super) fn seal(
            &self,
            nonce: [u8; NONCE_LEN],
            aad: &[u8],
            body: &mut [u8],
        ) -> [u8; TAG_LEN] {
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = self
                .0
                .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
                .expect("a body is shorter than the 64 GiB that one nonce covers");
            tag.as_ref().try_into().expect("a tag has 16 bytes")
        }

        /// Decrypts `sealed` (body, tag) in place and returns the body.
        pub(in super::super) fn open<'a>(
            &self,
            nonce: [u8; NONCE_LEN],
            aad: &[u8],
            sealed: &'a mut [u8],
        ) -> Result<&'a mut [u8], Refused> {
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.0.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| Refused)
        }
    }
}

#[cfg(any(test, not(all(target_os = "linux", target_pointer_width = "64"))))]
mod portable {
    use aes_gcm::aead::{AeadInPlace, KeyInit};
    use aes_gcm::{Aes256Gcm, Nonce, Tag};

    use super::{NONCE_LEN, Refused, TAG_LEN};

    /// One key, ready to use.
    pub(in super::super) struct Cipher(Box<Aes256Gcm>);

    impl Cipher {
        pub(in super::super) fn new(key: &[u8; 32]) -> Cipher {
            Cipher(Box::new(Aes256Gcm::new(key.into())))
        }

        /// Encrypts `body` in place. A nonce is used once in the life of a key.
        pub(in super::super) fn seal(
            &self,
            nonce: [u8; NONCE_LEN],
            aad: &[u8],
            body: &mut [u8],
        ) -> [u8; TAG_LEN] {
            self.0
                .encrypt_in_place_detached(Nonce::from_slice(&nonce), aad, body)
                .expect("a body is shorter than the 64 GiB that one nonce covers")
                .into()
        }

        /// Decrypts `sealed` (body, tag) in place and returns the body.
        pub(in super::super) fn open<'a>(
            &self,
            nonce: [u8; NONCE_LEN],
            aad: &[u8],
            sealed: &'a mut [u8],
        ) -> Result<&'a mut [u8], Refused> {
            let split = sealed.len().checked_sub(TAG_LEN).ok_or(Refused)?;
            let (body, tag) = sealed.split_at_mut(split);
            self.0
                .decrypt_in_place_detached(
                    Nonce::from_slice(&nonce),
                    aad,
                    body,
                    Tag::from_slice(tag),
                )
                .map_err(|_| Refused)?;
            Ok(body)
        }
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::{Cipher, Refused, portable};

    /// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation".
    const KEY: [u8; 32] = hex!("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    const NONCE: [u8; 12] = hex!("cafebabefacedbaddecaf888");
    const AAD: [u8; 20] = hex!("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    const PLAIN: [u8; 60] = hex!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    );
    const SEALED: [u8; 76] = hex!(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    );

    #[test]
    fn both_backends_give_the_known_answer() {
        let (mut fast, mut slow) = (PLAIN, PLAIN);
        let fast_tag = Cipher::new(&KEY).seal(NONCE, &AAD, &mut fast);
        let slow_tag = portable::Cipher::new(&KEY).seal(NONCE, &AAD, &mut slow);
        assert_eq!([&fast[..], &fast_tag].concat(), SEALED);
        assert_eq!([&slow[..], &slow_tag].concat(), SEALED);
    }

    #[test]
    fn each_backend_reads_what_the_other_wrote() {
        for len in [0, 1, 15, 16, 17, 4096, 70_001] {
            let plain: Vec<u8> = (0..len).map(|at: u32| at.to_be_bytes()[3]).collect();
            let (fast, slow) = (Cipher::new(&KEY), portable::Cipher::new(&KEY));
            let (mut one, mut other) = (plain.clone(), plain.clone());
            let one_tag = fast.seal(NONCE, &AAD, &mut one);
            let other_tag = slow.seal(NONCE, &AAD, &mut other);
            one.extend(one_tag);
            other.extend(other_tag);
            assert_eq!(slow.open(NONCE, &AAD, &mut one).as_deref(), Ok(&plain[..]), "{len}");
            assert_eq!(fast.open(NONCE, &AAD, &mut other).as_deref(), Ok(&plain[..]), "{len}");
        }
    }

    #[test]
    fn what_was_changed_is_refused_by_both() {
        for bit in 0..SEALED.len() * 8 {
            let mut sealed = SEALED;
            sealed[bit / 8] ^= 1 << (bit % 8);
            let mut again = sealed;
            assert_eq!(Cipher::new(&KEY).open(NONCE, &AAD, &mut sealed), Err(Refused));
            assert_eq!(portable::Cipher::new(&KEY).open(NONCE, &AAD, &mut again), Err(Refused));
        }
        let (mut sealed, mut short) = (SEALED, [0; 15]);
        assert!(Cipher::new(&KEY).open(NONCE, b"other", &mut sealed).is_err());
        assert!(portable::Cipher::new(&KEY).open(NONCE, b"", &mut short).is_err());
        assert!(Cipher::new(&KEY).open(NONCE, b"", &mut short).is_err());
    }
}
