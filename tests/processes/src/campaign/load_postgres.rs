//! Transactions of PostgreSQL on the source's exports: ext4 over loop devices over nbdfuse. Some
//! clients insert running numbers and remember which commits were acknowledged; pgbench runs
//! beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use super::load::{Load, volumes};
use super::plan::LoadKind;
use super::postgres::{Disks, Server, Session, make_images};
use super::verify::copy;
use crate::mounts::{FuseFile, LoopDevice};
use crate::programs::run;
use crate::{Agent, Order};

/// Clients that insert running numbers.
const CLIENTS: usize = 3;

/// Images of an empty database, made once.
pub struct Template(PathBuf);

impl Template {
    /// Makes them in a folder.
    pub fn make(place: &Path) -> Template {
        let images = place.join("template");
        make_images(&images, volumes(LoadKind::Postgres), place);
        Template(images)
    }

    /// Copies them for a round.
    pub fn copy_to(&self, images: &Path) {
        copy(&self.0, images);
    }
}

/// A server on the source, and its clients.
pub struct Postgres {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    up: Option<Up>,
}

/// All that stands on the exports; each falls before what it stands on.
struct Up {
    pgbench: Child,
    server: Server,
    _disks: Disks,
    _devices: [LoopDevice; 2],
    _files: [FuseFile; 2],
}

struct Shared {
    /// Where the server is reached.
    server: PathBuf,
    /// For copies that are looked at.
    place: PathBuf,
    stop: AtomicBool,
    /// Nobody waits for the transaction under way any more.
    given_up: AtomicBool,
    order: Mutex<Order>,
}

impl Postgres {
    /// Starts the server on the exports, and its clients.
    pub fn start(source: &Agent, place: &Path) -> Postgres {
        let up = Up::start(source, place);
        let shared = Arc::new(Shared {
            server: up.server.place().to_owned(),
            place: place.to_owned(),
            stop: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            order: Mutex::new(Order::new(CLIENTS)),
        });
        let client = |number| {
            let shared = Arc::clone(&shared);
            spawn(move || shared.client(number))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Postgres { shared, clients, up: Some(up) }
    }
}

impl Up {
    fn start(source: &Agent, place: &Path) -> Up {
        let export = |name: &str| FuseFile::of(&source.uri(name), &place.join("fuse").join(name));
        let files = ["data", "log"].map(export);
        let devices = [&files[0], &files[1]].map(|file| LoopDevice::over(&file.file()));
        let root = place.join("source-root");
        let disks = Disks::mount(devices[0].path(), devices[1].path(), &root, &[]);
        let disks = disks.expect("the source's file systems can be mounted");
        let server = Server::start(&disks, &place.join("server")).unwrap_or_else(|error| {
            panic!("on the source: {error}");
        });
        let pgbench = server.pgbench(&["--client=2", "--time=3600", "--no-vacuum", "--rate=100"]);
        Up { pgbench, server, _disks: disks, _devices: devices, _files: files }
    }

    fn end_pgbench(&mut self) {
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.end_pgbench();
    }
}

impl Shared {
    fn client(&self, number: usize) {
        let mut unsure = false;
        while !self.given_up.load(Ordering::SeqCst) && (unsure || self.works()) {
            let mut session = Session::open(&self.server);
            unsure = self.insert(&mut session, number).is_none();
            sleep(Duration::from_millis(20));
        }
    }

    fn works(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Inserts until it shall end; gives nothing when the connection is gone.
    fn insert(&self, session: &mut Session, client: usize) -> Option<()> {
        let newest = format!("select coalesce(max(n), 0) from acks where client = {client}");
        let stored = session.ask(&newest)?;
        let counts = |order: &Order| (order.issued()[client], order.acknowledged()[client]);
        let (issued, acknowledged) = counts(&self.order.lock().unwrap());
        assert!(
            (acknowledged..=issued).contains(&stored),
            "client {client}: the source holds {stored}, {acknowledged} were acknowledged"
        );
        let mut next = (issued > acknowledged).then_some(issued);
        if stored == issued && next.take().is_some() {
            self.order.lock().unwrap().acknowledge(client);
        }
        while next.is_some() || self.works() {
            let number = next.take().unwrap_or_else(|| self.order.lock().unwrap().issue(client));
            let insert = format!("insert into acks values ({client}, {number}) returning n");
            let told = session.ask(&insert)?;
            assert_eq!(told, number);
            self.order.lock().unwrap().acknowledge(client);
        }
        Some(())
    }
}

impl Load for Postgres {
    fn acknowledged(&self) -> Vec<u64> {
        self.shared.order.lock().unwrap().acknowledged()
    }

    fn source_is_gone(&mut self) {
        self.up = None;
    }

    fn source_is_back(&mut self, source: &Agent) {
        self.up = Some(Up::start(source, &self.shared.place));
    }

    fn rest(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        if let Some(mut up) = self.up.take() {
            up.end_pgbench();
            up.server.stop();
        }
    }

    fn check(&self, images: &Path, floor: &[u64]) -> Result<Vec<u64>, String> {
        let found = recover(images, &self.shared.place.join("checked"))?;
        self.shared.order.lock().unwrap().judge(&found, floor)?;
        Ok(found)
    }

    fn unit(&self) -> &'static str {
        "transactions"
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.given_up.store(true, Ordering::SeqCst);
    }
}

/// Starts PostgreSQL on two images as after a power cut, and gives how many transactions of each
/// client it holds.
fn recover(images: &Path, place: &Path) -> Result<Vec<u64>, String> {
    let [data, log] = ["data", "log"].map(|name| images.join(name).display().to_string());
    let found = {
        let disks = Disks::mount(&data, &log, &place.join("root"), &["-o", "loop"])?;
        let _ = fs::remove_file(place.join("server/said"));
        let mut server = Server::start(&disks, &place.join("server"))?;
        let found = transactions(&server)?;
        server.stop();
        found
    };
    for image in [&data, &log] {
        // Replayed and unmounted, so anything that it finds is damage.
        run("e2fsprogs", "e2fsck", &["-f", "-n", image]);
    }
    Ok(found)
}

fn transactions(server: &Server) -> Result<Vec<u64>, String> {
    let mut found = Vec::new();
    for client in 0..CLIENTS {
        let counts =
            format!("select count(*), coalesce(max(n), 0) from acks where client={client}");
        let answer = server.ask(&counts)?;
        let (count, newest) = answer.split_once('|').ok_or("two columns")?;
        if count != newest {
            return Err(format!("client {client}: {count} rows, the newest is {newest}"));
        }
        found.push(count.parse::<u64>().map_err(|error| error.to_string())?);
    }
    // What pgbench always keeps: what was moved, added up in four places.
    let sums = server.ask(
        "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from \
         pgbench_tellers), (select sum(bbalance) from pgbench_branches), (select \
         coalesce(sum(delta), 0) from pgbench_history)",
    )?;
    let mut parts = sums.split('|');
    let first = parts.next();
    match parts.all(|part| Some(part) == first) {
        true => Ok(found),
        false => Err(format!("pgbench's sums differ: {sums}")),
    }
}
