//! vgship: a replication agent for volume groups. The modules stand in the order in which a write
//! passes them; each stage is a core that decides and an `io.rs` that does.

/// What is replicated: discovery, the layout manifest, the refusal of rootvg.
pub mod group;

/// 1: the tap, the sequencer, range locks, activity and dirty maps.
pub mod capture;

/// 2: records that no replica has yet: RAM ring, disk spill, collapse into the map.
pub mod outbox;

/// 3: the source's side of a peering: cursors, offers, flow control.
pub mod ship;

/// Between 3 and 4: hello, frames, pairing, QUIC.
pub mod wire;

/// 4: admit, order, journal, acknowledge.
pub mod receive;

/// 5: coalesce, judge offers, preserve, write, checkpoint.
pub mod apply;

/// 6: any point in time: a snapshot and the journal behind it; what of both is kept.
pub mod history;

/// Self-contained image sets, in a folder or an object store.
pub mod templates;

/// Applications held still for a marker: their hooks, the hold, the guard that thaws.
pub mod quiesce;

/// Who is the source: lineages that meet, and the notes of a role that goes from one side to another.
pub mod role;

/// Groups on several agents whose snapshots are taken as one.
pub mod sets;

/// Sealed files of records: what the spill and the journal are made of.
pub mod segment;

/// Which task owns which core; start and stop.
pub mod pipeline;

/// The data keys of groups, what needs them, and the key that wraps them.
pub mod keys;

/// The agent's folder: configuration, groups, secrets, the lock.
pub mod home;

/// One HTTP interface for commands, portal and scripts.
pub mod api;

/// The command line, a file per command.
pub mod cli;

/// The whole job on one machine, with crashes and outages, checked.
pub mod demo;
