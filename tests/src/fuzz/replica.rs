//! The replica's order and its volumes: what is admitted is applied, in batches of any size, as a
//! model applies it record by record.

use std::sync::Arc;

use bytes::Bytes;
use vgship::apply::applier::{Answer, Applier};
use vgship::receive::admit::{Admit, Point};
use vgship_base::disk::SharedDisk;
use vgship_base::extent::Extent;
use vgship_base::ids::{Generation, ReplicaId, Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::record::{Body, Chain, EpochEnd, Record, ResyncBegin, ResyncReason, Target};
use vgship_base::sim::{Power, SimDisk};
use vgship_base::units::Span;

use super::Input;
use super::state::small_layout;

struct World {
    layout: Arc<Layout>,
    disks: Vec<SimDisk>,
    admit: Admit,
    applier: Applier,
    model: Vec<Vec<u8>>,
    batch: Vec<Record>,
    expected: Vec<Answer>,
}

/// Records of choices, most of them in order; applied and compared.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (layout, power) = (Arc::new(small_layout()), Power::default());
    let disk = |volume: &vgship_base::layout::VolumeLayout| SimDisk::volume(&power, volume.bytes);
    let disks: Vec<SimDisk> = layout.volumes.iter().map(disk).collect();
    let shared = disks.iter().map(|disk| Arc::new(disk.clone()) as SharedDisk).collect();
    let model = disks.iter().map(SimDisk::live).collect();
    let mut world = World {
        admit: Admit::new(Arc::clone(&layout), Point::FRESH),
        applier: Applier::new(Arc::clone(&layout), shared, 1),
        layout,
        disks,
        model,
        batch: Vec::new(),
        expected: Vec::new(),
    };
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.apply();
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let body = match input.below(10) {
            0 => return self.apply(),
            1 => self.begin(input),
            2 => Body::ResyncEnd { session: input.below(3) as u64 },
            3 => self.epoch_end(input),
            4 | 5 => self.offer(input),
            6 => {
                let (volume, span) = place(input);
                Body::Zero { volume, span }
            }
            7 if input.below(4) == 0 => Body::Void,
            _ => {
                let (volume, span) = place(input);
                let len = usize::try_from(span.len.min(20_000)).expect("small");
                let data = Bytes::from(vec![input.u8(); len.max(1)]);
                Body::Write { volume, offset: span.offset, data }
            }
        };
        let last = self.admit.point().seq;
        let seq = match (&body, input.below(16)) {
            (_, 0) => Seq(input.odd()),
            (Body::ResyncBegin(_), 1..8) => Seq(last.0.saturating_add(input.odd())),
            _ => Seq(last.0.saturating_add(1)),
        };
        let live = matches!(body, Body::Write { .. } | Body::Zero { .. } | Body::Void);
        let all = live || matches!(body, Body::EpochEnd(_));
        let target = if all { Target::All } else { Target::One(ReplicaId(0)) };
        self.take(Record { seq, target, body });
    }

    fn begin(&self, input: &mut Input<'_>) -> Body {
        let last = self.admit.point().seq;
        let after = if input.below(16) == 0 { Seq(input.odd()) } else { last };
        let (session, generation) = (input.below(3) as u64, Generation([input.u8(); 16]));
        let reason = ResyncReason::Overflow;
        Body::ResyncBegin(ResyncBegin { session, after, generation, reason, extents: 1 })
    }

    fn epoch_end(&self, input: &mut Input<'_>) -> Body {
        let fresh = Chain { origin: Seq::ZERO, hash: [0; 32] };
        let mut chain = self.admit.point().chain.unwrap_or(fresh);
        if input.below(8) == 0 {
            chain.hash[0] ^= 1;
        }
        let (origin, chain) = (chain.origin, chain.hash);
        Body::EpochEnd(EpochEnd { clock: input.odd(), first: Seq(1), origin, chain })
    }

    fn offer(&self, input: &mut Input<'_>) -> Body {
        let volume = VolumeId(input.below(3).try_into().expect("few"));
        let extent = Extent { volume, index: input.below(10) as u64 };
        let content = self.content(extent).unwrap_or_default();
        let other = if input.flag() { content } else { vec![input.u8(); 8192] };
        let hash = *blake3::hash(&other).as_bytes();
        match self.admit.point().window.is_some() != (input.below(16) == 0) {
            true => Body::Offer { extent, hash },
            false => Body::Check { extent, hash },
        }
    }

    /// What the model holds of an extent, its masked head as zero.
    fn content(&self, extent: Extent) -> Option<Vec<u8>> {
        let span = self.layout.span(extent)?;
        let masked = u64::from(self.layout.volume(extent.volume)?.masked);
        let bytes = self.model[extent.volume.index()].iter().zip(0_u64..);
        let inside = bytes.skip(to(span.offset)).take(to(span.len));
        Some(inside.map(|(&byte, at)| if at < masked { 0 } else { byte }).collect())
    }

    fn take(&mut self, record: Record) {
        let point = self.admit.point();
        if self.admit.admit(&record, Chain::data_hash(&record)).is_err() {
            return assert_eq!(self.admit.point(), point, "what is refused changes nothing");
        }
        assert!(record.seq > point.seq, "order");
        match &record.body {
            Body::Offer { extent, hash } | Body::Check { extent, hash } => {
                let content = self.content(*extent).expect("admitted by the layout");
                let equal = *blake3::hash(&content).as_bytes() == *hash;
                self.expected
                    .push(Answer { offer: record.seq, need: (!equal).then(|| parts(&content)) });
            }
            Body::Write { volume, offset, data } => {
                self.put(*volume, *offset, data);
            }
            Body::Zero { volume, span } => self.put(*volume, span.offset, &vec![0; to(span.len)]),
            _ => {}
        }
        self.batch.push(record);
    }

    fn put(&mut self, volume: VolumeId, offset: u64, data: &[u8]) {
        let masked = self.layout.volume(volume).map_or(0, |known| to(known.masked.into()));
        for (byte, at) in data.iter().zip(to(offset)..) {
            if at >= masked {
                self.model[volume.index()][at] = *byte;
            }
        }
    }

    fn apply(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let answers = self.applier.apply(&batch, false).expect("the power is on");
        assert_eq!(answers, std::mem::take(&mut self.expected));
        for (disk, model) in self.disks.iter().zip(&self.model) {
            assert!(disk.live() == *model, "the volumes differ from the model");
        }
        // To do it again changes nothing.
        let answers = self.applier.apply(&batch, true).expect("the power is on");
        assert_eq!(answers, [], "a replay judges no offers (R1)");
        for (disk, model) in self.disks.iter().zip(&self.model) {
            assert!(disk.live() == *model, "a replay changed something");
        }
    }
}

fn to(bytes: u64) -> usize {
    usize::try_from(bytes).expect("small volumes")
}

/// A place near those that are legal.
fn place(input: &mut Input<'_>) -> (VolumeId, Span) {
    let volume = VolumeId(input.below(3).try_into().expect("few"));
    let (offset, len) = match input.below(8) {
        0 => (input.odd(), input.odd()),
        1 => (u64::from(input.u8()) << 8, u64::from(input.u16())),
        _ => (u64::from(input.u16()) & 0x3fff, u64::from(input.u8()) << 5),
    };
    (volume, Span::new(offset, len.max(1)))
}

/// What a need says: nothing when all is zero, else the begin of each part's hash.
fn parts(content: &[u8]) -> Vec<u64> {
    if content.iter().all(|&byte| byte == 0) {
        return Vec::new();
    }
    let hash = |part: &[u8]| {
        let hash = blake3::hash(part);
        u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
    };
    content.chunks(4096).map(hash).collect()
}

/// A stream with a resync, writes that overlap, and offers that match and that do not.
pub fn seeds() -> Vec<Vec<u8>> {
    let begin = [1, 1, 1, 5, 9];
    let write = |at: u8, len: u8, fill: u8| [9, 0, 2, at, 0, len, fill, 9];
    let writes = [write(0, 9, 1), write(1, 40, 2), write(0x20, 200, 3)].concat();
    let offers = [4, 0, 0, 1, 9, 4, 0, 1, 0, 7, 9, 4, 1, 0, 1, 9];
    let end = [2, 1, 9, 3, 1, 5, 9];
    let zero = [6, 0, 2, 0, 64, 30, 9];
    vec![
        [&begin[..], &writes, &[0], &offers, &writes, &offers, &[0], &end, &writes, &zero].concat(),
        [&begin[..], &offers, &writes, &zero, &offers, &end, &begin, &offers, &end].concat(),
        [&begin[..], &end, &writes, &[3, 1, 7, 9, 3, 0, 7, 9, 7, 0, 9], &begin, &writes].concat(),
    ]
}
