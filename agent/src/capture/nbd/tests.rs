//! The server over a real socket, against clients that behave badly and clients that wait.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use super::io::NbdServer;
use super::io::socket::{ListenError, Listener};
use super::limits::{CONNECTIONS_MAX, NAME_BYTES_MAX, OPTIONS_MAX, PAYLOAD_MAX, REQUESTS_MAX};
use super::testing::{BYTES, Both, Client, HELD_OFFSET, Served, serve};

const INVALID: u32 = 22;
const NO_SPACE: u32 = 28;

#[test]
fn data_comes_back_whatever_its_size_and_place() {
    let served = serve();
    let mut client = served.open("g/lv");
    for (cookie, (offset, len)) in
        [(0, 1), (511, 4097), (3, 70_001), (0, BYTES), (BYTES - 1, 1)].into_iter().enumerate()
    {
        let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        client.write(cookie as u64, offset, &data);
        assert_eq!(client.simple(), (cookie as u64, 0));
        client.request(0, 0, 99, offset, u32::try_from(len).unwrap());
        assert_eq!(client.simple(), (99, 0));
        assert!(client.take(data.len()) == data, "{len} bytes at {offset}");
    }
    client.request(0, 6, 1, 1, 100);
    client.request(1, 4, 2, 5000, 100);
    client.request(0, 3, 3, 0, 0);
    let mut done: Vec<_> = (0..3).map(|_| client.simple()).collect();
    done.sort_unstable();
    assert_eq!(done, [(1, 0), (2, 0), (3, 0)]);
    client.request(0, 0, 4, 0, 102);
    assert_eq!(client.simple(), (4, 0));
    let found = client.take(102);
    assert_eq!((found[0], &found[1..101], found[101]), (0, &[0; 100][..], 101));
}

#[test]
fn bad_ranges_and_flags_are_refused_and_the_connection_goes_on() {
    let served = serve();
    let mut client = served.open("g/lv");
    let bad = [
        (0, 0, BYTES, 1, INVALID),           // behind the end
        (0, 0, u64::MAX, 2, INVALID),        // the end overflows
        (0, 0, 0, 0, INVALID),               // empty
        (0, 0, 0, PAYLOAD_MAX + 1, INVALID), // longer than a reply may be
        (0, 6, BYTES - 1, 2, NO_SPACE),      // zeroes behind the end
        (0, 4, BYTES - 1, 2, INVALID),       // a trim there
        (0x8000, 0, 0, 1, INVALID),          // an unknown flag
        (4, 0, 0, 1, INVALID),               // DF without chunks
        (0, 77, 0, 1, INVALID),              // an unknown command
        (0, 3, 1, 0, INVALID),               // a flush of a range
        (0, 7, 0, 1, INVALID),               // a status without a context
    ];
    for (cookie, (flags, command, offset, len, error)) in bad.into_iter().enumerate() {
        client.request(flags, command, cookie as u64, offset, len);
        assert_eq!(client.simple(), (cookie as u64, error));
    }
    client.write(50, BYTES - 1, &[1; 2]);
    assert_eq!(client.simple(), (50, NO_SPACE));
    client.write(51, 0, &[]);
    assert_eq!(client.simple(), (51, INVALID));
    client.write(52, 0, &[0xee; 8]); // the export has no room
    assert_eq!(client.simple(), (52, NO_SPACE));
    client.write(53, 0, &vec![1; 40_000]);
    assert_eq!(client.simple(), (53, 0));
}

#[test]
fn a_read_only_export_refuses_changes() {
    let served = serve();
    let mut client = served.open("g/ro");
    client.write(1, 0, &[1; 512]);
    assert_eq!(client.simple(), (1, 1));
    client.request(0, 6, 2, 0, 512);
    assert_eq!(client.simple(), (2, 1));
    client.request(0, 0, 3, 0, 512);
    assert_eq!(client.simple(), (3, 0));
    assert_eq!(client.take(512), [0; 512]);
}

/// A client that has agreed on chunks and `base:allocation`.
fn structured(served: &Served) -> Client {
    let mut client = served.connect();
    client.option(8, &[]);
    assert_eq!(client.answer(), (1, vec![]));
    let name = b"\0\0\0\x04g/lv";
    client.option(10, &[&name[..], &[0, 0, 0, 1], b"\0\0\0\x0fbase:allocation"].concat());
    assert_eq!(client.answer(), (4, b"\0\0\0\x01base:allocation".to_vec()));
    assert_eq!(client.answer(), (1, vec![]));
    client.option(7, &[&name[..], &[0, 2, 0, 3, 0, 1]].concat());
    let flags = [0x01, 0xed];
    assert_eq!(client.answer(), (3, [&[0, 0][..], &BYTES.to_be_bytes(), &flags].concat()));
    let sizes = [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0];
    assert_eq!(client.answer(), (3, sizes.to_vec()));
    assert_eq!(client.answer(), (3, b"\0\x01g/lv".to_vec()));
    assert_eq!(client.answer(), (1, vec![]));
    client
}

#[test]
fn chunks_carry_data_status_and_errors() {
    let served = serve();
    let mut client = structured(&served);
    client.write(1, 0, &[5; 600]);
    assert_eq!(client.simple(), (1, 0));
    client.request(4, 0, 2, 100, 600);
    let (kind, cookie, data) = client.chunk();
    assert_eq!((kind, cookie, &data[..8]), (1, 2, &100_u64.to_be_bytes()[..]));
    assert_eq!(data[8..], [[5; 500].to_vec(), vec![0; 100]].concat());

    let bytes = u32::try_from(BYTES).unwrap();
    client.request(0, 7, 3, 0, bytes);
    let half = (bytes / 2).to_be_bytes();
    let both = [&[0, 0, 0, 1][..], &half, &[0; 4], &half, &[0, 0, 0, 3]].concat();
    assert_eq!(client.chunk(), (5, 3, both.clone()));
    client.request(8, 7, 4, 0, bytes);
    assert_eq!(client.chunk(), (5, 4, both[..12].to_vec()));

    client.request(0, 0, 5, BYTES, 512);
    let (kind, cookie, told) = client.chunk();
    assert_eq!((kind, cookie, &told[..4]), (0x8001, 5, &INVALID.to_be_bytes()[..]));
    assert!(told[6..].ends_with(b"behind the export"));
}

#[test]
fn bad_options_are_refused_and_the_handshake_goes_on() {
    const UNSUPPORTED: u32 = 0x8000_0001;
    const POLICY: u32 = 0x8000_0002;
    const BAD: u32 = 0x8000_0003;
    const UNKNOWN: u32 = 0x8000_0006;
    const TOO_BIG: u32 = 0x8000_0009;
    let served = serve();
    let mut client = served.connect();
    let long = [&[0, 0, 0x10, 1][..], &[b'a'; NAME_BYTES_MAX + 1], &[0, 0]].concat();
    let cases: [(u32, &[u8], u32); 10] = [
        (99, b"whatever", UNSUPPORTED),
        (5, &[], POLICY),
        (8, b"x", BAD),
        (3, b"x", BAD),
        (7, &[], BAD),
        (7, b"\0\0\0\x09g/lv\0\0", BAD),
        (7, b"\0\0\0\x02\xff\xfe\0\0", BAD),
        (7, b"\0\0\0\x02no\0\0", UNKNOWN),
        (6, &long, TOO_BIG),
        (9, b"\0\0\0\x04g/lv\0\0\0\0", BAD), // chunks come first
    ];
    for (option, data, expected) in cases {
        client.option(option, data);
        assert_eq!(client.answer().0, expected, "option {option} with {data:?}");
    }
    client.option(3, &[]);
    assert_eq!(client.answer(), (2, b"\0\0\0\x04g/lv".to_vec()));
    assert_eq!(client.answer(), (2, b"\0\0\0\x04g/ro".to_vec()));
    assert_eq!(client.answer(), (1, vec![]));
    client.option(2, &[]);
    assert_eq!(client.answer(), (1, vec![]));
    client.assert_closed();
}

#[test]
fn a_client_that_cannot_be_followed_loses_only_its_own_connection() {
    let served = serve();
    let mut neighbour = served.open("g/lv");

    let mut client = served.connect();
    client.option_header(7, u32::MAX);
    client.assert_closed();

    let mut client = served.connect();
    client.send(&[b'x'; 16]);
    client.assert_closed();

    let mut client = served.connect();
    client.option(1, b"no/such");
    client.assert_closed();

    let mut client = served.connect();
    client.option_header(7, 100);
    client.send(b"\0\0");
    drop(client); // a cut option

    let mut client = served.connect();
    (0..OPTIONS_MAX).for_each(|_| client.option(99, &[]));
    (0..OPTIONS_MAX).for_each(|_| assert_eq!(client.answer().0, 0x8000_0001));
    client.option(99, &[]);
    client.assert_closed();

    let mut client = served.open("g/lv");
    client.send(&[0; 28]);
    client.assert_closed();

    let mut client = served.open("g/lv");
    client.request(0, 1, 1, 0, u32::MAX);
    client.assert_closed();

    let mut client = served.open("g/lv");
    client.request(0, 1, 1, 0, 1 << 20);
    client.send(&[9; 1000]);
    drop(client); // in the middle of a payload

    neighbour.request(0, 0, 7, 0, 1);
    assert_eq!(neighbour.simple(), (7, 0));
    assert_eq!(neighbour.take(1), [0], "a payload that was cut is not written");
    served.assert_alive();
}

#[test]
fn requests_before_the_leave_are_answered() {
    let served = serve();
    let mut client = served.open("g/lv");
    let mut all = Vec::new();
    for cookie in 0..500 {
        all.extend(Client::header(0, 1, cookie, cookie * 16, 16));
        all.extend([3; 16]);
    }
    all.extend(Client::header(0, 2, 0, 0, 0));
    client.send(&all);
    let mut cookies: Vec<_> = (0..500).map(|_| client.simple().0).collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..500));
    client.assert_closed();
}

/// Goal: a write that blocks although writes are usually quick stops nothing but itself.
/// Method: many of them are held up, until the connection's limit; others pass all the same.
#[test]
fn writes_that_block_do_not_stop_their_connection() {
    let served = serve();
    served.lv.hold(true);
    let mut client = served.open("g/lv");
    for held in 1..=8 {
        client.write(held, HELD_OFFSET, &[1; 512]);
        client.write(100 + held, 0, &[2; 512]);
        assert_eq!(client.simple(), (100 + held, 0));
        served.lv.await_held(usize::try_from(held).unwrap());
    }
    served.lv.hold(false);
    let mut cookies: Vec<_> = (0..8).map(|_| client.simple().0).collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(1..=8));
}

#[test]
fn what_is_read_and_not_answered_is_bounded() {
    let served = serve();
    served.lv.hold(true);
    let mut client = served.open("g/lv");
    let count = 3 * REQUESTS_MAX as u64;
    // In one piece: a socket has room for few small ones, and the server does not read them all.
    let writes = (0..count).map(|cookie| Client::header(0, 1, cookie, HELD_OFFSET, 16));
    client.send(&writes.map(|header| [header, vec![1; 16]].concat()).collect::<Vec<_>>().concat());
    served.lv.await_held(super::limits::THREADS_MAX);
    served.assert_alive();
    served.lv.hold(false);
    let mut cookies: Vec<_> = (0..count).map(|_| client.simple().0).collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..count));
}

#[test]
fn an_export_that_panics_costs_its_connection_only() {
    let served = serve();
    let mut neighbour = served.open("g/lv");
    let mut client = served.open("g/lv");
    client.write(1, 0, &[0xdd; 512]);
    client.assert_closed();
    neighbour.write(2, 0, &[1; 512]);
    assert_eq!(neighbour.simple(), (2, 0));
    served.assert_alive();
}

#[test]
fn so_many_connections_and_no_more() {
    let served = serve();
    let clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| served.connect()).collect();
    let mut refused = UnixStream::connect(served.place.path().join("nbd.sock")).unwrap();
    assert_eq!(refused.read(&mut [0; 18]).unwrap(), 0);
    drop(clients);
    while served.server.clients() > 0 {
        std::thread::yield_now();
    }
    served.assert_alive();
}

#[test]
fn loopback_clients_are_served_alike() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = NbdServer::start(vec![listener], Arc::new(Both::new())).unwrap();
    let mut client = TcpStream::connect(&server.places()[0]).unwrap();
    client.read_exact(&mut [0; 18]).unwrap();
    client.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04g/lv").unwrap();
    client.read_exact(&mut [0; 10]).unwrap();
    client.write_all(&Client::header(0, 1, 9, 0, 1 << 20)).unwrap();
    client.write_all(&vec![1; 1 << 20]).unwrap();
    let mut reply = [0; 16];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    server.shutdown();
    assert_eq!(client.read(&mut reply).unwrap(), 0);
}

#[test]
fn a_server_stops_while_clients_are_there() {
    let served = serve();
    let _in_handshake = served.connect();
    let mut idle = served.open("g/lv");
    let mut busy = served.open("g/lv");
    served.lv.hold(true);
    busy.write(5, HELD_OFFSET, &[1; 512]);
    served.lv.await_held(1);
    std::thread::scope(|scope| {
        let Served { server, lv, place } = served;
        let stopping = scope.spawn(move || server.shutdown());
        idle.assert_closed();
        lv.hold(false);
        assert_eq!(busy.simple(), (5, 0), "what had begun is answered");
        stopping.join().unwrap();
        assert!(!place.path().join("nbd.sock").exists());
    });
    busy.assert_closed();
}

#[test]
fn a_socket_file_is_private_and_only_a_stale_one_is_replaced() {
    let served = serve();
    let path = served.place.path().join("nbd.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Listener::unix(&path), Err(ListenError::InUse(_))));
    served.assert_alive();

    let stale = served.place.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    assert_eq!(UnixStream::connect(&stale).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(Listener::unix(&stale).unwrap());

    let file = served.place.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(Listener::unix(&file), Err(ListenError::NotASocket(_))));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn only_loopback_addresses_are_listened_at() {
    let error = Listener::tcp("0.0.0.0:0".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("only loopback"), "{error}");
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(!listener.place().ends_with(":0"));
}
