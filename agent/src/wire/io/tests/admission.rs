use quinn::ConnectionError;

use super::super::{Close, ConnectError, HelloError};
use super::*;
use crate::wire::hello::Refusal;
use crate::wire::orders::{ORDERS_MAX, Order, Said};
use crate::wire::retry::Ended;

/// Goal: a stranger cannot make a link, and learns nothing but that it was refused.
#[tokio::test]
async fn a_stranger_fails_in_the_handshake() {
    let (replica, stranger) = (Agent::start("replica"), Agent::start("stranger"));
    let refused = in_time(stranger.endpoint.connect(replica.address(), replica.id())).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.ended(), Ended::Refused);
    let ConnectError::Refused { source, .. } = refused else { panic!("{refused:?}") };
    let by_tls = matches!(source, ConnectionError::ConnectionClosed(_));
    assert!(by_tls, "only a closed handshake, no word of an agent: {source:?}");
}

/// Goal: a link that nobody holds any more does not stand for ever.
#[tokio::test]
async fn a_dropped_link_closes_and_one_with_a_stream_does_not() {
    let (_source, replica, out, into) = linked().await;
    let streams = in_time(opened(&out, &into)).await;
    drop(into);
    assert!(out.stands());
    drop(streams);
    in_time(out.closed()).await;
    drop(replica);
}

/// Goal: who holds only a stream of a revoked peer loses it too.
#[tokio::test]
async fn a_revocation_reaches_streams_whose_link_was_dropped() {
    let (_source, replica, out, into) = linked().await;
    let (_theirs, mut ours) = in_time(opened(&out, &into)).await;
    drop(into);
    replica.book.revoke("source").unwrap();
    assert!(in_time(ours.receiver.next()).await.is_err());
}

#[tokio::test]
async fn another_agent_at_the_address_is_noticed() {
    let (source, replica) = (Agent::start("source"), Agent::start("replica"));
    let meant = Agent::start("meant");
    let refused = in_time(source.endpoint.connect(replica.address(), meant.id())).await;
    assert!(matches!(refused, Err(ConnectError::WrongPeer { .. })), "{refused:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_told_as_such() {
    let source = Agent::start("source");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let refused = in_time(source.endpoint.connect(at, PeerId([1; 32]))).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused:?}");
    assert_eq!(refused.ended(), Ended::Unreachable);
}

/// Goal: a revocation ends a standing link and keeps the peer out from then on.
#[tokio::test]
async fn a_revoked_peer_is_cut_off_and_stays_out() {
    let (source, replica, out, _into) = linked().await;
    assert!(replica.book.revoke("source").unwrap().is_some());
    let lost = in_time(out.closed()).await;
    assert_eq!(lost.ended(Duration::from_secs(99)), Ended::Refused);
    assert!(!out.stands());
    let refused = in_time(source.endpoint.connect(replica.address(), replica.id())).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_ordinary_end_counts_by_how_long_the_link_stood() {
    let (_source, _replica, out, into) = linked().await;
    into.close(Close::Stopping, "maintenance");
    let stood = Duration::from_secs(99);
    assert_eq!(in_time(out.closed()).await.ended(stood), Ended::LostAfter(stood));
}

async fn refusal(out: &Link, into: &Link, hello: &Hello) -> (Refusal, String) {
    let hear = async { into.accept().await.unwrap().hear().await };
    let (opened, heard) = in_time(async { tokio::join!(out.open(hello), hear) }).await;
    assert!(matches!(heard, Err(HelloError::RefusedHere(_))), "{heard:?}");
    match opened {
        Err(HelloError::Refused { refusal, text }) => (refusal, text),
        other => panic!("{other:?}"),
    }
}

/// Goal: a peer cannot tell a group that it may not have from one that does not exist.
#[tokio::test]
async fn groups_and_roles_outside_the_pairing_are_refused_alike() {
    let (_source, _replica, out, into) = linked().await;
    let unknown = Hello { group: GroupId([8; 16]), ..hello(Role::Source) };
    let unknown = refusal(&out, &into, &unknown).await;
    assert_eq!(unknown.0, Refusal::NotAllowed);
    let role = refusal(&out, &into, &hello(Role::Replica)).await;
    assert_eq!(role, unknown);
    let absent = async {
        let greeting = greeting(&into).await;
        greeting.refuse(Refusal::NotAllowed, "no group of this id").await.unwrap();
    };
    let ours = hello(Role::Source);
    let (absent_here, ()) = in_time(async { tokio::join!(out.open(&ours), absent) }).await;
    match absent_here {
        Err(HelloError::Refused { refusal, text }) => assert_eq!((refusal, text), unknown),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reply_for_another_group_or_role_is_not_believed() {
    let (_source, _replica, out, into) = linked().await;
    for wrong in [hello(Role::Source), Hello { group: GroupId([8; 16]), ..hello(Role::Replica) }] {
        let answer = async {
            let greeting = greeting(&into).await;
            greeting.accept(&wrong).await.unwrap()
        };
        let ours = hello(Role::Source);
        let (opened, _kept) = in_time(async { tokio::join!(out.open(&ours), answer) }).await;
        assert!(matches!(opened, Err(HelloError::RefusedHere(Refusal::Role))), "{opened:?}");
    }
}

/// Goal: a replica may give its source orders, and nobody else may.
#[tokio::test]
async fn orders_are_heard_from_a_replica_of_the_group_alone() {
    let (_source, _replica, out, into) = linked().await;
    let hear = async |at: &Link| at.accept().await.unwrap().hear().await;
    // The replica's side opens, the source's hears.
    let (opened, heard) =
        in_time(async { tokio::join!(into.open_orders(GROUP), hear(&out)) }).await;
    let (mut ours, Heard::Orders(mut theirs)) = (opened.unwrap(), heard.unwrap()) else { panic!() };
    assert_eq!(theirs.group, GROUP);
    in_time(ours.sender.order(&Order::Mark)).await.unwrap();
    assert_eq!(in_time(theirs.orders.receiver.order()).await.unwrap(), Order::Mark);
    let mut got = 1;
    in_time(theirs.orders.sender.say(&Said::Ready)).await.unwrap();
    assert_eq!(in_time(ours.receiver.said()).await.unwrap(), Said::Ready);
    // More than a try has is no try; nobody keeps what nobody asked for.
    for _ in 0..ORDERS_MAX {
        in_time(ours.sender.order(&Order::Mark)).await.unwrap();
    }
    let heard = async {
        while theirs.orders.receiver.order().await.is_ok() {
            got += 1;
        }
    };
    in_time(heard).await;
    assert_eq!(got, ORDERS_MAX);
    drop((ours, theirs));

    let (opened, heard) =
        in_time(async { tokio::join!(into.open_orders(GROUP), hear(&out)) }).await;
    let (ours, Heard::Orders(mut theirs)) = (opened.unwrap(), heard.unwrap()) else { panic!() };
    drop(ours);
    assert!(in_time(theirs.orders.receiver.order()).await.is_err(), "the coordinator is lost");

    for (from, to, group) in [(&into, &out, GroupId([8; 16])), (&out, &into, GROUP)] {
        let open = from.open_orders(group);
        let (opened, heard) = in_time(async { tokio::join!(open, hear(to)) }).await;
        assert!(matches!(heard, Err(HelloError::RefusedHere(Refusal::NotAllowed))), "{heard:?}");
        let mut refused = opened.unwrap();
        assert!(in_time(refused.receiver.said()).await.is_err());
    }
}
