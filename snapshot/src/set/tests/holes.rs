//! What a snapshot says of its holes while the volumes are written.

use vgship_base::disk::Allocation;

use super::*;

/// Is done when the volume is asked what it holds.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// A volume whose first extent is a hole once it was zeroed.
struct Punched {
    disk: SimDisk,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl Disk for Punched {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, data)
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.zero_at(offset, len)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut head = [0; 4096];
        self.disk.read_at(0, &mut head)?;
        Ok(match offset < 4096 && head == [0; 4096] {
            true => (Allocation::Hole, end.min(4096)),
            false => (Allocation::Data, end),
        })
    }
}

/// Goal: an extent that is preserved and becomes a hole while a reader asks is no hole of the
/// snapshot: whoever passes over holes would lose what it held.
#[test]
fn what_is_punched_while_holes_are_looked_for_is_data_of_the_snapshot() {
    let power = Power::default();
    let disk = SimDisk::volume(&power, SIZES[0]);
    disk.write_at(0, &[7; 8192]).unwrap();
    let volume = Arc::new(Punched { disk: disk.clone(), meanwhile: Mutex::default() });
    let other: SharedDisk = Arc::new(SimDisk::volume(&power, SIZES[1]));
    let set = SnapshotSet::open(Parts {
        folder: Arc::new(SimFolder::new(&power)),
        keys: (&DataKey::from_bytes([3; 32])).into(),
        group: GroupId([7; 16]),
        layout: Arc::new(layout()),
        volumes: vec![Arc::clone(&volume) as SharedDisk, other],
        pack_bytes: None,
    });
    let set = set.unwrap();
    let mut preserver = Preserver::new(Arc::clone(&set), 1, Seq(0)).unwrap();
    preserver.set_reserve(0);
    let taken = preserver.take(&new_snapshot(1, "one")).unwrap().unwrap();
    set.settle(Seq(1));
    let asked = set.view(&taken).unwrap().volume(VolumeId(0)).unwrap();
    assert_eq!(asked.allocation(0, SIZES[0]).unwrap(), (Allocation::Data, SIZES[0]));
    *volume.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let span = [(VolumeId(0), Span::new(0, 4096))];
        let shared = preserver.shared(span.into_iter(), Seq(1), Seq(2)).unwrap();
        preserver.preserve(&shared).unwrap();
        disk.zero_at(0, 4096).unwrap();
    }));
    assert_eq!(asked.allocation(0, SIZES[0]).unwrap(), (Allocation::Data, 4096));
    assert_eq!(asked.allocation(4096, SIZES[0]).unwrap(), (Allocation::Data, SIZES[0]));
    let mut found = [0; 4096];
    asked.read_at(0, &mut found).unwrap();
    assert_eq!(found, [7; 4096]);
}
