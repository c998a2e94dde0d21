use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData};

use super::*;

/// Knows one peer; strangers may come to pair when `open`.
#[derive(Debug)]
struct Door {
    known: PeerId,
    open: bool,
}

impl Admission for Door {
    fn knows(&self, peer: PeerId) -> bool {
        peer == self.known
    }

    fn pairing_open(&self) -> bool {
        self.open
    }
}

fn identity() -> Identity {
    Identity::generate().unwrap()
}

fn door(server: &Identity, known: PeerId, open: bool) -> ServerConfig {
    server_config(server, Arc::new(Door { known, open })).unwrap()
}

/// Runs a handshake to its end; gives the name both agreed on, or the first side's error.
fn shake(client: ClientConfig, server: ServerConfig) -> Result<Vec<u8>, Error> {
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    Ok(server.alpn_protocol().unwrap_or_default().to_vec())
}

fn pass<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// The certificate of one identity with the key of another: what a thief could show.
fn stolen(shown: &Identity, held: &Identity) -> Arc<CertifiedKey> {
    let (shown, held) = (shown.certified().unwrap(), held.certified().unwrap());
    Arc::new(CertifiedKey::new(shown.cert, held.key))
}

#[test]
fn paired_agents_shake_hands() {
    let (client, server) = (identity(), identity());
    let ours = client_config(&client, server.id(), Purpose::Link).unwrap();
    assert_eq!(shake(ours, door(&server, client.id(), false)), Ok(ALPN_PEER.to_vec()));
}

#[test]
fn a_stranger_may_pair_while_the_door_is_open_and_nothing_else() {
    let (client, server) = (identity(), identity());
    let somebody = identity().id();
    let mut results = Vec::new();
    for (purpose, open) in [
        (Purpose::Pair, true),
        (Purpose::Pair, false),
        (Purpose::Link, true),
        (Purpose::Link, false),
    ] {
        let ours = client_config(&client, server.id(), purpose).unwrap();
        results.push(shake(ours, door(&server, somebody, open)).is_ok());
    }
    assert_eq!(results, [true, false, false, false]);
}

#[test]
fn who_offers_both_names_is_judged_as_a_link() {
    let (client, server) = (identity(), identity());
    for names in [[ALPN_PEER, ALPN_PAIR], [ALPN_PAIR, ALPN_PEER]] {
        let mut ours = client_config(&client, server.id(), Purpose::Pair).unwrap();
        ours.alpn_protocols = names.map(<[u8]>::to_vec).to_vec();
        let found = shake(ours, door(&server, identity().id(), true));
        assert_eq!(found, Err(CertificateError::ApplicationVerificationFailure.into()));
    }
}

#[test]
fn a_client_without_a_certificate_or_a_name_is_refused() {
    let (client, server) = (identity(), identity());
    let mut ours = client_config(&client, server.id(), Purpose::Link).unwrap();
    ours.client_auth_cert_resolver =
        Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::new(
            client.certified().unwrap(),
        )));
    assert!(shake(ours, door(&server, client.id(), false)).is_err());
    let mut ours = client_config(&client, server.id(), Purpose::Pair).unwrap();
    ours.alpn_protocols.clear();
    assert!(shake(ours, door(&server, identity().id(), true)).is_err());
}

#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let (client, server, thief) = (identity(), identity(), identity());
    let mut ours = client_config(&thief, server.id(), Purpose::Link).unwrap();
    ours.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(stolen(&client, &thief)));
    let found = shake(ours, door(&server, client.id(), false));
    assert_eq!(found, Err(CertificateError::BadSignature.into()));
    let ours = client_config(&client, server.id(), Purpose::Link).unwrap();
    let mut theirs = door(&thief, client.id(), false);
    theirs.cert_resolver = Arc::new(SingleCertAndKey::from(stolen(&server, &thief)));
    assert_eq!(shake(ours, theirs), Err(CertificateError::BadSignature.into()));
}

#[test]
fn a_client_goes_only_to_the_server_it_means() {
    let (client, server) = (identity(), identity());
    let ours = client_config(&client, identity().id(), Purpose::Pair).unwrap();
    let found = shake(ours, door(&server, client.id(), true));
    assert_eq!(found, Err(CertificateError::ApplicationVerificationFailure.into()));
}
