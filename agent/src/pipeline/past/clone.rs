//! A clone as NBD serves it, within its environment's quota.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use vgship_base::disk::{Allocation, Disk};
use vgship_snapshot::overlay::Overlay;

use crate::capture::nbd::backend::Export;

/// What all clones of an environment may own together.
pub(in crate::pipeline) struct Quota {
    pub(in crate::pipeline) clones: Vec<Arc<Overlay>>,
    /// Unit: bytes.
    pub(in crate::pipeline) most: Option<u64>,
}

impl Quota {
    /// Refuses what may go beyond. Looked at before each write, so writes under way at once may
    /// go beyond by what they are.
    fn check(&self, len: u64) -> io::Result<()> {
        let Some(most) = self.most else { return Ok(()) };
        let owned: u64 = self.clones.iter().map(|it| it.written_bytes()).sum();
        match owned.saturating_add(len) <= most {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

/// One volume of an environment.
pub(in crate::pipeline) struct CloneVolume {
    pub(in crate::pipeline) clone: Arc<Overlay>,
    pub(in crate::pipeline) quota: Arc<Quota>,
}

impl CloneVolume {
    fn settle(&self, durable: bool) -> io::Result<()> {
        if durable { self.clone.flush() } else { Ok(()) }
    }
}

impl Export for CloneVolume {
    fn bytes(&self) -> u64 {
        self.clone.len()
    }

    fn preferred_block(&self) -> u32 {
        4096
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.clone.read_at(offset, into)
    }

    fn write(&self, offset: u64, data: Bytes, durable: bool) -> io::Result<()> {
        self.quota.check(data.len() as u64)?;
        self.clone.write_at(offset, &data)?;
        self.settle(durable)
    }

    fn zero(&self, offset: u64, len: u64, durable: bool) -> io::Result<()> {
        self.quota.check(0)?;
        self.clone.zero_at(offset, len)?;
        self.settle(durable)
    }

    fn flush(&self) -> io::Result<()> {
        self.clone.flush()
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        self.clone.allocation(offset, end)
    }
}
