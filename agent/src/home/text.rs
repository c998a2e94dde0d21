//! Values that stand in files and messages as text, and how that text is read back.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use vgship_base::ids::{GroupId, PeerId};
use vgship_snapshot::seal::KeyId;

/// Writes a value as its text. For `#[serde(with = "text")]`.
pub fn serialize<T: fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Reads a value from its text. A number is read as its digits, so that a value without its unit
/// meets the message about the unit.
pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    struct Text<T>(PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a text in quotes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }

    from.deserialize_any(Text(PhantomData))
}

/// The bytes of exactly `2 * N` hexadecimal digits.
pub fn hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Reads an identity from its hexadecimal form.
pub trait FromHex: Sized + fmt::Display {
    /// What it is, for a message.
    const WHAT: &'static str;

    /// The identity, or `None` when the digits are not right in number or kind.
    fn from_hex(digits: &str) -> Option<Self>;
}

impl FromHex for GroupId {
    const WHAT: &'static str = "a group's id: 32 hexadecimal digits";

    fn from_hex(digits: &str) -> Option<GroupId> {
        hex(digits).map(GroupId)
    }
}

impl FromHex for PeerId {
    const WHAT: &'static str = "a peer's id: 64 hexadecimal digits";

    fn from_hex(digits: &str) -> Option<PeerId> {
        hex(digits).map(PeerId)
    }
}

impl FromHex for KeyId {
    const WHAT: &'static str = "a key's id: 16 hexadecimal digits";

    fn from_hex(digits: &str) -> Option<KeyId> {
        hex(digits).map(KeyId)
    }
}

/// An identity in hexadecimal, for `#[serde(with = "text::id")]`.
pub mod id {
    use super::FromHex;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the digits.
    pub fn serialize<T: FromHex, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    /// Reads the digits.
    pub fn deserialize<'de, T: FromHex, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let digits = String::deserialize(from)?;
        T::from_hex(&digits).ok_or_else(|| D::Error::custom(format!("this is not {}", T::WHAT)))
    }
}

/// An identity that may be missing, for `#[serde(with = "text::some_id", default)]`.
pub mod some_id {
    use super::FromHex;
    use serde::{Deserializer, Serializer};

    /// Writes the digits, or none.
    pub fn serialize<T: FromHex, S: Serializer>(id: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.collect_str(id),
            None => to.serialize_none(),
        }
    }

    /// Reads the digits.
    pub fn deserialize<'de, T: FromHex, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        super::id::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_hexadecimal_is_an_identity() {
        assert_eq!(hex("00ff"), Some([0, 255]));
        for bad in ["", "00f", "00ff0", "00fg", "+0ff", "0\u{e9}f"] {
            assert_eq!(hex::<2>(bad), None, "{bad}");
        }
        let id = GroupId([0xab; 16]);
        assert_eq!(GroupId::from_hex(&id.to_string()), Some(id));
    }
}
