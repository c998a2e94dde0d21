//! Every limit of the NBD server, with its reason: what one client can make this process hold.

use std::time::Duration;

/// Largest payload of one request or reply. Unit: bytes. The maximum that clients assume when a
/// server says nothing, so nobody needs more.
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// Largest data of one option. Unit: bytes. Fits a name, and more queries than contexts exist.
pub const OPTION_BYTES_MAX: u32 = 32 << 10;

/// Longest name or query. Unit: bytes. The protocol's limit for texts.
pub const NAME_BYTES_MAX: usize = 4096;

/// Options of one handshake. Real clients send fewer than ten; `LIST` may cost a long answer.
pub const OPTIONS_MAX: usize = 128;

/// How long a client may take from connecting to its first request's phase.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Connections of one server. Each LV may have several clients with some connections each.
pub const CONNECTIONS_MAX: usize = 256;

/// Requests of one connection that are read and not answered. Twice the depth at which clients
/// stop gaining.
pub const REQUESTS_MAX: usize = 128;

/// Payload of those requests from which on no further one is read. Unit: bytes. So at most twice
/// the largest payload is held, and one can be read while another is carried out.
pub const BYTES_MAX: u64 = PAYLOAD_MAX as u64;

/// Threads of one connection. They are started when calls block, as they do while a sync replica
/// is waited for: so many writes of one connection can wait at once.
pub const THREADS_MAX: usize = 32;

/// How long a thread with nothing to do waits for work before it ends.
pub const THREAD_IDLE: Duration = Duration::from_secs(5);

/// Buffer in which requests arrive. Unit: bytes. Holds what a unix socket hands over in one call:
/// some fifty small writes.
pub const INLET_BYTES: usize = 256 << 10;

/// Payloads from this size on bypass the buffer. Unit: bytes. Below, copying costs less than a
/// system call.
pub const DIRECT_BYTES: usize = 32 << 10;

/// Replies that wait to be sent together. Unit: bytes of replies.
pub const OUTLET_BYTES: usize = 64 << 10;

/// A call expected to wait this long, beyond copying its bytes, is carried out while another thread
/// reads on; below, waking a thread costs more than it gains.
pub const SLOW: Duration = Duration::from_micros(100);

/// How often the watch looks for calls that block unexpectedly.
pub const WATCH_TICK: Duration = Duration::from_millis(1);

/// How long the watch goes on looking after the last sign of work.
pub const WATCH_LINGER: Duration = Duration::from_millis(100);

/// How long a server that stops waits for replies to reach clients that do not read them.
pub const STOP_GRACE: Duration = Duration::from_millis(500);

/// How long a server that stops waits for calls into exports that have begun.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Runs in one answer to BLOCK_STATUS; the client asks again for the rest.
pub const RUNS_MAX: usize = 1024;

/// Buffer for reads that a thread keeps between requests. Unit: bytes.
pub const SCRATCH_BYTES: usize = 1 << 20;

const _: () = assert!(DIRECT_BYTES < INLET_BYTES, "a small payload must fit the buffer");
const _: () = assert!(NAME_BYTES_MAX < OPTION_BYTES_MAX as usize, "a name must fit an option");
