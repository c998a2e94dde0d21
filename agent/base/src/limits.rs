//! Every limit, with its reason. A length from outside is compared with one of these before use.

/// Largest payload of one record. Unit: bytes. Larger writes become several records. 1 MiB keeps
/// the wait of a small live write behind one record under 10 ms at 1 Gbit/s.
pub const PAYLOAD_MAX: u32 = 1 << 20;

/// Volumes in one group. An AIX scalable VG holds 4096 LVs, and no more than that is served.
pub const VOLUMES_MAX: usize = 4096;

/// Largest volume. Unit: bytes. 128 TiB is the largest LV that AIX documents for one VG.
pub const VOLUME_BYTES_MAX: u64 = 128 << 40;

/// Replicas of one source; their ids travel in a byte and two values are reserved.
pub const REPLICAS_MAX: usize = 8;

/// Smallest extent. Unit: log2 of bytes. 4 KiB is the smallest write of every file system meant.
pub const EXTENT_LOG2_MIN: u8 = 12;

/// Largest extent. Unit: log2 of bytes. One extent must fit one record.
pub const EXTENT_LOG2_MAX: u8 = 20;

/// Extent size unless the group says otherwise. Unit: log2 of bytes.
pub const EXTENT_LOG2_DEFAULT: u8 = 16;

/// Region of the activity map. Unit: log2 of bytes. 16 MiB: 64 Ki regions per TiB.
pub const REGION_LOG2: u8 = 24;

/// Part of an extent that a replica hashes by itself, so that only parts that differ are shipped.
/// Unit: bytes. The block size of the file systems meant.
pub const PART_BYTES: u32 = 4096;

/// Records of one batch on the wire or of one journal frame.
pub const BATCH_RECORDS_MAX: usize = 4096;

/// Bytes of one batch's encoded records, on the wire or in the journal. Unit: bytes. Holds one
/// largest record with its header, and enough small ones to spread the cost of a seal.
pub const BATCH_BYTES_MAX: usize = 2 << 20;

/// Room that a replica leaves free on its journal's disk: what recovery needs. Unit: bytes. It
/// begins a segment and writes anew what was not promised yet, which is at most what one flush
/// takes: 4 MiB and the batch that goes beyond, with what frames add; then the checkpoint.
pub const JOURNAL_RESERVE: u64 = 8 << 20;

/// Chunks that are read, named and compressed at once when a template is made. Unit: bytes. 4 MiB
/// keep several processors busy for longer than it takes to begin a thread.
pub const TEMPLATE_WINDOW_BYTES: usize = 4 << 20;

/// How many of these are in memory: one is being filled, one waits, of one the new chunks are
/// compressed. 12 MiB in all, however long a store takes to write.
pub const TEMPLATE_WINDOWS: usize = 3;

const _: () = assert!(1 << EXTENT_LOG2_MAX <= PAYLOAD_MAX, "an extent must fit a record");
const _: () = assert!(PAYLOAD_MAX as usize + 4096 <= BATCH_BYTES_MAX, "a record must fit a batch");
const _: () = assert!(1 << EXTENT_LOG2_MIN >= PART_BYTES, "an extent has at least one part");
