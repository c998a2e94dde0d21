//! The limit of a link on this machine: one connection over loopback, both ends in this process,
//! one stream, the transport of real links, nothing above it but frames.
//!
//! Usage: `quinn_raw [GIB] [raw|frames|compressed] [CHUNK_KIB] [cubic|bbr] [ROUND_TRIP_MS]`. Prints
//! one line of JSON: bytes, seconds, bytes a second. With a round trip, datagrams go through a relay
//! that holds them back; the relay costs processor time, so it shows windows, not the limit.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use socket2::SockRef;
use vgship::wire::batch::Compression;
use vgship::wire::frame::Frame;
use vgship::wire::hello::Hello;
use vgship::wire::identity::Identity;
use vgship::wire::io::{
    Arrival, Arrivals, Config, Congestion, Endpoint, FrameReceiver, FrameSender, Heard,
    PairingHost, PeerBook, Tuning,
};
use vgship::wire::peers::{Grant, Peer, Role};
use vgship_base::ids::{Generation, GroupId, Seq, Start, VolumeId};
use vgship_base::limits::BATCH_BYTES_MAX;
use vgship_base::record::{Body, Record, Target};

const GROUP: GroupId = GroupId([1; 16]);

#[derive(Debug)]
struct NoGroups;

impl PairingHost for NoGroups {
    fn layout(&self, _: GroupId) -> Option<Vec<u8>> {
        None
    }

    fn veil(&self, _: GroupId) -> Option<vgship_snapshot::seal::KeyId> {
        None
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let gib: u64 = args.next().as_deref().unwrap_or("4").parse().context("GIB is a number")?;
    let data = args.next().unwrap_or_else(|| "raw".to_owned());
    let kib: usize = args.next().as_deref().unwrap_or("1024").parse().context("CHUNK_KIB")?;
    let congestion = match args.next().as_deref() {
        None | Some("cubic") => Congestion::Cubic,
        Some("bbr") => Congestion::Bbr,
        Some(other) => bail!("{other} is neither cubic nor bbr"),
    };
    let compression = match data.as_str() {
        "raw" => Compression::Off,
        "frames" | "compressed" => Compression::Adaptive,
        other => bail!("{other} is none of raw, frames, compressed"),
    };
    let round_trip: u64 = args.next().as_deref().unwrap_or("0").parse().context("ROUND_TRIP_MS")?;
    let tuning = Tuning { congestion, ..Tuning::default() };
    let home = tempfile::tempdir()?;
    let (source, _nothing_comes) = agent("source", home.path(), compression, tuning)?;
    let (replica, arrivals) = agent("replica", home.path(), compression, tuning)?;
    source.config().book.admit(peer(&replica, Role::Replica)?)?;
    replica.config().book.admit(peer(&source, Role::Source)?)?;

    let reader = tokio::spawn(receive(arrivals));
    let address = match round_trip {
        0 => replica.local_addr()?,
        millis => relay(replica.local_addr()?, Duration::from_millis(millis / 2))?,
    };
    let link = source.connect(address, replica.id()).await?;
    let opened = link.open(&hello(Role::Source)?).await?;
    let payload = match data.as_str() {
        "compressed" => b"a line of text that repeats\n".repeat(kib * 1024 / 28 + 1),
        _ => noise(kib * 1024),
    };
    let payload = Bytes::from(payload).slice(..kib * 1024);
    let begin = Instant::now();
    let sent = send(opened.sender, opened.receiver, payload, gib << 30).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let received = reader.await??;
    anyhow::ensure!(received == sent, "{sent} bytes sent, {received} received");
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = sent as f64 / seconds;
    println!(
        "{{\"bytes\": {sent}, \"seconds\": {seconds:.3}, \"bytes_per_second\": {rate:.0}, \
         \"round_trip_ms\": {round_trip}, \"chunk_kib\": {kib}, \"data\": \"{data}\", \"congestion\": \"{congestion:?}\"}}"
    );
    Ok(())
}

async fn send(
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
    payload: Bytes,
    bytes: u64,
) -> Result<u64> {
    let per_batch = (BATCH_BYTES_MAX / (payload.len() + 24)).min(4096) as u64;
    let (mut sent, mut seq) = (0, 0);
    while sent < bytes {
        let batch: Vec<Record> = (0..per_batch)
            .map(|at| {
                let volume = VolumeId(0);
                let body = Body::Write { volume, offset: 0, data: payload.clone() };
                Record { seq: Seq(seq + at + 1), target: Target::All, body }
            })
            .collect();
        sender.send_batch(&batch).await?;
        seq += per_batch;
        sent += per_batch * payload.len() as u64;
    }
    sender.send(&Frame::Ping(sent)).await?;
    match receiver.next().await? {
        Some(Frame::Pong(number)) if number == sent => Ok(sent),
        other => bail!("the replica answered {other:?}"),
    }
}

async fn receive(mut arrivals: Arrivals) -> Result<u64> {
    let Some(Arrival::Link(link)) = arrivals.next().await else { bail!("no link came") };
    let Heard::Hello(greeting) = link.accept().await?.hear().await? else { bail!("no hello came") };
    let mut opened = greeting.accept(&hello(Role::Replica)?).await?;
    let mut received = 0;
    loop {
        match opened.receiver.next().await?.context("the source ended the stream")? {
            Frame::Batch(records) => {
                let lens = records.iter().filter_map(Record::changes).map(|(_, span)| span.len);
                received += lens.sum::<u64>();
            }
            Frame::Ping(number) => {
                opened.sender.send(&Frame::Pong(number)).await?;
                opened.sender.finish().await?;
                return Ok(received);
            }
            other => bail!("the source sent {other:?}"),
        }
    }
}

fn agent(
    name: &str,
    home: &Path,
    compression: Compression,
    tuning: Tuning,
) -> Result<(Endpoint, Arrivals)> {
    let config = Config {
        identity: Arc::new(Identity::generate()?),
        name: name.parse()?,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        book: Arc::new(PeerBook::open(home.join(format!("{name}.toml")))?),
        host: Arc::new(NoGroups),
        compression,
        tuning,
    };
    Ok(Endpoint::bind(config)?)
}

fn peer(of: &Endpoint, role: Role) -> Result<Peer> {
    let grants = vec![Grant { group: GROUP, name: "bench".parse()?, role, blind: false }];
    Ok(Peer { name: of.config().name.clone(), id: of.id(), address: None, since: 0, grants })
}

fn hello(role: Role) -> Result<Hello> {
    Ok(Hello {
        group: GROUP,
        role,
        consistent: true,
        damaged: false,
        fresh: false,
        blind: false,
        generation: Generation([0; 16]),
        start: Start(1),
        durable: Seq::ZERO,
        applied: Seq::ZERO,
        layout: [0; 32],
        name: "bench".parse()?,
        yields: false,
        lineage: Vec::new(),
    })
}

/// Passes datagrams between one client and `server`, each way late by `delay`.
fn relay(server: SocketAddr, delay: Duration) -> Result<SocketAddr> {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
    let back = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
    for socket in [&front, &back] {
        let socket = SockRef::from(&**socket);
        socket.set_recv_buffer_size(8 << 20)?;
        socket.set_send_buffer_size(8 << 20)?;
    }
    back.connect(server)?;
    let address = front.local_addr()?;
    let client = Arc::new(OnceLock::new());
    let (known, sender) = (client.clone(), back.clone());
    let inward = move |from| {
        let _ = known.set(from);
    };
    late(front.clone(), delay, inward, move |bytes| sender.send(bytes));
    let outward = move |bytes: &[u8]| match client.get() {
        Some(client) => front.send_to(bytes, client),
        None => Ok(0),
    };
    late(back, delay, |_| {}, outward);
    Ok(address)
}

/// Takes datagrams off `from` in one thread and gives them to `to` in another, `delay` later.
fn late(
    from: Arc<UdpSocket>,
    delay: Duration,
    sender: impl Fn(SocketAddr) + Send + 'static,
    to: impl Fn(&[u8]) -> std::io::Result<usize> + Send + 'static,
) {
    let (queue, held) = mpsc::sync_channel::<(Instant, Vec<u8>)>(1 << 16);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((len, address)) = from.recv_from(&mut buffer) {
            sender(address);
            let _ = queue.try_send((Instant::now() + delay, buffer[..len].to_vec()));
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in held {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = to(&bytes); // a full buffer loses it, as a network does
        }
    });
}

fn noise(len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    data
}
