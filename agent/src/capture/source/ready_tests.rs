//! Blind replicas: what they are given is veiled, whatever comes.

use bytes::Bytes;
use vgship_base::record::{Body, Chain, Record, ResyncReason, Target};
use vgship_snapshot::veil::VeilKey;

use super::check_tests::drain;
use super::tests::{LV, ME, NEXT, layout, point, streaming};
use super::*;
use crate::ship::replica::{Flow, Progress};
use crate::ship::verdict::{ReplicaPoint, Verdict};

const OTHER: ReplicaId = ReplicaId(1);

/// A source with a plain and a blind replica; both stream.
fn both() -> Source {
    let mut source = streaming(Overflow::Map);
    assert_eq!(source.add_replica(PeerId([5; 32])), OTHER);
    source.replica_mut(OTHER).blind = true;
    let fresh = ReplicaPoint { fresh: true, durable: Seq::ZERO, ..point(&source) };
    source.link_up(OTHER, &fresh, NEXT);
    source.replica_mut(OTHER).dirty = DirtyMap::empty(&layout());
    for now in 10..13 {
        source.tick(Tick(now), now);
        source.replica_mut(OTHER).batch();
        let durable = source.replica(OTHER).sent();
        source.replica_mut(OTHER).acked(&Progress { durable, ..Default::default() });
    }
    drain(&mut source);
    assert!(source.replica(OTHER).resync.is_none());
    assert_eq!(source.replica(OTHER).flow, Flow::Stream);
    source
}

fn change(offset: u64, len: u64, zero: bool) -> Change {
    let data = (!zero).then(|| Bytes::from(vec![7; usize::try_from(len).unwrap()]));
    Change { volume: LV, span: Span::new(offset, len), data }
}

/// A whole write, as the shell makes it.
fn write(source: &mut Source, change: &Change, veil: &VeilKey) {
    let mut ready = None;
    loop {
        match source.begin(change, ready.as_ref(), false) {
            Begin::Go(ticket) => {
                assert!(matches!(source.end(ticket, true), After::Done));
                return;
            }
            Begin::Mark => {
                let wanted = source.wanted_marks();
                source.marked(&wanted);
            }
            Begin::Ready if ready.is_none() => {
                ready = Some(change.ready(source.wanted().veil.then_some(veil)));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn live(source: &mut Source, id: ReplicaId) -> Vec<Record> {
    let mut batch = source.replica_mut(id).batch();
    batch.retain(|record| record.target == Target::All);
    batch
}

#[test]
fn a_blind_replica_gets_veiled_content_and_a_chain_over_it_others_get_it_plain() {
    let (mut source, veil) = (both(), VeilKey::generate().unwrap());
    assert_eq!(source.wanted(), Wants { hashes: true, veil: true });
    let mut chains = [ME, OTHER].map(|id| source.replica(id).chain.unwrap());
    let whole = change(1024, 1024, false);
    write(&mut source, &whole, &veil);
    write(&mut source, &change(512, 512, true), &veil);
    let (mine, theirs) = (live(&mut source, ME), live(&mut source, OTHER));
    assert_eq!((mine.len(), theirs.len()), (2, 2));
    assert_eq!(mine[1], theirs[1], "zeroes are zeroes");
    for (mine, theirs) in mine.iter().zip(&theirs).take(1) {
        let Body::Write { data: plain, .. } = &mine.body else { panic!("{mine:?}") };
        let Body::Write { volume, offset, data } = &theirs.body else { panic!("{theirs:?}") };
        assert!(mine.seq == theirs.seq && plain.iter().all(|byte| *byte == 7));
        let mut found = data.to_vec();
        assert!(data.chunks(512).all(|sector| sector != [7; 512]));
        veil.unveil(*volume, *offset, &mut found);
        assert!(found == plain[..]);
    }
    for (at, records) in [mine, theirs].iter().enumerate() {
        records.iter().for_each(|it| chains[at].add(it, Chain::data_hash(it)));
    }
    assert_eq!(chains.map(Some), [ME, OTHER].map(|id| source.replica(id).chain));
}

#[test]
fn content_that_was_not_veiled_is_asked_for_again() {
    let (mut source, veil) = (both(), VeilKey::generate().unwrap());
    let change = change(0, 512, false);
    write(&mut source, &change, &veil);
    assert!(matches!(source.begin(&change, None, false), Begin::Ready));
    let plain = change.ready(None);
    assert!(matches!(source.begin(&change, Some(&plain), false), Begin::Ready));
    // Whoever is blind and away is told nothing, so nothing is veiled for it.
    source.link_lost(OTHER);
    source.dismiss(OTHER);
    assert_eq!(source.wanted(), Wants { hashes: true, veil: false });
    assert!(matches!(source.begin(&change, Some(&plain), false), Begin::Go(_)));
}

/// Goal: a client that was connected before there was a blind replica may still write parts of
/// sectors; only the blind replica pays for it, by a resync of that extent.
#[test]
fn part_of_a_sector_goes_by_a_resync_to_the_blind_replica_alone() {
    for zero in [false, true] {
        let (mut source, veil) = (both(), VeilKey::generate().unwrap());
        write(&mut source, &change(700, 100, zero), &veil);
        assert_eq!(source.replica(OTHER).flow, Flow::Map(ResyncReason::Veil));
        assert!(source.replica(OTHER).outbox.is_empty());
        assert_eq!(source.replica(OTHER).dirty.count(), 1);
        assert_eq!(source.replica(ME).flow, Flow::Stream);
        assert_eq!(live(&mut source, ME).len(), 1);
        source.tick(Tick(20), 20);
        let resync = source.replica(OTHER).resync.map(|resync| resync.reason);
        assert_eq!(resync, Some(ResyncReason::Veil));
    }
}

#[test]
fn what_becomes_blind_begins_anew_and_so_does_what_sees_again() {
    let (mut source, veil) = (both(), VeilKey::generate().unwrap());
    write(&mut source, &change(0, 512, false), &veil);
    for blind in [false, true] {
        source.set_blind(OTHER, !blind);
        let before = source.replica(OTHER).dirty.count();
        source.set_blind(OTHER, blind);
        let replica = source.replica(OTHER);
        assert!(!replica.linked() && replica.outbox.is_empty() && !replica.whole, "{before}");
        assert_eq!(replica.dirty.count(), layout().extent.count(layout().volumes[0].bytes));
        // A flap of the link is no way around.
        let held = ReplicaPoint { durable: source.issued(), ..point(&source) };
        assert!(!matches!(source.link_up(OTHER, &held, NEXT), Verdict::Continue));
    }
    assert!(source.has_blind());
    assert_eq!(source.replica(ME).flow, Flow::Stream, "others do not notice");
}
