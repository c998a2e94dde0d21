//! fio, pass after pass: each writes one quarter of a volume in random order, with content of its
//! own that fio can verify later. A pass that its server's end broke off is done again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use super::load::Load;
use crate::{LOOK, MIB, Order};

/// Passes after which one writes the same quarter again.
const QUARTERS: u64 = 4;

/// Unit: bytes.
const QUARTER: u64 = 8 * MIB;

/// Why a pass did not come to its end when its server was gone.
const ENDED: &str = "the pass was ended";

/// fio at work.
pub struct Fio {
    passes: Arc<Passes>,
    worker: Option<JoinHandle<()>>,
}

struct Passes {
    uri: String,
    place: PathBuf,
    seed: u64,
    stop: AtomicBool,
    /// Nobody waits for the pass under way any more.
    given_up: AtomicBool,
    order: Mutex<Order>,
    running: Mutex<Option<Child>>,
}

impl Fio {
    /// Starts passes over the export.
    pub fn start(uri: String, place: &Path, seed: u64) -> Fio {
        let passes = Arc::new(Passes {
            uri,
            place: place.to_owned(),
            seed: seed & 0xffff_ffff,
            stop: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            order: Mutex::new(Order::new(1)),
            running: Mutex::default(),
        });
        let work = Arc::clone(&passes);
        Fio { passes, worker: Some(spawn(move || work.run())) }
    }
}

impl Passes {
    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.order.lock().unwrap().issue(0);
            while let Err(error) = self.fio(number, Some(&self.uri), &["--do_verify=0"]) {
                let is_broken = [ENDED, "nbd", "Input/output", "onnect", "ransport"];
                assert!(is_broken.iter().any(|word| error.contains(word)), "{error}");
                if self.given_up.load(Ordering::SeqCst) {
                    return;
                }
                sleep(Duration::from_millis(50));
            }
            self.order.lock().unwrap().acknowledge(0);
            // In the midst of the load what it wrote is read back, too.
            if number.is_multiple_of(8)
                && let Err(error) = self.verify(number, &self.uri)
            {
                assert!(!error.contains("verify:"), "the source: {error}");
            }
        }
    }

    fn verify(&self, number: u64, uri: &str) -> Result<(), String> {
        self.fio(number, Some(uri), &["--verify_only"])
    }

    /// Runs a pass over an export, or over the file that `further` names.
    ///
    /// # Errors
    /// What fio said.
    fn fio(&self, number: u64, uri: Option<&str>, further: &[&str]) -> Result<(), String> {
        let mut fio = Command::new("fio");
        fio.args(["--name=pass", "--rw=randwrite", "--bs=4k", "--verify=crc32c"]);
        fio.args(["--verify_fatal=1", "--verify_state_save=0", "--fsync=256", "--thread"]);
        fio.arg(format!("--randseed={}", self.seed.wrapping_mul(1000) + number));
        fio.arg(format!("--offset={}", (number - 1) % QUARTERS * QUARTER));
        fio.arg(format!("--size={QUARTER}")).args(further);
        fio.arg(format!("--aux-path={}", self.place.display())).current_dir(&self.place);
        let Some(uri) = uri else {
            let output = fio.output().map_err(|error| format!("fio: {error}"))?;
            let said = [output.stdout, output.stderr].concat();
            let error = || format!("fio, pass {number}: {}", String::from_utf8_lossy(&said));
            return output.status.success().then_some(()).ok_or_else(error);
        };
        fio.args(["--ioengine=nbd", "--iodepth=8", "--rate_iops=3000"]);
        fio.arg(format!("--uri={uri}"));
        let said = self.place.join("fio-said");
        let out = File::create(&said).unwrap();
        fio.stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out);
        *self.running.lock().unwrap() = Some(fio.spawn().map_err(|error| format!("fio: {error}"))?);
        loop {
            let mut running = self.running.lock().unwrap();
            let Some(child) = running.as_mut() else { return Err(ENDED.to_owned()) };
            if let Some(status) = child.try_wait().unwrap() {
                *running = None;
                let said = fs::read_to_string(&said).unwrap_or_default();
                let error = || format!("fio, pass {number}: {said}");
                return status.success().then_some(()).ok_or_else(error);
            }
            drop(running);
            sleep(LOOK);
        }
    }

    /// Ends the pass under way: fio does not notice by itself that its server is gone.
    fn end_pass(&self) {
        if let Some(mut child) = self.running.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Load for Fio {
    fn acknowledged(&self) -> Vec<u64> {
        self.passes.order.lock().unwrap().acknowledged()
    }

    fn source_is_gone(&mut self) {
        self.passes.end_pass();
    }

    fn rest(&mut self) {
        self.passes.stop.store(true, Ordering::SeqCst);
        if let Some(worker) = self.worker.take() {
            worker.join().unwrap();
        }
    }

    fn check(&self, images: &Path, floor: &[u64]) -> Result<Vec<u64>, String> {
        let order = self.passes.order.lock().unwrap().clone();
        let issued = order.issued()[0];
        let image = format!("--filename={}", images.join("data").display());
        let known = RefCell::new(BTreeMap::new());
        let holds = |number: u64| {
            let mut known = known.borrow_mut();
            let verify = || {
                let words = ["--verify_only", "--ioengine=psync", &image];
                self.passes.fio(number, None, &words)
            };
            known.entry(number).or_insert_with(verify).clone()
        };
        // The pass after the last that it holds may have begun; all others are whole.
        let is_state = |after: u64| {
            let newest = (after + 1).saturating_sub(QUARTERS).max(1)..=after;
            let under_way = after + 1;
            newest
                .filter(|number| under_way > issued || number % QUARTERS != under_way % QUARTERS)
                .try_for_each(holds)
        };
        let mut why = String::new();
        for after in (floor[0]..=issued).rev() {
            match is_state(after) {
                Ok(()) => {
                    order.judge(&[after], floor)?;
                    return Ok(vec![after]);
                }
                Err(error) => why = error,
            }
        }
        Err(format!("no prefix with the first {} passes is there; {why}", floor[0]))
    }

    fn unit(&self) -> &'static str {
        "passes of fio"
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        self.passes.stop.store(true, Ordering::SeqCst);
        self.passes.given_up.store(true, Ordering::SeqCst);
        self.passes.end_pass();
    }
}
