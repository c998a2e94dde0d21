use hex_literal::hex;
use vgship_base::bytes::with_checksum;

use super::*;

/// By hand from the table.
fn golden_orders() -> Vec<(Order, Vec<u8>)> {
    let name = || "set.s.n.0000002a".parse().unwrap();
    let text = hex!("0010" "7365742e732e6e2e3030303030303261");
    let with = |head: &[u8]| [head, &text].concat();
    let quiesce = |without_commands| Some(Quiesce { hold: 5000, without_commands });
    vec![
        (Order::Begin { name: name(), quiesce: None }, with(&hex!("01000017" "00" "00000000"))),
        (
            Order::Begin { name: name(), quiesce: quiesce(false) },
            with(&hex!("01000017" "01" "00001388")),
        ),
        (
            Order::Begin { name: name(), quiesce: quiesce(true) },
            with(&hex!("01000017" "03" "00001388")),
        ),
        (Order::Mark, hex!("02000000").into()),
        (Order::Release, hex!("03000000").into()),
        (Order::GiveUp, hex!("04000000").into()),
        (Order::Change(Change::TakeBack, name()), with(&hex!("05000013" "01"))),
        (Order::Change(Change::Unpin, name()), with(&hex!("05000013" "03"))),
    ]
}

fn golden_answers() -> Vec<(Said, Vec<u8>)> {
    let failed = |late, frozen| Said::Failed(Failure { late, frozen, text: "no".to_owned() });
    let generation = Generation([7; 16]);
    vec![
        (Said::Ready, hex!("10000000").into()),
        (
            Said::Marked { generation, seq: Seq(0x0001_0000_0000_0009) },
            hex!("11000018" "07070707070707070707070707070707" "0001000000000009").into(),
        ),
        (Said::Released { held: 258 }, hex!("12000004" "00000102").into()),
        (Said::Followed, hex!("13000000").into()),
        (Said::Done, hex!("14000000").into()),
        (failed(false, false), hex!("15000005" "00" "0002" "6e6f").into()),
        (failed(true, true), hex!("15000005" "03" "0002" "6e6f").into()),
    ]
}

/// Header and body of a message.
fn parted(bytes: &[u8]) -> Result<(u8, &[u8]), FormatError> {
    let (kind, len) = read_header(bytes[..HEADER_LEN].try_into().unwrap())?;
    assert_eq!(bytes.len(), HEADER_LEN + len);
    Ok((kind, &bytes[HEADER_LEN..]))
}

#[test]
fn golden_bytes_hold_both_ways() {
    for (order, bytes) in golden_orders() {
        assert_eq!(order.encode(), bytes, "{order:?}");
        let (kind, body) = parted(&bytes).unwrap();
        assert_eq!(Order::decode(kind, body), Ok(order));
        assert!(Said::decode(kind, body).is_err(), "an order is no answer");
    }
    for (said, bytes) in golden_answers() {
        assert_eq!(said.encode(), bytes, "{said:?}");
        let (kind, body) = parted(&bytes).unwrap();
        assert_eq!(Said::decode(kind, body), Ok(said));
        assert!(Order::decode(kind, body).is_err(), "an answer is no order");
    }
}

#[test]
fn an_opening_has_the_outer_form_of_a_hello() {
    let group = GroupId([0x5a; 16]);
    let mut golden = Writer::default();
    golden.put(b"VGSO").u16(1).u16(1).u32(16).put(&[0x5a; 16]);
    let golden = with_checksum(golden);
    assert_eq!(opening(group), golden);
    assert_eq!(read_opening(&golden), Ok(Some(group)));
    for len in 0..golden.len() {
        assert!(read_opening(&golden[..len]).is_err(), "cut to {len}");
    }
    // A later version that appends to the body, and still speaks this one.
    let versions = |lowest: u16, highest: u16| {
        let mut out = Writer::default();
        out.put(b"VGSO").u16(lowest).u16(highest).u32(17).put(&[0x5a; 17]);
        with_checksum(out)
    };
    assert_eq!(read_opening(&versions(1, 9)), Ok(Some(group)));
    assert_eq!(read_opening(&versions(2, 9)), Ok(None));
    assert!(read_opening(&versions(0, 1)).is_err() && read_opening(&versions(2, 1)).is_err());
}

#[test]
fn what_nobody_says_is_refused() {
    let orders = golden_orders().into_iter().map(|it| it.1);
    for bytes in orders.chain(golden_answers().into_iter().map(|it| it.1)) {
        let (kind, body) = parted(&bytes).unwrap();
        let read =
            |body: &[u8]| Order::decode(kind, body).is_ok() || Said::decode(kind, body).is_ok();
        for len in 0..body.len() {
            assert!(!read(&body[..len]), "kind {kind} cut to {len}");
        }
        assert!(!read(&[body, &[0]].concat()), "kind {kind} with more");
    }
    assert!(read_header([2, 1, 0, 0]).is_err() && read_header([2, 0, 4, 1]).is_err());
    let name = hex!("0001" "61");
    for head in [&hex!("02" "00000000")[..], &hex!("04" "00000000"), &hex!("00" "00000001")] {
        assert!(Order::decode(1, &[head, &name].concat()).is_err(), "{head:?}");
    }
    assert!(Order::decode(5, &[&[4][..], &name].concat()).is_err());
    assert!(Order::decode(6, &[]).is_err() && Order::decode(0, &[]).is_err());
    assert!(Said::decode(21, &hex!("04" "0000")).is_err());
    let long = Failure::plain("\u{e4}".repeat(2000));
    let bytes = Said::Failed(long).encode();
    let (kind, body) = parted(&bytes).unwrap();
    let Ok(Said::Failed(read)) = Said::decode(kind, body) else { panic!() };
    assert_eq!(read.text.len(), TEXT_MAX);
}
