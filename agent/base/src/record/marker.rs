//! Markers: named places in the stream, and what replicas do there.

use crate::bytes::{FormatError, Reader, Writer, require};
use crate::ids::{NAME_MAX, Name};

/// A named place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Its name; for orders that concern a snapshot, the snapshot's; see `quiesced`.
    pub name: Name,
    /// What replicas do there.
    pub order: Order,
    /// Whether applications were quiet. With [`Order::Delete`]: take back that they were at the
    /// marker which stands at the place that is this one's name, or which has this name.
    pub quiesced: bool,
}

/// What replicas do at a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Remember it.
    Event,
    /// Take a snapshot.
    Snapshot,
    /// Delete a snapshot.
    Delete,
    /// Pin a snapshot.
    Pin,
    /// Unpin a snapshot.
    Unpin,
}

impl Order {
    const ALL: [Order; 5] =
        [Order::Event, Order::Snapshot, Order::Delete, Order::Pin, Order::Unpin];

    fn code(self) -> u8 {
        let place = Order::ALL.iter().position(|&order| order == self);
        u8::try_from(place.expect("ALL lists every order")).expect("few orders") + 1
    }

    fn from_code(code: u8) -> Option<Order> {
        Order::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

impl Marker {
    pub(super) fn encoded_len(&self) -> usize {
        4 + self.name.as_str().len()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u8(self.order.code()).u8(self.quiesced.into()).text(self.name.as_str());
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Marker, FormatError> {
        let (order, quiesced) = (from.u8("order")?, from.u8("quiesced")?);
        let rule = "a known order";
        let unknown = FormatError::Field { field: "order", found: order.into(), rule };
        let order = Order::from_code(order).ok_or(unknown)?;
        require("quiesced", quiesced, "0 or 1", quiesced <= 1)?;
        let text = from.text("name", NAME_MAX)?;
        let name = text.parse().map_err(|_| FormatError::Field {
            field: "name",
            found: text.len() as u64,
            rule: "letters, digits, '.', '_' and '-'",
        })?;
        Ok(Marker { name, order, quiesced: quiesced == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_is_refused() {
        for order in Order::ALL {
            assert_eq!(Order::from_code(order.code()), Some(order));
        }
        let decode = |bytes: &[u8]| Marker::decode(&mut Reader::new(bytes));
        assert!(decode(&[1, 0, 0, 1, b'a']).is_ok());
        for bad in [
            &[0, 0, 0, 1, b'a'][..],
            &[6, 0, 0, 1, b'a'],
            &[1, 2, 0, 1, b'a'],
            &[1, 0, 0, 0],
            &[1, 0, 0, 129],
            &[1, 0, 0, 1, b'/'],
            &[1, 0, 0, 2, b'a'],
        ] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }
}
