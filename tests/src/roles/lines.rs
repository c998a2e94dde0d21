//! What must be where: of each generation its one writer, its changes in order, and where other
//! nodes became equal to it.

use std::collections::{BTreeMap, BTreeSet};

use vgship::capture::source::Change;
use vgship_base::ids::{Generation, Seq, VolumeId};
use vgship_base::layout::Layout;

use crate::world::model::{Images, change_image, differing};

/// Extents, by volume and index.
pub type Extents = BTreeSet<(VolumeId, u64)>;

/// Where a node held what the generation's writer held.
struct Equal {
    seq: Seq,
    /// How many changes came before.
    position: usize,
    images: Images,
}

/// One generation.
pub struct Line {
    /// The only node that takes applications' writes in it (I6).
    pub writer: usize,
    /// What the writer's volumes hold once every write under way has ended.
    pub truth: Images,
    /// What they held when the role was handed over: nothing of it may be missing then.
    pub sealed: Option<Images>,
    /// A handover that ends it is durable on the node that takes the role.
    pub taken: bool,
    /// The generations before, each with the last seq that was kept of it.
    pub before: Vec<(Generation, Seq)>,
    log: Vec<(Seq, Change)>,
    /// What was changed and never sent, by a life that ended before its numbers counted.
    unsent: Vec<(Seq, Change)>,
    /// What the writer's volumes lost in a power cut, and the number that it counted from then.
    lost: Vec<(Seq, Extents)>,
    equals: Vec<Vec<Equal>>,
}

/// All generations.
#[derive(Default)]
pub struct Lines {
    lines: BTreeMap<Generation, Line>,
}

impl Lines {
    /// A generation begins with what its writer holds, and counts from `above` on.
    pub fn begin(
        &mut self,
        generation: Generation,
        (writer, nodes): (usize, usize),
        (above, truth): (Seq, Images),
        before: Vec<(Generation, Seq)>,
    ) {
        let equals = (0..nodes).map(|_| Vec::new()).collect();
        let (sealed, taken) = (None, false);
        let (log, unsent, lost) = (Vec::new(), Vec::new(), Vec::new());
        let mut line = Line { writer, truth, sealed, taken, before, log, unsent, lost, equals };
        line.equal_at(writer, above);
        assert!(self.lines.insert(generation, line).is_none(), "a generation begins once");
    }

    /// Whether it has begun.
    pub fn has(&self, generation: Generation) -> bool {
        self.lines.contains_key(&generation)
    }

    /// A generation that has begun.
    pub fn of(&mut self, generation: Generation) -> &mut Line {
        self.lines.get_mut(&generation).expect("it has begun")
    }

    /// The extents that were changed behind `fork` of `from`, in it and in what came after it up to
    /// `generation`.
    pub fn changed_since(
        &self,
        layout: &Layout,
        generation: Generation,
        (from, fork): (Generation, Seq),
    ) -> Extents {
        let mut found = Extents::new();
        let mut add = |of: Generation, above: Seq, upto: Seq| {
            let Some(line) = self.lines.get(&of) else { return };
            let all = line.log.iter().chain(&line.unsent);
            for (_, change) in all.filter(|(seq, _)| *seq > above && *seq <= upto) {
                let (first, end) = layout.extent.touched(change.span);
                found.extend((first..end).map(|index| (change.volume, index)));
            }
            for (_, lost) in line.lost.iter().filter(|(seq, _)| *seq > above && *seq <= upto) {
                found.extend(lost);
            }
        };
        let before = self.lines.get(&generation).map_or(&[][..], |line| &line.before);
        let passed = before.iter().skip_while(|(of, _)| *of != from);
        for (of, kept) in passed {
            add(*of, if *of == from { fork } else { Seq::ZERO }, *kept);
        }
        add(generation, if generation == from { fork } else { Seq::ZERO }, Seq(u64::MAX));
        found
    }
}

impl Line {
    /// A change took this seq.
    pub fn took(&mut self, seq: Seq, change: &Change) {
        change_image(&mut self.truth, change);
        self.log.push((seq, change.clone()));
    }

    /// The writer starts anew and counts from `above` on: what a life before had numbered there was
    /// sent to nobody. Its volumes hold this now.
    pub fn restarts(&mut self, layout: &Layout, above: Seq, truth: Images) {
        let lost = differing(layout, &self.truth, &truth).into_iter().collect();
        self.lost.push((above, lost));
        let sent = self.log.iter().filter(|(seq, _)| *seq <= above).count();
        self.unsent.extend(self.log.drain(sent..));
        self.truth = truth;
    }

    /// With this seq a node holds what the writer holds.
    pub fn equal_at(&mut self, node: usize, seq: Seq) {
        let position = self.log.len();
        self.equals[node].push(Equal { seq, position, images: self.truth.clone() });
    }

    /// What a node must hold at `seq`, outside a resync; `None` when it never was equal before.
    pub fn expected(&self, node: usize, seq: Seq) -> Option<Images> {
        let equal = self.equals[node].iter().rev().find(|it| it.seq <= seq)?;
        let mut images = equal.images.clone();
        let behind = self.log.iter().skip(equal.position).take_while(|(found, _)| *found <= seq);
        behind.for_each(|(_, change)| change_image(&mut images, change));
        Some(images)
    }

    /// The extents that were changed behind `seq`.
    pub fn behind(&self, layout: &Layout, seq: Seq) -> Extents {
        let mut found = Extents::new();
        for (_, change) in self.log.iter().filter(|(it, _)| *it > seq) {
            let (first, end) = layout.extent.touched(change.span);
            found.extend((first..end).map(|index| (change.volume, index)));
        }
        found
    }
}
