//! Recovery: finds the unbroken row, and begins a new segment that cuts off everything else.

use std::collections::VecDeque;

use vgship_base::ids::{Generation, Seq};

use super::walk::{Found, Link, Passed, Walk};
use super::{Damage, Journal, JournalError, Recovered, Row};
use crate::segment::{Head, SEGMENT_BYTES, SegmentError};

/// The segments that continue one another, up to the newest whose head is whole.
struct Chain {
    links: VecDeque<Link>,
    /// The next newer segment, when its head is not whole: it was published, so it is damaged.
    headless: Option<u64>,
    /// The segment that the first of them continues, when its head is not whole.
    broken: Option<u64>,
}

pub(super) fn recover<E: From<JournalError>>(
    row: Row,
    checkpoint: Seq,
    note: impl FnOnce() -> Result<(), E>,
) -> Result<(Journal, Recovered), E> {
    let found = find(&row, checkpoint)?;
    if found.damage.is_some_and(|damage| damage.promised) {
        note()?;
    }
    Ok(cut(row, found)?)
}

/// The unbroken row, as it was found.
struct Standing {
    numbers: Vec<u64>,
    fresh: Vec<String>,
    last: Seq,
    kept: Kept,
    damage: Option<Damage>,
}

/// Looks where the unbroken row ends, and what of it is lost. Changes nothing.
fn find(row: &Row, checkpoint: Seq) -> Result<Standing, JournalError> {
    let (numbers, fresh) = row.place().list()?;
    let chain = usable_chain(row, &numbers, checkpoint)?;
    let mut walk = Walk::new(row.clone(), checkpoint, chain.links.clone());
    let mut tail = Tail::default();
    while let Some(found) = walk.step()? {
        tail.add(walk.passed().map_or(0, |passed| passed.link.number), found);
    }
    let last = walk.last().max(checkpoint);
    let headless =
        chain.headless.map(|segment| Damage { segment, offset: 0, after: last, promised: true });
    // What was before a lost head, and is not needed, goes: `Journal::first_after` moves behind it.
    let history = chain.broken.map(|segment| Damage {
        segment,
        offset: 0,
        after: Seq::ZERO,
        promised: false,
    });
    let damage = walk.take_damage().or(headless).or(walk.skipped()).or(history);
    let kept = kept(&walk, &chain.links, tail, checkpoint);
    Ok(Standing { numbers, fresh, last, kept, damage })
}

/// Begins a new segment behind it, which cuts off everything else.
fn cut(row: Row, found: Standing) -> Result<(Journal, Recovered), JournalError> {
    let Standing { numbers, fresh, last, kept, damage } = found;
    let number = row.place().number_after(&numbers)?;
    let head = Head {
        number,
        generation: kept.generation,
        after: kept.after,
        previous: kept.links.last().map(|link| link.as_previous(link.frames.unwrap_or(1))),
    };
    let mut current = row.place().create(head)?;
    let mut anew = kept.unpromised.iter().map(|found| &found.batch);
    let written = anew.try_for_each(|batch| current.append(&batch.records, batch.promised));
    if let Err(error) = written.and_then(|()| current.flush()) {
        current.abandon(&row.place());
        return Err(error.into());
    }
    current.publish(&row.place())?;
    row.place().sync()?;

    // From here on the row is what it was found to be; the rest only takes room.
    let stale = |number: &&u64| kept.links.iter().all(|link| link.number != **number);
    for &number in numbers.iter().filter(stale) {
        row.place().remove(number)?;
    }
    let own = format!("{}.new", crate::segment::name(head.number));
    for name in fresh.iter().filter(|&name| *name != own) {
        row.place().remove_named(name)?;
    }
    row.place().sync()?;
    assert_eq!(current.last(), last, "what recovery reports is what the journal continues");
    let (closed, durable, segment_bytes) = (kept.links, last, SEGMENT_BYTES);
    let journal = Journal { row, closed, current, durable, segment_bytes, poisoned: false };
    Ok((journal, Recovered { last, damage }))
}

/// The newest chain that begins at or before the checkpoint. A head that is lost ends the row that
/// was there before it.
fn usable_chain(row: &Row, numbers: &[u64], checkpoint: Seq) -> Result<Chain, JournalError> {
    let mut found = chain(row, numbers)?;
    while let Some(first) = found.links.front().map(|link| link.after)
        && first > checkpoint
    {
        let Some(broken) = found.broken else {
            return Err(JournalError::Begins { first, checkpoint });
        };
        let end = numbers.partition_point(|&number| number < broken);
        found = chain(row, &numbers[..end])?;
        found.headless.get_or_insert(broken);
    }
    Ok(found)
}

/// Follows the heads back from the newest.
fn chain(row: &Row, numbers: &[u64]) -> Result<Chain, SegmentError> {
    let mut chain = Chain { links: VecDeque::new(), headless: None, broken: None };
    let (mut wanted, mut frames) = (None, None);
    for &number in numbers.iter().rev() {
        if wanted.is_some_and(|wanted| wanted != number) {
            continue; // cut off by a later segment
        }
        match row.place().open(number) {
            Ok((reader, head)) => {
                chain.links.push_front(Link::of(head, frames, reader.bytes()));
                let Some(previous) = head.previous else { break };
                (wanted, frames) = (Some(previous.number), Some(previous.frames));
            }
            Err(error) if !error.is_damage() => return Err(error),
            Err(_) if wanted.is_some() => {
                chain.broken = Some(number); // the walk will miss it, if it is needed
                break;
            }
            Err(_) => chain.headless = Some(number),
        }
    }
    Ok(chain)
}

/// The end of what was read: how much of the last segment was promised, and what was not.
#[derive(Default)]
struct Tail {
    segment: u64,
    promised: Seq,
    /// Frames of the segment up to the promise, its head among them; 0 when there are none.
    frames: u64,
    after: Seq,
    unpromised: VecDeque<Found>,
}

impl Tail {
    fn add(&mut self, segment: u64, found: Found) {
        if self.segment != segment {
            *self = Tail { segment, ..Tail::default() };
        }
        let gap = self.unpromised.back().is_some_and(|it| it.batch.last() != found.batch.after);
        if gap {
            self.unpromised.clear(); // all of it is at or below the checkpoint
        }
        self.promised = self.promised.max(found.batch.promised);
        self.unpromised.push_back(found);
        while let Some(first) = self.unpromised.front()
            && first.batch.last() <= self.promised
        {
            // A promise alone, without records, may itself be in the cache only: it does not count.
            if !first.batch.records.is_empty() {
                (self.frames, self.after) = (first.frame + 1, first.batch.last());
            }
            self.unpromised.pop_front();
        }
    }
}

/// What of the row goes on to count.
struct Kept {
    links: Vec<Link>,
    generation: Generation,
    after: Seq,
    unpromised: VecDeque<Found>,
}

/// Keeps what was promised where it lies. What is whole but was not promised may exist in the
/// system's cache alone, even after a flush that failed: it is written anew, also when the volumes
/// hold it, so that history has no hole.
fn kept(walk: &Walk, chain: &VecDeque<Link>, tail: Tail, checkpoint: Seq) -> Kept {
    let Some(Passed { link, frames }) = walk.passed() else {
        let generation = chain.front().map_or(Generation::default(), |link| link.generation);
        let (links, unpromised) = (Vec::new(), VecDeque::new());
        return Kept { links, generation, after: checkpoint, unpromised };
    };
    let tail = if tail.segment == link.number { tail } else { Tail::default() };
    // A closed segment was flushed before the next was begun: all that was read of it is durable.
    let closed = link.frames.is_some();
    let counted = if closed { frames.or(link.frames) } else { Some(tail.frames) };
    let before = |other: &&Link| other.number < link.number;
    let mut links: Vec<Link> = chain.iter().filter(before).cloned().collect();
    if counted.is_some_and(|frames| frames > 1) {
        links.push(Link { frames: counted, ..link.clone() });
    }
    let held = closed || walk.last() < checkpoint;
    let unpromised = if held { VecDeque::new() } else { tail.unpromised };
    let whole = walk.last().max(checkpoint);
    let after = unpromised.front().map_or(whole, |first| first.batch.after);
    Kept { links, generation: link.generation, after, unpromised }
}
