//! Sizes and durations as a person writes them: a whole number with its unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vgship_base::units::ByteLen;

use super::text;

/// A length in a configuration or an argument: `64 KiB`, `256MiB`, `1G`. Units count in 1024s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub ByteLen);

/// A duration in a configuration or an argument: `500 ms`, `30 s`, `15m`, `1h`, `7 d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// An amount of a stream: how far back points reach, how far a replica may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This many bytes of it.
    Bytes(Size),
    /// This long.
    Time(Period),
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: {why}; write for example {example:?}")]
pub struct QuantityError {
    text: String,
    kind: &'static str,
    why: &'static str,
    example: &'static str,
}

/// Units of a size. The first of equal ones is how a size is written.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("T", 1 << 40),
    ("GiB", 1 << 30),
    ("G", 1 << 30),
    ("MiB", 1 << 20),
    ("M", 1 << 20),
    ("KiB", 1 << 10),
    ("K", 1 << 10),
    ("B", 1),
];

/// Units of a duration, in milliseconds. The first of equal ones is how a duration is written.
const PERIOD_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

/// Longest text that is looked at, so that an error message stays a line. Unit: bytes.
const TEXT_MAX: usize = 40;

/// Reads `NUMBER UNIT`; a bare zero needs no unit.
fn parse(whole: &str, units: &[(&str, u64)]) -> Result<u64, &'static str> {
    let text = whole.trim();
    if text.len() > TEXT_MAX {
        return Err("it is too long");
    }
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a whole number");
    }
    let number: u64 = number.parse().map_err(|_| "the number is too large")?;
    match unit.trim() {
        "" if number == 0 => Ok(0),
        "" => Err("the unit is missing"),
        unit => {
            let (_, factor) =
                units.iter().find(|(known, _)| *known == unit).ok_or("the unit is not known")?;
            number.checked_mul(*factor).ok_or("the number is too large")
        }
    }
}

/// Writes a quantity in the largest unit that holds it exactly.
fn write(out: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
    let (unit, factor) = exact.or(units.last()).expect("there is a unit");
    write!(out, "{} {unit}", value / factor)
}

fn error(
    text: &str,
    kind: &'static str,
    why: &'static str,
    example: &'static str,
) -> QuantityError {
    QuantityError { text: text.chars().take(TEXT_MAX).collect(), kind, why, example }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Size, QuantityError> {
        let bytes = parse(text, &SIZE_UNITS).map_err(|why| error(text, "a size", why, "64 KiB"))?;
        Ok(Size(ByteLen(bytes)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(out, self.0.0, &SIZE_UNITS)
    }
}

impl FromStr for Period {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Period, QuantityError> {
        let millis =
            parse(text, &PERIOD_UNITS).map_err(|why| error(text, "a duration", why, "15 m"))?;
        Ok(Period(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(out, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &PERIOD_UNITS)
    }
}

impl FromStr for Amount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Amount, QuantityError> {
        let kind = "a size or a duration";
        match (parse(text, &SIZE_UNITS), text.parse()) {
            (Ok(0), _) | (Err(_), Ok(Period(Duration::ZERO))) => {
                Err(error(text, kind, "it is nothing", "48 h"))
            }
            (Ok(bytes), _) => Ok(Amount::Bytes(Size(ByteLen(bytes)))),
            (Err(_), Ok(period)) => Ok(Amount::Time(period)),
            (Err(why), Err(_)) => Err(error(text, kind, why, "48 h")),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Bytes(size) => size.fmt(out),
            Amount::Time(period) => period.fmt(out),
        }
    }
}

/// Gives a type that reads and writes itself as text the same form in files and messages.
macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                text::serialize(self, to)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                text::deserialize(from)
            }
        }
    )*};
}

as_text!(Size, Period, Amount);

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Result<u64, String> {
        text.parse::<Size>().map(|size| size.0.0).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("64 KiB"), Ok(64 << 10));
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size(" 1G "), Ok(1 << 30));
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("512 B"), Ok(512));
    }

    #[test]
    fn what_is_wrong_with_a_size_is_said() {
        let missing = r#""64" is not a size: the unit is missing; write for example "64 KiB""#;
        assert_eq!(size("64"), Err(missing.to_owned()));
        for (bad, why) in [
            ("", "whole number"),
            ("-1 KiB", "whole number"),
            ("1.5 GiB", "unit is not known"),
            ("64 KB", "unit is not known"),
            ("5 m", "unit is not known"),
            ("99999999999999999999 B", "too large"),
            ("18446744073709551615 KiB", "too large"),
            (&"9".repeat(100), "too long"),
        ] {
            let said = size(bad).expect_err(bad);
            assert!(said.contains(why) && said.len() < 160, "{bad}: {said}");
        }
    }

    #[test]
    fn durations_need_their_unit_too() {
        let period = |text: &str| text.parse::<Period>().map(|period| period.0.as_millis());
        assert_eq!(period("30 s"), Ok(30_000));
        assert_eq!(period("15m"), Ok(900_000));
        assert_eq!(period("1h"), Ok(3_600_000));
        assert_eq!(period("250 ms"), Ok(250));
        assert!(period("30").is_err());
        assert!(period("5 M").is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["64 KiB", "1 GiB", "1000 B", "3 PiB", "0 B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["1500 ms", "90 s", "2 h", "7 d", "15 m"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["10 GiB", "48 m", "2 d"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
        assert!(matches!("5M".parse(), Ok(Amount::Bytes(_))));
        assert!(matches!("5m".parse(), Ok(Amount::Time(_))));
        for bad in ["0", "0 B", "0 ms", "0 d", "5"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }
}
