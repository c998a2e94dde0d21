use std::os::unix::fs::PermissionsExt;

use super::super::{ConnectError, JoinError, Paired};
use super::*;
use crate::wire::pairing::{GroupOffer, Refused, Secret};
use crate::wire::peers::ATTEMPTS;
use crate::wire::token::Token;

const HOUR: Duration = Duration::from_hours(1);

fn invite(inviter: &Agent, role: Role, lasts: Duration) -> Token {
    let group = (role == Role::Replica).then_some(GROUP);
    let called = (name("datavg"), group);
    let token =
        inviter.book.invite(inviter.id(), vec![inviter.address()], called, (role, false), lasts);
    // By way of the text, as a person carries it.
    Token::decode(&token.unwrap().encode(), 0).unwrap()
}

async fn join(joiner: &Agent, token: &Token) -> Result<GroupId, JoinError> {
    let address = Some(joiner.address());
    let offer = (token.role == Role::Source)
        .then(|| GroupOffer { group: GROUP, layout: b"of the joiner".to_vec() });
    let granted = joiner.endpoint.join(token, name("local"), address, offer);
    in_time(granted).await.map(|granted| granted.group)
}

async fn paired(agent: &mut Agent) -> Paired {
    match in_time(agent.arrivals.next()).await.unwrap() {
        Arrival::Paired(paired) => paired,
        other @ Arrival::Link(_) => panic!("{other:?}"),
    }
}

/// Goal: a pairing lets both sides connect, in their roles and no other.
#[tokio::test]
async fn a_replica_joins_and_both_know_each_other() {
    let (mut source, mut replica) = (Agent::start("lpar1"), Agent::start("lpar2"));
    let token = invite(&source, Role::Replica, HOUR);
    let granted = replica.endpoint.join(&token, name("local"), Some(replica.address()), None);
    let granted = in_time(granted).await.unwrap();
    assert_eq!(granted.offer, Some(GroupOffer { group: GROUP, layout: LAYOUT.to_vec() }));
    assert_eq!((granted.name, granted.called), (name("lpar1"), name("datavg")));
    let told = paired(&mut source).await;
    assert_eq!((told.peer.id, told.peer.address), (replica.id(), Some(replica.address())));
    assert_eq!((told.group, told.role, told.offer), (GROUP, Role::Replica, None));
    assert!(source.book.allows(replica.id(), GROUP, Role::Replica));
    assert!(!source.book.allows(replica.id(), GROUP, Role::Source));
    let [known] = &replica.book.peers()[..] else { panic!("one peer") };
    assert_eq!((known.id, known.address), (source.id(), Some(source.address())));
    assert_eq!(known.grants[0].name, name("local"));
    let out = in_time(source.endpoint.connect(replica.address(), replica.id())).await.unwrap();
    let into = in_time(replica.link()).await;
    in_time(opened(&out, &into)).await;
}

#[tokio::test]
async fn a_source_joins_and_brings_its_group() {
    let (source, mut replica) = (Agent::start("lpar1"), Agent::start("lpar2"));
    let token = invite(&replica, Role::Source, HOUR);
    assert_eq!(join(&source, &token).await.unwrap(), GROUP);
    let told = paired(&mut replica).await;
    assert_eq!(told.offer.map(|offer| offer.layout), Some(b"of the joiner".to_vec()));
    assert!(replica.book.allows(source.id(), GROUP, Role::Source));
    assert!(source.book.allows(replica.id(), GROUP, Role::Replica));
}

/// Goal: what is blind is so for both sides, from the token on, and nobody can make it otherwise.
#[tokio::test]
async fn a_blind_replica_is_one_on_both_sides() {
    let (source, replica) = (Agent::start("lpar1"), Agent::start("lpar2"));
    let blind = || {
        let (at, called) = (vec![source.address()], (name("datavg"), Some(GROUP)));
        source.book.invite(source.id(), at, called, (Role::Replica, true), HOUR).unwrap()
    };
    let token = Token::decode(&blind().encode(), 0).unwrap();
    let granted = in_time(replica.endpoint.join(&token, name("local"), None, None)).await.unwrap();
    assert_eq!(granted.veil, Some(KeyId([9; 8])));
    assert!(source.book.is_blind(replica.id(), GROUP) && replica.book.is_blind(source.id(), GROUP));
    let again = PeerBook::open(source.home.path().join("peers.toml")).unwrap();
    assert!(again.is_blind(replica.id(), GROUP));
    // A token that was changed on its way, in one direction or the other.
    let other = Agent::start("lpar3");
    for token in [
        Token { blind: false, ..blind() },
        Token { blind: true, ..invite(&source, Role::Replica, HOUR) },
    ] {
        let refused = in_time(other.endpoint.join(&token, name("local"), None, None)).await;
        assert!(matches!(refused, Err(JoinError::Refused(Refused::Veil))), "{refused:?}");
    }
    assert!(source.book.peer(other.id()).is_none() && other.book.peers().is_empty());
}

#[tokio::test]
async fn a_pairing_outlives_the_process() {
    let (source, replica) = (Agent::start("lpar1"), Agent::start("lpar2"));
    join(&replica, &invite(&source, Role::Replica, HOUR)).await.unwrap();
    let again = PeerBook::open(source.home.path().join("peers.toml")).unwrap();
    assert!(again.allows(replica.id(), GROUP, Role::Replica));
    assert!(again.invites().is_empty());
    let text = std::fs::read_to_string(source.home.path().join("peers.toml")).unwrap();
    assert!(text.contains("lpar2"), "{text}");
    let mode =
        std::fs::metadata(source.home.path().join("peers.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Goal: with its last open invite the agent closes the door: the handshake itself fails.
#[tokio::test]
async fn a_token_works_once() {
    let (source, first) = (Agent::start("lpar1"), Agent::start("lpar2"));
    let second = Agent::start("lpar3");
    let (token, open) =
        (invite(&source, Role::Replica, HOUR), invite(&source, Role::Replica, HOUR));
    join(&first, &token).await.unwrap();
    let again = join(&second, &token).await;
    assert!(matches!(again, Err(JoinError::Refused(Refused::Invite))), "{again:?}");
    join(&second, &open).await.unwrap();
    let third = join(&Agent::start("lpar4"), &token).await;
    let connect = matches!(third, Err(JoinError::Connect(ConnectError::Refused { .. })));
    assert!(connect, "{third:?}");
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_burns_the_invite() {
    let (source, replica) = (Agent::start("lpar1"), Agent::start("lpar2"));
    let right = invite(&source, Role::Replica, HOUR);
    let wrong = Token { secret: Secret([0; 32]), ..right.clone() };
    let _other_invite = invite(&source, Role::Replica, HOUR);
    for _ in 0..ATTEMPTS {
        let refused = join(&replica, &wrong).await;
        assert!(matches!(refused, Err(JoinError::Refused(Refused::Invite))), "{refused:?}");
    }
    let late = join(&replica, &right).await;
    assert!(matches!(late, Err(JoinError::Refused(Refused::Invite))), "{late:?}");
    assert!(source.book.peers().is_empty() && replica.book.peers().is_empty());
}

#[tokio::test]
async fn an_expired_invite_is_refused_whatever_the_joiner_thinks() {
    let (source, replica) = (Agent::start("lpar1"), Agent::start("lpar2"));
    let token = invite(&source, Role::Replica, Duration::ZERO);
    let closed = join(&replica, &token).await;
    assert!(matches!(closed, Err(JoinError::Connect(_))), "{closed:?}");
    let _open = invite(&source, Role::Replica, HOUR); // forgets expired ones
    let unknown = join(&replica, &token).await;
    assert!(matches!(unknown, Err(JoinError::Refused(Refused::Invite))), "{unknown:?}");
}

#[tokio::test]
async fn an_invite_for_one_role_does_not_serve_for_the_other() {
    let (source, replica) = (Agent::start("lpar1"), Agent::start("lpar2"));
    let token = Token { role: Role::Source, ..invite(&source, Role::Replica, HOUR) };
    let refused = join(&replica, &token).await;
    assert!(matches!(refused, Err(JoinError::Refused(Refused::Role))), "{refused:?}");
    assert!(source.book.peers().is_empty());
}

#[tokio::test]
async fn a_token_leads_to_its_inviter_only() {
    let (source, imposter) = (Agent::start("lpar1"), Agent::start("imposter"));
    let replica = Agent::start("lpar2");
    let _door = invite(&imposter, Role::Replica, HOUR);
    let right = invite(&source, Role::Replica, HOUR);
    let astray = Token { addresses: vec![imposter.address()], ..right.clone() };
    let refused = join(&replica, &astray).await;
    let wrong = matches!(refused, Err(JoinError::Connect(ConnectError::WrongPeer { .. })));
    assert!(wrong, "{refused:?}");
    let second = Token { addresses: vec![imposter.address(), source.address()], ..right };
    join(&replica, &second).await.unwrap();
}
