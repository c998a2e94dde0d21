use super::*;
use crate::wire::frame::{Ack, Answer, Bye, Frame};

/// Data that does not compress, different for each number.
fn noise(number: u64, len: usize) -> Bytes {
    let mut data = vec![0; len];
    blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut data);
    Bytes::from(data)
}

async fn batch(opened: &mut Opened) -> Vec<Record> {
    match opened.receiver.next().await.unwrap() {
        Some(Frame::Batch(records)) => records,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn records_go_one_way_and_acks_and_answers_the_other() {
    let (_source, _replica, out, into) = linked().await;
    let (mut source, mut replica) = in_time(opened(&out, &into)).await;
    assert_eq!(source.theirs, hello(Role::Replica));
    let sent = vec![
        write(1, Bytes::from(vec![5; 100_000])), // compresses
        write(2, noise(2, 1 << 20)),
        write(3, noise(3, 1 << 20)), // does not fit the same frame
        Record { seq: Seq(4), target: Target::All, body: Body::Void },
    ];
    let need = Answer::Need { session: 1, seq: Seq(2), parts: vec![1, 2] };
    let back = [
        Frame::Ack(Ack { received: Seq(4), ..Ack::default() }),
        Frame::Answers(vec![need]),
        Frame::Bye { code: Bye::Paused, text: "by hand".to_owned() },
    ];
    let exchange = async {
        source.sender.send_batch(&sent).await.unwrap();
        let mut found = Vec::new();
        while found.len() < sent.len() {
            found.extend(batch(&mut replica).await);
        }
        assert!(found == sent, "records changed on the way");
        for frame in &back {
            replica.sender.send(frame).await.unwrap();
            assert_eq!(source.receiver.next().await.unwrap().as_ref(), Some(frame));
        }
        source.sender.finish().await.unwrap();
        assert_eq!(replica.receiver.next().await.unwrap(), None);
    };
    in_time(exchange).await;
}

/// Goal: the source may change its address in the middle of a transfer; nothing is lost.
/// Method: move the source's endpoint to another socket after a third and after two thirds.
#[tokio::test]
async fn a_link_survives_a_change_of_address() {
    const BATCHES: u64 = 48;
    let (moving, _replica, out, into) = linked().await;
    let (mut source, mut replica) = in_time(opened(&out, &into)).await;
    let first = into.remote_address();
    let send = async {
        for number in 0..BATCHES {
            if number % (BATCHES / 3) == BATCHES / 3 - 1 {
                moving.endpoint.rebind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            }
            source.sender.send_batch(&[write(number, noise(number, 1 << 20))]).await.unwrap();
        }
    };
    let receive = async {
        for number in 0..BATCHES {
            let found = batch(&mut replica).await;
            assert!(found == [write(number, noise(number, 1 << 20))], "batch {number}");
        }
        replica.sender.send(&Frame::Ping(1)).await.unwrap();
    };
    in_time(async { tokio::join!(send, receive) }).await;
    assert_eq!(in_time(source.receiver.next()).await.unwrap(), Some(Frame::Ping(1)));
    assert_ne!(into.remote_address(), first);
    assert_eq!(into.remote_address(), moving.address());
}

/// Goal: dropping calls half way, as `select!` does, neither loses nor doubles a byte.
#[tokio::test]
async fn calls_may_be_dropped_half_way() {
    let (_source, _replica, out, into) = linked().await;
    let (mut source, mut replica) = in_time(opened(&out, &into)).await;
    let total = 64;
    let send = async {
        for number in 0..total {
            let records = [write(number, noise(number, 1 << 20))];
            tokio::select! {
                biased;
                sent = source.sender.send_batch(&records) => sent.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
        source.sender.flush().await.unwrap();
        assert_eq!(source.sender.queued(), 0);
    };
    let receive = async {
        let mut number = 0;
        while number < total {
            tokio::select! {
                biased;
                frame = replica.receiver.next() => {
                    let expected = vec![write(number, noise(number, 1 << 20))];
                    assert!(frame.unwrap() == Some(Frame::Batch(expected)), "batch {number}");
                    number += 1;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    in_time(async { tokio::join!(send, receive) }).await;
}
