//! Files that people write: the agent's, a group's, the book of peers; quantities and names.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;

use vgship::group::VolumesSpec;
use vgship::home::{Amount, Config, GroupConfig, GroupSpec, Period, Role, Size};
use vgship::wire::pairing::{InviteId, Verifier};
use vgship::wire::peers::{Book, Grant, Invite, Peer};
use vgship_base::ids::{GroupId, Name, PeerId};

/// One of the files or words, as the first byte says.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match kind % 9 {
        0 => {
            let read = || Config::parse(text, Path::new("config.toml"));
            match (read(), read()) {
                (Ok(one), Ok(two)) => {
                    assert_eq!(one, two);
                    let _ = one.reachable_at(None, None);
                    assert!(one.nbd_tcp.is_none_or(|address| address.ip().is_loopback()));
                }
                (Err(one), Err(two)) => one_line(&one, &two),
                _ => panic!("read and not read"),
            }
        }
        1 => match GroupConfig::parse(text, Path::new("group.toml")) {
            Ok(group) => {
                let again = GroupConfig::parse(&group.to_text(), Path::new("group.toml"));
                assert_eq!(again.expect("an own text"), group);
                assert!(group.extent_size().is_ok());
            }
            Err(error) => one_line(&error, &error),
        },
        2 => {
            if let Ok(book) = Book::decode(text) {
                assert_eq!(Book::decode(&book.encode()).expect("an own text"), book);
            }
        }
        3 => word::<Size>(text),
        4 => word::<Period>(text),
        5 => {
            word::<Amount>(text);
            let shown = text.parse::<Amount>().map(|history| history.to_string());
            assert!(!shown.is_ok_and(|shown| shown.starts_with("0 ")), "{text:?} is nothing");
        }
        6 => word::<VolumesSpec>(text),
        7 => word::<Name>(text),
        _ => {
            let id = vgship::home::text::hex::<16>(text);
            assert_eq!(
                id.is_some(),
                text.len() == 32 && text.bytes().all(|it| it.is_ascii_hexdigit())
            );
        }
    }
}

/// An error is one line, the same each time.
fn one_line(one: &impl Display, two: &impl Display) {
    assert_eq!(one.to_string(), two.to_string());
    assert!(!one.to_string().contains('\n'), "{one}");
}

/// What is shown can be typed again and means the same.
fn word<T: FromStr<Err: Display> + Display + Debug + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>();
            assert!(again.is_ok_and(|again| again == value), "{value:?} from {text:?}");
        }
        Err(error) => assert!(error.to_string().len() < 1000 + 12 * text.len()),
    }
}

fn a_book() -> Book {
    let name = |text: &str| -> Name { text.parse().expect("a name") };
    let group = GroupId([5; 16]);
    let mut book = Book::default();
    let grant = Grant { group, name: name("datavg"), role: Role::Replica, blind: true };
    let address = "192.0.2.7:7300".parse().ok();
    let peer = Peer {
        name: name("recovery"),
        id: PeerId([6; 32]),
        address,
        since: 1_764_000_000,
        grants: vec![grant],
    };
    book.admit(peer).expect("the first");
    let invite = Invite {
        id: InviteId([9; 8]),
        verifier: Verifier([7; 32]),
        name: name("datavg"),
        group: Some(group),
        role: Role::Replica,
        blind: false,
        expires: 1_764_003_600,
        attempts: 3,
    };
    book.invite(invite, 0).expect("the first");
    book
}

/// Each of the files, and words of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let name: Name = "payroll".parse().expect("a name");
    let config = Config::sample(&name, vgship::home::config::LISTEN_DEFAULT, None);
    let mut spec = GroupSpec::new(name, "images:/srv/payroll");
    spec.policy.history_window = "48 h".parse().expect("a window");
    let group = spec.into_config(GroupId([0x1f; 16]), Role::Source).to_text();
    let book = a_book().encode();
    // Without the explanations, which only use up the fuzzer's bytes.
    let dense = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.flat_map(|line| [line, "\n"]).collect::<String>()
    };
    let texts: [(u8, &str); 14] = [
        (0, &dense(&config)),
        (0, "name = \"a\"\nnbd_tcp = \"127.0.0.1:10809\"\nadvertise = \"[::1]:7\""),
        (1, &dense(&group)),
        (2, &book),
        (3, "64 KiB"),
        (3, "18446744073709551615 B"),
        (4, "500 ms"),
        (4, "1h"),
        (5, "48 h"),
        (5, "2 GiB"),
        (6, "aix-disks:/a.img,/dev/b"),
        (6, "lvm2:data+vg"),
        (7, "a-name_1.x"),
        (8, "00112233445566778899aabbccddeeff"),
    ];
    texts.iter().map(|(kind, text)| [&[*kind], text.as_bytes()].concat()).collect()
}
