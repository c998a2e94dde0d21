use hex_literal::hex;
use proptest::prelude::*;
use vgship_base::extent::Extent;
use vgship_base::ids::{ReplicaId, Seq, VolumeId};
use vgship_base::record::Target;
use vgship_base::units::Span;

use super::*;
use crate::wire::frame::{Frame, HEADER_LEN};

fn write(seq: u64, data: Vec<u8>) -> Record {
    let body = Body::Write { volume: VolumeId(1), offset: 4096, data: Bytes::from(data) };
    Record { seq: Seq(seq), target: Target::All, body }
}

fn noise(len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    data
}

/// Reads all frames of a run of chunks; says of each whether it was compressed.
fn frames(chunks: &[Bytes]) -> Vec<(bool, Vec<Record>)> {
    let mut bytes = Bytes::from(chunks.concat());
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let head = bytes.split_to(HEADER_LEN);
        let header = Header::decode(head[..].try_into().unwrap()).unwrap();
        let body = bytes.split_to(header.body_len());
        let Frame::Batch(records) = Frame::decode(header, body).unwrap() else { panic!() };
        found.push((head[1] == 1, records));
    }
    found
}

/// Written by hand from the tables here and in `wire::frame`.
const GOLDEN: &[u8] = &hex!(
    "01" "00" "0000" "0000003b"
    "00000002" "00000033"
    "01ff0001" "00000003" "0000000000000009" "0000000000001000" "616263"
    "07ff0000" "00000000" "000000000000000a" "0000000000000000"
);

/// One write of 5000 equal bytes as an LZ4 block that another program packed.
const GOLDEN_BLOCK: &[u8] = &hex!(
    "00000001000013a0ff0a01ff00010000138800000000000000090000000000001000780100ffffff"
    "ffffffffffffffffffffffffffffffff82507878787878"
);

fn golden() -> Vec<Record> {
    vec![write(9, b"abc".to_vec()), Record { seq: Seq(10), target: Target::All, body: Body::Void }]
}

#[test]
fn golden_bytes_hold_both_ways() {
    let sent = BatchEncoder::new(Compression::Off).encode(&golden()).concat();
    assert_eq!(sent, GOLDEN);
    let found = decode(false, Bytes::from_static(&GOLDEN[HEADER_LEN..])).unwrap();
    assert_eq!(found, golden());
}

#[test]
fn a_block_that_another_program_packed_unpacks() {
    let found = decode(true, Bytes::from_static(GOLDEN_BLOCK)).unwrap();
    assert_eq!(found, vec![write(9, vec![b'x'; 5000])]);
}

#[test]
fn cut_or_flipped_batches_never_panic_and_never_pass_for_the_same() {
    for (is_compressed, bytes) in [(false, &GOLDEN[HEADER_LEN..]), (true, GOLDEN_BLOCK)] {
        let whole = decode(is_compressed, Bytes::from_static(bytes)).unwrap();
        for len in 0..bytes.len() {
            let cut = decode(is_compressed, Bytes::copy_from_slice(&bytes[..len]));
            assert!(cut.is_err(), "cut to {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode(is_compressed, Bytes::from(flipped)) {
                // Two offsets of an LZ4 match may name equal bytes; then nothing was changed.
                assert!(is_compressed || other != whole, "bit {bit} went unnoticed");
            }
        }
    }
}

#[test]
fn lengths_that_promise_too_much_are_refused_before_they_are_believed() {
    let batch = |is_compressed, head: [u8; 8], rest: &[u8]| {
        let found = decode(is_compressed, Bytes::from([&head[..], rest].concat()));
        matches!(found, Err(FrameError::Format { .. })) // not by unpacking
    };
    assert!(batch(true, hex!("0000000100200001"), &[0; 64]), "more than 2 MiB");
    assert!(batch(true, hex!("0000000100200000"), &[0; 64]), "2 MiB from 64 bytes");
    assert!(batch(true, hex!("0000000000000018"), &[0; 64]), "no records");
    assert!(batch(true, hex!("0000100100020000"), &[0; 64]), "too many records");
    assert!(batch(false, hex!("0000000200000018"), &[0; 24]), "records without room");
    assert!(batch(false, hex!("0000000100000019"), &[0; 24]), "less than it says");
}

#[test]
fn large_data_is_not_copied_either_way() {
    let data = Bytes::from(noise(1 << 20));
    let body = Body::Write { volume: VolumeId(0), offset: 0, data: data.clone() };
    let record = Record { seq: Seq(1), target: Target::All, body };
    let chunks = BatchEncoder::new(Compression::Off).encode(std::slice::from_ref(&record));
    assert!(chunks.iter().any(|chunk| chunk.as_ptr() == data.as_ptr()));
    let body = Bytes::from(chunks.concat()).slice(HEADER_LEN..);
    let found = decode(false, body.clone()).unwrap();
    let Body::Write { data, .. } = &found[0].body else { panic!() };
    assert!(body.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn records_beyond_one_frame_go_into_the_next() {
    let large: Vec<Record> = (1..=5).map(|seq| write(seq, noise(1 << 20))).collect();
    let found = frames(&BatchEncoder::new(Compression::Off).encode(&large));
    assert_eq!(found.len(), 5, "1 MiB and its head twice is more than 2 MiB");
    assert!(found.into_iter().flat_map(|(_, records)| records).eq(large));
    let small: Vec<Record> = (1..=5000).map(|seq| write(seq, vec![1])).collect();
    let found = frames(&BatchEncoder::new(Compression::Adaptive).encode(&small));
    assert_eq!(found.iter().map(|(_, records)| records.len()).collect::<Vec<_>>(), [4096, 904]);
    assert!(BatchEncoder::new(Compression::Adaptive).encode(&[]).is_empty());
}

#[test]
fn tries_become_rare_on_data_that_does_not_shrink_and_resume_when_it_does() {
    let mut encoder = BatchEncoder::new(Compression::Adaptive);
    let mut tries = 0;
    for _ in 0..1000 {
        if encoder.wants_try(1 << 20) {
            tries += 1;
            encoder.learn(false);
        }
    }
    assert!((10..40).contains(&tries), "{tries} tries in 1000 batches");
    let text = [write(1, vec![b'a'; 100_000])];
    let compressed = (0..200).filter(|_| frames(&encoder.encode(&text))[0].0).count();
    assert!(compressed >= 100, "{compressed} of 200 compressed");
}

#[test]
fn compression_is_used_only_where_it_saves() {
    let compressed = |data| {
        let found = frames(&BatchEncoder::new(Compression::Adaptive).encode(&[write(1, data)]));
        found[0].0
    };
    assert!(compressed(vec![0; 200_000]));
    assert!(!compressed(noise(200_000)));
    assert!(!compressed([vec![0; 64 << 10], noise(900 << 10)].concat()), "a deceiving sample");
    assert!(!compressed(vec![0; 100]), "too small to try");
}

fn any_record() -> impl Strategy<Value = Record> {
    let seq = any::<u64>().prop_map(Seq);
    let data = prop_oneof![
        (any::<u8>(), 1_usize..70_000).prop_map(|(byte, len)| vec![byte; len]),
        prop::collection::vec(any::<u8>(), 1..6000),
    ];
    let body = prop_oneof![
        (any::<u16>(), any::<u64>(), data).prop_map(|(volume, offset, data)| Body::Write {
            volume: VolumeId(volume),
            offset,
            data: Bytes::from(data),
        }),
        (any::<u16>(), any::<u64>(), 1..u64::MAX).prop_map(|(volume, offset, len)| Body::Zero {
            volume: VolumeId(volume),
            span: Span::new(offset, len),
        }),
        Just(Body::Void),
    ];
    let offer = (any::<u16>(), any::<u64>(), any::<[u8; 32]>(), 0_u8..8);
    prop_oneof![
        3 => (seq.clone(), body).prop_map(|(seq, body)| Record { seq, target: Target::All, body }),
        1 => (seq, offer).prop_map(|(seq, (volume, index, hash, id))| {
            let extent = Extent { volume: VolumeId(volume), index };
            let body = Body::Offer { extent, hash };
            Record { seq, target: Target::One(ReplicaId(id)), body }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back(records in prop::collection::vec(any_record(), 1..60), off: bool) {
        let how = if off { Compression::Off } else { Compression::Adaptive };
        let found = frames(&BatchEncoder::new(how).encode(&records));
        prop_assert!(found.into_iter().flat_map(|(_, records)| records).eq(records));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), packed: bool) {
        let _ = decode(packed, Bytes::from(bytes));
    }
}
