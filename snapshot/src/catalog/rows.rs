//! The catalogue's rows. Integers are big-endian, so that keys sort as numbers do. Version 1:
//!
//! ```text
//! table      key                                     value
//! about      a word                                  "version": 2; "group": 16 bytes; "key": 8 bytes,
//!                                                    the id of the key that was current when it was
//!                                                    last opened; "taken": 8, the highest seq ever
//!                                                    taken
//! snapshots  seq 8                                   a snapshot, below
//! names      text                                    seq 8
//! layouts    BLAKE3 32                               a layout
//! before     volume 2, extent 8, era 8               nothing for zeroes, or the content's id 32
//! eras       era 8, volume 2, extent 8               nothing
//! contents   id 32                                   pack 8, frame 8, at 8 (bytes), stored 4
//!                                                    (bytes), references 4
//! packs      number 8                                live 8 (bytes), total 8 (bytes)
//! preserved  era 8                                   extents 8, bytes 8 (stored)
//! sweeps     first era 8                             the era behind the last 8
//! holds      seq 8, holder                           nothing
//! markers    seq 8                                   clock 8 (us, as below), quiesced 1, name 2+n
//!
//! a snapshot:
//! at  size  field       unit    rule
//!  0     1  origin      -       1 manual, 2 automatic, 3 before a resync, 4 before a rollback
//!  1     1  flags       -       1 pinned, 2 guards a resync, 4 quiesced, 8 torn
//!  2     8  clock       us      the source's, at the last epoch end before it
//! 10     8  taken       us      this machine's, when it was taken
//! 18    16  generation  -       of its point
//! 34     8  point       seq     the last record that it holds
//! 42    32  layout      BLAKE3  a key of `layouts`
//! 74   2+n  name        -       at most 128 bytes
//! ```

use vgship_base::bytes::{FormatError, Reader, Writer, require};
use vgship_base::extent::Extent;
use vgship_base::ids::{Generation, NAME_MAX, Name, Seq, VolumeId};

use super::{Noted, Snapshot};
use crate::packs::{ExtentId, Stored};

/// Why a snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A person, or a program of theirs, asked for it.
    Manual,
    /// By the schedule.
    Automatic,
    /// A resync was about to make the volumes inconsistent.
    BeforeResync,
    /// A rollback was about to take the volumes back.
    BeforeRollback,
}

impl Origin {
    const ALL: [Origin; 4] =
        [Origin::Manual, Origin::Automatic, Origin::BeforeResync, Origin::BeforeRollback];

    /// Its number in formats.
    pub const fn code(self) -> u8 {
        match self {
            Origin::Manual => 1,
            Origin::Automatic => 2,
            Origin::BeforeResync => 3,
            Origin::BeforeRollback => 4,
        }
    }

    /// The origin of a number.
    pub fn from_code(code: u8) -> Option<Origin> {
        Origin::ALL.into_iter().find(|it| it.code() == code)
    }

    /// As shown to people and programs.
    pub const fn text(self) -> &'static str {
        match self {
            Origin::Manual => "manual",
            Origin::Automatic => "automatic",
            Origin::BeforeResync => "before-resync",
            Origin::BeforeRollback => "before-rollback",
        }
    }
}

const PINNED: u8 = 1;
const GUARDS: u8 = 2;
const QUIESCED: u8 = 4;
const TORN: u8 = 8;

pub(super) fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let mut out = Writer::with_capacity(96);
    let flags = flag(snapshot.pinned, PINNED)
        | flag(snapshot.guards, GUARDS)
        | flag(snapshot.quiesced, QUIESCED)
        | flag(snapshot.torn, TORN);
    out.u8(snapshot.origin.code()).u8(flags).u64(snapshot.clock).u64(snapshot.taken);
    out.put(&snapshot.generation.0).u64(snapshot.point.0).put(&snapshot.layout);
    out.text(snapshot.name.as_str());
    out.into_vec()
}

pub(super) fn decode_snapshot(seq: Seq, bytes: &[u8]) -> Result<Snapshot, FormatError> {
    let mut from = Reader::new(bytes);
    let (origin, flags) = (from.u8("origin")?, from.u8("flags")?);
    let rule = "a known origin";
    let unknown = FormatError::Field { field: "origin", found: origin.into(), rule };
    let origin = Origin::from_code(origin).ok_or(unknown)?;
    require("flags", flags, "known flags", flags <= PINNED | GUARDS | QUIESCED | TORN)?;
    let (clock, taken) = (from.u64("clock")?, from.u64("taken")?);
    let (generation, point) = (Generation(from.array("generation")?), Seq(from.u64("point")?));
    let layout = from.array("layout")?;
    let name = name_of(from.text("name", NAME_MAX)?)?;
    from.finish()?;
    let has = |flag: u8| flags & flag != 0;
    Ok(Snapshot {
        seq,
        name,
        origin,
        pinned: has(PINNED),
        guards: has(GUARDS),
        quiesced: has(QUIESCED),
        torn: has(TORN),
        clock,
        taken,
        generation,
        point,
        layout,
    })
}

pub(super) fn encode_marker(marker: &Noted) -> Vec<u8> {
    let mut out = Writer::with_capacity(32);
    out.u64(marker.clock).u8(marker.quiesced.into()).text(marker.name.as_str());
    out.into_vec()
}

pub(super) fn decode_marker(seq: Seq, bytes: &[u8]) -> Result<Noted, FormatError> {
    let mut from = Reader::new(bytes);
    let (clock, quiesced) = (from.u64("clock")?, from.u8("quiesced")?);
    require("quiesced", quiesced, "0 or 1", quiesced <= 1)?;
    let name = name_of(from.text("name", NAME_MAX)?)?;
    from.finish()?;
    Ok(Noted { seq, name, clock, quiesced: quiesced == 1 })
}

fn name_of(text: &str) -> Result<Name, FormatError> {
    text.parse().map_err(|_| FormatError::Field {
        field: "name",
        found: text.len() as u64,
        rule: "letters, digits, '.', '_' and '-'",
    })
}

/// A key of `before`.
pub(super) fn before_key(extent: Extent, era: Seq) -> [u8; 18] {
    let mut key = [0; 18];
    key[..2].copy_from_slice(&extent.volume.0.to_be_bytes());
    key[2..10].copy_from_slice(&extent.index.to_be_bytes());
    key[10..].copy_from_slice(&era.0.to_be_bytes());
    key
}

pub(super) fn before_of(key: &[u8; 18]) -> (Extent, Seq) {
    let (place, era) = key.split_at(10);
    (extent_of(place), Seq(number(era)))
}

/// A key of `eras`.
pub(super) fn era_key(era: Seq, extent: Extent) -> [u8; 18] {
    let mut key = [0; 18];
    key[..8].copy_from_slice(&era.0.to_be_bytes());
    key[8..10].copy_from_slice(&extent.volume.0.to_be_bytes());
    key[10..].copy_from_slice(&extent.index.to_be_bytes());
    key
}

pub(super) fn era_of(key: &[u8; 18]) -> (Seq, Extent) {
    let (era, place) = key.split_at(8);
    (Seq(number(era)), extent_of(place))
}

fn extent_of(place: &[u8]) -> Extent {
    let (volume, index) = place.split_at(2);
    let volume = VolumeId(u16::try_from(number(volume)).expect("two bytes"));
    Extent { volume, index: number(index) }
}

/// Up to eight bytes, big-endian.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A value of `contents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) stored: Stored,
    pub(super) references: u32,
}

impl Content {
    pub(super) fn encode(self) -> [u8; 32] {
        let mut out = [0; 32];
        out[..8].copy_from_slice(&self.stored.pack.to_be_bytes());
        out[8..16].copy_from_slice(&self.stored.placed.number.to_be_bytes());
        out[16..24].copy_from_slice(&self.stored.placed.at.to_be_bytes());
        out[24..28].copy_from_slice(&self.stored.bytes.to_be_bytes());
        out[28..].copy_from_slice(&self.references.to_be_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; 32]) -> Content {
        let short =
            |from: usize| u32::try_from(number(&bytes[from..from + 4])).expect("four bytes");
        let (pack, placed_number, at) =
            (number(&bytes[..8]), number(&bytes[8..16]), number(&bytes[16..24]));
        let placed = crate::seal::Placed { number: placed_number, at };
        Content { stored: Stored { pack, placed, bytes: short(24) }, references: short(28) }
    }
}

/// Two counts: of a pack (live, total) or of an era (extents, bytes).
pub(super) fn pair(one: u64, other: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&one.to_be_bytes());
    out[8..].copy_from_slice(&other.to_be_bytes());
    out
}

pub(super) fn pair_of(bytes: &[u8; 16]) -> (u64, u64) {
    (number(&bytes[..8]), number(&bytes[8..]))
}

/// A value of `before`: `None` for zeroes.
pub(super) fn id_of(value: &[u8]) -> Result<Option<ExtentId>, FormatError> {
    match (value.is_empty(), value.first_chunk::<32>()) {
        (true, _) => Ok(None),
        (false, Some(id)) if value.len() == 32 => Ok(Some(ExtentId(*id))),
        _ => Err(FormatError::Field {
            field: "content's id",
            found: value.len() as u64,
            rule: "0 or 32 bytes",
        }),
    }
}

/// A key of `holds`.
pub(super) fn hold_key(seq: Seq, holder: &str) -> Vec<u8> {
    [&seq.0.to_be_bytes(), holder.as_bytes()].concat()
}

/// The holder in a key of `holds`.
pub(super) fn holder_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(8..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    fn example() -> Snapshot {
        Snapshot {
            seq: Seq(9),
            name: "monday".parse().unwrap(),
            origin: Origin::BeforeResync,
            pinned: true,
            guards: false,
            quiesced: true,
            torn: false,
            clock: 3,
            taken: 4,
            generation: Generation([1; 16]),
            point: Seq(8),
            layout: [2; 32],
        }
    }

    /// By hand from the table.
    const GOLDEN: &[u8] = &hex!(
        "03" "05" "0000000000000003" "0000000000000004" "01010101010101010101010101010101"
        "0000000000000008"
        "0202020202020202020202020202020202020202020202020202020202020202"
        "0006" "6d6f6e646179"
    );

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(encode_snapshot(&example()), GOLDEN);
        assert_eq!(decode_snapshot(Seq(9), GOLDEN), Ok(example()));
        let extent = Extent { volume: VolumeId(0x0102), index: 0x0304 };
        let before = hex!("0102" "0000000000000304" "0000000000000005");
        assert_eq!(before_key(extent, Seq(5)), before);
        assert_eq!(before_of(&before), (extent, Seq(5)));
        let era = hex!("0000000000000005" "0102" "0000000000000304");
        assert_eq!(era_key(Seq(5), extent), era);
        assert_eq!(era_of(&era), (Seq(5), extent));
        let placed = crate::seal::Placed { number: 2, at: 3 };
        let content = Content { stored: Stored { pack: 1, placed, bytes: 4 }, references: 5 };
        let bytes =
            hex!("0000000000000001" "0000000000000002" "0000000000000003" "00000004" "00000005");
        assert_eq!(content.encode(), bytes);
        assert_eq!(Content::decode(&bytes), content);
        assert_eq!(pair_of(&pair(7, 8)), (7, 8));
        let marker = Noted { seq: Seq(9), name: "noon".parse().unwrap(), clock: 3, quiesced: true };
        let bytes = hex!("0000000000000003" "01" "0004" "6e6f6f6e");
        assert_eq!(encode_marker(&marker), bytes);
        assert_eq!(decode_marker(Seq(9), &bytes), Ok(marker));
        assert!(decode_marker(Seq(9), &bytes[..14]).is_err());
    }

    #[test]
    fn what_was_never_written_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(decode_snapshot(Seq(9), &GOLDEN[..len]).is_err(), "cut to {len}");
        }
        for (at, value) in [(0, 0), (0, 9), (1, 8), (GOLDEN.len() - 1, b'/')] {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            assert!(decode_snapshot(Seq(9), &bytes).is_err(), "{value} at {at}");
        }
        assert!(decode_snapshot(Seq(9), &[GOLDEN, &[0]].concat()).is_err());
        assert_eq!(id_of(&[]), Ok(None));
        assert_eq!(id_of(&[7; 32]), Ok(Some(ExtentId([7; 32]))));
        assert!(id_of(&[7; 31]).is_err() && id_of(&[7; 33]).is_err());
    }
}
