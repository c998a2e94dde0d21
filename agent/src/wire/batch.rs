//! The body of a batch frame: records as `vgship_base::record` writes them, as they are or as one
//! LZ4 block.
//!
//! ```text
//! at  size  field    unit     rule
//!  0     4  count    records  1 ..= 4096
//!  4     4  raw      bytes    of the records before compression, at most 2 MiB
//!  8     -  records  -        raw bytes; when compressed: one LZ4 block that becomes them
//! ```
//!
//! Integers are big-endian.

use bytes::Bytes;
use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use vgship_base::record::{self, Body, Record};

use super::frame::{FrameError, Header};

const HEAD_LEN: usize = 8;

/// A write's data of at least this length travels from where it lies; shorter data is copied next
/// to its head. The transport walks its chunks to find what to send, so many small chunks would
/// cost more than the copy. Unit: bytes.
const COPY_BELOW: usize = 32 << 10;

/// How much of a batch is compressed to learn whether the whole is worth it. Unit: bytes.
const SAMPLE: usize = 64 << 10;

/// Shorter batches are not worth a try. Unit: bytes.
const WORTH_A_TRY: usize = 1 << 10;

/// Most batches that go uncompressed before the next try.
const PAUSE_MAX: u32 = 64;

/// LZ4 cannot shrink by more than this factor; a block that claims to is not allocated for.
const LZ4_FACTOR_MAX: usize = 255;

/// Whether to spend processor time on a smaller stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Compress what shrinks, and try less often while nothing does.
    #[default]
    Adaptive,
    /// Never.
    Off,
}

/// Turns records into batch frames. One per stream: it remembers whether compressing pays.
#[derive(Clone, Debug)]
pub struct BatchEncoder {
    compression: Compression,
    skip: u32,  // batches until the next try
    pause: u32, // batches to skip after the next failure
}

impl BatchEncoder {
    /// Begins with a try.
    pub const fn new(compression: Compression) -> BatchEncoder {
        BatchEncoder { compression, skip: 0, pause: 1 }
    }

    /// The frames of `records`, in order, as chunks to be sent one after the other. Splits where
    /// one frame cannot hold them all.
    pub fn encode(&mut self, mut records: &[Record]) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        while !records.is_empty() {
            let (count, raw) = fitting(records);
            let (now, later) = records.split_at(count);
            self.encode_one(now, raw, &mut chunks);
            records = later;
        }
        chunks
    }

    fn encode_one(&mut self, records: &[Record], raw: usize, chunks: &mut Vec<Bytes>) {
        if self.wants_try(raw) {
            let mut whole = Writer::with_capacity(raw);
            records.iter().for_each(|record| record.encode(&mut whole));
            let block = compressed(whole.as_slice());
            self.learn(block.is_some());
            let mut head = Writer::default();
            let len = HEAD_LEN + block.as_ref().map_or(raw, Vec::len);
            Header::batch(block.is_some(), len).encode(&mut head);
            put_head(&mut head, records.len(), raw);
            chunks.push(Bytes::from(head.into_vec()));
            chunks.push(Bytes::from(block.unwrap_or_else(|| whole.into_vec())));
            return;
        }
        let mut run = Writer::default();
        Header::batch(false, HEAD_LEN + raw).encode(&mut run);
        put_head(&mut run, records.len(), raw);
        for record in records {
            match &record.body {
                Body::Write { data, .. } if data.len() >= COPY_BELOW => {
                    record.encode_head(&mut run);
                    chunks.push(Bytes::from(std::mem::take(&mut run).into_vec()));
                    chunks.push(data.clone());
                }
                _ => record.encode(&mut run),
            }
        }
        if !run.is_empty() {
            chunks.push(Bytes::from(run.into_vec()));
        }
    }

    fn wants_try(&mut self, raw: usize) -> bool {
        if self.compression == Compression::Off || raw < WORTH_A_TRY {
            return false;
        }
        let now = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        now
    }

    fn learn(&mut self, paid: bool) {
        (self.skip, self.pause) =
            if paid { (0, 1) } else { (self.pause, (self.pause * 2).min(PAUSE_MAX)) };
    }
}

/// Reads the records of a batch; without compression a write's data stays where it lies.
pub fn decode(is_compressed: bool, mut body: Bytes) -> Result<Vec<Record>, FrameError> {
    let format = |source| FrameError::Format { frame: "batch", source };
    let (count, raw) = decode_head(is_compressed, &body).map_err(format)?;
    let _ = body.split_to(HEAD_LEN);
    if is_compressed {
        body = unpacked(&body, raw)?;
    }
    let mut records = Vec::new();
    for _ in 0..count {
        records.push(Record::decode(&mut body).map_err(format)?);
    }
    match body.len() {
        0 => Ok(records),
        left => Err(format(FormatError::Trailing(left as u64))),
    }
}

fn decode_head(is_compressed: bool, body: &[u8]) -> Result<(u32, usize), FormatError> {
    let mut from = Reader::new(body);
    let (count, raw) = (from.u32("count")?, from.u32("raw")?);
    let (records, bytes, left) = (count as usize, raw as usize, from.left());
    require("count", count, "1 to 4096", (1..=BATCH_RECORDS_MAX).contains(&records))?;
    let holds = (records * record::HEADER_LEN..=BATCH_BYTES_MAX).contains(&bytes);
    require("raw", raw, "enough for the records, at most 2 MiB", holds)?;
    match is_compressed {
        true => {
            let can = bytes <= left.saturating_mul(LZ4_FACTOR_MAX);
            require("raw", raw, "at most 255 times the block", can)?;
        }
        false => require("raw", raw, "what follows, when not compressed", bytes == left)?,
    }
    Ok((count, bytes))
}

fn unpacked(block: &[u8], raw: usize) -> Result<Bytes, FrameError> {
    let mut whole = vec![0; raw];
    let found =
        lz4_flex::block::decompress_into(block, &mut whole).map_err(FrameError::Compression)?;
    let rule = "the length that the block unpacks to";
    require("raw", raw as u64, rule, found == raw)
        .map_err(|source| FrameError::Format { frame: "batch", source })?;
    Ok(Bytes::from(whole))
}

/// How many records from the front fit one frame, and their length in bytes.
fn fitting(records: &[Record]) -> (usize, usize) {
    let (mut count, mut raw) = (0, 0);
    for record in records.iter().take(BATCH_RECORDS_MAX) {
        let len = record.encoded_len();
        if raw + len > BATCH_BYTES_MAX {
            break;
        }
        (count, raw) = (count + 1, raw + len);
    }
    assert!(count > 0, "a record is larger than a batch");
    (count, raw)
}

/// The block, if it saves more than an eighth.
fn compressed(whole: &[u8]) -> Option<Vec<u8>> {
    let pays = |block: &[u8], of: usize| block.len() < of - of / 8;
    let sample = &whole[..whole.len().min(SAMPLE)];
    let first = lz4_flex::block::compress(sample);
    if !pays(&first, sample.len()) {
        return None;
    }
    if sample.len() == whole.len() {
        return Some(first);
    }
    Some(lz4_flex::block::compress(whole)).filter(|block| pays(block, whole.len()))
}

fn put_head(out: &mut Writer, count: usize, raw: usize) {
    out.u32(u32::try_from(count).expect("at most BATCH_RECORDS_MAX"));
    out.u32(u32::try_from(raw).expect("at most BATCH_BYTES_MAX"));
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
