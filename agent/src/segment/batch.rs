//! A batch of records: the body of a segment's sealed frames behind frame 0, version 1, as the
//! segment's head says.
//!
//! ```text
//! at  size  field     unit     rule
//!  0     8  promised  seq      the highest that was promised as durable when this was written
//!  8     8  after     seq      the last record before this batch
//! 16     4  count     records  0 ..= BATCH_RECORDS_MAX; none: only the promise counts
//! 20     -  records   -        see `vgship_base::record`; seqs ascend from above `after`
//! ```
//!
//! Integers are big-endian.

use bytes::{Buf, Bytes};
use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::ids::Seq;
use vgship_base::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use vgship_base::record::Record;
use vgship_snapshot::seal::BODY_MAX;

/// What stands before the records. Unit: bytes.
pub(super) const CLEAR: usize = 20;

const _: () = assert!(BATCH_BYTES_MAX + CLEAR <= BODY_MAX, "a batch must fit a frame");

/// What one frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The highest seq that was promised as durable when the batch was written.
    pub promised: Seq,
    /// The last record before the batch.
    pub after: Seq,
    /// Ascending; none in a frame that only promises.
    pub records: Vec<Record>,
}

impl Batch {
    /// The seq of its last record.
    pub fn last(&self) -> Seq {
        self.records.last().map_or(self.after, |record| record.seq)
    }

    pub(super) fn decode(body: Vec<u8>) -> Result<Batch, FormatError> {
        let mut from = Reader::new(&body);
        let (promised, after) = (Seq(from.u64("promised")?), Seq(from.u64("after")?));
        let count = from.u32("count")?;
        let fits = count as usize <= BATCH_RECORDS_MAX;
        require("count", count, "0 ..= BATCH_RECORDS_MAX", fits)?;
        let mut left = Bytes::from(body);
        left.advance(CLEAR);
        let (mut records, mut last) = (Vec::with_capacity(count as usize), after);
        for _ in 0..count {
            let record = Record::decode(&mut left)?;
            require("seq", record.seq.0, "above the one before", record.seq > last)?;
            last = record.seq;
            records.push(record);
        }
        match left.len() {
            0 => Ok(Batch { promised, after, records }),
            more => Err(FormatError::Trailing(more as u64)),
        }
    }
}

/// Encoded length of a batch of these records. Unit: bytes.
pub(super) fn encoded_len(records: &[Record]) -> usize {
    CLEAR + records.iter().map(Record::encoded_len).sum::<usize>()
}

/// Writes a batch; each payload is copied here and nowhere else.
pub(super) fn encode(promised: Seq, after: Seq, records: &[Record], out: &mut Writer) {
    let count = u32::try_from(records.len()).expect("BATCH_RECORDS_MAX fits 32 bits");
    out.u64(promised.0).u64(after.0).u32(count);
    records.iter().for_each(|record| record.encode(out));
}

/// Cuts records into runs that fit a frame each.
pub fn batches(mut records: &[Record]) -> impl Iterator<Item = &[Record]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |record: &&Record| {
            bytes += record.encoded_len();
            bytes <= BATCH_BYTES_MAX
        };
        let count = records.iter().take(BATCH_RECORDS_MAX).take_while(fits).count();
        let (run, left) = records.split_at(count.max(1).min(records.len()));
        records = left;
        (!run.is_empty()).then_some(run)
    })
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use vgship_base::ids::VolumeId;
    use vgship_base::limits::PAYLOAD_MAX;
    use vgship_base::record::{Body, Target};

    use super::*;

    fn write(seq: u64, len: usize) -> Record {
        let (volume, data) = (VolumeId(1), Bytes::from(vec![0xab; len]));
        Record {
            seq: Seq(seq),
            target: Target::All,
            body: Body::Write { volume, offset: 512, data },
        }
    }

    fn encoded(promised: Seq, after: Seq, records: &[Record]) -> Vec<u8> {
        let mut out = Writer::default();
        encode(promised, after, records, &mut out);
        assert_eq!(out.len(), encoded_len(records));
        out.into_vec()
    }

    const GOLDEN: [u8; 70] = hex!(
        "0000000000000004" "0000000000000006" "00000002"
        "01ff000100000002" "0000000000000008" "0000000000000200" "abab"
        "07ff000000000000" "0000000000000009" "0000000000000000"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        let void = Record { seq: Seq(9), target: Target::All, body: Body::Void };
        let records = vec![write(8, 2), void];
        assert_eq!(encoded(Seq(4), Seq(6), &records), GOLDEN);
        let batch = Batch { promised: Seq(4), after: Seq(6), records };
        assert_eq!(batch.last(), Seq(9));
        assert_eq!(Batch::decode(GOLDEN.to_vec()), Ok(batch));
    }

    #[test]
    fn a_promise_needs_no_records() {
        let golden = hex!("0000000000000006" "0000000000000006" "00000000");
        assert_eq!(encoded(Seq(6), Seq(6), &[]), golden);
        let batch = Batch { promised: Seq(6), after: Seq(6), records: Vec::new() };
        assert_eq!(batch.last(), Seq(6));
        assert_eq!(Batch::decode(golden.to_vec()), Ok(batch));
    }

    #[test]
    fn cuts_and_lies_are_refused() {
        for len in 0..GOLDEN.len() {
            assert!(Batch::decode(GOLDEN[..len].to_vec()).is_err(), "{len}");
        }
        for (at, byte) in [(19, 0), (19, 1), (19, 3), (17, 1), (15, 8), (61, 8)] {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = byte;
            assert!(Batch::decode(bytes).is_err(), "byte {at} as {byte}");
        }
    }

    proptest::proptest! {
        /// Whatever is in a body, decoding neither panics nor invents.
        #[test]
        fn any_bytes_decode_to_themselves_or_not_at_all(
            at in 0usize..70,
            change in proptest::collection::vec(0u8..=255, 0..40),
        ) {
            let mut bytes = GOLDEN.to_vec();
            bytes.splice(at..(at + change.len()).min(70), change);
            if let Ok(batch) = Batch::decode(bytes.clone()) {
                proptest::prop_assert_eq!(
                    encoded(batch.promised, batch.after, &batch.records),
                    bytes
                );
            }
        }
    }

    #[test]
    fn runs_hold_all_records_in_order_and_fit_a_frame() {
        let largest = PAYLOAD_MAX as usize;
        let mut records: Vec<Record> = (1..=5).map(|seq| write(seq, largest)).collect();
        records.extend((6..6 + 2 * BATCH_RECORDS_MAX as u64).map(|seq| write(seq, 1)));
        let runs: Vec<&[Record]> = batches(&records).collect();
        assert_eq!(runs.concat(), records);
        assert!(runs.iter().all(|run| encoded_len(run) - CLEAR <= BATCH_BYTES_MAX));
        assert!(runs.iter().all(|run| run.len() <= BATCH_RECORDS_MAX));
        assert!(runs.len() < 10, "{} runs, as long as may be", runs.len());
        assert_eq!(batches(&[]).count(), 0);
    }
}
