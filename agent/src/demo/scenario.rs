//! What happens, in order. Waits for conditions, never for times; a check that fails ends it.

mod past;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vgship_base::ids::Name;
use vgship_base::units::ByteLen;
use vgship_test_images::DemoSizes;

use super::Say;
use super::agents::{Agent, Interrupt, log_tail};
use super::images::Images;
use super::nbd::Client;
use super::pace::FULL;
use super::relay::Relay;
use super::report::{Crash, Lag, Outage, Rate, Report};
use super::watch::{Seen, Watch};
use super::workload::{Counts, Shared, Target, Workload};

/// The group's name.
const GROUP: &str = "demo";

/// The agents' names.
const AGENTS: [&str; 2] = ["source", "replica"];

/// Of all content and of both VGs' identities.
const SEED: u64 = 0x7667_7368_6970;

/// Memory and disk of the outbox: small, so that an outage soon shows what happens when it is full.
/// The memory alone holds what the workload may be ahead, so that no slow disk matters before.
const OUTBOX: [&str; 2] = ["64MiB", "64MiB"];

/// What the workload writes while something else is shown. Unit: bytes a second.
const GENTLE: u64 = 24_000_000;

/// Steps that follow the last one known to be durable before a process is killed.
const MID_STREAM: u64 = 60;

/// Longest wait of a command.
const TIMEOUT: &str = "200s";

/// The demonstration.
pub(super) struct Scenario<'a> {
    dir: &'a Path,
    seconds: f64,
    say: &'a Say,
    interrupt: &'a Interrupt,
    world: Option<World>,
    report: Report,
}

/// What runs. Fields are dropped in this order: after a failure nobody waits for an agent that
/// hangs.
struct World {
    source: Agent,
    replica: Agent,
    watch: Watch,
    workload: Workload,
    relay: Relay,
    images: [Images; 2],
    heads: Vec<[u8; super::images::HEAD]>,
}

impl World {
    fn shared(&self) -> &Shared {
        &self.workload.shared
    }

    fn counts(&self) -> Counts {
        self.shared().counts()
    }

    fn wait(&self, what: &str) -> Result<()> {
        self.source.say(&["wait", GROUP, "--for", what, "--timeout", TIMEOUT]).map(drop)
    }

    /// All that was written before this call is durable on the replica, and nothing is in doubt.
    fn caught_up(&self) -> Result<()> {
        self.wait("durable")?;
        self.wait("in-sync")
    }

    /// Whether everything that should run runs.
    fn check(&mut self) -> Result<()> {
        self.workload.shared.healthy().map_err(anyhow::Error::msg)?;
        self.source.check()?;
        self.replica.check()
    }

    /// Bytes that the source has handed to the wire since it started.
    fn sent(&self) -> Result<u64> {
        let group = self.source.group()?;
        Ok(group.peers.first().context("the source's replica")?.sent_bytes)
    }
}

/// Marks a moment of the workload.
struct Mark {
    counts: Counts,
    at: Instant,
}

impl Mark {
    fn of(world: &World) -> Mark {
        Mark { counts: world.counts(), at: Instant::now() }
    }

    fn rate(&self, world: &World) -> Rate {
        let now = world.counts();
        Rate {
            bytes: now.bytes - self.counts.bytes,
            writes: now.writes - self.counts.writes,
            seconds: self.at.elapsed().as_secs_f64(),
        }
    }
}

const fn lag(seen: &Seen) -> Lag {
    Lag { bytes: seen.lag_bytes, seconds: seen.lag_seconds }
}

impl<'a> Scenario<'a> {
    /// Nothing is begun yet.
    pub(super) fn new(
        dir: &'a Path,
        seconds: u32,
        say: &'a Say,
        interrupt: &'a Interrupt,
    ) -> Scenario<'a> {
        let seconds = f64::from(seconds);
        Scenario { dir, seconds, say, interrupt, world: None, report: Report::default() }
    }

    /// Everything.
    pub(super) fn play(&mut self) -> Result<Report> {
        let begun = Instant::now();
        self.set_up()?;
        self.stream()?;
        self.past()?;
        self.kill_replica()?;
        self.kill_source()?;
        self.flap()?;
        self.overflow()?;
        self.end()?;
        self.report.seconds = begun.elapsed().as_secs_f64();
        self.report.ok = true;
        Ok(self.report.clone())
    }

    /// The ends of the agents' logs.
    pub(super) fn logs(&self) -> String {
        AGENTS.map(|name| log_tail(self.dir, name)).concat()
    }

    fn say(&self, text: &str) -> Result<()> {
        Ok(self.say.line(text)?)
    }

    fn held(&mut self, check: &str) {
        self.report.checks.push(check.to_owned());
    }

    fn world(&mut self) -> Result<&mut World> {
        self.world.as_mut().context("the agents run")
    }

    /// Waits for a condition on the running world.
    fn until(&mut self, what: &str, mut met: impl FnMut(&mut World) -> Result<bool>) -> Result<()> {
        let interrupt = self.interrupt;
        let world = self.world()?;
        interrupt.until(what, || {
            world.check()?;
            Ok(met(world)?.then_some(()))
        })
    }

    /// Images, homes, agents, pairing, the first sync.
    fn set_up(&mut self) -> Result<()> {
        let group: Name = GROUP.parse()?;
        let sizes = DemoSizes::default();
        let make = |name: &str, seed| Images::make(&self.dir.join(name), sizes, seed);
        let images = [make("source-vg", SEED)?, make("replica-vg", SEED + 1)?];
        images[0].fill(SEED)?;
        let heads = images[1].heads()?;
        let names: Vec<String> = images[0].written.lvs.iter().map(|lv| lv.name.clone()).collect();
        let lv_bytes = images[0].lv_bytes();
        self.report.volume_bytes = lv_bytes * names.len() as u64;
        self.say(&format!(
            "made two AIX volume groups on two disk images each: {} of {} (mirrored, contiguous, \
             spanning, scattered)",
            names.join(", "),
            ByteLen(lv_bytes)
        ))?;
        let relay = Relay::start()?;
        let mut source = Agent::init(self.dir, AGENTS[0], &group, self.interrupt)?;
        let mut replica = Agent::init(self.dir, AGENTS[1], &group, self.interrupt)?;
        advertise(&source, &relay)?;
        source.start()?;
        replica.start()?;
        lead(&relay, &source)?;
        let exports = [0, 1, 2, 3].map(|lv: usize| format!("{GROUP}/{}", names[lv]));
        let target = Target { socket: source.home().nbd_socket(), exports, lv_bytes, seed: SEED };
        let [ram, spill] = OUTBOX;
        let spec = images[0].spec();
        let add =
            ["group", "add", GROUP, "--volumes", &spec, "--outbox-ram", ram, "--spill", spill];
        source.say(&add)?;
        let invite = ["pair", "invite", "--group", GROUP, "--role", "replica", "--json"];
        let invitation: Value = serde_json::from_str(&source.say(&invite)?)?;
        let token = invitation["token"].as_str().context("the invitation's token")?;
        let begun = Instant::now();
        replica.say(&["pair", "join", token, "--volumes", &images[1].spec()])?;
        self.say("two agents run and are paired; the link between them goes through a relay")?;
        let workload = Workload::start(target)?;
        let watch = Watch::start(source.home(), &group, &workload.shared)?;
        self.world = Some(World { source, replica, watch, workload, relay, images, heads });
        self.until("the replica's pairing", |world| Ok(!world.source.group()?.peers.is_empty()))?;
        self.world()?.caught_up()?;
        let rate = Rate {
            bytes: self.report.volume_bytes,
            writes: 0,
            seconds: begun.elapsed().as_secs_f64(),
        };
        self.report.volumes = names;
        self.report.initial_sync = rate;
        self.held("the replica got in sync");
        self.say(&format!("initial sync: {:.1} s, {}", rate.seconds, rate.speed()))
    }

    /// The workload at full speed.
    fn stream(&mut self) -> Result<()> {
        let long = Duration::from_secs_f64(self.seconds * 0.5);
        let world = self.world()?;
        world.watch.since_last();
        let mark = Mark::of(world);
        world.shared().pace.set_rate(FULL);
        self.until("the live phase", |_| Ok(mark.at.elapsed() >= long))?;
        let world = self.world()?;
        let rate = mark.rate(world);
        world.shared().pace.set_rate(GENTLE);
        world.caught_up()?;
        let seen = world.watch.since_last();
        ensure!(!seen.resynced, "the replica fell out of order though nothing failed");
        self.report.foreground = rate;
        self.report.live_lag = lag(&seen);
        self.held("writes at full speed were followed in order");
        self.say(&format!(
            "live: {:.0} writes/s, {} for {:.1} s; lag at most {}, {:.1} s",
            rate.writes_a_second(),
            rate.speed(),
            rate.seconds,
            ByteLen(seen.lag_bytes),
            seen.lag_seconds
        ))
    }

    /// Lets the stream run on from a step that is known to be durable; gives that step.
    fn reach_mid_stream(&mut self) -> Result<u64> {
        let world = self.world()?;
        let durable = world.counts().steps;
        world.wait("durable")?;
        self.until("the next steps", |world| Ok(world.counts().steps >= durable + MID_STREAM))?;
        Ok(durable)
    }

    /// Waits until the replica has nothing left to do, and proves that it holds a prefix.
    fn prove(&mut self, durable: u64) -> Result<u64> {
        let mut last = None;
        self.until("the replica to have applied all that it has", |world| {
            let seq = world.replica.group()?.seq;
            let quiet = seq.applied == seq.durable && last.replace(seq) == Some(seq);
            Ok(quiet && seq.durable > 0)
        })?;
        let world = self.world()?;
        let found = world.images[1].read(SEED, world.shared())?;
        let steps = found.prove_prefix(durable, world.shared())?;
        let seq = world.replica.group()?.seq;
        ensure!(Some(seq) == last, "the replica changed while it was read");
        Ok(steps)
    }

    fn kill_replica(&mut self) -> Result<()> {
        let durable = self.reach_mid_stream()?;
        let world = self.world()?;
        world.replica.kill()?;
        let done = world.counts().steps;
        world.relay.cut();
        self.say(&format!("killed the replica's agent in mid-stream, after step {done}"))?;
        let world = self.world()?;
        world.watch.since_last();
        world.replica.start()?;
        let steps = self.prove(durable)?;
        self.held("the killed replica recovered to a prefix");
        self.say(&format!(
            "the replica recovered by itself and is a prefix: exactly {steps} steps ({durable} \
             were known to be durable)"
        ))?;
        let world = self.world()?;
        let before = world.sent()?;
        world.relay.restore();
        world.caught_up()?;
        let sent = world.sent()? - before;
        let seen = world.watch.since_last();
        ensure!(!seen.resynced, "a replica that came back was resynced: {:?}", seen.states);
        self.held("the replica continued from the outbox, without a resync");
        self.say(&format!("it caught up: {} shipped, no resync", ByteLen(sent)))?;
        self.report.replica_killed = Crash {
            durable_steps: durable,
            done_steps: done,
            replica_steps: steps,
            sent_bytes: sent,
            resynced: seen.resynced,
            in_flight: Vec::new(),
        };
        Ok(())
    }

    fn kill_source(&mut self) -> Result<()> {
        let durable = self.reach_mid_stream()?;
        let world = self.world()?;
        world.source.kill()?;
        world.shared().pace.set_rate(0);
        let done = world.counts().steps;
        self.say(&format!("killed the source's agent in mid-stream, after step {done}"))?;
        let steps = self.prove(durable)?;
        self.held("the replica of the killed source is a prefix");
        self.say(&format!(
            "the replica is a prefix: exactly {steps} steps ({durable} were known to be durable)"
        ))?;
        let world = self.world()?;
        world.watch.since_last();
        world.source.start()?;
        lead(&world.relay, &world.source)?;
        world.caught_up()?;
        let sent = world.sent()?;
        let seen = world.watch.since_last();
        let in_flight = world.shared().in_doubt();
        let limit = self.report.volume_bytes / 2;
        ensure!(sent < limit, "{sent} bytes were shipped: as much as for a first sync");
        self.held("the source came back and only marked regions were resynced");
        self.say(&format!(
            "the source is back, its clients too ({}); in sync: {} shipped of {}",
            in_flight.join(", "),
            ByteLen(sent),
            ByteLen(self.report.volume_bytes)
        ))?;
        self.world()?.shared().pace.set_rate(GENTLE);
        self.report.source_killed = Crash {
            durable_steps: durable,
            done_steps: done,
            replica_steps: steps,
            sent_bytes: sent,
            resynced: seen.resynced,
            in_flight,
        };
        Ok(())
    }

    /// Cuts the link until a condition holds, restores it, and waits until both are in sync. With
    /// `free` the workload runs away from the replica meanwhile.
    fn outage(
        &mut self,
        what: &str,
        free: bool,
        mut met: impl FnMut(&mut World, Duration) -> Result<bool>,
    ) -> Result<Outage> {
        let world = self.world()?;
        world.caught_up()?;
        world.watch.since_last();
        let (mark, before) = (Mark::of(world), world.sent()?);
        world.relay.cut();
        if free {
            world.watch.set_free(true);
            world.shared().pace.set_rate(FULL);
        }
        self.until(what, |world| met(world, mark.at.elapsed()))?;
        let world = self.world()?;
        let meanwhile = mark.rate(world);
        world.relay.restore();
        world.watch.set_free(false);
        world.shared().pace.set_rate(GENTLE);
        world.caught_up()?;
        Ok(Outage {
            cut_seconds: meanwhile.seconds,
            written_bytes: meanwhile.bytes,
            sent_bytes: world.sent()? - before,
            resynced: world.watch.since_last().resynced,
        })
    }

    fn flap(&mut self) -> Result<()> {
        let long = Duration::from_secs_f64(self.seconds * 0.2);
        let outage = self.outage("the outbox to hold some", false, |world, cut| {
            Ok(cut >= long && world.source.group()?.lag.bytes > 1 << 20)
        })?;
        ensure!(!outage.resynced, "a link that flapped led to a resync");
        self.held("a link that flapped led to no resync");
        self.report.flap = outage;
        self.say(&format!(
            "cut the link for {:.1} s under load: the outbox held {}, no resync",
            outage.cut_seconds,
            ByteLen(outage.written_bytes)
        ))
    }

    fn overflow(&mut self) -> Result<()> {
        let outage = self.outage("the outbox to overflow", true, |world, _| {
            Ok(!world.source.group()?.consistent)
        })?;
        ensure!(outage.resynced, "the outbox overflowed and nothing was resynced");
        self.held("an overflowed outbox led to a resync under load, and applications went on");
        self.report.overflow = outage;
        self.say(&format!(
            "cut the link until the outbox overflowed ({} written in {:.1} s): resynced under \
             load, {} shipped",
            ByteLen(outage.written_bytes),
            outage.cut_seconds,
            ByteLen(outage.sent_bytes)
        ))
    }

    /// Ends everything cleanly and compares.
    fn end(&mut self) -> Result<()> {
        let world = self.world()?;
        world.workload.end().map_err(anyhow::Error::msg)?;
        let counts = world.counts();
        for lv in &world.images[0].written.lvs {
            let socket = world.source.home().nbd_socket();
            Client::connect(&socket, &format!("{GROUP}/{}", lv.name))?.flush()?;
        }
        world.wait("applied")?;
        let all = world.watch.all();
        world.source.stop()?;
        world.replica.stop()?;
        self.held("both agents stopped cleanly");
        let world = self.world()?;
        for (side, images) in ["source", "replica"].into_iter().zip(&world.images) {
            let found = images.read(SEED, world.shared()).with_context(|| side.to_owned())?;
            found.prove_whole(world.shared()).with_context(|| side.to_owned())?;
        }
        let [source, replica] = &world.images;
        let compared = source.compare(replica)?;
        let heads = replica.heads()? == world.heads;
        ensure!(heads, "the heads of the replica's LVs, which are its own, were changed");
        self.held("both sides hold every write of the workload, and nothing else");
        self.held("all LVs are equal byte by byte, and the replica's mirror copies too");
        self.held("the replica's own control blocks are untouched");
        self.report.compared_bytes = compared.bytes;
        self.report.mirror_bytes = compared.mirrored;
        self.report.largest_lag = lag(&all);
        self.report.steps = counts.steps;
        self.report.written = Rate { bytes: counts.bytes, writes: counts.writes, seconds: 0.0 };
        self.say(&format!(
            "stopped both agents; {} are equal byte by byte",
            ByteLen(compared.bytes)
        ))
    }
}

/// Tells peers to come through the relay.
fn advertise(source: &Agent, relay: &Relay) -> Result<()> {
    let path = source.home().config();
    let at = || path.display().to_string();
    let text = std::fs::read_to_string(&path).with_context(at)?;
    let line = format!("advertise = \"{}\"\n\n[log]", relay.address());
    ensure!(text.contains("\n[log]"), "{} has no section [log]", at());
    std::fs::write(&path, text.replacen("[log]", &line, 1)).with_context(at)
}

/// Lets the relay lead to where the source listens now.
fn lead(relay: &Relay, source: &Agent) -> Result<()> {
    let listen = source.status()?.agent.listen.context("the source's address")?;
    relay.lead_to(listen.parse()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_holds_what_the_workload_may_be_ahead() {
        let [ram, spill] = OUTBOX.map(|size| size.parse::<crate::home::Size>().unwrap().0.0);
        assert!(ram > super::super::watch::AHEAD && spill > 0);
    }
}
