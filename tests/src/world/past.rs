//! A replica's past as its machine has it: environments, which are clones of points, and how far
//! back the history was said to reach.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vgship_base::disk::{Allocation, Disk, SharedDisk};
use vgship_base::folder::SharedFolder;
use vgship_base::ids::{Seq, VolumeId};
use vgship_base::layout::Layout;
use vgship_base::sim::{Power, Rng, SimFolder};
use vgship_snapshot::overlay::{Overlay, OverlayError};
use vgship_snapshot::set::SnapshotSet;

use super::model::Images;

const SECTOR: usize = 512;

/// The snapshots of whichever life of a replica runs now.
pub type Live = Arc<Mutex<Weak<SnapshotSet>>>;

/// What a replica's machine has of its past, beside its snapshots.
pub struct Past {
    /// Where environments lie.
    pub folder: SimFolder,
    /// Environments: what is listed here was made durably.
    pub environments: Vec<Environment>,
    /// Whose snapshots they read.
    pub live: Live,
    /// Any point from here on was said to be there.
    pub reach: Option<Seq>,
    /// The machine's wall clock. Unit: microseconds since 1970.
    pub clock: Arc<AtomicU64>,
}

impl Past {
    /// Of a machine that has just been set up.
    pub fn new(power: &Power) -> Past {
        Past {
            folder: SimFolder::new(power),
            environments: Vec::new(),
            live: Live::default(),
            reach: None,
            clock: Arc::default(),
        }
    }

    /// How the machine tells the time.
    pub fn wall(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let clock = Arc::clone(&self.clock);
        move || clock.load(Ordering::SeqCst)
    }

    /// Whether somebody still reads the snapshots of the life before: they are opened once at a
    /// time.
    pub fn is_read(&self) -> bool {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
    }

    /// A life begins that has these snapshots.
    pub fn serves(&self, set: &Arc<SnapshotSet>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(set);
    }

    /// The power is cut and comes back.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        self.close();
        self.folder.power_cut(rng);
        self.environments.iter_mut().for_each(|it| it.cut = true);
    }

    /// The program that serves the environments has ended.
    pub fn close(&mut self) {
        self.environments.iter_mut().for_each(|it| it.clones.clear());
    }
}

/// One volume of a snapshot, whichever life serves it now.
struct Base {
    live: Live,
    seq: Seq,
    layout: Arc<Layout>,
    volume: VolumeId,
}

impl Base {
    fn read<T>(&self, read: impl FnOnce(&dyn Disk) -> io::Result<T>) -> io::Result<T> {
        let set = self.live.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let set = set.ok_or(io::ErrorKind::NotConnected)?;
        let view = set.view_at(self.seq, Arc::clone(&self.layout));
        read(&view.volume(self.volume).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl Disk for Base {
    fn len(&self) -> u64 {
        self.layout.volumes[self.volume.index()].bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read(|disk| disk.read_at(offset, into))
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        unreachable!("a clone never writes to its base")
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> io::Result<()> {
        unreachable!("a clone never writes to its base")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        self.read(|disk| disk.allocation(offset, end))
    }
}

/// What one volume of an environment may show.
#[derive(Default)]
pub struct Content {
    /// What a reader sees.
    live: Vec<u8>,
    /// What was flushed.
    stable: Vec<u8>,
    /// What was written since: the sector and what it became.
    since: Vec<(usize, Vec<u8>)>,
}

impl Content {
    /// Something is written, or may be: `surely`.
    pub fn change(&mut self, at: usize, data: &[u8], surely: bool) {
        let mut now = self.live.clone();
        now[at..at + data.len()].copy_from_slice(data);
        for sector in at / SECTOR..(at + data.len()).div_ceil(SECTOR) {
            self.since.push((sector, now[sector * SECTOR..][..SECTOR].to_vec()));
        }
        if surely {
            self.live = now;
        }
    }

    /// A flush has ended.
    pub fn flushed(&mut self) {
        self.stable.clone_from(&self.live);
        self.since.clear();
    }

    /// Where it differs from what is there. Unit: sectors.
    pub fn differs(&self, found: &[u8]) -> Vec<usize> {
        let pairs = found.chunks(SECTOR).zip(self.live.chunks(SECTOR)).enumerate();
        pairs.filter(|(_, (found, live))| found != live).map(|(sector, _)| sector).collect()
    }

    /// Takes what a new life found, or what is there after a write that failed; `cut` if power was,
    /// so that nothing is unflushed now. Where something is found that nobody wrote. Unit: sectors.
    pub fn found(&mut self, found: &[u8], cut: bool) -> Vec<usize> {
        let mut odd = Vec::new();
        for (sector, bytes) in found.chunks(SECTOR).enumerate() {
            let garbled = |written: &[u8]| {
                let bits = written.iter().zip(bytes).map(|(one, other)| one ^ other);
                cut && bits.filter(|&bits| bits != 0).eq([0x40])
            };
            let mut since = self.since.iter().filter(|it| it.0 == sector);
            let stable = &self.stable[sector * SECTOR..][..SECTOR] == bytes;
            if !stable && !since.any(|it| it.1 == bytes || garbled(&it.1)) {
                odd.push(sector);
            }
        }
        self.live = found.to_vec();
        if cut {
            self.flushed();
        }
        odd
    }
}

/// Writable clones of a point's volumes.
pub struct Environment {
    /// Its name, and of its files.
    pub name: String,
    /// The snapshot that it builds on.
    pub base: Seq,
    /// Its volumes; none while nobody serves them.
    pub clones: Vec<Arc<Overlay>>,
    /// What they must hold.
    pub contents: Vec<Content>,
    /// Power was cut since it was last looked at.
    pub cut: bool,
    /// A write failed, or it was opened, and it was not looked at since.
    pub doubtful: bool,
    layout: Arc<Layout>,
}

/// What holds a snapshot for an environment.
pub const HOLDER: &str = "environment ";

impl Environment {
    /// Begins one that equals the snapshot of `base`. Nobody knows of it yet.
    ///
    /// # Errors
    /// Its folder refused.
    pub fn create(
        past: &Past,
        name: String,
        base: Seq,
        layout: &Arc<Layout>,
    ) -> Result<Environment, OverlayError> {
        let layout = Arc::clone(layout);
        let (clones, contents) = (Vec::new(), Vec::new());
        let mut environment =
            Environment { name, base, clones, contents, cut: false, doubtful: false, layout };
        for (stem, disk) in environment.bases(past) {
            let clone = Overlay::create(shared(past), &stem, disk)?;
            environment.clones.push(Arc::new(clone));
        }
        Ok(environment)
    }

    /// Opens its clones.
    ///
    /// # Errors
    /// Its folder refused.
    pub fn open(&self, past: &Past) -> Result<Vec<Arc<Overlay>>, OverlayError> {
        let open = |(stem, disk): (String, SharedDisk)| {
            Overlay::open(shared(past), &stem, disk).map(Arc::new)
        };
        self.bases(past).into_iter().map(open).collect()
    }

    fn bases(&self, past: &Past) -> Vec<(String, SharedDisk)> {
        let base = |volume: VolumeId| Base {
            live: Arc::clone(&past.live),
            seq: self.base,
            layout: Arc::clone(&self.layout),
            volume,
        };
        let ids = self.layout.ids();
        ids.map(|id| (self.stem(id), Arc::new(base(id)) as SharedDisk)).collect()
    }

    fn stem(&self, volume: VolumeId) -> String {
        format!("{}.{}", self.name, volume.0)
    }

    /// The names that its files begin with.
    pub fn stems(&self) -> impl Iterator<Item = String> + '_ {
        self.layout.ids().map(|id| self.stem(id))
    }

    /// The clones as disks.
    pub fn disks(&self) -> Vec<SharedDisk> {
        self.clones.iter().map(|it| Arc::clone(it) as SharedDisk).collect()
    }

    /// All that its clones show.
    ///
    /// # Errors
    /// A disk refused.
    pub fn read(&self) -> io::Result<Images> {
        let read = |clone: &Arc<Overlay>| {
            let mut image = vec![0; usize::try_from(clone.len()).expect("small")];
            clone.read_at(0, &mut image).map(|()| image)
        };
        self.clones.iter().map(read).collect()
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// A disk refused.
    pub fn flush(&self) -> io::Result<()> {
        self.clones.iter().try_for_each(|clone| clone.flush())
    }

    /// It has been made, and holds this.
    pub fn made(&mut self, images: Images) {
        let content = |image| {
            let mut content = Content { live: image, ..Content::default() };
            content.flushed();
            content
        };
        self.contents = images.into_iter().map(content).collect();
    }
}

fn shared(past: &Past) -> SharedFolder {
    Arc::new(past.folder.clone())
}
