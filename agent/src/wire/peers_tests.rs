use super::*;
use crate::wire::pairing::{Secret, Session};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn peer(text: &str, id: u8) -> Peer {
    Peer {
        name: name(text),
        id: PeerId([id; 32]),
        address: Some("192.0.2.7:7300".parse().unwrap()),
        since: 1_764_000_000,
        grants: vec![grant(5, Role::Replica)],
    }
}

fn grant(group: u8, role: Role) -> Grant {
    Grant { group: GroupId([group; 16]), name: name("datavg"), role, blind: false }
}

fn invite(id: u8) -> Invite {
    Invite {
        id: InviteId([id; 8]),
        verifier: Secret([id; 32]).verifier(),
        name: name("datavg"),
        group: Some(GroupId([5; 16])),
        role: Role::Replica,
        blind: false,
        expires: 100,
        attempts: ATTEMPTS,
    }
}

fn claim(id: u8, secret: u8) -> Claim {
    let session = Session { inviter: PeerId([1; 32]), joiner: PeerId([2; 32]), bytes: [3; 32] };
    Claim { invite: InviteId([id; 8]), proof: Secret([secret; 32]).proof(&session), session }
}

fn with_invite() -> Book {
    let mut book = Book::default();
    book.invite(invite(7), 0).unwrap();
    book
}

const TEXT: &str = r#"version = 1

[[peer]]
name = "recovery"
id = "1111111111111111111111111111111111111111111111111111111111111111"
address = "192.0.2.7:7300"
since = 1764000000

[[peer.grant]]
group = "05050505050505050505050505050505"
name = "datavg"
role = "replica"

[[invite]]
id = "0909090909090909"
verifier = "0404040404040404040404040404040404040404040404040404040404040404"
name = "datavg"
role = "source"
expires = 100
attempts = 3
"#;

#[test]
fn the_text_holds_both_ways() {
    let mut book = Book::default();
    book.admit(peer("recovery", 0x11)).unwrap();
    let verifier = Verifier([4; 32]);
    book.invite(Invite { group: None, role: Role::Source, verifier, ..invite(9) }, 0).unwrap();
    assert_eq!(book.encode(), TEXT);
    assert_eq!(Book::decode(TEXT).unwrap(), book);
}

/// Goal: older programs read a book as long as nothing in it is blind, and else say that they cannot.
#[test]
fn what_is_blind_makes_it_a_book_of_version_2() {
    let blind = TEXT
        .replace("version = 1", "version = 2")
        .replace("role = \"replica\"", "role = \"replica\"\nblind = true");
    let mut book = Book::default();
    let grants = vec![Grant { blind: true, ..grant(5, Role::Replica) }];
    book.admit(Peer { grants, ..peer("recovery", 0x11) }).unwrap();
    let verifier = Verifier([4; 32]);
    let invite = Invite { group: None, role: Role::Source, verifier, ..invite(9) };
    book.invite(invite.clone(), 0).unwrap();
    assert_eq!(book.encode(), blind);
    assert_eq!(Book::decode(&blind).unwrap(), book);
    let id = PeerId([0x11; 32]);
    assert!(book.is_blind(id, GroupId([5; 16])) && !book.is_blind(id, GroupId([6; 16])));
    let mut invited = Book::default();
    invited.invite(Invite { blind: true, ..invite }, 0).unwrap();
    assert!(invited.encode().starts_with("version = 2"));
    assert_eq!(Book::decode(&invited.encode()).unwrap(), invited);
    // Paired anew, it is what it is paired as last.
    book.admit(peer("recovery", 0x11)).unwrap();
    assert!(!book.is_blind(id, GroupId([5; 16])));
}

#[test]
fn a_book_that_is_none_is_refused() {
    for (from, to) in [
        ("version = 1", "version = 3"),
        ("since", "sinse"),
        ("1111", "111g"),
        ("\"replica\"", "\"both\""),
        ("\"recovery\"", "\"../recovery\""),
        ("attempts = 3", "attempts = 300"),
    ] {
        assert!(Book::decode(&TEXT.replacen(from, to, 1)).is_err(), "{to}");
    }
    let entry = &TEXT[TEXT.find("[[peer]]").unwrap()..TEXT.find("[[peer.grant]]").unwrap()];
    let twice = format!("{TEXT}\n{entry}");
    assert!(matches!(Book::decode(&twice), Err(BookError::Twice(_))));
}

#[test]
fn only_what_was_granted_is_allowed() {
    let mut book = Book::default();
    book.admit(peer("recovery", 1)).unwrap();
    let allows =
        |book: &Book, id, group, role| book.allows(PeerId([id; 32]), GroupId([group; 16]), role);
    assert!(allows(&book, 1, 5, Role::Replica));
    assert!(!allows(&book, 1, 5, Role::Source), "another role");
    assert!(!allows(&book, 1, 6, Role::Replica), "another group");
    assert!(!allows(&book, 2, 5, Role::Replica), "another peer");
    assert!(book.set_role(PeerId([1; 32]), GroupId([5; 16]), Role::Source));
    assert!(allows(&book, 1, 5, Role::Source) && !allows(&book, 1, 5, Role::Replica));
    assert!(book.revoke("recovery").is_some());
    assert!(!allows(&book, 1, 5, Role::Source));
    assert!(book.revoke("recovery").is_none());
}

#[test]
fn a_second_pairing_adds_to_the_first_and_a_name_cannot_be_taken_over() {
    let mut book = Book::default();
    book.admit(peer("recovery", 1)).unwrap();
    let grants = vec![Grant { name: name("logvg"), ..grant(6, Role::Source) }];
    book.admit(Peer { address: None, since: 9, grants, ..peer("recovery", 1) }).unwrap();
    let [known] = book.peers() else { panic!("one peer") };
    assert_eq!((known.grants.len(), known.since), (2, 1_764_000_000));
    assert!(known.address.is_some(), "a known address is kept");
    assert!(matches!(book.admit(peer("recovery", 2)), Err(BookError::NameTaken(_))));
}

#[test]
fn a_forgotten_group_takes_its_grants_and_invites_and_leaves_all_others() {
    let mut book = Book::default();
    let (gone, kept) = (GroupId([5; 16]), GroupId([6; 16]));
    let grants = |groups: &[GroupId]| {
        let grant = |&group| Grant { group, ..grant(0, Role::Replica) };
        groups.iter().map(grant).collect::<Vec<_>>()
    };
    for (text, id, groups) in [
        ("one", 1, &[gone][..]),
        ("both", 2, &[gone, kept]),
        ("other", 3, &[kept]),
        ("idle", 4, &[]),
    ] {
        book.admit(Peer { grants: grants(groups), ..peer(text, id) }).unwrap();
    }
    for (id, group) in [(1, Some(gone)), (2, Some(kept)), (3, None)] {
        book.invite(Invite { group, ..invite(id) }, 0).unwrap();
    }
    let lost = book.forget_group(gone);
    assert_eq!(lost.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["one", "both"]);
    assert_eq!(lost[1].grants.len(), 2, "as it was");
    let left: Vec<_> =
        book.peers().iter().map(|peer| (peer.name.as_str(), peer.grants.len())).collect();
    assert_eq!(left, [("both", 1), ("other", 1), ("idle", 0)]);
    assert!(book.allows(PeerId([2; 32]), kept, Role::Replica));
    assert_eq!(
        book.invites().iter().map(|invite| invite.group).collect::<Vec<_>>(),
        [Some(kept), None]
    );
    assert_eq!(book.forget_group(gone), []);
}

#[test]
fn an_invite_is_used_once() {
    let mut book = with_invite();
    assert!(book.pairing_open(0));
    assert_eq!(book.redeem(&claim(7, 7), 0), Ok(invite(7)));
    assert_eq!(book.redeem(&claim(7, 7), 0), Err(Refused::Invite));
    assert!(!book.pairing_open(0));
}

#[test]
fn an_invite_is_burnt_by_wrong_proofs() {
    let mut book = with_invite();
    for _ in 0..ATTEMPTS {
        assert_eq!(book.redeem(&claim(7, 8), 0), Err(Refused::Invite));
    }
    assert_eq!(book.redeem(&claim(7, 7), 0), Err(Refused::Invite), "right, but too late");
    let mut book = with_invite();
    book.redeem(&claim(7, 8), 0).unwrap_err();
    assert!(book.redeem(&claim(7, 7), 0).is_ok(), "one mistake is forgiven");
}

#[test]
fn who_does_not_know_an_invites_id_cannot_burn_it() {
    let mut book = with_invite();
    for _ in 0..100 {
        book.redeem(&claim(8, 8), 0).unwrap_err();
    }
    assert!(book.redeem(&claim(7, 7), 0).is_ok());
}

#[test]
fn an_invite_ends_at_its_time() {
    let mut book = with_invite();
    assert!(book.pairing_open(99) && !book.pairing_open(100));
    assert_eq!(book.redeem(&claim(7, 7), 100), Err(Refused::Expired));
    assert_eq!(book.redeem(&claim(7, 7), 0), Err(Refused::Invite), "gone for good");
}

#[test]
fn open_invites_are_bounded_and_expired_ones_make_room() {
    let mut book = Book::default();
    for id in 0..INVITES_MAX {
        book.invite(invite(u8::try_from(id).unwrap()), 0).unwrap();
    }
    assert!(matches!(book.invite(invite(200), 0), Err(BookError::TooManyInvites)));
    book.invite(Invite { expires: 300, ..invite(200) }, 100).unwrap();
    assert_eq!(book.invites().len(), 1);
    assert!(book.revoke_invite("c8c8c8c8c8c8c8c8") && !book.revoke_invite("c8c8c8c8c8c8c8c8"));
}
