//! Extents in flight: taken out of the dirty map, offered, not yet known to be equal. They count as
//! dirty on disk until the answer, or the durable ack of what was shipped for them, that bears
//! their own key (R1).

use std::collections::{BTreeMap, VecDeque};

use vgship_base::extent::Extent;
use vgship_base::ids::Seq;

/// Names one job of reading an extent; a job that was overtaken by a lost link finds its key gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey(pub u64);

/// Hashes of an extent's parts on the replica; empty asks for all of them.
pub type PartHashes = Vec<u64>;

/// What must be read next for a resync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Names the job in its answer.
    pub key: JobKey,
    /// What to read.
    pub extent: Extent,
    /// What for.
    pub purpose: Purpose,
}

/// What an extent is read for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To hash it and offer it.
    Offer,
    /// To ship the parts whose hashes differ from these.
    Ship(PartHashes),
}

#[derive(Clone, Debug)]
enum Stage {
    Reading(JobKey),
    Offered,
    Needed(PartHashes),
    Shipping(JobKey),
    Shipped,
}

/// All extents in flight to one replica.
#[derive(Debug, Default)]
pub struct Flight {
    stages: BTreeMap<Extent, Stage>,
    offers: BTreeMap<Seq, Extent>,
    shipped: BTreeMap<Seq, Extent>,
    needed: VecDeque<Extent>,
    keys: u64,
}

impl Flight {
    fn key(&mut self) -> JobKey {
        self.keys += 1;
        JobKey(self.keys)
    }

    /// Whether an extent is in flight.
    pub fn contains(&self, extent: Extent) -> bool {
        self.stages.contains_key(&extent)
    }

    /// How many are in flight.
    pub fn len(&self) -> usize {
        self.stages.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// How many were asked for or shipped and are not durable on the replica yet.
    pub fn shipping(&self) -> usize {
        self.stages.len() - self.offers.len()
    }

    /// All extents in flight.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.stages.keys().copied()
    }

    /// An extent was taken out of the map to be offered.
    pub fn begin(&mut self, extent: Extent) -> Job {
        let key = self.key();
        let before = self.stages.insert(extent, Stage::Reading(key));
        assert!(before.is_none(), "{extent:?} was in flight already");
        Job { key, extent, purpose: Purpose::Offer }
    }

    /// Whether a job is still wanted.
    pub fn wants(&self, extent: Extent, job: JobKey) -> bool {
        matches!(self.stages.get(&extent),
            Some(Stage::Reading(key) | Stage::Shipping(key)) if *key == job)
    }

    /// A wanted job's offer took this seq.
    pub fn offered(&mut self, extent: Extent, seq: Seq) {
        self.stages.insert(extent, Stage::Offered);
        self.offers.insert(seq, extent);
    }

    /// The replica's extent equals the offer: returns it, or `None` for an offer not in flight.
    pub fn matched(&mut self, offer: Seq) -> Option<Extent> {
        let extent = self.offers.remove(&offer)?;
        self.stages.remove(&extent);
        Some(extent)
    }

    /// The replica needs what the offer stands for.
    pub fn needs(&mut self, offer: Seq, parts: PartHashes) {
        if let Some(extent) = self.offers.remove(&offer) {
            self.stages.insert(extent, Stage::Needed(parts));
            self.needed.push_back(extent);
        }
    }

    /// The next extent to read and ship.
    pub fn next_needed(&mut self) -> Option<Job> {
        let extent = self.needed.pop_front()?;
        let key = self.key();
        match self.stages.insert(extent, Stage::Shipping(key)) {
            Some(Stage::Needed(parts)) => Some(Job { key, extent, purpose: Purpose::Ship(parts) }),
            other => panic!("{extent:?} is needed but stands at {other:?}"),
        }
    }

    /// A wanted job's content went out, its last record with this seq.
    pub fn shipped(&mut self, extent: Extent, last: Seq) {
        self.stages.insert(extent, Stage::Shipped);
        self.shipped.insert(last, extent);
    }

    /// A wanted job found nothing to ship: the extent equals by now.
    pub fn settled(&mut self, extent: Extent) {
        self.stages.remove(&extent);
    }

    /// The replica holds everything up to `upto` durably; returns how many extents are done.
    pub fn acked(&mut self, upto: Seq) -> u64 {
        let rest = self.shipped.split_off(&Seq(upto.0 + 1));
        let done = std::mem::replace(&mut self.shipped, rest);
        done.values().for_each(|extent| {
            self.stages.remove(extent);
        });
        done.len() as u64
    }

    /// Forgets all: the caller puts them back into the map.
    pub fn drain(&mut self) -> Vec<Extent> {
        let all = std::mem::take(&mut self.stages).into_keys().collect();
        self.offers.clear();
        self.shipped.clear();
        self.needed.clear();
        all
    }
}

#[cfg(test)]
mod tests {
    use vgship_base::ids::VolumeId;

    use super::*;

    const EXTENT: Extent = Extent { volume: VolumeId(0), index: 5 };

    #[test]
    fn only_the_answer_with_its_own_key_ends_a_flight() {
        let mut flight = Flight::default();
        let job = flight.begin(EXTENT);
        flight.offered(EXTENT, Seq(9));
        assert!(!flight.wants(EXTENT, job.key), "what was read is offered once");
        assert_eq!(flight.matched(Seq(8)), None, "R1: another offer's answer");
        assert_eq!(flight.shipping(), 0, "it is offered");
        flight.needs(Seq(9), vec![]);
        assert_eq!(flight.shipping(), 1);
        assert!(!flight.wants(EXTENT, job.key));
        let job = flight.next_needed().unwrap();
        assert!(flight.wants(EXTENT, job.key));
        flight.shipped(EXTENT, Seq(12));
        assert!(!flight.wants(EXTENT, job.key), "and shipped once");
        assert_eq!(flight.matched(Seq(9)), None, "R1: a late answer");
        assert_eq!((flight.acked(Seq(11)), flight.len()), (0, 1));
        assert_eq!((flight.acked(Seq(12)), flight.len()), (1, 0));
    }

    #[test]
    fn a_job_of_a_lost_link_finds_its_key_gone() {
        let mut flight = Flight::default();
        let old = flight.begin(EXTENT);
        flight.offered(EXTENT, Seq(9));
        flight.needs(Seq(9), vec![]);
        assert_eq!(flight.drain(), [EXTENT]);
        assert_eq!(flight.next_needed(), None, "what was asked for is forgotten too");
        let new = flight.begin(EXTENT);
        assert!(!flight.wants(EXTENT, old.key));
        assert!(flight.wants(EXTENT, new.key));
        flight.offered(EXTENT, Seq(20));
        flight.drain();
        assert_eq!(flight.matched(Seq(20)), None, "an answer of the lost link");
        flight.begin(EXTENT);
        flight.shipped(EXTENT, Seq(30));
        flight.drain();
        assert_eq!(flight.acked(Seq(40)), 0, "an ack of the lost link");
    }
}
