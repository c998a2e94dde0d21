//! Serves a file over NBD without replication, so that the tap can be measured alone:
//!
//!     cargo run --release --example nbd_plain -- SOCKET FILE
//!
//! Ends when its standard input ends.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use vgship::capture::nbd::backend::{Export, Exports};
use vgship::capture::nbd::io::NbdServer;
use vgship::capture::nbd::io::socket::Listener;
use vgship_base::disk::{Allocation, Disk};
use vgship_base::io::FileDisk;

struct Plain(FileDisk);

impl Export for Plain {
    fn bytes(&self) -> u64 {
        self.0.len()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }

    fn write(&self, offset: u64, data: Bytes, durable: bool) -> io::Result<()> {
        self.0.write_at(offset, &data)?;
        if durable { self.0.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, durable: bool) -> io::Result<()> {
        self.0.zero_at(offset, len)?;
        if durable { self.0.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn allocation(&self, offset: u64, end: u64) -> io::Result<(Allocation, u64)> {
        self.0.allocation(offset, end)
    }
}

/// The one file under any name.
struct One(Arc<Plain>);

impl Exports for One {
    fn names(&self) -> Vec<String> {
        vec![String::new()]
    }

    fn find(&self, _: &str) -> Option<Arc<dyn Export>> {
        Some(Arc::clone(&self.0) as Arc<dyn Export>)
    }
}

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, file] = &args[..] else { bail!("usage: nbd_plain SOCKET FILE") };
    let disk = FileDisk::open(Path::new(file)).with_context(|| format!("cannot open {file}"))?;
    let listener = Listener::unix(Path::new(socket))?;
    let server = NbdServer::start(vec![listener], Arc::new(One(Arc::new(Plain(disk)))))?;
    println!("ready at {}", server.places().join(", "));
    io::stdin().read_to_end(&mut Vec::new()).context("cannot wait for the end of input")?;
    server.shutdown();
    Ok(())
}
