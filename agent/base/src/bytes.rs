//! The only place that turns integers into bytes and back: big-endian, bounds checked.

use thiserror::Error;

/// Why bytes do not decode. Says what, never panics.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end before the field does.
    #[error("{field} needs {needed} bytes, {left} are left")]
    Short {
        /// Which field of the format's table.
        field: &'static str,
        /// Unit: bytes.
        needed: u64,
        /// Unit: bytes.
        left: u64,
    },
    /// Another format, or none.
    #[error("does not begin with {expected:?}")]
    Magic {
        /// The letters that the format begins with.
        expected: &'static str,
    },
    /// A version that this program does not know.
    #[error("is of version {found}, this program reads up to {known}")]
    Version {
        /// As stored.
        found: u16,
        /// Newest that is read.
        known: u16,
    },
    /// The checksum does not hold.
    #[error("checksum is {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// As stored.
        found: u32,
        /// Over the bytes read.
        computed: u32,
    },
    /// A field holds what its table does not allow.
    #[error("{field} is {found}, which is not allowed: {rule}")]
    Field {
        /// Which field of the format's table.
        field: &'static str,
        /// As stored.
        found: u64,
        /// The table's rule.
        rule: &'static str,
    },
    /// More bytes than the format has.
    #[error("{0} bytes follow the last field")]
    Trailing(u64),
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Equal to itself one further on: the comparison of memory is as fast as memory.
    match bytes.split_first() {
        Some((0, rest)) => bytes[..rest.len()] == *rest,
        Some(_) => false,
        None => true,
    }
}

/// Refuses a field's value unless `fits`.
pub fn require(
    field: &'static str,
    found: impl Into<u64>,
    rule: &'static str,
    fits: bool,
) -> Result<(), FormatError> {
    if fits { Ok(()) } else { Err(FormatError::Field { field, found: found.into(), rule }) }
}

/// Reads fields in order.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { left: bytes }
    }

    /// How much has not been read. Unit: bytes.
    pub const fn left(&self) -> usize {
        self.left.len()
    }

    /// The next `len` bytes, without copying. `len` needs no check before: it allocates nothing.
    pub fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], FormatError> {
        match self.left.split_at_checked(len) {
            Some((taken, left)) => {
                self.left = left;
                Ok(taken)
            }
            None => {
                Err(FormatError::Short { field, needed: len as u64, left: self.left.len() as u64 })
            }
        }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let taken = self.take(field, N)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A text of a u16 length, at most `max` bytes of UTF-8.
    pub fn text(&mut self, field: &'static str, max: usize) -> Result<&'a str, FormatError> {
        let len = self.u16(field)?;
        require(field, len, "no longer than its limit", usize::from(len) <= max)?;
        let bytes = self.take(field, usize::from(len))?;
        std::str::from_utf8(bytes).map_err(|error| FormatError::Field {
            field,
            found: error.valid_up_to() as u64,
            rule: "UTF-8 (the number is the offset of the first byte that is not)",
        })
    }

    /// Refuses bytes behind the last field.
    pub const fn finish(self) -> Result<(), FormatError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(FormatError::Trailing(left as u64)),
        }
    }
}

/// Writes fields in order.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts empty, with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(capacity) }
    }

    /// Goes on behind what `bytes` holds, in its memory.
    pub const fn reusing(bytes: Vec<u8>) -> Writer {
        Writer { bytes }
    }

    /// How much has been written. Unit: bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Writer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Writer {
        self.put(&[value])
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) -> &mut Writer {
        self.put(&value.to_be_bytes())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Writer {
        self.put(&value.to_be_bytes())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Writer {
        self.put(&value.to_be_bytes())
    }

    /// Puts eight bytes, big-endian, over those written at `at`: a length that is known at the end.
    ///
    /// # Panics
    /// When there are no eight bytes yet.
    pub fn set_u64(&mut self, at: usize, value: u64) -> &mut Writer {
        self.bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// A text behind a u16 length.
    ///
    /// # Panics
    /// When the text is longer than 65,535 bytes: names and reasons are bounded far below.
    pub fn text(&mut self, text: &str) -> &mut Writer {
        let len = u16::try_from(text.len()).expect("texts in formats are bounded below 64 KiB");
        self.u16(len).put(text.as_bytes())
    }

    /// What was written, to be read while writing goes on.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// What was written.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

/// Appends the CRC-32C of everything before it: how the small state files end.
pub fn with_checksum(mut writer: Writer) -> Vec<u8> {
    let crc = crc32c::crc32c(writer.as_slice());
    writer.u32(crc);
    writer.into_vec()
}

/// Splits off the closing CRC-32C and checks it.
pub fn checked(bytes: &[u8]) -> Result<Reader<'_>, FormatError> {
    let short = FormatError::Short { field: "checksum", needed: 4, left: bytes.len() as u64 };
    let (body, tail) = bytes.split_last_chunk::<4>().ok_or(short)?;
    let (found, computed) = (u32::from_be_bytes(*tail), crc32c::crc32c(body));
    if found == computed {
        Ok(Reader::new(body))
    } else {
        Err(FormatError::Checksum { found, computed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order() {
        let mut writer = Writer::default();
        writer.u8(1).u16(0x0203).u32(4).u64(5).text("lv00");
        assert_eq!(writer.as_slice()[..3], [1, 2, 3]);
        let bytes = with_checksum(writer);
        let mut reader = checked(&bytes).unwrap();
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16("b"), Ok(0x0203));
        assert_eq!(reader.u32("c"), Ok(4));
        assert_eq!(reader.u64("d"), Ok(5));
        assert_eq!(reader.text("e", 4), Ok("lv00"));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_an_error_not_an_allocation() {
        let mut reader = Reader::new(&[0xff, 0xff, b'x']);
        assert!(matches!(reader.clone().text("name", 128), Err(FormatError::Field { .. })));
        assert!(matches!(reader.text("name", 70_000), Err(FormatError::Short { .. })));
    }
}
