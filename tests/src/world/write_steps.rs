//! Steps of applications' writes.

use bytes::Bytes;
use vgship::capture::source::{Begin, Change};
use vgship::outbox::queue::Room;
use vgship_base::disk::Disk;
use vgship_base::ids::VolumeId;
use vgship_base::units::Span;

use super::World;
use super::model::veil;
use super::source::{Flying, Waiting};

impl World {
    fn new_change(&mut self) -> Change {
        let ids: Vec<VolumeId> = self.layout.ids().collect();
        let volume = ids[self.rng.index(ids.len())];
        let bytes = self.layout.volume(volume).expect("it was listed").bytes;
        let rng = &mut self.rng;
        // Whole sectors, as taps must see to: a torn sector would take bytes along that no record
        // has.
        let (offset, len) = (rng.below(bytes / 512) * 512, 512 * (1 + rng.below(16)));
        let offset = if rng.one_in(2) { offset % 16_384 } else { offset };
        let span = Span::new(offset, len.min(bytes - offset));
        let size = usize::try_from(span.len).expect("small");
        let data = match rng.below(8) {
            0 => None,
            1 => Some(vec![0; size]),
            2 => Some(vec![0x55; size]),
            _ => {
                self.tags += 1;
                let tag = self.tags.to_be_bytes();
                Some(tag.iter().copied().cycle().take(size).collect())
            }
        };
        Change { volume, span, data: data.map(Bytes::from) }
    }

    /// An application begins a new write.
    pub fn write_begins(&mut self) {
        if !self.up() || !self.writing {
            return;
        }
        let life = self.life();
        if life.waiting.len() > 6 || life.acking.len() > 12 {
            return;
        }
        let change = self.new_change();
        self.submit(Waiting::new(change));
    }

    /// A write that waits tries again.
    pub fn write_retries(&mut self) {
        if !self.up() {
            return;
        }
        if let Some(waiting) = self.life().waiting.pop_front() {
            self.submit(waiting);
        }
    }

    /// A write tries to begin; it waits if it cannot.
    pub fn submit(&mut self, mut waiting: Waiting) {
        if waiting.slowed {
            let now = self.now;
            self.life().source.pace(now);
        }
        let patient = waiting.tries < 4;
        let life = self.life();
        let wants = life.source.wanted();
        let ready = wants.any().then(|| waiting.change.ready(wants.veil.then(veil)));
        let before = self.look();
        let begun = self.life().source.begin(&waiting.change, ready.as_ref(), patient);
        self.note_overflow(&before);
        match begun {
            Begin::Go(ticket) => {
                self.model.took(ticket.seq, &waiting.change);
                let span = waiting.change.span;
                let turns = self.promises.begins(waiting.change.volume, span);
                if waiting.stalled {
                    self.coverage.hit("stalled write went on");
                }
                self.trace(|| format!("write {} {:?} begins", ticket.seq, span));
                let change = waiting.change;
                self.life().flying.push(Flying { ticket, change, turns, written: None });
                return;
            }
            Begin::Mark => self.mark(),
            Begin::Busy => self.note_busy(&waiting.change),
            Begin::Room => {
                let bytes = waiting.change.data.as_ref().map_or(0, Bytes::len) as u64 + 256;
                let source = &self.life().source;
                let room = |id| source.replica(id).outbox.room(bytes);
                let full = source.ids().any(|id| room(id) == Room::Full);
                waiting.stalled |= full;
                self.coverage.hit(if full {
                    "write stalled"
                } else {
                    "write waited for the spill"
                });
            }
            Begin::Pace => {
                waiting.slowed = true;
                self.check_pace();
            }
            Begin::Ready => unreachable!("what is wanted is given"),
            Begin::Fenced => unreachable!("no role is given away in this world"),
        }
        waiting.tries += 1;
        if self.source.life.is_some() {
            self.life().waiting.push_back(waiting);
        }
    }

    fn note_busy(&mut self, change: &Change) {
        let (layout, lanes) = (&self.layout, &self.source.life.as_ref().expect("it runs").lanes);
        let mut held = lanes.iter().flat_map(|lane| &lane.readings).filter(|it| it.held);
        let held = held.any(|reading| {
            let extent = reading.job.extent;
            let span = layout.span(extent).expect("jobs are within the layout");
            let apart = span.end() <= change.span.offset || change.span.end() <= span.offset;
            extent.volume == change.volume && !apart
        });
        self.coverage.hit(match held {
            true => "writer waited for an extent that was held",
            false => "write waited for another",
        });
    }

    fn mark(&mut self) {
        let life = self.life();
        let wanted = life.source.wanted_marks();
        if !life.doubtful && life.ledger.mark(&wanted).is_err() {
            self.ledger_failed("torn ledger mark");
        }
        if self.up() {
            self.life().source.marked(&wanted);
        }
    }

    /// A write under way reaches its volume, or fails there.
    pub fn write_reaches_volume(&mut self) {
        if !self.up() {
            return;
        }
        let flying = &self.source.life.as_ref().expect("it runs").flying;
        let open: Vec<usize> =
            (0..flying.len()).filter(|&place| flying[place].written.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let place = open[self.rng.index(open.len())];
        let change = &flying[place].change;
        let disk = &self.source.disks[change.volume.index()];
        let done = match &change.data {
            Some(data) => disk.write_at(change.span.offset, data),
            None => disk.zero_at(change.span.offset, change.span.len),
        };
        if !self.source.power.is_off() {
            self.life().flying[place].written = Some(done.is_ok());
        }
    }

    /// A write that the volume took or refused is reported.
    pub fn write_ends(&mut self) {
        if !self.up() {
            return;
        }
        let flying = &mut self.life().flying;
        let Some(place) = flying.iter().position(|it| it.written.is_some()) else { return };
        let Flying { ticket, change, turns, written } = flying.swap_remove(place);
        let written = written.expect("it was just seen");
        let seq = ticket.seq;
        let after = self.life().source.end(ticket, written);
        if written {
            self.ended_well(change, turns, seq, after);
        } else {
            self.coverage.hit("write on a source volume failed");
            let disk = &self.source.disks[change.volume.index()];
            self.model.reread(change.volume, change.span, disk);
        }
    }
}
