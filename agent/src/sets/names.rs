//! What a set's snapshot is called on its members: `set.SET.NAME.1f3a9c02`. The last part is the
//! try's, so that nothing else is meant when it is taken back.

use vgship_base::ids::{NAME_MAX, Name};

/// What every such name begins with.
const HEAD: &str = "set.";

/// Digits of a try's number.
const DIGITS: usize = 8;

/// The name on the members; `None` when it would be too long.
pub fn of_member(set: &Name, name: &Name, number: u32) -> Option<Name> {
    let text = format!("{HEAD}{set}.{name}.{number:08x}");
    (text.len() <= NAME_MAX).then(|| text.parse().ok()).flatten()
}

/// Whether a set made a name, as far as can be seen. A peer may change no other snapshot.
pub fn is_of_set(name: &Name) -> bool {
    let is_hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    let parts = name.as_str().strip_prefix(HEAD).and_then(|rest| rest.rsplit_once('.'));
    parts.is_some_and(|(names, number)| {
        names.contains('.') && number.len() == DIGITS && number.bytes().all(is_hex)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_shows_its_set_and_its_try() {
        let made = of_member(&name("erp"), &name("month.end"), 0x2a).unwrap();
        assert_eq!(made.as_str(), "set.erp.month.end.0000002a");
        assert!(is_of_set(&made) && is_of_set(&of_member(&name("a"), &name("b"), !0).unwrap()));
        for other in ["noon", "set.erp", "set.0000002a", "set.erp.noon", "set.erp.n.0000002A"] {
            assert!(!is_of_set(&name(other)), "{other}");
        }
        assert_eq!(of_member(&name(&"s".repeat(60)), &name(&"n".repeat(60)), 1), None);
        assert!(of_member(&name(&"s".repeat(60)), &name(&"n".repeat(54)), 1).is_some());
    }

    /// Goal: what takes a snapshot back by its name is not taken for one that names a place.
    #[test]
    fn a_name_is_no_place() {
        let made = of_member(&name("1"), &name("2"), 3).unwrap();
        assert_eq!(crate::history::spec::parse_seq(made.as_str()), None);
    }
}
