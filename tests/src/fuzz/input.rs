//! Bytes of a fuzzer as choices.

/// Takes choices off the front; when nothing is left, every choice is zero.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    left: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `data`.
    pub const fn new(data: &'a [u8]) -> Input<'a> {
        Input { left: data }
    }

    /// Whether all was taken.
    pub const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, left) = self.left.split_at(len.min(self.left.len()));
        self.left = left;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    fn number<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.number::<1>()[0]
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.number())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.number())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.number())
    }

    /// A number below `bound`, which is 1 to 256: one byte.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u8()) % bound
    }

    /// An index of something of `len` items, which is not empty: two bytes.
    pub fn index(&mut self, len: usize) -> usize {
        usize::from(self.u16()) % len
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number that is small, or near an end of its kind.
    pub fn odd(&mut self) -> u64 {
        match self.below(8) {
            0 => self.u64(),
            1 => u64::MAX - u64::from(self.u8()),
            2 => 1_u64.rotate_left(self.u8().into()),
            3 => 1_u64.rotate_left(self.u8().into()).wrapping_sub(1),
            _ => self.u8().into(),
        }
    }
}
