//! Links and pairing over loopback, in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vgship_base::ids::{Generation, GroupId, Name, PeerId, Seq, Start, VolumeId};
use vgship_base::record::{Body, Record, Target};
use vgship_snapshot::seal::KeyId;

use super::{
    Arrival, Arrivals, Config, Endpoint, Greeting, Heard, Link, Opened, PairingHost, PeerBook,
    Tuning,
};
use crate::wire::batch::Compression;
use crate::wire::hello::Hello;
use crate::wire::identity::Identity;
use crate::wire::peers::{Grant, Peer, Role};

mod admission;
mod hostile;
mod pairing;
mod transfer;

const GROUP: GroupId = GroupId([7; 16]);
const LAYOUT: &[u8] = b"the layout manifest";

#[derive(Debug)]
struct Host;

impl PairingHost for Host {
    fn layout(&self, group: GroupId) -> Option<Vec<u8>> {
        (group == GROUP).then(|| LAYOUT.to_vec())
    }

    fn veil(&self, group: GroupId) -> Option<KeyId> {
        (group == GROUP).then_some(KeyId([9; 8]))
    }
}

/// One agent's end, with a home of its own.
struct Agent {
    endpoint: Endpoint,
    arrivals: Arrivals,
    book: Arc<PeerBook>,
    home: tempfile::TempDir,
}

impl Agent {
    fn start(text: &str) -> Agent {
        let home = tempfile::tempdir().unwrap();
        let book = Arc::new(PeerBook::open(home.path().join("peers.toml")).unwrap());
        let config = Config {
            identity: Arc::new(Identity::generate().unwrap()),
            name: name(text),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            book: book.clone(),
            host: Arc::new(Host),
            compression: Compression::Adaptive,
            tuning: Tuning::default(),
        };
        let (endpoint, arrivals) = Endpoint::bind(config).unwrap();
        Agent { endpoint, arrivals, book, home }
    }

    fn id(&self) -> PeerId {
        self.endpoint.id()
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// Enters `other`, which may be `role` in [`GROUP`].
    fn trust(&self, other: &Agent, role: Role) {
        let grants = vec![Grant { group: GROUP, name: name("datavg"), role, blind: false }];
        let name = other.endpoint.config().name.clone();
        let peer = Peer { name, id: other.id(), address: None, since: 1, grants };
        self.book.admit(peer).unwrap();
    }

    async fn link(&mut self) -> Link {
        match self.arrivals.next().await.unwrap() {
            Arrival::Link(link) => link,
            other @ Arrival::Paired(_) => panic!("{other:?}"),
        }
    }
}

/// A source and a replica that are paired, with a link between them.
async fn linked() -> (Agent, Agent, Link, Link) {
    let (source, mut replica) = (Agent::start("source"), Agent::start("replica"));
    source.trust(&replica, Role::Replica);
    replica.trust(&source, Role::Source);
    let (out, into) =
        tokio::join!(source.endpoint.connect(replica.address(), replica.id()), replica.link());
    (source, replica, out.unwrap(), into)
}

/// The group's stream, as the source and as the replica see it.
async fn opened(out: &Link, into: &Link) -> (Opened, Opened) {
    let answer = async {
        let greeting = greeting(into).await;
        assert_eq!(greeting.hello().role, Role::Source);
        greeting.accept(&hello(Role::Replica)).await.unwrap()
    };
    let ours = hello(Role::Source);
    let (source, replica) = tokio::join!(out.open(&ours), answer);
    (source.unwrap(), replica)
}

/// The hello that a peer says next, which the pairing allows.
async fn greeting(into: &Link) -> Greeting {
    match into.accept().await.unwrap().hear().await.unwrap() {
        Heard::Hello(greeting) => greeting,
        Heard::Orders(_) => panic!("orders"),
    }
}

fn hello(role: Role) -> Hello {
    Hello {
        group: GROUP,
        role,
        consistent: true,
        damaged: false,
        fresh: role == Role::Replica,
        blind: false,
        generation: Generation([1; 16]),
        start: Start(1),
        durable: Seq(5),
        applied: Seq(4),
        layout: [3; 32],
        name: name("agent"),
        yields: false,
        lineage: Vec::new(),
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn write(seq: u64, data: Bytes) -> Record {
    let body = Body::Write { volume: VolumeId(0), offset: seq * 4096, data };
    Record { seq: Seq(seq), target: Target::All, body }
}

/// Ends a test that hangs.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("hangs")
}
