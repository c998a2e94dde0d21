//! Where things lie in a store: the ids of objects and writers, and all keys.
//!
//! ```text
//! templates/NAME/NUMBER         what became of a name: a template, or that there is none any more
//! objects/WRITER/ID.pack        chunks
//! objects/WRITER/ID.node        nodes of hash trees
//! intents/NAME/NUMBER/WRITER    empty: WRITER is at work and wants to fill templates/NAME/NUMBER
//! condemned/COLLECTOR/list      keys of objects that will be removed
//! condemned/COLLECTOR/waits     keys of intents that must have ended before that
//! condemned/COLLECTOR/sweep     empty: somebody has begun to remove them
//! clock/COLLECTOR               empty: what time it is for the store
//! ```
//!
//! NUMBER is 16 hexadecimal digits, WRITER and COLLECTOR are 16 random bytes, ID is the BLAKE3 of
//! the object's bytes, all in lower-case hexadecimal.

use std::fmt;

use vgship_base::folder::{digits_of, number_of};
use vgship_base::ids::Name;

pub(super) const TEMPLATES: &str = "templates/";
pub(super) const OBJECTS: &str = "objects/";
pub(super) const INTENTS: &str = "intents/";
pub(super) const CONDEMNED: &str = "condemned/";
pub(super) const CLOCK: &str = "clock/";

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of exactly as many lower-case digits.
fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (hex(&bytes) == digits).then_some(bytes)
}

/// Defines an id that is shown in hexadecimal.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }
    };
}

id!(
    /// Names an object by its bytes as stored: their BLAKE3, so that anybody can prove it.
    ObjectId,
    32
);
id!(
    /// Who wrote: one creating or pushing of one template. Drawn anew each time.
    WriterId,
    16
);

impl ObjectId {
    /// The id of these bytes.
    pub(super) fn of(bytes: &[u8]) -> ObjectId {
        ObjectId(*blake3::hash(bytes).as_bytes())
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Chunks.
    Pack,
    /// A node of a hash tree.
    Node,
}

/// An object, as it is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ref {
    pub(super) kind: Kind,
    pub(super) id: ObjectId,
}

/// An object in one store. Never written anew after it was removed: each writer has a folder of
/// its own, and writes a reference at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) writer: WriterId,
    pub(super) object: Ref,
}

impl Place {
    pub(super) fn key(&self) -> String {
        let kind = match self.object.kind {
            Kind::Pack => "pack",
            Kind::Node => "node",
        };
        format!("{OBJECTS}{}/{}.{kind}", self.writer, self.object.id)
    }

    pub(super) fn parse(key: &str) -> Option<Place> {
        let (writer, rest) = key.strip_prefix(OBJECTS)?.split_once('/')?;
        let (id, kind) = rest.split_once('.')?;
        let kind = match kind {
            "pack" => Kind::Pack,
            "node" => Kind::Node,
            _ => return None,
        };
        let object = Ref { kind, id: ObjectId(unhex(id)?) };
        Some(Place { writer: WriterId(unhex(writer)?), object })
    }
}

/// A place for what becomes of a name: they are numbered, and the highest counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    pub(super) name: Name,
    pub(super) number: u64,
}

impl Slot {
    pub(super) fn key(&self) -> String {
        format!("{TEMPLATES}{}/{}", self.name, digits_of(self.number))
    }

    pub(super) fn parse(key: &str) -> Option<Slot> {
        Slot::of(key.strip_prefix(TEMPLATES)?)
    }

    fn of(text: &str) -> Option<Slot> {
        let (name, number) = text.split_once('/')?;
        Some(Slot { name: name.parse().ok()?, number: number_of(number)? })
    }
}

/// That a writer is at work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Intent {
    pub(super) slot: Slot,
    pub(super) writer: WriterId,
}

impl Intent {
    pub(super) fn key(&self) -> String {
        format!("{INTENTS}{}/{}/{}", self.slot.name, digits_of(self.slot.number), self.writer)
    }

    pub(super) fn parse(key: &str) -> Option<Intent> {
        let (slot, writer) = key.strip_prefix(INTENTS)?.rsplit_once('/')?;
        Some(Intent { slot: Slot::of(slot)?, writer: WriterId(unhex(writer)?) })
    }
}

/// What a collector left of one list of condemned objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What will be removed.
    List,
    /// Who must have ended before.
    Waits,
    /// That somebody removes it.
    Sweep,
}

/// One list of condemned objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Condemned(pub(super) [u8; 16]);

impl Condemned {
    pub(super) fn key(self, part: Part) -> String {
        let part = match part {
            Part::List => "list",
            Part::Waits => "waits",
            Part::Sweep => "sweep",
        };
        format!("{CONDEMNED}{}/{part}", hex(&self.0))
    }

    pub(super) fn parse(key: &str) -> Option<(Condemned, Part)> {
        let (id, part) = key.strip_prefix(CONDEMNED)?.split_once('/')?;
        let part = match part {
            "list" => Part::List,
            "waits" => Part::Waits,
            "sweep" => Part::Sweep,
            _ => return None,
        };
        Some((Condemned(unhex(id)?), part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::objects::key_is_legal;

    #[test]
    fn every_key_says_what_it_was_made_of() {
        let slot = Slot { name: "gold-7.1".parse().unwrap(), number: 0x2a };
        assert_eq!(slot.key(), "templates/gold-7.1/000000000000002a");
        assert_eq!(Slot::parse(&slot.key()), Some(slot.clone()));
        let intent = Intent { slot, writer: WriterId([0xab; 16]) };
        assert_eq!(Intent::parse(&intent.key()), Some(intent.clone()));
        let id = ObjectId::of(b"x");
        for kind in [Kind::Pack, Kind::Node] {
            let place = Place { writer: intent.writer, object: Ref { kind, id } };
            assert_eq!(Place::parse(&place.key()), Some(place));
            assert!(key_is_legal(&place.key()));
        }
        for part in [Part::List, Part::Waits, Part::Sweep] {
            let condemned = Condemned([3; 16]);
            assert_eq!(Condemned::parse(&condemned.key(part)), Some((condemned, part)));
        }
        let longest = Slot { name: "n".repeat(128).parse().unwrap(), number: 1 };
        assert!(key_is_legal(&Intent { slot: longest, ..intent }.key()));
    }

    #[test]
    fn other_keys_mean_nothing() {
        let id = hex(&[0xab; 32]);
        let writer = hex(&[0xab; 16]);
        let good = format!("objects/{writer}/{id}.pack");
        assert!(Place::parse(&good).is_some());
        for bad in [
            good.to_uppercase(),
            good.replace(".pack", ".pick"),
            good.replace("objects", "object"),
            format!("objects/{id}/{writer}.pack"),
            format!("objects/{writer}/+{}.pack", &id[1..]),
            "objects/".to_owned(),
        ] {
            assert_eq!(Place::parse(&bad), None, "{bad}");
        }
        assert_eq!(Slot::parse("templates/a/1"), None);
        assert_eq!(Condemned::parse("condemned/00/list"), None);
    }
}
