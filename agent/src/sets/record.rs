//! A set's snapshot as its coordinator keeps it: `sets/S/snapshots/NAME`. Version 1.
//!
//! ```text
//! at  size  field    unit   rule
//!  0     4  magic    -      the letters VGST
//!  4     2  version  -      1
//!  6     1  state    -      1 begun, 2 made, 3 going
//!  7     1  flags    -      1 quiesced
//!  8     8  time     us     the coordinator's when it began, since 1970
//! 16     4  spread   ms     between the first and the last marker at most; 0 unless made
//! 20     4  number   -      of the try; in the snapshots' names
//! 24   2+n  set      -      its name
//!      2+n  name     -      the snapshot's
//!        2  count    -      1 ..= 64; then per member:
//!       16  group    -      the group's id
//!        1  flags    -      1 settled: nothing of it is left there; only when going
//!       16  generation  -   all zero unless made, as what follows
//!        8  seq      -      where its marker stands
//!        4  held     ms     how long its applications were held
//!      2+n  name     -      what the coordinator calls the group
//!        4  crc      -      CRC-32C of all before
//! ```
//!
//! It is written as *begun* before anybody is asked for anything, as *made* when all snapshots are
//! there, as *going* when it is deleted or was not made, and removed when nothing of it is left.
//! Integers are big-endian.

use vgship_base::bytes::{FormatError, Reader, Writer, checked, require, with_checksum};
use vgship_base::ids::{Generation, GroupId, NAME_MAX, Name, Seq};

use super::config::MEMBERS_MAX;
use super::core::Place;
use super::names;

/// Longest file. Unit: bytes. 64 members with the longest names take 12 KiB.
pub const BYTES_MAX: u64 = 16 << 10;

const MAGIC: [u8; 4] = *b"VGST";
const VERSION: u16 = 1;
const QUIESCED: u8 = 1;
const SETTLED: u8 = 1;

/// What becomes of a set's snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being made, or was when the coordinator died.
    Begun,
    /// It is there.
    Made,
    /// What is left of it is taken away.
    Going,
}

/// One member of a set's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The group.
    pub group: GroupId,
    /// What the coordinator calls it.
    pub name: Name,
    /// Nothing of it is left there.
    pub settled: bool,
    /// Where its marker stands, once made.
    pub place: Place,
}

/// A set's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What becomes of it.
    pub state: State,
    /// Whether applications were frozen.
    pub quiesced: bool,
    /// When it was begun. Unit: microseconds since 1970.
    pub time: u64,
    /// Between the first marker and the last at most. Unit: milliseconds.
    pub spread: u32,
    /// The try's number.
    pub number: u32,
    /// The set.
    pub set: Name,
    /// Its name.
    pub name: Name,
    /// Its members.
    pub parts: Vec<Part>,
}

impl State {
    fn code(self) -> u8 {
        match self {
            State::Begun => 1,
            State::Made => 2,
            State::Going => 3,
        }
    }

    fn decode(code: u8) -> Result<State, FormatError> {
        let known = [State::Begun, State::Made, State::Going].into_iter();
        let rule = "1 to 3";
        let unknown = FormatError::Field { field: "state", found: code.into(), rule };
        known.into_iter().find(|it| it.code() == code).ok_or(unknown)
    }
}

impl Part {
    /// One that nothing is known of yet.
    pub fn new(group: GroupId, name: Name) -> Part {
        let place = Place { generation: Generation::default(), seq: Seq::ZERO, held: 0 };
        Part { group, name, settled: false, place }
    }
}

impl Record {
    /// What its snapshots are called on the members.
    pub fn member_name(&self) -> Name {
        let made = names::of_member(&self.set, &self.name, self.number);
        made.expect("its length was looked at when it was begun")
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.put(&MAGIC).u16(VERSION).u8(self.state.code());
        out.u8(if self.quiesced { QUIESCED } else { 0 });
        out.u64(self.time).u32(self.spread).u32(self.number);
        out.text(self.set.as_str()).text(self.name.as_str());
        out.u16(u16::try_from(self.parts.len()).expect("a set has at most 64 groups"));
        for part in &self.parts {
            out.put(&part.group.0).u8(if part.settled { SETTLED } else { 0 });
            out.put(&part.place.generation.0).u64(part.place.seq.0).u32(part.place.held);
            out.text(part.name.as_str());
        }
        with_checksum(out)
    }

    /// Reads a file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Record, FormatError> {
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(FormatError::Magic { expected: "VGST" });
        }
        let mut from = checked(bytes)?;
        from.take("magic", 4)?;
        let version = from.u16("version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let (state, flags) = (State::decode(from.u8("state")?)?, from.u8("flags")?);
        require("flags", flags, "0 or 1", flags <= QUIESCED)?;
        let (time, spread) = (from.u64("time")?, from.u32("spread")?);
        let number = from.u32("number")?;
        let (set, name) = (name(&mut from, "set")?, name(&mut from, "name")?);
        let is_short = names::of_member(&set, &name, number).is_some();
        require("name", name.as_str().len() as u64, "with the set's at most 114 bytes", is_short)?;
        let count = from.u16("count")?;
        require("count", count, "1 to 64", (1..=MEMBERS_MAX).contains(&count.into()))?;
        let parts = (0..count).map(|_| part(&mut from)).collect::<Result<_, _>>()?;
        from.finish()?;
        let quiesced = flags == QUIESCED;
        Ok(Record { state, quiesced, time, spread, number, set, name, parts })
    }
}

fn part(from: &mut Reader<'_>) -> Result<Part, FormatError> {
    let (group, flags) = (GroupId(from.array("group")?), from.u8("flags")?);
    require("flags", flags, "0 or 1", flags <= SETTLED)?;
    let generation = Generation(from.array("generation")?);
    let (seq, held) = (Seq(from.u64("seq")?), from.u32("held")?);
    let place = Place { generation, seq, held };
    Ok(Part { group, settled: flags == SETTLED, place, name: name(from, "name")? })
}

fn name(from: &mut Reader<'_>, field: &'static str) -> Result<Name, FormatError> {
    let text = from.text(field, NAME_MAX)?;
    let rule = "letters, digits, '.', '_' and '-'";
    text.parse().map_err(|_| FormatError::Field { field, found: text.len() as u64, rule })
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    fn example() -> Record {
        let part = |id: u8, name: &str, settled: bool, seq: u64, held: u32| Part {
            group: GroupId([id; 16]),
            name: name.parse().unwrap(),
            settled,
            place: Place { generation: Generation([9; 16]), seq: Seq(seq), held },
        };
        Record {
            state: State::Made,
            quiesced: true,
            time: 5,
            spread: 12,
            number: 42,
            set: "erp".parse().unwrap(),
            name: "noon".parse().unwrap(),
            parts: vec![part(1, "app", false, 3, 40), part(2, "db", true, 4, 30)],
        }
    }

    /// By hand from the table, but for the checksum.
    fn golden() -> Vec<u8> {
        let mut out = Writer::default();
        out.put(&hex!(
            "56475354" "0001" "02" "01" "0000000000000005" "0000000c" "0000002a"
            "0003" "657270" "0004" "6e6f6f6e" "0002"
            "01010101010101010101010101010101" "00" "09090909090909090909090909090909"
            "0000000000000003" "00000028" "0003" "617070"
            "02020202020202020202020202020202" "01" "09090909090909090909090909090909"
            "0000000000000004" "0000001e" "0002" "6462"
        ));
        with_checksum(out)
    }

    #[test]
    fn golden_bytes_hold_both_ways() {
        assert_eq!(example().encode(), golden());
        assert_eq!(Record::decode(&golden()), Ok(example()));
        assert_eq!(example().member_name().as_str(), "set.erp.noon.0000002a");
    }

    #[test]
    fn what_was_never_written_is_refused() {
        let whole = golden();
        for len in 0..whole.len() {
            assert!(Record::decode(&whole[..len]).is_err(), "cut to {len}");
        }
        let body = &whole[..whole.len() - 4];
        // Magic, version, state, flags, a name, the count, a member's flags.
        for (at, value) in
            [(0, 0), (5, 2), (6, 0), (6, 4), (7, 2), (26, b'/'), (36, 0), (36, 3), (53, 2)]
        {
            let mut bytes = body.to_vec();
            bytes[at] = value;
            let mut out = Writer::default();
            out.put(&bytes);
            assert!(Record::decode(&with_checksum(out)).is_err(), "{value} at {at}");
        }
        let mut torn = whole;
        torn[20] ^= 1;
        assert!(matches!(Record::decode(&torn), Err(FormatError::Checksum { .. })));
    }

    #[test]
    fn the_largest_fits() {
        let mut record = example();
        record.set = "s".repeat(57).parse().unwrap();
        record.name = "n".repeat(57).parse().unwrap();
        record.parts = vec![Part::new(GroupId([1; 16]), "g".repeat(128).parse().unwrap()); 64];
        let bytes = record.encode();
        assert!(bytes.len() as u64 <= BYTES_MAX);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }
}
