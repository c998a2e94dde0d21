//! What a VG image shall be.

/// How the physical partitions of an LV are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each copy one run of neighbours; copy k on the k-th disk after this one. Unit: index from 0.
    Contiguous(usize),
    /// Any free partitions of any disk, by dice; copies of a partition on different disks.
    Scattered(u64),
    /// Equal shares of all disks, one after the other; each further copy begins one disk later.
    Spanning,
}

/// One LV.
#[derive(Clone, Debug)]
pub struct LvRecipe {
    /// Its name, at most 63 bytes.
    pub name: String,
    /// Logical partitions; 0 leaves the LV's slot unused.
    pub lps: u16,
    /// Copies of each partition, 1 to 3.
    pub copies: u16,
    /// Where they are put.
    pub placement: Placement,
}

impl LvRecipe {
    /// An LV of one copy.
    pub fn new(name: &str, lps: u16, placement: Placement) -> LvRecipe {
        LvRecipe { name: name.to_owned(), lps, copies: 1, placement }
    }

    /// The same with this many copies.
    #[must_use]
    pub fn mirrored(self, copies: u16) -> LvRecipe {
        LvRecipe { copies, ..self }
    }
}

/// What shall be wrong with one copy of the descriptor area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// One second older and without the VG's last LV, as if its disk had missed the last change.
    Older,
    /// A write was cut in its middle: the opening stamp is newer than the closing one, and the
    /// names have not been written.
    Torn,
}

/// How the bits of a status area are numbered; no public document says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitOrder {
    /// Bit 0 is the lowest of the first byte.
    ByteLow,
    /// Bit 0 is the highest of the first byte.
    ByteHigh,
    /// Bit 0 is the lowest of the first big-endian word of 32 bits.
    WordLow,
}

/// Who a VG and its disks are.
#[derive(Clone, Debug)]
pub struct Identities {
    /// Of the VG.
    pub vgid: [u8; 16],
    /// Of its disks, one for each.
    pub pvids: Vec<[u8; 16]>,
}

/// A VG of the original format.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// VGID and PVIDs come from it, unless they are given.
    pub seed: u64,
    /// VGID and PVIDs, where they shall not come from the seed.
    pub identities: Option<Identities>,
    /// Whether each LV begins with a control block of filler; else its first block is zero.
    pub control_blocks: bool,
    /// Size of a partition. Unit: log2 of bytes.
    pub pp_log2: u8,
    /// Physical partitions of each disk.
    pub disks: Vec<u16>,
    /// The LVs, in the order of their slots.
    pub lvs: Vec<LvRecipe>,
    /// Version of the LVM record.
    pub version: u16,
    /// As `chvg -t` sets it: this many times 1016 partitions per disk, fewer disks.
    pub factor: u16,
    /// Distance between two PV descriptors, when it shall not be the factor's. Unit: sectors.
    pub stride: Option<u64>,
    /// When the VG was last changed. Unit: seconds, nanoseconds.
    pub stamp: (u32, u32),
    /// Copies of the descriptor area that are not as they should be: (disk, copy on it), from 0.
    pub damaged: Vec<((usize, usize), CopyState)>,
    /// Stale partitions: (disk, partition), both from 0.
    pub stale: Vec<(usize, u16)>,
    /// How the stale bits are numbered.
    pub bit_order: BitOrder,
    /// Boot LV in the first disk's IPL record: start, length. Unit: sectors.
    pub boot: Option<(u32, u32)>,
}

impl Default for Recipe {
    /// One disk of 16 partitions of 1 MiB, no LV, the version that AIX 5.3 and later write.
    fn default() -> Recipe {
        Recipe {
            seed: 1,
            identities: None,
            control_blocks: true,
            pp_log2: 20,
            disks: vec![16],
            lvs: Vec::new(),
            version: 30,
            factor: 1,
            stride: None,
            stamp: (1_700_000_000, 123_456_789),
            damaged: Vec::new(),
            stale: Vec::new(),
            bit_order: BitOrder::ByteLow,
            boot: None,
        }
    }
}

impl Recipe {
    /// A VG as AIX installs itself into: a boot LV and what the system needs.
    pub fn rootvg_like() -> Recipe {
        let lv = |name, lps| LvRecipe::new(name, lps, Placement::Contiguous(0));
        Recipe {
            lvs: vec![lv("hd5", 1), lv("hd6", 2), lv("hd8", 1), lv("hd4", 2), lv("hd2", 4)],
            ..Recipe::default()
        }
    }
}
