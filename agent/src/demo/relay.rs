//! The network between the two agents: a UDP relay that can be cut, and whose far side can change
//! its address, as a router that lost its table does.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How often a thread that hears nothing looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// Largest datagram. Unit: bytes.
const DATAGRAM_MAX: usize = 64 << 10;

/// Kernel buffers asked for, so that the relay itself loses little. Unit: bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// Passes datagrams between whoever sends to its port and one target.
pub(super) struct Relay {
    shared: Arc<Shared>,
    port: u16,
    front: Option<JoinHandle<()>>,
}

struct Shared {
    socket: UdpSocket,
    target: Mutex<SocketAddr>,
    cut: AtomicBool,
    /// Counts the target's side up; flows of an earlier count end.
    life: AtomicU64,
    stop: AtomicBool,
}

impl Relay {
    /// Opens a port of the system's choice. Until there is a target everything is dropped.
    pub(super) fn start() -> io::Result<Relay> {
        let socket = open()?;
        let port = socket.local_addr()?.port();
        let shared = Arc::new(Shared {
            socket,
            target: Mutex::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            cut: AtomicBool::new(true),
            life: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let run = Arc::clone(&shared);
        let front = std::thread::Builder::new().name("relay".into()).spawn(move || run.front())?;
        Ok(Relay { shared, port, front: Some(front) })
    }

    /// Where the far side is reached.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Passes on to this address from now on.
    pub(super) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.restore();
    }

    /// Drops everything, both ways.
    pub(super) fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }

    /// Passes everything again, to the target from other ports than before.
    pub(super) fn restore(&self) {
        self.shared.life.fetch_add(1, Ordering::SeqCst);
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(front) = self.front.take() {
            // A thread that panicked has said so.
            let _ = front.join();
        }
    }
}

impl Shared {
    fn passes(&self) -> bool {
        !self.cut.load(Ordering::SeqCst)
    }

    /// Takes what clients send; each gets a socket of its own towards the target.
    fn front(self: Arc<Self>) {
        let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut life = 0;
        let mut datagram = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::SeqCst) {
            let Ok((len, client)) = self.socket.recv_from(&mut datagram) else { continue };
            if !self.passes() {
                continue;
            }
            let now = self.life.load(Ordering::SeqCst);
            if now != life {
                flows.clear();
                life = now;
            }
            let flow = match flows.get(&client) {
                Some(flow) => Arc::clone(flow),
                None => match self.begin_flow(client, life) {
                    Ok(flow) => Arc::clone(flows.entry(client).or_insert(flow)),
                    // Lost, as datagrams are; the client sends again.
                    Err(_) => continue,
                },
            };
            let target = *self.target.lock().unwrap_or_else(PoisonError::into_inner);
            // A datagram that cannot be sent is one that was lost.
            let _ = flow.send_to(&datagram[..len], target);
        }
    }

    fn begin_flow(self: &Arc<Self>, client: SocketAddr, life: u64) -> io::Result<Arc<UdpSocket>> {
        let flow = Arc::new(open()?);
        let (shared, back) = (Arc::clone(self), Arc::clone(&flow));
        std::thread::Builder::new()
            .name("relay-back".into())
            .spawn(move || shared.back(&back, client, life))?;
        Ok(flow)
    }

    /// Takes what the target answers to one client.
    fn back(&self, flow: &UdpSocket, client: SocketAddr, life: u64) {
        let mut datagram = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::SeqCst) && self.life.load(Ordering::SeqCst) == life {
            let Ok((len, _)) = flow.recv_from(&mut datagram) else { continue };
            if self.passes() {
                let _ = self.socket.send_to(&datagram[..len], client);
            }
        }
    }
}

fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Smaller buffers only lose more; the agents send again.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // No test waits for a time; this ends one that would wait for ever.
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// Sends `what` until it arrives; datagrams may be lost.
    fn arrives(client: &UdpSocket, relay: &Relay, target: &UdpSocket, what: &[u8]) -> SocketAddr {
        let mut found = [0; 16];
        loop {
            client.send_to(what, relay.address()).unwrap();
            let (len, from) = target.recv_from(&mut found).unwrap();
            if found[..len] == *what {
                return from;
            }
        }
    }

    #[test]
    fn it_passes_drops_and_comes_back_from_another_port() {
        let (client, target, relay) = (end(), end(), Relay::start().unwrap());
        relay.lead_to(target.local_addr().unwrap());
        let first = arrives(&client, &relay, &target, b"one");
        target.send_to(b"answer", first).unwrap();
        let mut found = [0; 16];
        assert_eq!(client.recv_from(&mut found).unwrap(), (6, relay.address()));
        relay.cut();
        client.send_to(b"lost", relay.address()).unwrap();
        // The relay's answer to the next client shows that it has dealt with the lost one.
        std::thread::sleep(2 * LOOK);
        relay.restore();
        let second = arrives(&client, &relay, &target, b"two");
        assert_ne!(first, second);
    }
}
