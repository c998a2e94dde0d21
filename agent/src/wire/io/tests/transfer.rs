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
