use hex_literal::hex;
use proptest::prelude::*;

use super::*;

// Written from the tables by an independent program, the checksums too.

const JOIN: &[u8] = &hex!(
    "5647504a000100010203040506070202020202020202020202020202020202020202020202020202"
    "0202020202020100056c70617232000e3139322e302e322e373a3733303001030303030303030303"
    "0303030303030300000003616263b6cc0889"
);

const GRANTED: &[u8] = &hex!(
    "56475041000100000303030303030303030303030303030300056c70617231000664617461766700"
    "a7c5d379"
);

/// Of a blind replica.
const JOIN_BLIND: &[u8] = &hex!(
    "5647504a000200010203040506070202020202020202020202020202020202020202020202020202"
    "0202020202020200056c706172320000005cf6ed65"
);

const GRANTED_BLIND: &[u8] = &hex!(
    "564750410002000003030303030303030303030303030303040404040404040400056c7061723100"
    "0664617461766701030303030303030303030303030303030000000361626345c5e494"
);

const REFUSED: &[u8] = &hex!("5647504100010002435b3382");

fn join() -> Join {
    Join {
        invite: InviteId([0, 1, 2, 3, 4, 5, 6, 7]),
        proof: [2; 32],
        role: Role::Source,
        name: "lpar2".parse().unwrap(),
        address: Some("192.0.2.7:7300".parse().unwrap()),
        blind: false,
        offer: Some(GroupOffer { group: GroupId([3; 16]), layout: b"abc".to_vec() }),
    }
}

fn granted() -> Granted {
    Granted {
        group: GroupId([3; 16]),
        name: "lpar1".parse().unwrap(),
        called: "datavg".parse().unwrap(),
        veil: None,
        offer: None,
    }
}

#[test]
fn golden_bytes_hold_both_ways() {
    assert_eq!(join().encode(), JOIN);
    assert_eq!(Join::decode(JOIN), Ok(join()));
    assert_eq!(encode_answer(&Ok(granted())), GRANTED);
    assert_eq!(decode_answer(GRANTED), Ok(Ok(granted())));
    let offer = join().offer;
    let blind = Join { role: Role::Replica, address: None, blind: true, offer: None, ..join() };
    assert_eq!(blind.encode(), JOIN_BLIND);
    assert_eq!(Join::decode(JOIN_BLIND), Ok(blind));
    let blind = Granted { veil: Some(KeyId([4; 8])), offer, ..granted() };
    assert_eq!(encode_answer(&Ok(blind.clone())), GRANTED_BLIND);
    assert_eq!(decode_answer(GRANTED_BLIND), Ok(Ok(blind)));
    assert_eq!(encode_answer(&Err(Refused::Expired)), REFUSED);
    assert_eq!(decode_answer(REFUSED), Ok(Err(Refused::Expired)));
}

#[test]
fn every_bit_flip_and_every_cut_is_noticed() {
    for bytes in [JOIN, GRANTED, JOIN_BLIND, GRANTED_BLIND, REFUSED] {
        let fails = |bytes: &[u8]| Join::decode(bytes).is_err() && decode_answer(bytes).is_err();
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
fn a_layout_longer_than_the_message_is_refused() {
    let message = |len: u32| {
        let mut out = Writer::default();
        out.put(&GRANTED[..GRANTED.len() - 5]).u8(1).put(&[3; 16]).u32(len).put(b"abc");
        decode_answer(&with_checksum(out))
    };
    assert!(message(3).is_ok());
    for len in [2, 4, (1 << 20) + 1, u32::MAX] {
        assert!(message(len).is_err(), "{len}");
    }
}

#[test]
fn a_proof_holds_for_its_secret_and_its_session_only() {
    let secret = Secret([1; 32]);
    let session = Session { inviter: PeerId([2; 32]), joiner: PeerId([3; 32]), bytes: [4; 32] };
    let claim = Claim { invite: InviteId([0; 8]), proof: secret.proof(&session), session };
    assert!(secret.verifier().accepts(&claim));
    assert!(!Secret([9; 32]).verifier().accepts(&claim));
    let elsewhere = [
        Session { inviter: PeerId([9; 32]), ..session },
        Session { joiner: PeerId([9; 32]), ..session },
        Session { bytes: [9; 32], ..session },
    ];
    for session in elsewhere {
        assert!(!secret.verifier().accepts(&Claim { session, ..claim }), "{session:?}");
    }
    for bit in 0..256 {
        let mut proof = claim.proof;
        proof[bit / 8] ^= 1 << (bit % 8);
        assert!(!secret.verifier().accepts(&Claim { proof, ..claim }), "bit {bit}");
    }
}

#[test]
fn what_the_inviter_keeps_makes_no_proof() {
    let secret = Secret([1; 32]);
    let session = Session { inviter: PeerId([2; 32]), joiner: PeerId([3; 32]), bytes: [4; 32] };
    let thief = Secret(secret.verifier().0);
    let claim = Claim { invite: InviteId([0; 8]), proof: thief.proof(&session), session };
    assert!(!secret.verifier().accepts(&claim));
    let zeros = Claim { proof: xor([0; 32], secret.verifier().mask(&session)), ..claim };
    assert!(!secret.verifier().accepts(&zeros));
}

#[test]
fn every_refusal_comes_back() {
    for code in 1..=8 {
        assert_eq!(Refused::from_code(code).code(), code);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for magic in [JOIN_MAGIC, ANSWER_MAGIC] {
            let mut out = Writer::default();
            out.put(&magic).u16(VERSION).put(&bytes);
            let message = with_checksum(out);
            let _ = (Join::decode(&message), decode_answer(&message));
        }
    }
}
