//! A node: one machine that is a source or a replica, as its note says, and becomes the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use vgship::capture::io::Guard;
use vgship::capture::ledger::Ledger;
use vgship::capture::source::{Handed, Policy, Source};
use vgship::role::handing;
use vgship::role::promotion::Place;
use vgship_base::disk::{Disk, SharedDisk};
use vgship_base::folder::{Folder, SharedFolder, read_small, replace};
use vgship_base::ids::{Generation, Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::sim::{Rng, SimDisk, SimFolder};
use vgship_snapshot::set::{Parts, SnapshotSet};

use super::World;
use super::writer::Writer;
use crate::world::model::Images;
use crate::world::replica::{Ended, GROUP, ReplicaHost, key, stopped};
use crate::world::source::peer;

const NOTE: &str = "group";
const NOBODY: u8 = u8::MAX;

/// What a node is, as its note says: the one commit point of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes applications' writes.
    Source,
    /// It follows this node.
    ReplicaOf(usize),
}

/// One machine.
pub struct Node {
    /// Its disks, and what it has as a replica.
    pub host: ReplicaHost,
    /// What it has as a source.
    pub source: SimFolder,
    /// Its note.
    pub home: SimFolder,
    /// The program, while it is a source.
    pub writer: Option<Writer>,
    /// What it was set to be last; its note has that, or what was before when a crash came first.
    pub role: Role,
    /// What each snapshot holds, by seq and name; `None` when nobody knows.
    pub kept: BTreeMap<(Seq, String), Option<Images>>,
    /// What snapshots that a change of the role takes must hold, by name.
    pub promised: BTreeMap<String, Images>,
    /// Snapshots that hold what was given up, and that nobody has deleted.
    pub branches: Vec<String>,
    layout: Arc<Layout>,
    segment: u64,
}

impl Node {
    /// A machine with empty disks.
    pub fn new(layout: &Arc<Layout>, segment: u64, role: Role) -> Node {
        let host = ReplicaHost::new(layout, segment, None);
        let node = Node {
            source: SimFolder::new(&host.power),
            home: SimFolder::new(&host.power),
            host,
            writer: None,
            role,
            kept: BTreeMap::new(),
            promised: BTreeMap::new(),
            branches: Vec::new(),
            layout: Arc::clone(layout),
            segment,
        };
        node.note(role).expect("the power is on");
        node
    }

    /// The same machine with empty disks.
    pub fn emptied(&self, role: Role) -> Node {
        Node::new(&self.layout, self.segment, role)
    }

    /// Whether the program runs, with power.
    pub fn up(&self) -> bool {
        let runs = self.writer.is_some() || self.host.life.is_some();
        runs && !self.host.power.is_off()
    }

    /// Changes the role.
    ///
    /// Durable: once this has returned.
    pub fn note(&self, role: Role) -> Result<(), Ended> {
        let bytes = match role {
            Role::Source => [1, NOBODY],
            Role::ReplicaOf(node) => [2, u8::try_from(node).expect("few nodes")],
        };
        replace(&self.home, NOTE, &bytes).map_err(|error| stopped(&error))
    }

    /// What the note says.
    pub fn noted(&self) -> Result<Role, Ended> {
        let found = read_small(&self.home, NOTE, 2).map_err(|error| stopped(&error))?;
        match found.as_deref() {
            Some([1, NOBODY]) => Ok(Role::Source),
            Some([2, node]) => Ok(Role::ReplicaOf(usize::from(*node))),
            other => panic!("the note is {other:?}"),
        }
    }

    /// Its volumes.
    pub fn volumes(&self) -> Vec<SharedDisk> {
        let share = |disk: &SimDisk| -> SharedDisk { Arc::new(disk.clone()) };
        self.host.disks.iter().map(share).collect()
    }

    fn folder(folder: &SimFolder) -> SharedFolder {
        Arc::new(folder.clone())
    }

    /// Where a change of the role finds its files.
    pub fn place(&self) -> Place {
        Place {
            group: GROUP,
            layout: Arc::clone(&self.layout),
            volumes: self.volumes(),
            replica: Node::folder(&self.host.state),
            journal: Node::folder(&self.host.journal),
            source: Node::folder(&self.source),
            snapshots: Node::folder(&self.host.snapshots),
            keys: key().into(),
            now: self.host.past.wall()(),
        }
    }

    /// Its snapshots, if it runs and has some.
    pub fn set(&mut self) -> Option<Arc<SnapshotSet>> {
        if let Some(writer) = &self.writer {
            return writer.guard.as_ref()?.set();
        }
        let life = self.host.life.as_mut()?;
        Some(Arc::clone(life.applier.keeper().expect("replicas keep snapshots").set()))
    }

    /// Opens the source: the ledger, the volumes' flush, what an earlier life noted, the first
    /// checkpoint; in the order of the agent.
    pub fn open_source(
        &mut self,
        (own, nodes): (usize, usize),
        policy: Policy,
        fresh: Generation,
    ) -> Result<(), Ended> {
        let (ledger, state) = Ledger::load(Node::folder(&self.source), &self.layout)
            .map_err(|error| stopped(&error))?;
        let layout = Arc::clone(&self.layout);
        let mut source = match state {
            Some(state) => Source::resume(state, layout, policy, fresh),
            None => Source::create(GROUP, fresh, layout, policy),
        };
        let guard = self.open_guard()?;
        for volume in self.layout.ids() {
            flush(&mut source, &self.host.disks, volume)?;
        }
        for other in (0..nodes).filter(|&other| World::paired(own, other)) {
            if source.find(peer(other)).is_none() {
                source.add_replica(peer(other));
            }
        }
        let noted = handing::load(&self.source).map_err(|error| stopped(&error))?;
        if let Some(noted) = noted
            && let Some(to) = source.find(noted.peer)
        {
            source.was_handing(Handed { to, seq: noted.after.next() });
        }
        let mut writer = Writer::new(source, ledger, guard, nodes);
        writer.checkpoint(0)?;
        self.writer = Some(writer);
        Ok(())
    }

    /// What preserves for snapshots from the time when it was a replica, if it has some.
    fn open_guard(&self) -> Result<Option<Guard>, Ended> {
        if self.host.snapshots.list().map_err(|error| stopped(&error))?.is_empty() {
            return Ok(None);
        }
        let set = SnapshotSet::open(Parts {
            folder: Node::folder(&self.host.snapshots),
            keys: key().into(),
            group: GROUP,
            layout: Arc::clone(&self.layout),
            volumes: self.volumes(),
            pack_bytes: Some(32 << 10),
        })?;
        // Nothing is given up here but without power, and then by nobody.
        let nowhere = PathBuf::from("/nonexistent/simulated/snapshots");
        Ok(Some(Guard::new(set, nowhere)?))
    }

    /// The last word of a source that is closed.
    pub fn close_source(&mut self) -> Result<(), Ended> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        for volume in writer.source.unflushed() {
            flush(&mut writer.source, &self.host.disks, volume)?;
        }
        let state = writer.source.close();
        writer.ledger.checkpoint(&state).map_err(|error| stopped(&error))
    }

    /// The program ends, or the power: then what was not flushed may be lost or torn.
    pub fn crash(&mut self, power: bool, rng: &mut Rng) {
        self.writer = None;
        if power {
            self.host.power_cut(rng);
            self.source.power_cut(rng);
            self.home.power_cut(rng);
        }
        self.host.life = None;
    }
}

/// Flushes a volume of a source.
pub fn flush(source: &mut Source, disks: &[SimDisk], volume: VolumeId) -> Result<(), Ended> {
    let covers = source.flush_begins(volume);
    disks[volume.index()].flush().map_err(|error| stopped(&error))?;
    source.flush_ended(volume, covers, true);
    Ok(())
}
