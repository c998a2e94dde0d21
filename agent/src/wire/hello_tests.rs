use hex_literal::hex;
use proptest::prelude::*;

use super::*;

fn example() -> Hello {
    Hello {
        group: GroupId([7; 16]),
        role: Role::Replica,
        consistent: true,
        damaged: false,
        fresh: true,
        blind: false,
        generation: Generation([8; 16]),
        start: Start(3),
        durable: Seq(0x0003_0000_0000_0009),
        applied: Seq(0x0003_0000_0000_0004),
        layout: [9; 32],
        name: "lpar2".parse().unwrap(),
        yields: false,
        lineage: vec![(Generation([6; 16]), Seq(0x55))],
    }
}

// Written by hand from the tables; the checksums by an independent program.

/// As agents of version 1 of the link say it.
const HELLO_1: &[u8] = &hex!(
    "56475348000100010000005b07070707070707070707070707070707020508080808080808080808"
    "08080808080800030003000000000009000300000000000409090909090909090909090909090909"
    "0909090909090909090909090909090900056c7061723208c6b6be"
);

const HELLO: &[u8] = &hex!(
    "56475348000100020000007507070707070707070707070707070707020508080808080808080808"
    "08080808080800030003000000000009000300000000000409090909090909090909090909090909"
    "0909090909090909090909090909090900056c706172320001060606060606060606060606060606"
    "060000000000000055faced45f"
);

const ACCEPTED: &[u8] = &hex!(
    "56475352000200000000007507070707070707070707070707070707020508080808080808080808"
    "08080808080800030003000000000009000300000000000409090909090909090909090909090909"
    "0909090909090909090909090909090900056c706172320001060606060606060606060606060606"
    "0600000000000000556351bb88"
);

/// Of a blind replica that yields.
const BLIND_HELLO: &[u8] = &hex!(
    "56475348000200020000007507070707070707070707070707070707021d08080808080808080808"
    "08080808080800030003000000000009000300000000000409090909090909090909090909090909"
    "0909090909090909090909090909090900056c706172320001060606060606060606060606060606"
    "06000000000000005599c9e5cc"
);

const BLIND_ACCEPTED: &[u8] = &hex!(
    "56475352000200000000007507070707070707070707070707070707021d08080808080808080808"
    "08080808080800030003000000000009000300000000000409090909090909090909090909090909"
    "0909090909090909090909090909090900056c706172320001060606060606060606060606060606"
    "0600000000000000559c6fb55a"
);

const REFUSED: &[u8] = &hex!("56475352000000020000000400026e6f0b251939");

fn refused() -> Reply {
    Reply::Refused { refusal: Refusal::NotAllowed, text: "no".to_owned() }
}

#[test]
fn golden_bytes_hold_both_ways() {
    assert_eq!(example().encode(), HELLO);
    assert_eq!(Hello::decode(HELLO), Ok(Some((2, example()))));
    let of_version_1 = Hello { lineage: Vec::new(), ..example() };
    assert_eq!(Hello::decode(HELLO_1), Ok(Some((1, of_version_1))));
    let blind = Hello { blind: true, yields: true, ..example() };
    assert_eq!(blind.encode(), BLIND_HELLO);
    assert_eq!(Hello::decode(BLIND_HELLO), Ok(Some((2, blind.clone()))));
    let accepted = Reply::Accepted { version: 2, hello: blind };
    assert_eq!(accepted.encode(), BLIND_ACCEPTED);
    assert_eq!(Reply::decode(BLIND_ACCEPTED), Ok(accepted));
    let accepted = Reply::Accepted { version: 2, hello: example() };
    assert_eq!(accepted.encode(), ACCEPTED);
    assert_eq!(Reply::decode(ACCEPTED), Ok(accepted));
    assert_eq!(refused().encode(), REFUSED);
    assert_eq!(Reply::decode(REFUSED), Ok(refused()));
}

#[test]
fn every_bit_flip_and_every_cut_is_noticed() {
    for bytes in [HELLO, BLIND_HELLO, ACCEPTED, BLIND_ACCEPTED, REFUSED] {
        let fails = |bytes: &[u8]| Hello::decode(bytes).is_err() && Reply::decode(bytes).is_err();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(fails(&flipped), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(fails(&bytes[..len]), "cut to {len}");
        }
    }
}

#[test]
fn the_rest_is_known_from_the_prefix_and_bounded() {
    for bytes in [HELLO, ACCEPTED, REFUSED] {
        let prefix = *bytes.first_chunk().unwrap();
        assert_eq!(rest_len(prefix), Ok(bytes.len() - PREFIX_LEN));
    }
    assert_eq!(rest_len(hex!("56475348" "0001" "0009" "00001000")), Ok(4100));
    assert!(rest_len(hex!("56475348" "0001" "0009" "00001001")).is_err());
    assert!(rest_len(hex!("56475348" "0001" "0009" "ffffffff")).is_err());
    assert!(rest_len(hex!("47455420" "2f20" "4854" "54502f31")).is_err());
}

#[test]
fn a_newer_program_is_met_at_the_newest_common_version() {
    let mut longer = example().body();
    longer.put(b"fields of a later version");
    let newer = framed(HELLO_MAGIC, 1, 7, &longer);
    assert_eq!(Hello::decode(&newer), Ok(Some((2, example()))));
    let strange = framed(HELLO_MAGIC, HIGHEST + 1, 9, &Writer::default());
    assert_eq!(Hello::decode(&strange), Ok(None), "not even looked at");
    for (lowest, highest) in [(0, 1), (2, 1)] {
        assert!(Hello::decode(&example().encode_versions(lowest, highest)).is_err());
    }
}

/// Goal: nobody takes what is blind for what is not, whatever versions meet.
#[test]
fn a_blind_side_is_met_by_those_alone_that_know_the_veil() {
    let blind = Hello { blind: true, ..example() };
    let forged = framed(HELLO_MAGIC, 1, 1, &blind.body());
    assert!(Hello::decode(&forged).is_err(), "no bit of version 1");
    let reply = Reply::Accepted { version: 1, hello: blind };
    assert!(Reply::decode(&reply.encode()).is_err());
    // What a program of version 1 does with it: nothing spoken by both.
    let (lowest, highest, _) = unframed(HELLO_MAGIC, "VGSH", BLIND_HELLO).unwrap();
    assert_eq!((lowest, highest), (BLIND_SINCE, HIGHEST));
}

#[test]
fn every_refusal_comes_back() {
    for code in 1..=10 {
        assert_eq!(Refusal::from_code(code).code(), code);
    }
    assert!(matches!(Refusal::from_code(10), Refusal::Other(10)));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // With a right checksum, so that the fields are looked at as well.
        let mut out = Writer::default();
        out.put(&HELLO_MAGIC).u16(1).u16(2).u32(u32::try_from(bytes.len()).unwrap()).put(&bytes);
        let _ = Hello::decode(&with_checksum(out));
        let _ = Reply::decode(&bytes);
    }
}
