//! What must be where: the source's content, and what a replica must hold at each seq.

use std::sync::{Arc, OnceLock};

use vgship::capture::source::Change;
use vgship_base::ids::{ReplicaId, Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::sim::SimDisk;
use vgship_base::units::Span;
use vgship_snapshot::veil::VeilKey;

/// The content of all volumes.
pub type Images = Vec<Vec<u8>>;

/// Where a replica became equal to its source.
struct End {
    seq: Seq,
    /// How many changes had been logged by then.
    position: usize,
    /// How often the source had gone back by then.
    forks: usize,
    images: Images,
}

/// What was computed last for a replica: most questions go on from there.
struct Cache {
    end: usize,
    position: usize,
    images: Images,
}

/// The model. A replica outside a resync must hold the source's content as of its last resync end,
/// with all changes up to its seq on top.
pub struct Model {
    layout: Arc<Layout>,
    /// What the source's volumes hold once every write under way has ended.
    pub truth: Images,
    log: Vec<(Seq, Change)>,
    /// How long the log was each time the source went back to an older memory.
    forks: Vec<usize>,
    /// Which replicas hold the veiled content.
    blind: Vec<bool>,
    ends: Vec<Vec<End>>,
    caches: Vec<Option<Cache>>,
}

/// The veil key of every world.
pub fn veil() -> &'static VeilKey {
    static KEY: OnceLock<VeilKey> = OnceLock::new();
    KEY.get_or_init(|| VeilKey::from_bytes(std::array::from_fn(|at| [3, 7][at / 32]).into()))
}

fn at(value: u64) -> usize {
    usize::try_from(value).expect("simulated volumes are small")
}

/// Writes a change into an image.
pub fn change_image(images: &mut Images, change: &Change) {
    let into = &mut images[change.volume.index()][at(change.span.offset)..at(change.span.end())];
    match &change.data {
        Some(data) => into.copy_from_slice(data),
        None => into.fill(0),
    }
}

/// The extents in which two contents differ, masked bytes aside.
pub fn differing(layout: &Layout, one: &Images, other: &Images) -> Vec<(VolumeId, u64)> {
    let mut found = Vec::new();
    for (id, volume) in layout.ids().zip(&layout.volumes) {
        for index in 0..layout.extent.count(volume.bytes) {
            let span = layout.extent.span(index, volume.bytes);
            let from = span.offset.max(u64::from(volume.masked)).min(span.end());
            let run = at(from)..at(span.end());
            if one[id.index()][run.clone()] != other[id.index()][run] {
                found.push((id, index));
            }
        }
    }
    found
}

/// Whether two contents are equal, masked bytes aside.
pub fn equal(layout: &Layout, one: &Images, other: &Images) -> bool {
    layout.volumes.iter().enumerate().all(|(index, volume)| {
        let masked = (volume.masked as usize).min(one[index].len());
        one[index][masked..] == other[index][masked..]
    })
}

impl Model {
    /// Volumes of zeroes.
    pub fn new(layout: Arc<Layout>, blind: Vec<bool>) -> Model {
        let replicas = blind.len();
        let truth = layout.volumes.iter().map(|volume| vec![0; at(volume.bytes)]).collect();
        let ends = (0..replicas).map(|_| Vec::new()).collect();
        let caches = (0..replicas).map(|_| None).collect();
        Model { layout, truth, log: Vec::new(), forks: Vec::new(), blind, ends, caches }
    }

    /// A change took this seq.
    pub fn took(&mut self, seq: Seq, change: &Change) {
        change_image(&mut self.truth, change);
        self.log.push((seq, change.clone()));
    }

    /// What a run of a volume holds is what its disk says.
    pub fn reread(&mut self, volume: VolumeId, span: Span, disk: &SimDisk) {
        let run = at(span.offset)..at(span.end());
        self.truth[volume.index()][run.clone()].copy_from_slice(&disk.live()[run]);
    }

    /// A replica's resync ended with this seq.
    pub fn resynced(&mut self, id: ReplicaId, seq: Seq) {
        let (position, forks) = (self.log.len(), self.forks.len());
        let end = End { seq, position, forks, images: self.seen(id, self.truth.clone()) };
        self.ends[usize::from(id.0)].push(end);
    }

    /// The source went back to an older memory: numbers may come again.
    pub fn fork(&mut self) {
        self.forks.push(self.log.len());
    }

    /// What the source's content is at a replica: veiled, where it is blind.
    pub fn seen(&self, id: ReplicaId, mut images: Images) -> Images {
        if self.blind[usize::from(id.0)] {
            for (volume, image) in self.layout.ids().zip(&mut images) {
                veil().veil(volume, 0, image);
            }
        }
        images
    }

    /// What a replica must hold at `seq`, outside a resync.
    pub fn expected(&mut self, id: ReplicaId, seq: Seq) -> &Images {
        let index = usize::from(id.0);
        let ends = &self.ends[index];
        let end = ends.iter().rposition(|end| end.seq <= seq);
        let end = end.unwrap_or_else(|| panic!("no resync of {id:?} ended before {seq}"));
        let start = ends[end].position;
        let limit = self.forks.get(ends[end].forks).copied().unwrap_or(self.log.len());
        let wanted = start + self.log[start..limit].partition_point(|(found, _)| *found <= seq);
        let cache = &mut self.caches[index];
        if cache.as_ref().is_none_or(|cache| cache.end != end || cache.position > wanted) {
            *cache = Some(Cache { end, position: start, images: ends[end].images.clone() });
        }
        let cache = cache.as_mut().expect("it was just filled");
        for (_, change) in &self.log[cache.position..wanted] {
            match &change.data {
                Some(data) if self.blind[index] => {
                    let mut data = data.to_vec();
                    veil().veil(change.volume, change.span.offset, &mut data);
                    let data = Some(data.into());
                    change_image(&mut cache.images, &Change { data, ..change.clone() });
                }
                _ => change_image(&mut cache.images, change),
            }
        }
        cache.position = wanted;
        &cache.images
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
