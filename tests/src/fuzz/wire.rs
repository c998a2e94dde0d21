//! What peers send: hellos, frames, batches, records, pairing messages, tokens.

use std::sync::Arc;

use bytes::Bytes;
use vgship::receive::admit::{Admit, Point};
use vgship::wire::batch::{self, BatchEncoder, Compression};
use vgship::wire::frame::{self, Ack, Answer, Bye, Frame, Header};
use vgship::wire::hello::{self, Hello, Refusal, Reply};
use vgship::wire::pairing::{self, Granted, GroupOffer, InviteId, Join, Refused, Secret};
use vgship::wire::peers::Role;
use vgship::wire::token::{PREFIX, Token};
use vgship_base::bytes::Writer;
use vgship_base::extent::Extent;
use vgship_base::ids::{Generation, GroupId, PeerId, ReplicaId, Seq, Start, VolumeId};
use vgship_base::record::{Body, Chain, EpochEnd, Record, ResyncBegin, ResyncReason, Target};
use vgship_base::units::Span;

use super::Input;
use super::edits::{edit, perhaps_summed, summed};
use super::state::small_layout;

/// A hello or a reply.
pub fn hello(data: &[u8]) {
    let bytes = perhaps_summed(data);
    let claimed = bytes.first_chunk().map(|prefix| hello::rest_len(*prefix));
    if let Some(Ok(rest)) = claimed {
        assert!(rest <= 4100, "a hello of {rest} bytes would be read");
    }
    let whole = claimed == Some(Ok(bytes.len().saturating_sub(hello::PREFIX_LEN)));
    if let Ok(Some((version, found))) = Hello::decode(&bytes) {
        assert!(whole, "what is read by its length is what decodes");
        assert!((hello::LOWEST..=hello::HIGHEST).contains(&version));
        assert_eq!(Hello::decode(&found.encode()), Ok(Some((hello::HIGHEST, found))));
    }
    if let Ok(found) = Reply::decode(&bytes) {
        assert!(whole, "what is read by its length is what decodes");
        assert_eq!(Reply::decode(&found.encode()), Ok(found));
    }
}

fn a_hello() -> Hello {
    Hello {
        group: GroupId([1; 16]),
        role: Role::Replica,
        consistent: true,
        damaged: false,
        fresh: false,
        blind: true,
        generation: Generation([2; 16]),
        start: Start(3),
        durable: Seq(9),
        applied: Seq(8),
        layout: [4; 32],
        name: "recovery".parse().expect("a name"),
        yields: false,
        lineage: Vec::new(),
    }
}

/// Each kind of the two messages.
pub fn hello_seeds() -> Vec<Vec<u8>> {
    let refused = Reply::Refused { refusal: Refusal::Diverged, text: "two histories".into() };
    let accepted = Reply::Accepted { version: 1, hello: a_hello() };
    let whole = [a_hello().encode(), refused.encode(), accepted.encode()];
    whole.iter().map(|bytes| summed(bytes)).collect()
}

/// A frame: its header says how much of the rest is its body.
pub fn frames(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk() else { return };
    let Ok(header) = Header::decode(*head) else { return };
    assert!(header.body_len() <= frame::BODY_MAX, "more than a frame would be read");
    let Some(body) = rest.get(..header.body_len()) else { return };
    let body = Bytes::copy_from_slice(body);
    let Ok(found) = Frame::decode(header, body.clone()) else { return };
    assert_eq!(Frame::decode(header, body).expect("as before"), found);
    if let Frame::Batch(records) = found {
        return come_back(&records);
    }
    let again = found.encode();
    let (head, body) = again.split_first_chunk().expect("a header");
    let header = Header::decode(*head).expect("an own frame");
    assert_eq!(body.len(), header.body_len());
    let body = Bytes::copy_from_slice(body);
    assert_eq!(Frame::decode(header, body).expect("an own frame"), found);
}

/// Records come back from batch frames, compressed or not.
fn come_back(records: &[Record]) {
    for compression in [Compression::Off, Compression::Adaptive] {
        let stream = BatchEncoder::new(compression).encode(records).concat();
        let (mut left, mut found) = (&stream[..], Vec::new());
        while let Some((head, rest)) = left.split_first_chunk() {
            let header = Header::decode(*head).expect("an own frame");
            let (body, rest) = rest.split_at(header.body_len());
            let body = Bytes::copy_from_slice(body);
            match Frame::decode(header, body).expect("an own frame") {
                Frame::Batch(records) => found.extend(records),
                other => panic!("{other:?} is no batch"),
            }
            left = rest;
        }
        assert_eq!(found, records);
    }
}

/// Each kind of frame, a compressed batch among them.
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let (session, seq) = (7, Seq(9));
    let frames = [
        Frame::Ack(Ack { received: Seq(3), durable: Seq(2), applied: Seq(1), ..Ack::default() }),
        Frame::Answers(vec![
            Answer::Match { session, seq },
            Answer::Need { session, seq, parts: vec![1, 2] },
        ]),
        Frame::Ping(1),
        Frame::Pong(1),
        Frame::Bye { code: Bye::Paused, text: "back soon".into() },
        Frame::Layout(small_layout()),
    ];
    let small = frames.iter().map(|frame| frame.encode().to_vec());
    let batch = |compression| BatchEncoder::new(compression).encode(&some_records()).concat();
    let batches = [Compression::Off, Compression::Adaptive].map(batch);
    small.chain(batches).filter(|frame| frame.len() <= 4096).collect()
}

/// A batch made by the encoder and changed behind its header: so blocks unpack sometimes.
pub fn batches(data: &[u8]) {
    let mut input = Input::new(data);
    let compression = if input.flag() { Compression::Adaptive } else { Compression::Off };
    let records: Vec<Record> = (0..=input.below(8)).map(|_| a_record(&mut input)).collect();
    let stream = BatchEncoder::new(compression).encode(&records).concat();
    let (head, body) = stream.split_first_chunk::<{ frame::HEADER_LEN }>().expect("a frame");
    let is_compressed = head[1] == 1;
    assert_eq!(batch::decode(is_compressed, Bytes::copy_from_slice(body)).expect("whole"), records);
    let mut body = body.to_vec();
    for _ in 0..input.below(5) {
        edit(&mut input, &mut body);
    }
    for compressed in [is_compressed, !is_compressed] {
        if let Ok(found) = batch::decode(compressed, Bytes::from(body.clone())) {
            come_back(&found);
        }
    }
}

/// A record of any kind and size, from choices.
fn a_record(input: &mut Input<'_>) -> Record {
    let (volume, offset) = (VolumeId(input.u8().into()), input.odd());
    let target = Target::One(ReplicaId(0));
    let (target, body) = match input.below(8) {
        0 => (Target::All, Body::Zero { volume, span: Span::new(offset, input.odd().max(1)) }),
        1 => (target, Body::Offer { extent: Extent { volume, index: offset }, hash: [3; 32] }),
        2 => (target, Body::ResyncEnd { session: input.odd() }),
        3 => (Target::All, Body::Void),
        _ => {
            let period = 1 + input.below(32);
            let repeated = input.take(period);
            let len = 1 + input.index(6000);
            let content = repeated.iter().copied().cycle().take(len);
            let data: Bytes =
                if repeated.is_empty() { vec![0; len].into() } else { content.collect() };
            (Target::All, Body::Write { volume, offset, data })
        }
    };
    Record { seq: Seq(input.odd()), target, body }
}

/// Choices for [`batches`].
pub fn batch_seeds() -> Vec<Vec<u8>> {
    let writes = [1, 3, 0, 4, 9, 5, 4, b'a', b'b', b'c', b'd', 0x10, 0, 5, 1];
    vec![
        [&writes[..], &[2, 1, 0, 9, 1, 0, 8, 0xff, 2, 0, 16]].concat(),
        vec![0, 2, 0, 4, 9, 0, 4, 1, 4, 2, 0, 4, 1, 1, 4, 3, 0, 4, 1, 2, 4, 3, 4, 4, 1, 0, 1],
        vec![1; 64],
    ]
}

fn some_records() -> Vec<Record> {
    let (volume, one) = (VolumeId(0), Target::One(ReplicaId(0)));
    let (session, generation) = (1, Generation([5; 16]));
    let begin = ResyncBegin {
        session,
        after: Seq(0),
        generation,
        reason: ResyncReason::Initial,
        extents: 2,
    };
    let end = EpochEnd { clock: 1, first: Seq(1), origin: Seq(0), chain: [0; 32] };
    let data = Bytes::from_static(&[b'x'; 1500]);
    let bodies = [
        (one, Body::ResyncBegin(begin)),
        (one, Body::Offer { extent: Extent { volume, index: 1 }, hash: [6; 32] }),
        (Target::All, Body::Write { volume, offset: 512, data }),
        (Target::All, Body::Zero { volume, span: Span::new(4096, 4096) }),
        (one, Body::ResyncEnd { session }),
        (Target::All, Body::Void),
        (Target::All, Body::EpochEnd(end)),
    ];
    (1..).zip(bodies).map(|(seq, (target, body))| Record { seq: Seq(seq), target, body }).collect()
}

/// Records one behind the other, as they come out of a batch; then admitted.
pub fn records(data: &[u8]) {
    let layout = small_layout();
    let mut admit = Admit::new(Arc::new(layout.clone()), Point::FRESH);
    let mut left = Bytes::copy_from_slice(data);
    let mut all = Vec::new();
    while !left.is_empty() {
        let before = left.clone();
        let Ok(record) = Record::decode(&mut left) else {
            assert_eq!(left, before, "what does not decode is not taken");
            break;
        };
        let mut out = Writer::default();
        record.encode(&mut out);
        assert_eq!(out.len(), record.encoded_len());
        assert_eq!(out.as_slice(), &before[..before.len() - left.len()], "bytes have one meaning");
        let point = admit.point();
        let hash = Chain::data_hash(&record);
        match admit.admit(&record, hash) {
            Ok(()) => {
                assert!(record.fits(&layout) && admit.point().seq > point.seq);
                assert!(admit.point().generation.is_some());
            }
            Err(_) => assert_eq!(admit.point(), point, "what is refused changes nothing"),
        }
        all.push(record);
    }
    if !all.is_empty() {
        come_back(&all);
    }
}

/// Every kind of record, and a stream that is admitted.
pub fn record_seeds() -> Vec<Vec<u8>> {
    let mut stream = Writer::default();
    let mut seeds = Vec::new();
    for record in some_records() {
        let mut one = Writer::default();
        record.encode(&mut one);
        stream.put(one.as_slice());
        seeds.push(one.into_vec());
    }
    seeds.push(stream.into_vec());
    seeds
}

/// A message of a pairing, either way.
pub fn pairing(data: &[u8]) {
    let bytes = perhaps_summed(data);
    if let Ok(join) = Join::decode(&bytes) {
        assert_eq!(Join::decode(&join.encode()), Ok(join));
    }
    if let Ok(answer) = pairing::decode_answer(&bytes) {
        assert_eq!(pairing::decode_answer(&pairing::encode_answer(&answer)), Ok(answer));
    }
}

/// Both messages, with and without an offer.
pub fn pairing_seeds() -> Vec<Vec<u8>> {
    let name = || "recovery".parse().expect("a name");
    let offer = Some(GroupOffer { group: GroupId([1; 16]), layout: small_layout().encode() });
    let address = "[::1]:7300".parse().ok();
    let (invite, proof) = (InviteId([7; 8]), [8; 32]);
    let join =
        Join { invite, proof, role: Role::Source, name: name(), address, blind: false, offer };
    let alone = Join { address: None, blind: true, offer: None, ..join.clone() };
    let granted = Granted {
        group: GroupId([1; 16]),
        name: name(),
        called: name(),
        veil: None,
        offer: join.offer.clone(),
    };
    let answers = [Ok(granted), Err(Refused::Expired)];
    let joins = [join.encode(), alone.encode()];
    let all = joins.into_iter().chain(answers.iter().map(pairing::encode_answer));
    all.map(|bytes| summed(&bytes)).collect()
}

/// A token's text, or its bytes written as text by another encoder, with their checksum or not.
pub fn token(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = match kind % 2 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => format!("{PREFIX}{}", base32(&perhaps_summed(rest))),
    };
    let Ok(found) = Token::decode(&text, 0) else { return };
    assert_eq!(Token::decode(&text, 0), Ok(found.clone()));
    assert_eq!(Token::decode(&found.encode(), 0), Ok(found.clone()));
    assert!(Token::decode(&text, found.expires).is_err(), "a token has an end");
}

/// RFC 4648 from its text: five bits after five bits.
fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let digit = |from: usize| (from..from + 5).fold(0, |value, at| value * 2 + u8::from(bit(at)));
    let letter = |value: u8| char::from(if value < 26 { b'a' + value } else { b'2' + value - 26 });
    (0..bytes.len() * 8).step_by(5).map(|from| letter(digit(from))).collect()
}

/// A token as text and as bytes.
pub fn token_seeds() -> Vec<Vec<u8>> {
    let token = Token {
        addresses: vec![([192, 0, 2, 7], 7300).into(), ([0, 0, 0, 0, 0, 0, 0, 1], 7).into()],
        inviter: PeerId([1; 32]),
        invite: InviteId([2; 8]),
        secret: Secret([3; 32]),
        expires: 1_764_000_000,
        group: "datavg".parse().expect("a name"),
        role: Role::Replica,
        blind: false,
    };
    let mut bytes = Writer::default();
    bytes.u8(1).u8(2).put(&[2; 8]).put(&[3; 32]).put(&[1; 32]).u64(9).text("g").u8(1);
    bytes.u8(4).put(&[127, 0, 0, 1]).u16(7300);
    vec![[b"\0", token.encode().as_bytes()].concat(), [b"\x01\x01", bytes.as_slice()].concat()]
}
