//! Buffers between a socket and the requests: many requests arrive in one call, and many replies
//! leave in one. Generic over the socket.

use std::io::{self, IoSlice, Read, Write};

use bytes::Bytes;

use super::limits::{DIRECT_BYTES, INLET_BYTES, OUTLET_BYTES};
use super::request::{HEADER_BYTES, Request};
use vgship_base::bytes::FormatError;

/// What came in and is not used.
#[derive(Debug)]
pub struct Inlet {
    memory: Vec<u8>,
    start: usize,
    end: usize,
    large: bool,
}

/// What stands at the front of an [`Inlet`].
#[derive(Debug, PartialEq, Eq)]
pub enum Front {
    /// A request whose payload, if any, is in the buffer.
    Whole(Request),
    /// A request whose payload is too large for the buffer.
    Large(Request),
    /// Not enough for a request.
    Part,
}

impl Default for Inlet {
    fn default() -> Inlet {
        Inlet { memory: vec![0; INLET_BYTES], start: 0, end: 0, large: false }
    }
}

impl Inlet {
    /// How much waits. Unit: bytes.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads what the socket has, in one call. Zero at its end.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        let room = self.memory.len() - self.end;
        if self.start > 0 && (self.is_empty() || room < DIRECT_BYTES) {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // After a large payload another one is likely: it should not pass through here.
        let until = if self.large && self.is_empty() { HEADER_BYTES } else { self.memory.len() };
        let count = loop {
            match from.read(&mut self.memory[self.end..until]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.end += count;
        Ok(count)
    }

    /// The next `len` bytes if they have arrived. `len` is at most [`INLET_BYTES`].
    pub fn take(&mut self, len: usize) -> Option<&[u8]> {
        let from = self.start;
        (self.len() >= len).then(|| {
            self.start += len;
            &self.memory[from..from + len]
        })
    }

    /// Looks at the request that comes next.
    pub fn front(&mut self) -> Result<Front, FormatError> {
        let Some(header) = self.memory[self.start..self.end].first_chunk() else {
            return Ok(Front::Part);
        };
        let request = Request::decode(header)?;
        let payload = request.payload() as usize;
        self.large = payload >= DIRECT_BYTES;
        Ok(match self.len() - HEADER_BYTES {
            _ if self.large => Front::Large(request),
            waiting if waiting >= payload => Front::Whole(request),
            _ => Front::Part,
        })
    }

    /// Takes the request that [`Front::Whole`] announced and returns its payload.
    pub fn take_whole(&mut self, request: &Request) -> Bytes {
        let payload = request.payload() as usize;
        match self.take(HEADER_BYTES + payload) {
            // Copied, so that a small record does not keep the whole buffer alive.
            Some(bytes) => Bytes::copy_from_slice(&bytes[HEADER_BYTES..]),
            None => Bytes::new(),
        }
    }

    /// Takes the request that [`Front::Large`] announced and reads the rest of its payload, into
    /// memory of its own. `read` appends so many bytes, or fewer where the socket ends.
    ///
    /// Shape: the caller has bounded the request's length.
    pub fn take_large(
        &mut self,
        request: &Request,
        read: impl FnOnce(u64, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<Bytes> {
        let payload = request.payload() as usize;
        let waiting = payload.min(self.len() - HEADER_BYTES);
        let mut bytes = Vec::with_capacity(payload);
        bytes.extend_from_slice(
            &self.memory[self.start + HEADER_BYTES..self.start + HEADER_BYTES + waiting],
        );
        self.start += HEADER_BYTES + waiting;
        read((payload - waiting) as u64, &mut bytes)?;
        match bytes.len() == payload {
            true => Ok(Bytes::from(bytes)),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub struct Outlet {
    waiting: Vec<u8>,
}

impl Outlet {
    /// Adds one reply; sends when much waits or `data` is large.
    pub fn push(&mut self, head: &[u8], data: &[u8], to: &mut impl Write) -> io::Result<()> {
        self.waiting.extend_from_slice(head);
        if data.len() < DIRECT_BYTES {
            self.waiting.extend_from_slice(data);
            return match self.waiting.len() < OUTLET_BYTES {
                true => Ok(()),
                false => self.flush(to),
            };
        }
        let mut parts = [IoSlice::new(&self.waiting), IoSlice::new(data)];
        let mut left = &mut parts[..];
        while !left.is_empty() {
            match to.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.waiting.clear();
        Ok(())
    }

    /// Sends everything.
    pub fn flush(&mut self, to: &mut impl Write) -> io::Result<()> {
        if !self.waiting.is_empty() {
            to.write_all(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::nbd::request::Command;

    /// Gives and takes at most `step` bytes in one call.
    struct Stepwise<'a> {
        left: &'a [u8],
        taken: Vec<u8>,
        step: usize,
    }

    impl Read for Stepwise<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let step = self.step.min(into.len());
            self.left.read(&mut into[..step])
        }
    }

    impl Write for Stepwise<'_> {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            let step = self.step.min(from.len());
            self.taken.extend_from_slice(&from[..step]);
            Ok(step)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const SIZES: [usize; 8] =
        [0, 1, 512, DIRECT_BYTES - 1, DIRECT_BYTES, 3, INLET_BYTES + 1, DIRECT_BYTES - 1];

    fn payload(len: usize, salt: usize) -> Vec<u8> {
        (0..=252).cycle().skip(salt).take(len).collect()
    }

    fn stream() -> Vec<u8> {
        let mut all = Vec::new();
        for (number, len) in SIZES.repeat(9).into_iter().enumerate() {
            all.extend_from_slice(&[0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1]);
            all.extend_from_slice(&(number as u64).to_be_bytes());
            all.extend_from_slice(&[0; 8]);
            all.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
            all.extend_from_slice(&payload(len, number));
        }
        all
    }

    #[test]
    fn requests_come_out_whole_however_they_arrive() {
        let all = stream();
        for step in [7, 28, 1000, 40_000, usize::MAX] {
            let mut from = Stepwise { left: &all, taken: Vec::new(), step };
            let mut inlet = Inlet::default();
            for (number, len) in SIZES.repeat(9).into_iter().enumerate() {
                let (request, bytes) = loop {
                    match inlet.front().unwrap() {
                        Front::Part => assert!(inlet.fill(&mut from).unwrap() > 0),
                        Front::Whole(request) => break (request, inlet.take_whole(&request)),
                        Front::Large(request) => {
                            let read = |len, into: &mut Vec<u8>| {
                                (&mut from).take(len).read_to_end(into).map(drop)
                            };
                            break (request, inlet.take_large(&request, read).unwrap());
                        }
                    }
                };
                assert_eq!((request.command, request.cookie), (Command::Write, number as u64));
                assert!(bytes == payload(len, number), "request {number}, step {step}");
            }
            assert_eq!(inlet.fill(&mut from).unwrap(), 0);
            assert!(inlet.is_empty());
        }
    }

    #[test]
    fn a_payload_that_ends_early_is_an_error() {
        let all = stream();
        let start = 28 * 5 + SIZES[..4].iter().sum::<usize>();
        let mut inlet = Inlet::default();
        let mut from = &all[start - 28..start + 100];
        inlet.fill(&mut from).unwrap();
        let Front::Large(request) = inlet.front().unwrap() else { panic!("it is large") };
        let error = inlet.take_large(&request, |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn replies_leave_together_and_in_order() {
        let mut to = Stepwise { left: &[], taken: Vec::new(), step: 1000 };
        let mut outlet = Outlet::default();
        outlet.push(b"one", b"", &mut to).unwrap();
        outlet.push(b"two", &[2; 100], &mut to).unwrap();
        assert!(to.taken.is_empty(), "small replies wait");
        let large = payload(DIRECT_BYTES * 3, 3);
        outlet.push(b"three", &large, &mut to).unwrap();
        outlet.push(b"four", b"", &mut to).unwrap();
        outlet.flush(&mut to).unwrap();
        assert_eq!(to.taken, [b"onetwo", &[2; 100][..], b"three", &large, b"four"].concat());
        let before = to.taken.len();
        (0..10).for_each(|_| outlet.push(&[], &[1; DIRECT_BYTES / 4], &mut to).unwrap());
        assert!(to.taken.len() > before, "much does not wait");
    }
}
