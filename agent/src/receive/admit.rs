//! Admission: whether a record may come next. The last check before the journal; nothing behind it
//! doubts the order again.

use std::sync::Arc;

use vgship_base::ids::{Generation, Seq};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Chain, Hash, Record, ResyncReason, Target};

/// Why a record may not come next. The link is ended; what was admitted before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// Its place lies outside the volumes.
    #[error("record {seq} lies outside the group's volumes")]
    Outside {
        /// The record.
        seq: Seq,
    },
    /// A number is missing or comes twice.
    #[error("record {found} follows {last}: numbers are missing outside a resync's begin")]
    Gap {
        /// The record.
        found: Seq,
        /// The one before it.
        last: Seq,
    },
    /// A record of a resync stands outside of it, its end names another, or a check stands inside.
    #[error("record {seq} does not belong where it stands: inside or outside a resync")]
    Session {
        /// The record.
        seq: Seq,
    },
    /// The source gave its role away: its history ends there.
    #[error("record {seq} stands behind the handover that ends its generation")]
    Over {
        /// The record.
        seq: Seq,
    },
    /// The records are not those that the source hashed.
    #[error("the hash chain at {seq} differs from the source's: a full resync is needed")]
    Chain {
        /// The epoch end that found it.
        seq: Seq,
    },
}

/// A resync under way on a replica: until its end no seq is a consistent point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The session named by its begin.
    pub session: u64,
    /// Why it was begun.
    pub reason: ResyncReason,
    /// How much is to be compared, as known at its begin. Unit: extents.
    pub extents: u64,
}

impl Window {
    /// The session of a window that no resync begin opened; sources count theirs from 1.
    const BROKEN: u64 = 0;
}

/// Where a replica stands in its source's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The history; `None` before anything was received.
    pub generation: Option<Generation>,
    /// The last record.
    pub seq: Seq,
    /// The hash chain since the last resync end.
    pub chain: Option<Chain>,
    /// The resync under way.
    pub window: Option<Window>,
    /// The source's wall clock at the last epoch end. Unit: microseconds since 1970.
    pub clock: u64,
}

impl Point {
    /// Before anything was received.
    pub const FRESH: Point =
        Point { generation: None, seq: Seq::ZERO, chain: None, window: None, clock: 0 };

    /// Whether this point is one that could be failed over to.
    pub const fn consistent(&self) -> bool {
        self.generation.is_some() && self.window.is_none()
    }

    /// Whether promised records were lost before this point, see [`Admit::break_off`]: what the
    /// hello must say.
    pub fn broken(&self) -> bool {
        self.window.is_some_and(|window| window.session == Window::BROKEN)
    }
}

/// Admits records in order.
#[derive(Clone, Debug)]
pub struct Admit {
    layout: Arc<Layout>,
    point: Point,
    handed: Option<Generation>,
}

impl Admit {
    /// Goes on from a point.
    pub fn new(layout: Arc<Layout>, point: Point) -> Admit {
        Admit { layout, point, handed: None }
    }

    /// Where the stream stands.
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The generation that this replica shall begin behind the last record, when the source has
    /// given its role away.
    pub const fn handed(&self) -> Option<Generation> {
        self.handed
    }

    /// Promised records behind this point are lost, and the volumes may hold some of them: the
    /// point counts as inside a resync until one has ended. Store it before anything else, so that
    /// the next life knows it too.
    pub fn break_off(&mut self) {
        let window = Window { session: Window::BROKEN, reason: ResyncReason::Lost, extents: 0 };
        (self.point.window, self.point.chain) = (Some(window), None);
    }

    /// Admits the next record or says why not; then nothing has changed. `hash` is
    /// [`Chain::data_hash`] of it, which is needed only while there is a chain.
    pub fn admit(&mut self, record: &Record, hash: Option<Hash>) -> Result<(), AdmitError> {
        let (seq, last) = (record.seq, self.point.seq);
        if !record.fits(&self.layout) {
            return Err(AdmitError::Outside { seq });
        }
        if self.handed.is_some() {
            return Err(AdmitError::Over { seq });
        }
        let gap = AdmitError::Gap { found: seq, last };
        if let Body::ResyncBegin(begin) = &record.body {
            if begin.after != last || seq <= last {
                return Err(gap);
            }
            let (session, reason) = (begin.session, begin.reason);
            let window = Window { session, reason, extents: begin.extents };
            self.point.generation = Some(begin.generation);
            self.point.window = Some(window);
            self.point.chain = None;
            self.point.seq = seq;
            return Ok(());
        }
        if self.point.generation.is_none() || !seq.follows(last) {
            return Err(gap);
        }
        let outside = matches!(record.body, Body::Check { .. } | Body::Handover { .. });
        let inside = self.point.window.is_some();
        if matches!(record.target, Target::One(_)) && inside == outside {
            return Err(AdmitError::Session { seq });
        }
        match &record.body {
            Body::ResyncEnd { session } => {
                if self.point.window.is_none_or(|window| window.session != *session) {
                    return Err(AdmitError::Session { seq });
                }
                self.point.window = None;
                self.point.chain = Some(Chain::new(seq));
            }
            Body::EpochEnd(end) => {
                let differs = |chain: Chain| chain.origin != end.origin || chain.hash != end.chain;
                if self.point.chain.is_some_and(differs) {
                    return Err(AdmitError::Chain { seq });
                }
                self.point.clock = end.clock;
            }
            Body::Handover { generation } => self.handed = Some(*generation),
            _ => {
                if let Some(chain) = &mut self.point.chain {
                    chain.add(record, hash);
                }
            }
        }
        self.point.seq = seq;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vgship_base::extent::{Extent, ExtentSize};
    use vgship_base::ids::{ReplicaId, VolumeId};
    use vgship_base::layout::VolumeLayout;
    use vgship_base::record::{EpochEnd, ResyncBegin};

    use super::*;

    const ME: Target = Target::One(ReplicaId(0));

    fn admit() -> Admit {
        let name = "lv".parse().unwrap();
        let extent = ExtentSize::from_log2(12).unwrap();
        let volumes = vec![VolumeLayout { name, bytes: 8192, masked: 0 }];
        Admit::new(Arc::new(Layout { extent, volumes }), Point::FRESH)
    }

    fn take(admit: &mut Admit, seq: u64, target: Target, body: Body) -> Result<(), AdmitError> {
        let record = Record { seq: Seq(seq), target, body };
        admit.admit(&record, Chain::data_hash(&record))
    }

    fn begin(after: u64) -> Body {
        let (generation, reason) = (Generation([1; 16]), ResyncReason::Initial);
        Body::ResyncBegin(ResyncBegin {
            session: 1,
            after: Seq(after),
            generation,
            reason,
            extents: 2,
        })
    }

    fn write(offset: u64) -> Body {
        Body::Write { volume: VolumeId(0), offset, data: Bytes::from_static(b"data") }
    }

    fn streaming() -> Admit {
        let mut admit = admit();
        take(&mut admit, 5, ME, begin(0)).unwrap();
        take(&mut admit, 6, ME, Body::ResyncEnd { session: 1 }).unwrap();
        admit
    }

    #[test]
    fn numbers_may_be_missing_only_before_a_resync_begins_from_here() {
        let mut admit = streaming();
        let gap = |found| Err(AdmitError::Gap { found: Seq(found), last: Seq(6) });
        assert_eq!(take(&mut admit, 8, Target::All, write(0)), gap(8), "R9");
        assert_eq!(take(&mut admit, 6, Target::All, write(0)), gap(6));
        assert_eq!(take(&mut admit, 20, ME, begin(5)), gap(20), "R9: from another place");
        assert_eq!(take(&mut admit, 20, ME, begin(6)), Ok(()));
        assert!(!admit.point().consistent());
    }

    #[test]
    fn a_new_replica_begins_with_a_resync() {
        assert!(take(&mut admit(), 1, Target::All, write(0)).is_err());
    }

    #[test]
    fn a_point_behind_lost_records_is_consistent_only_after_a_resync() {
        let mut admit = streaming();
        admit.break_off();
        assert!(admit.point().broken() && !admit.point().consistent());
        take(&mut admit, 7, ME, begin(6)).unwrap();
        assert!(!admit.point().broken() && !admit.point().consistent());
        take(&mut admit, 8, ME, Body::ResyncEnd { session: 1 }).unwrap();
        assert!(admit.point().consistent());
    }

    #[test]
    fn records_of_a_resync_need_one() {
        let mut admit = streaming();
        let offer = Body::Offer { extent: Extent { volume: VolumeId(0), index: 1 }, hash: [0; 32] };
        assert_eq!(take(&mut admit, 7, ME, offer), Err(AdmitError::Session { seq: Seq(7) }));
        for target in [ME, Target::All] {
            let end = Body::ResyncEnd { session: 1 };
            let refused = Err(AdmitError::Session { seq: Seq(7) });
            assert_eq!(take(&mut admit, 7, target, end), refused, "{target:?}");
        }
        take(&mut admit, 7, ME, begin(6)).unwrap();
        let other = take(&mut admit, 8, ME, Body::ResyncEnd { session: 2 });
        assert_eq!(other, Err(AdmitError::Session { seq: Seq(8) }));
    }

    #[test]
    fn a_check_stands_outside_of_resyncs() {
        let mut admit = streaming();
        let extent = Extent { volume: VolumeId(0), index: 1 };
        let check = || Body::Check { extent, hash: [0; 32] };
        assert_eq!(take(&mut admit, 7, ME, check()), Ok(()));
        take(&mut admit, 8, ME, begin(7)).unwrap();
        assert_eq!(take(&mut admit, 9, ME, check()), Err(AdmitError::Session { seq: Seq(9) }));
    }

    #[test]
    fn nothing_follows_a_handover_which_stands_outside_of_resyncs() {
        let mut admit = streaming();
        let generation = Generation([2; 16]);
        let handover = || Body::Handover { generation };
        let mut resyncing = admit.clone();
        take(&mut resyncing, 7, ME, begin(6)).unwrap();
        let refused = Err(AdmitError::Session { seq: Seq(8) });
        assert_eq!(take(&mut resyncing, 8, ME, handover()), refused);
        assert_eq!(take(&mut admit, 7, ME, handover()), Ok(()));
        assert_eq!(admit.handed(), Some(generation));
        assert!(admit.point().consistent());
        for (target, body) in [(Target::All, write(0)), (ME, begin(7)), (ME, handover())] {
            assert_eq!(take(&mut admit, 8, target, body), Err(AdmitError::Over { seq: Seq(8) }));
        }
    }

    #[test]
    fn places_outside_the_volumes_are_refused() {
        let mut admit = streaming();
        for offset in [8189, u64::MAX] {
            let found = take(&mut admit, 7, Target::All, write(offset));
            assert_eq!(found, Err(AdmitError::Outside { seq: Seq(7) }));
        }
    }

    #[test]
    fn an_epoch_end_compares_the_chain() {
        let mut admit = streaming();
        let mut chain = Chain::new(Seq(6));
        let record = Record { seq: Seq(7), target: Target::All, body: write(0) };
        chain.add(&record, Chain::data_hash(&record));
        let end = |hash| {
            let (first, origin) = (Seq(7), Seq(6));
            Body::EpochEnd(EpochEnd { clock: 9, first, origin, chain: hash })
        };
        take(&mut admit, 7, Target::All, write(0)).unwrap();
        let wrong = take(&mut admit.clone(), 8, Target::All, end([1; 32]));
        assert_eq!(wrong, Err(AdmitError::Chain { seq: Seq(8) }));
        assert_eq!(take(&mut admit, 8, Target::All, end(chain.hash)), Ok(()));
        assert_eq!(admit.point().clock, 9);
    }

    #[test]
    fn nothing_follows_the_last_number_of_a_start() {
        let (mut admit, last) = (streaming(), (1 << 48) - 1);
        assert_eq!(take(&mut admit, last, ME, begin(6)), Ok(()));
        for found in [last, last + 1, 1, u64::MAX] {
            let refused = take(&mut admit, found, Target::All, write(0));
            assert_eq!(refused, Err(AdmitError::Gap { found: Seq(found), last: Seq(last) }));
        }
    }
}
