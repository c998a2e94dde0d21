use hex_literal::hex;
use vgship_base::extent::ExtentSize;
use vgship_base::layout::VolumeLayout;

use super::*;

/// Written by hand from the table.
fn golden() -> Vec<(Frame, Vec<u8>)> {
    let ack = Ack {
        received: Seq(3),
        durable: Seq(2),
        applied: Seq(1),
        durable_clock: 0x0506,
        applied_clock: 0x0405,
    };
    let answers = vec![
        Answer::Match { session: 9, seq: Seq(10) },
        Answer::Need { session: 9, seq: Seq(11), parts: vec![0xaabb, 1] },
        Answer::Need { session: 9, seq: Seq(12), parts: Vec::new() },
    ];
    vec![
        (
            Frame::Ack(ack),
            hex!(
                "02" "00" "0000" "00000028"
                "0000000000000003" "0000000000000002" "0000000000000001"
                "0000000000000506" "0000000000000405"
            )
            .to_vec(),
        ),
        (
            Frame::Answers(answers),
            hex!(
                "03" "00" "0000" "0000004b" "00000003"
                "01" "0000000000000009" "000000000000000a"
                "02" "0000000000000009" "000000000000000b" "0002"
                "000000000000aabb" "0000000000000001"
                "02" "0000000000000009" "000000000000000c" "0000"
            )
            .to_vec(),
        ),
        (Frame::Ping(7), hex!("04" "00" "0000" "00000008" "0000000000000007").to_vec()),
        (
            Frame::Kept(Kept::default()),
            hex!("08" "00" "0000" "00000012" "000000000000000000000000000000000000").to_vec(),
        ),
        (
            Frame::Changed(Changed { last: true, runs: Vec::new() }),
            hex!("09" "00" "0000" "00000005" "01" "00000000").to_vec(),
        ),
        (Frame::Pong(7), hex!("05" "00" "0000" "00000008" "0000000000000007").to_vec()),
        (
            Frame::Bye { code: Bye::Paused, text: "why".to_owned() },
            hex!("06" "00" "0000" "00000007" "0002" "0003" "776879").to_vec(),
        ),
        (
            Frame::Layout(Layout {
                extent: ExtentSize::from_log2(16).unwrap(),
                volumes: vec![VolumeLayout { name: "lv".parse().unwrap(), bytes: 512, masked: 0 }],
            }),
            // The checksum by an independent program.
            hex!(
                "07" "00" "0000" "00000020"
                "56474c4d" "0001" "10" "00" "00000001"
                "0002" "6c76" "0000000000000200" "00000000" "fb62bca3"
            )
            .to_vec(),
        ),
    ]
}

fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    let cut = || FrameError::Format { frame: "test", source: FormatError::Trailing(0) };
    let (header, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or_else(cut)?;
    let header = Header::decode(*header)?;
    let body = body.get(..header.body_len()).ok_or_else(cut)?;
    Frame::decode(header, Bytes::copy_from_slice(body))
}

#[test]
fn golden_bytes_hold_both_ways() {
    for (frame, bytes) in golden() {
        assert_eq!(frame.encode(), bytes, "{frame:?}");
        assert_eq!(decode(&bytes).unwrap(), frame);
    }
}

#[test]
fn cut_or_flipped_frames_never_panic_and_never_pass_for_the_same() {
    for (frame, bytes) in golden() {
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut to {len}: {frame:?}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode(&flipped) {
                assert_ne!(other, frame, "bit {bit} went unnoticed");
            }
        }
    }
}

#[test]
fn headers_bound_every_length_and_know_every_kind() {
    let header = |bytes: [u8; HEADER_LEN]| Header::decode(bytes);
    assert_eq!(header(hex!("0101000000200040")).unwrap().body_len(), BODY_MAX);
    for bad in [
        hex!("0100000000200041"), // one byte too long
        hex!("01000000ffffffff"), // very long
        hex!("0000000000000000"), // no kind
        hex!("0a00000000000000"), // a later kind
        hex!("0102000000000000"), // a later flag
        hex!("0201000000000000"), // a flag of another kind
        hex!("0200000100000000"), // reserved
    ] {
        assert!(header(bad).is_err(), "{bad:02x?}");
    }
}

#[test]
fn counts_are_bounded_and_compared_with_what_is_there() {
    let answers = |count: &[u8], rest: &[u8]| decode_answers(&[count, rest].concat());
    assert!(answers(&hex!("00000000"), &[]).is_err(), "none");
    assert!(answers(&hex!("00010001"), &vec![1; 17 * 70_000]).is_err(), "too many");
    assert!(answers(&hex!("00010000"), &[1; 17]).is_err(), "more than there are");
    let need = hex!("02" "0000000000000009" "000000000000000b");
    assert!(
        answers(&hex!("00000001"), &[&need[..], &hex!("0101"), &[0; 8 * 257]].concat()).is_err()
    );
    assert!(
        answers(&hex!("00000001"), &[&need[..], &hex!("0100"), &[0; 8 * 256]].concat()).is_ok()
    );
    assert!(
        answers(&hex!("00000001"), &[&need[..], &hex!("0100"), &[0; 8 * 255]].concat()).is_err()
    );
}

#[test]
fn a_layout_is_bounded_and_the_largest_fits() {
    let volume = |number: usize| VolumeLayout {
        name: format!("{number:0>128}").parse().unwrap(),
        bytes: 512,
        masked: 0,
    };
    let volumes = (0..vgship_base::limits::VOLUMES_MAX).map(volume).collect();
    let largest = Frame::Layout(Layout { extent: ExtentSize::from_log2(12).unwrap(), volumes });
    let bytes = largest.encode();
    assert!(bytes.len() < HEADER_LEN + LAYOUT_MAX);
    assert_eq!(decode(&bytes).unwrap(), largest);
    assert!(decode_layout(&vec![0; LAYOUT_MAX + 1]).is_err());
}

#[test]
fn many_answers_become_frames_of_allowed_length_in_order() {
    let need = |seq| Answer::Need { session: 1, seq: Seq(seq), parts: vec![seq; PARTS_MAX] };
    let answers: Vec<Answer> = (0..3000).map(need).collect();
    let runs = answer_runs(answers.clone());
    assert!(runs.len() > 1);
    for run in &runs {
        assert!(decode(&Frame::Answers(run.clone()).encode()).is_ok());
    }
    assert_eq!(runs.concat(), answers);
    assert!(answer_runs(Vec::new()).is_empty());
}

#[test]
fn a_long_text_is_shortened_between_characters() {
    let text = format!("{}\u{20ac}", "x".repeat(TEXT_MAX - 1));
    let sent = Frame::Bye { code: Bye::Failed, text }.encode();
    let Frame::Bye { text, .. } = decode(&sent).unwrap() else { panic!() };
    assert_eq!(text, "x".repeat(TEXT_MAX - 1));
}
