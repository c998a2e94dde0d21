use std::net::UdpSocket;

use quinn::VarInt;

use super::super::{HelloError, ReceiveError};
use super::*;
use crate::wire::frame::Frame;

/// Goal: noise on the port changes nothing for those who are paired.
#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    let (_source, replica, out, into) = linked().await;
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bytes = vec![0; 1500];
    for round in 0_u64..2000 {
        blake3::Hasher::new().update(&round.to_be_bytes()).finalize_xof().fill(&mut bytes);
        bytes[0] |= if round % 2 == 0 { 0xc0 } else { 0x40 }; // long and short headers
        let len = 1 + usize::try_from(round).unwrap() * 7 % 1500;
        noise.send_to(&bytes[..len], replica.address()).unwrap();
    }
    let (mut source, mut replica) = in_time(opened(&out, &into)).await;
    in_time(source.sender.send(&Frame::Ping(1))).await.unwrap();
    assert_eq!(in_time(replica.receiver.next()).await.unwrap(), Some(Frame::Ping(1)));
}

/// Sends bytes where a frame should be and gives what the other side makes of them.
async fn received(bytes: &[u8]) -> Result<Option<Frame>, ReceiveError> {
    let (_source, _replica, out, into) = linked().await;
    let (source, mut replica) = in_time(opened(&out, &into)).await;
    let mut raw = source.sender.into_stream();
    raw.write_all(bytes).await.unwrap();
    raw.finish().unwrap();
    in_time(replica.receiver.next()).await
}

#[tokio::test]
async fn a_huge_length_is_refused_by_the_header_alone() {
    let huge = received(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).await;
    assert!(matches!(huge, Err(ReceiveError::Frame(_))), "{huge:?}");
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_told_from_one_that_ends_after() {
    assert!(matches!(received(&[]).await, Ok(None)));
    for cut in [&[4, 0, 0][..], &[4, 0, 0, 0, 0, 0, 0, 8], &[4, 0, 0, 0, 0, 0, 0, 8, 1]] {
        let found = received(cut).await;
        assert!(matches!(found, Err(ReceiveError::Cut)), "{found:?}");
    }
}

#[tokio::test]
async fn what_is_no_hello_is_refused_and_the_link_goes_on() {
    let (_source, _replica, out, into) = linked().await;
    let right = hello(Role::Source).encode();
    let mut damaged = right.clone();
    damaged[40] ^= 1;
    let mut huge = right;
    huge[8..12].fill(0xff);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &damaged, &huge] {
        let (mut send, _receive) = out.raw().open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let heard = in_time(async { into.accept().await.unwrap().hear().await }).await;
        assert!(matches!(heard, Err(HelloError::Format(_))), "{heard:?}");
    }
    in_time(opened(&out, &into)).await;
}

#[tokio::test]
async fn a_stream_reset_by_the_peer_is_an_error_not_an_end() {
    let (_source, _replica, out, into) = linked().await;
    let (source, mut replica) = in_time(opened(&out, &into)).await;
    let mut raw = source.sender.into_stream();
    raw.write_all(&[4, 0, 0, 0, 0]).await.unwrap();
    raw.reset(VarInt::from_u32(9)).unwrap();
    let found = in_time(replica.receiver.next()).await;
    assert!(matches!(found, Err(ReceiveError::Lost(_))), "{found:?}");
}
