//! The model's replica: admits records as the real one does, and knows what it holds at each seq.

use std::collections::VecDeque;
use std::sync::Arc;

use vgship::receive::admit::{Admit, Point};
use vgship::ship::verdict::ReplicaPoint;
use vgship_base::ids::{Generation, Seq};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Chain, Hash, Record};

use super::lv::{Lv, PAGE, PAGES, Pages, effect};

/// A replica.
pub struct Replica {
    /// It says whatever it likes; nothing is expected of what it holds.
    pub hostile: bool,
    /// Whether a link stands.
    pub linked: bool,
    layout: Arc<Layout>,
    admit: Admit,
    /// What it promised, and the point there.
    durable: Point,
    pages: Pages,
    /// Received and not promised: what each changes, and the point behind it.
    received: VecDeque<(Record, Point)>,
    /// Offers that are judged and not answered: session, seq, whether the extent equals.
    answers: VecDeque<(u64, Seq, bool)>,
    handed: Seq,
}

impl Replica {
    /// A replica that holds nothing.
    pub fn new(layout: &Arc<Layout>, hostile: bool) -> Replica {
        Replica {
            hostile,
            linked: false,
            layout: Arc::clone(layout),
            admit: Admit::new(Arc::clone(layout), Point::FRESH),
            durable: Point::FRESH,
            pages: [0; PAGES],
            received: VecDeque::new(),
            answers: VecDeque::new(),
            handed: Seq::ZERO,
        }
    }

    /// What it holds for certain.
    pub fn durable_pages(&self) -> &Pages {
        &self.pages
    }

    /// What its hello says.
    pub fn point(&self) -> ReplicaPoint {
        ReplicaPoint {
            fresh: self.durable.generation.is_none(),
            generation: self.durable.generation.unwrap_or(Generation([0; 16])),
            durable: self.durable.seq,
            damaged: false,
        }
    }

    /// A link stands; what was not promised is gone.
    pub fn link_up(&mut self) {
        self.lose_link();
        self.linked = true;
        self.handed = self.durable.seq;
    }

    /// The link broke.
    pub fn lose_link(&mut self) {
        self.linked = false;
        self.received.clear();
        self.answers.clear();
        self.admit = Admit::new(Arc::clone(&self.layout), self.durable);
    }

    /// Takes a record that the link brought. Where the stream says that it is consistent, it holds
    /// what the source held.
    pub fn take(&mut self, record: Record, lv: &Lv) {
        if self.hostile {
            return;
        }
        assert!(record.seq > self.handed, "{} after {} on one link", record.seq, self.handed);
        self.handed = record.seq;
        let admitted = self.admit.admit(&record, Chain::data_hash(&record));
        assert!(admitted.is_ok(), "{record:?} is refused: {admitted:?}");
        let point = self.admit.point();
        if let Body::Offer { extent, hash } | Body::Check { extent, hash } = &record.body {
            let pages = self.latest();
            let first = usize::try_from(extent.index).expect("small") * 2;
            let equal = extent.volume != super::VOLUME || hash_of(&pages, first) == *hash;
            let session = point.window.map_or(0, |window| window.session);
            self.answers.push_back((session, record.seq, equal));
        }
        self.received.push_back((record, point));
        if point.consistent() && !lv.faults {
            assert_eq!(
                self.latest(),
                lv.at(point.seq),
                "I1: not what the source held at {}",
                point.seq
            );
        }
    }

    fn latest(&self) -> Pages {
        let mut pages = self.pages;
        self.received.iter().for_each(|(record, _)| apply(&mut pages, record));
        pages
    }

    /// Promises the first `count` of what was received; the point there.
    pub fn promise(&mut self, count: usize) -> Point {
        for (record, point) in self.received.drain(..count.min(self.received.len())) {
            apply(&mut self.pages, &record);
            self.durable = point;
        }
        self.durable
    }

    /// An answer that waits. Nothing is answered before all that it rests on is durable: what a
    /// replica says of its content must outlive a crash.
    pub fn next_answer(&mut self) -> Option<(u64, Seq, bool)> {
        let durable = self.durable.seq;
        let (_, offer, _) = self.answers.front()?;
        if *offer <= durable { self.answers.pop_front() } else { None }
    }
}

fn apply(pages: &mut Pages, record: &Record) {
    let Some((volume, span)) = record.changes() else { return };
    if volume == super::VOLUME {
        let data = if let Body::Write { data, .. } = &record.body { Some(data) } else { None };
        let (range, number) = effect(span, data);
        pages[range].fill(number);
    }
}

/// The model's hash of the extent that begins with this page.
pub fn hash_of(pages: &Pages, first: usize) -> Hash {
    let bytes: Vec<u8> =
        pages[first..first + 2].iter().flat_map(|page| page.to_be_bytes()).collect();
    *blake3::hash(&bytes).as_bytes()
}

/// Where the pages of an extent lie. Unit: bytes.
pub fn offsets(first: usize) -> [u64; 2] {
    [first as u64 * PAGE, (first as u64 + 1) * PAGE]
}
