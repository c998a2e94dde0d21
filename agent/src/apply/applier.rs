//! The applier: takes journaled batches in order, judges offers, writes what is left after
//! coalescing, and moves the checkpoint. Works on the disk seam alone, so that the simulation runs
//! this very code.

use std::io;
use std::sync::Arc;

use vgship_base::bytes::is_zero;
use vgship_base::disk::SharedDisk;
use vgship_base::extent::Extent;
use vgship_base::folder::Folder;
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Hash, Record};
use vgship_base::spread::spread;
use vgship_base::units::Span;

use super::checkpoint::{self, CheckpointError};
use super::coalesce::{Content, Pending, Writes};
use super::compare::{content_hash, part_hashes, read_extent};
use super::keeper::Keeper;
use crate::receive::admit::Point;
use vgship_snapshot::SnapshotError;

/// Offers and bytes of a batch below which starting threads costs more than it saves.
const SPREAD_OFFERS: usize = 8;
const SPREAD_BYTES: u64 = 256 << 10;

/// Why a batch cannot be applied. The replica stays recoverable: what was journaled is applied
/// again from the checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A volume refused.
    #[error("cannot {action} {} bytes at byte {} of the replica's volume {volume}", span.len, span.offset)]
    Volume {
        /// A verb: read, write, zero.
        action: &'static str,
        /// The volume's name.
        volume: String,
        /// Where.
        span: Span,
        /// Why.
        source: io::Error,
    },
    /// A flush failed: what is on the volume is unknown until everything since the checkpoint has
    /// been applied again.
    #[error("cannot flush the replica's volume {volume}")]
    Flush {
        /// The volume's name.
        volume: String,
        /// Why.
        source: io::Error,
    },
    /// The checkpoint cannot be stored.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What is about to be overwritten cannot be preserved, or a snapshot cannot be taken.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
}

/// The answer to one offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The offer.
    pub offer: Seq,
    /// `None` when the extent equals; else the hashes of its parts, for the source to send only
    /// those that differ. Empty: send all of it.
    pub need: Option<Vec<u64>>,
}

/// Writes batches to a replica's volumes.
pub struct Applier {
    layout: Arc<Layout>,
    volumes: Vec<SharedDisk>,
    workers: usize,
    touched: Vec<bool>,
    unflushed: u64,
    keeper: Option<Keeper>,
}

/// An offer, and what lies over its extent by then.
struct Offered {
    seq: Seq,
    extent: Extent,
    hash: Hash,
    overlay: Pending,
}

impl Applier {
    /// Over the volumes of `layout`, in its order. With one worker everything happens in order.
    pub fn new(layout: Arc<Layout>, volumes: Vec<SharedDisk>, workers: usize) -> Applier {
        assert_eq!(layout.volumes.len(), volumes.len(), "a disk for every volume");
        let touched = vec![false; volumes.len()];
        let workers = workers.max(1);
        Applier { layout, volumes, workers, touched, unflushed: 0, keeper: None }
    }

    /// From here on snapshots are taken and kept.
    pub fn keep(&mut self, keeper: Keeper) {
        self.keeper = Some(keeper);
    }

    /// What follows the stream for the snapshots.
    pub fn keeper(&mut self) -> Option<&mut Keeper> {
        self.keeper.as_mut()
    }

    /// Applies a batch that is durable in the journal, and judges its offers, unless it is
    /// replayed: then the source has forgotten them (R1).
    ///
    /// # Errors
    /// When there is no room to preserve what is overwritten ([`SnapshotError::NoRoom`]), a batch
    /// that is no replay has changed nothing and may be handed in again.
    pub fn apply(&mut self, batch: &[Record], replay: bool) -> Result<Vec<Answer>, ApplyError> {
        let (mut rest, mut answers) = (batch, Vec::new());
        while !rest.is_empty() {
            let len = self.keeper.as_ref().map_or(rest.len(), |keeper| keeper.part(rest));
            let (part, left) = rest.split_at(len);
            answers.extend(self.apply_part(part, replay)?);
            rest = left;
        }
        Ok(answers)
    }

    /// Applies records between which no snapshot stands.
    fn apply_part(&mut self, batch: &[Record], replay: bool) -> Result<Vec<Answer>, ApplyError> {
        let (mut writes, mut offers) = (Writes::new(), Vec::new());
        for record in batch {
            match &record.body {
                Body::Write { .. } | Body::Zero { .. } => self.put_record(&mut writes, record),
                Body::Offer { extent, hash } | Body::Check { extent, hash } if !replay => {
                    let span = self.layout.span(*extent).expect("offers are admitted by layout");
                    let pending = writes.get(&extent.volume);
                    let overlay = pending.map(|all| all.within(span)).unwrap_or_default();
                    offers.push(Offered { seq: record.seq, extent: *extent, hash: *hash, overlay });
                }
                _ => {}
            }
        }
        let answers = self.judge(&offers)?;
        // What is found equal counts from now on, and may lie in the cache alone: whoever wrote it.
        for (offer, _) in offers.iter().zip(&answers).filter(|(_, found)| found.need.is_none()) {
            self.touched[offer.extent.volume.index()] = true;
        }
        if let Some(keeper) = &mut self.keeper {
            // Before-image, then its catalogue entry, then the volume (R5).
            keeper.before(batch, spans(&writes))?;
        }
        self.write(&writes)?;
        if let Some(keeper) = &mut self.keeper {
            keeper.passed(batch);
        }
        Ok(answers)
    }

    /// What records write, coalesced.
    pub(super) fn writes_of(&self, records: &[Record]) -> Writes {
        let mut writes = Writes::new();
        records.iter().for_each(|record| self.put_record(&mut writes, record));
        writes
    }

    fn put_record(&self, writes: &mut Writes, record: &Record) {
        match &record.body {
            Body::Write { volume, offset, data } => {
                let span = Span::new(*offset, data.len() as u64);
                self.put(writes, *volume, span, Content::Data(data.clone()));
            }
            Body::Zero { volume, span } => self.put(writes, *volume, *span, Content::Zero),
            _ => {}
        }
    }

    /// Writes past the stream, which stands still meanwhile: what snapshots share is preserved
    /// before (R5).
    pub(super) fn overwrite(&mut self, writes: &Writes) -> Result<(), ApplyError> {
        if let Some(keeper) = &mut self.keeper {
            keeper.preserve(spans(writes))?;
        }
        self.write(writes)
    }

    /// Whether a volume holds `content` at `span`.
    pub(super) fn holds(
        &self,
        volume: VolumeId,
        span: Span,
        content: &[u8],
    ) -> Result<bool, ApplyError> {
        let mut now = vec![0; content.len()];
        let read = self.volumes[volume.index()].read_at(span.offset, &mut now);
        read.map_err(self.failed("read", volume, span))?;
        Ok(now == content)
    }

    pub(super) fn put(&self, writes: &mut Writes, volume: VolumeId, span: Span, content: Content) {
        let masked = self.layout.volume(volume).map_or(0, |known| u64::from(known.masked));
        let pending = writes.entry(volume).or_default();
        pending.put(span, content);
        pending.mask(masked);
    }

    /// Judges offers against the volumes as they are, overlaid with what precedes them in the
    /// batch (R15).
    fn judge(&self, offers: &[Offered]) -> Result<Vec<Answer>, ApplyError> {
        let workers = if offers.len() < SPREAD_OFFERS { 1 } else { self.workers };
        spread(offers, workers, |offer| self.judge_one(offer))
    }

    fn judge_one(&self, offer: &Offered) -> Result<Answer, ApplyError> {
        let extent = offer.extent;
        let bytes = read_extent(&self.layout, &self.volumes, extent, |bytes, span| {
            offer.overlay.overlay(span.offset, bytes);
        })
        .map_err(|(span, source)| self.failed("read", extent.volume, span)(source))?;
        let equal = content_hash(&bytes) == offer.hash;
        let need = (!equal).then(|| if is_zero(&bytes) { Vec::new() } else { part_hashes(&bytes) });
        Ok(Answer { offer: offer.seq, need })
    }

    fn write(&mut self, writes: &Writes) -> Result<(), ApplyError> {
        let runs: Vec<(VolumeId, Span, &Content)> = writes
            .iter()
            .flat_map(|(&volume, pending)| {
                pending.runs().map(move |(span, run)| (volume, span, run))
            })
            .collect();
        let bytes: u64 = runs.iter().map(|(_, span, _)| span.len).sum();
        for (volume, ..) in &runs {
            self.touched[volume.index()] = true;
        }
        self.unflushed += bytes;
        let workers = if bytes < SPREAD_BYTES { 1 } else { self.workers };
        spread(&runs, workers, |run| self.write_one(run)).map(drop)
    }

    fn write_one(&self, run: &(VolumeId, Span, &Content)) -> Result<(), ApplyError> {
        let &(volume, span, content) = run;
        let disk = &self.volumes[volume.index()];
        match content {
            Content::Data(data) => {
                disk.write_at(span.offset, data).map_err(self.failed("write", volume, span))
            }
            Content::Zero => {
                disk.zero_at(span.offset, span.len).map_err(self.failed("zero", volume, span))
            }
        }
    }

    fn failed(
        &self,
        action: &'static str,
        volume: VolumeId,
        span: Span,
    ) -> impl Fn(io::Error) -> ApplyError + use<> {
        let name = self.layout.volume(volume).map_or_else(String::new, |lv| lv.name.to_string());
        move |source| ApplyError::Volume { action, volume: name.clone(), span, source }
    }

    /// Bytes written since the last checkpoint.
    pub fn unflushed(&self) -> u64 {
        self.unflushed
    }

    /// Flushes what was written or found equal, and stores `point`, up to which all has been
    /// applied.
    ///
    /// Durable: the point and everything before it, once this has returned.
    pub fn checkpoint(&mut self, folder: &dyn Folder, point: &Point) -> Result<(), ApplyError> {
        self.flush_touched()?;
        checkpoint::store(folder, point)?;
        if let Some(keeper) = &self.keeper {
            keeper.settle(point.seq);
        }
        Ok(())
    }

    /// Flushes what was written or found equal.
    pub(super) fn flush_touched(&mut self) -> Result<(), ApplyError> {
        for (index, touched) in self.touched.iter_mut().enumerate().filter(|(_, touched)| **touched)
        {
            let flushed = self.volumes[index].flush();
            flushed.map_err(|source| ApplyError::Flush {
                volume: self.layout.volumes[index].name.to_string(),
                source,
            })?;
            *touched = false;
        }
        self.unflushed = 0;
        Ok(())
    }

    /// Flushes every volume: what an earlier life left unflushed must be stable before it is
    /// compared. Then lets go of the system's cache: after a flush that failed, in whatever life, it
    /// shows what was never stored, and an offer that matched it would never be shipped.
    pub fn flush_all(&self) -> Result<(), ApplyError> {
        for (disk, volume) in self.volumes.iter().zip(&self.layout.volumes) {
            let volume = volume.name.to_string();
            disk.flush().map_err(|source| ApplyError::Flush { volume, source })?;
            disk.forget_cache();
        }
        Ok(())
    }
}

fn spans(writes: &Writes) -> impl Iterator<Item = (VolumeId, Span)> {
    let runs = |(&volume, pending): (&VolumeId, &'_ Pending)| {
        pending.runs().map(move |(span, _)| (volume, span)).collect::<Vec<_>>()
    };
    writes.iter().flat_map(runs)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vgship_base::disk::Disk;
    use vgship_base::extent::ExtentSize;
    use vgship_base::layout::VolumeLayout;
    use vgship_base::record::Target;
    use vgship_base::sim::{Power, Rng, SimDisk, SimFolder};

    use super::*;

    fn applier(disk: &SimDisk) -> Applier {
        let name = "lv".parse().unwrap();
        let extent = ExtentSize::from_log2(12).unwrap();
        let volumes = vec![VolumeLayout { name, bytes: 8192, masked: 0 }];
        Applier::new(Arc::new(Layout { extent, volumes }), vec![Arc::new(disk.clone())], 1)
    }

    fn write() -> Record {
        let data = Bytes::from(vec![7; 4096]);
        let body = Body::Write { volume: VolumeId(0), offset: 0, data };
        Record { seq: Seq(1), target: Target::All, body }
    }

    #[test]
    fn a_checkpoint_makes_stable_what_was_counted_as_unflushed() {
        let power = Power::default();
        let (disk, folder) = (SimDisk::volume(&power, 8192), SimFolder::new(&power));
        let mut applier = applier(&disk);
        applier.apply(&[write()], false).unwrap();
        assert_eq!(applier.unflushed(), 4096);
        disk.fail_flushes(1);
        assert!(matches!(
            applier.checkpoint(&folder, &Point::FRESH),
            Err(ApplyError::Flush { .. })
        ));
        assert_eq!(checkpoint::load(&folder).unwrap(), None, "no point without its content");
        applier.apply(&[write()], false).unwrap();
        assert_eq!(applier.unflushed(), 8192);
        applier.checkpoint(&folder, &Point::FRESH).unwrap();
        assert_eq!(applier.unflushed(), 0);
        disk.power_cut(&mut Rng::new(1));
        assert_eq!(disk.live()[..4096], [7; 4096]);
        disk.fail_flushes(1);
        applier.checkpoint(&folder, &Point::FRESH).expect("nothing was written, nothing flushed");
    }

    /// Goal: an image copied into the volumes beforehand, still in the system's cache, is not
    /// counted on before it is stored.
    #[test]
    fn a_checkpoint_makes_stable_what_others_wrote_and_an_offer_found_equal() {
        let power = Power::default();
        let (disk, folder) = (SimDisk::volume(&power, 8192), SimFolder::new(&power));
        disk.write_at(0, &[7; 4096]).unwrap();
        let extent = Extent { volume: VolumeId(0), index: 0 };
        let body = Body::Offer { extent, hash: content_hash(&[7; 4096]) };
        let offer = Record { seq: Seq(1), target: Target::All, body };
        let mut applier = applier(&disk);
        assert_eq!(applier.apply(&[offer], false).unwrap()[0].need, None);
        applier.checkpoint(&folder, &Point::FRESH).unwrap();
        disk.power_cut(&mut Rng::new(1));
        assert_eq!(disk.live()[..4096], [7; 4096]);
    }

    #[test]
    fn what_an_earlier_life_wrote_is_flushed_or_that_is_said() {
        let disk = SimDisk::volume(&Power::default(), 8192);
        applier(&disk).apply(&[write()], false).unwrap();
        let next = applier(&disk);
        next.flush_all().unwrap();
        disk.power_cut(&mut Rng::new(1));
        assert_eq!(disk.live()[..4096], [7; 4096]);
        disk.fail_flushes(1);
        assert!(matches!(next.flush_all(), Err(ApplyError::Flush { .. })));
    }

    /// Goal: after a failed flush nothing is judged by what the cache alone holds.
    #[test]
    fn after_a_failed_flush_offers_are_judged_by_what_is_stored() {
        let name = "lv".parse().unwrap();
        let extent = ExtentSize::from_log2(12).unwrap();
        let volumes = vec![VolumeLayout { name, bytes: 8192, masked: 0 }];
        let layout = Arc::new(Layout { extent, volumes });
        let disk = SimDisk::volume(&Power::default(), 8192);
        let open = || Applier::new(Arc::clone(&layout), vec![Arc::new(disk.clone())], 1);
        let data = Bytes::from(vec![5; 4096]);
        let hash = content_hash(&data);
        let volume = VolumeId(0);
        let write = Body::Write { volume, offset: 0, data };
        let offer = Body::Offer { extent: Extent { volume, index: 0 }, hash };
        let record = |seq, body| Record { seq: Seq(seq), target: Target::All, body };
        let mut applier = open();
        applier.apply(&[record(1, write)], false).unwrap();
        disk.fail_flushes(1);
        assert!(matches!(applier.flush_all(), Err(ApplyError::Flush { .. })));
        let mut applier = open();
        applier.flush_all().unwrap(); // the system tells of a failure once
        let answers = applier.apply(&[record(2, offer)], false).unwrap();
        assert!(answers[0].need.is_some(), "what matches is not stored");
        assert_eq!(disk.live(), [0; 8192]);
        assert_eq!(disk.len(), 8192);
    }
}
