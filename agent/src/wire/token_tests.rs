use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_763_999_999;

fn example() -> Token {
    Token {
        addresses: vec!["192.0.2.7:7300".parse().unwrap(), "[2001:db8::1]:7301".parse().unwrap()],
        inviter: PeerId([4; 32]),
        invite: InviteId([0, 1, 2, 3, 4, 5, 6, 7]),
        secret: Secret([2; 32]),
        expires: NOW + 1,
        group: "datavg".parse().unwrap(),
        role: Role::Replica,
        blind: false,
    }
}

/// Written by an independent program from the table.
const GOLDEN: &str = "\
    vgship1-aebaaaicamcakbqhaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaibae\
    aqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaaaaaaa2jeqeaaabtemf2gc5thaicmaaac\
    a4oiibraaeg3qaaaaaaaaaaaaaaaaaabdscuuizadq";

/// The same for a blind replica.
const BLIND: &str = "\
    vgship2-aibaaaicamcakbqhaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaibae\
    aqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaaaaaaa2jeqeaaabtemf2gc5thaicmaaac\
    a4oiibraaeg3qaaaaaaaaaaaaaaaaaabdsc7ekkvda";

#[test]
fn golden_text_holds_both_ways() {
    assert_eq!(example().encode(), GOLDEN);
    assert_eq!(Token::decode(GOLDEN, NOW), Ok(example()));
    let blind = Token { blind: true, ..example() };
    assert_eq!(blind.encode(), BLIND);
    assert_eq!(Token::decode(BLIND, NOW), Ok(blind));
    // What stands before the letters is no way to another kind of replica.
    let swapped = [GOLDEN.replace("vgship1-", "vgship2-"), BLIND.replace("vgship2-", "vgship1-")];
    for text in swapped {
        assert!(matches!(Token::decode(&text, NOW), Err(TokenError::Damaged(Some(_)))));
    }
}

#[test]
fn what_terminals_and_mail_do_to_a_token_is_undone() {
    let mut wrapped = format!("  {}", GOLDEN.to_ascii_uppercase());
    wrapped.insert_str(60, "\n   ");
    wrapped.push('\n');
    assert_eq!(Token::decode(&wrapped, NOW), Ok(example()));
}

#[test]
fn every_typing_error_is_told_as_damage() {
    for at in PREFIX.len()..GOLDEN.len() {
        for other in ["a", "q", "7", "1", "!"] {
            let mut typed = GOLDEN.to_owned();
            typed.replace_range(at..=at, other);
            if typed == GOLDEN {
                continue;
            }
            let refused = Token::decode(&typed, NOW).unwrap_err();
            assert!(matches!(refused, TokenError::Damaged(_)), "{other} at {at}");
            assert_eq!(refused.to_string(), "the token is damaged, copy it again");
        }
    }
    for len in PREFIX.len()..GOLDEN.len() {
        let refused = Token::decode(&GOLDEN[..len], NOW);
        assert!(matches!(refused, Err(TokenError::Damaged(_))), "cut to {len}");
    }
    let mut swapped = GOLDEN.as_bytes().to_vec();
    swapped.swap(20, 30);
    if swapped != GOLDEN.as_bytes() {
        assert!(Token::decode(std::str::from_utf8(&swapped).unwrap(), NOW).is_err());
    }
}

#[test]
fn other_texts_and_old_tokens_are_told_apart_from_damage() {
    for other in ["", "hello", "vgship3-abcd", &"x".repeat(1 << 20)] {
        assert_eq!(Token::decode(other, NOW), Err(TokenError::NotAToken));
    }
    assert_eq!(Token::decode(GOLDEN, NOW + 1), Err(TokenError::Expired));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Token::decode_bytes(&bytes, VERSION);
        let mut out = Writer::default();
        out.u8(VERSION).u8(2).put(&bytes);
        let _ = Token::decode_bytes(&with_checksum(out), VERSION);
    }
}
