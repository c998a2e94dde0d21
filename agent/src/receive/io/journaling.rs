//! The thread that admits and journals: takes what waits, asks whether there is room, appends and
//! flushes, and hands on to the applier.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vgship_base::ids::Seq;
use vgship_base::record::{Chain, Record};
use vgship_base::units::ByteLen;
use vgship_snapshot::seal::KeyId;

use super::super::admit::{Admit, AdmitError, Point};
use super::super::journal::Journal;
use super::super::room::{self, Disk, Room};
use super::{
    Answers, Applied, CHECKPOINT_EVERY, EngineError, Greeting, LOOK, Message, QUEUE, Shared, Stays,
    Work,
};
use crate::history::keeping;

/// Bytes journaled with one flush.
const GROUP_BYTES: u64 = 4 << 20;

/// How often a wait for room is logged.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// The journal's thread.
pub(super) struct Journaling {
    admit: Admit,
    journal: Journal,
    place: String,
    to_apply: SyncSender<Work>,
    taken: Arc<Notify>,
    shared: Arc<Shared>,
    link: Option<(u64, Answers)>,
    ready: VecDeque<Message>,
    /// Of which segments others were told.
    told: (usize, Seq),
}

impl Journaling {
    pub(super) fn new(
        (admit, journal, place): (Admit, Journal, String),
        (to_apply, taken): (SyncSender<Work>, Arc<Notify>),
        shared: Arc<Shared>,
    ) -> Journaling {
        let (link, ready, told) = (None, VecDeque::new(), (0, Seq::ZERO));
        Journaling { admit, journal, place, to_apply, taken, shared, link, ready, told }
    }

    pub(super) fn run(mut self, from: &Receiver<Message>) {
        loop {
            let message = match from.recv_timeout(CHECKPOINT_EVERY) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.taken.notify_one();
            self.ready.extend(message);
            let done = self.work(from).and_then(|goes_on| {
                self.renew()?;
                self.trim().map(|_| goes_on)
            });
            match done {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.shared.fail(&error);
                    return;
                }
            }
            if self.shared.ends() {
                return;
            }
        }
    }

    /// Removes what the volumes hold, history does not need and nobody reads; up to where.
    fn trim(&mut self) -> Result<Seq, EngineError> {
        let upto = self.shared.trimmable();
        self.journal.trim(upto)?;
        let segments = self.journal.segments();
        {
            let mut view = self.shared.view();
            (view.journal_after, view.journal_bytes) =
                (self.journal.first_after(), self.journal.bytes());
        }
        if (segments, self.journal.first_after()) != self.told {
            self.told = (segments, self.journal.first_after());
            let mut told = self.shared.segments.lock().unwrap_or_else(PoisonError::into_inner);
            *told = self.journal.closed();
        }
        Ok(upto)
    }

    /// Begins a segment with the current key if the last one has an older key, and there is room;
    /// whether it has the current one now. While records come, they do so themselves.
    fn renew(&mut self) -> Result<bool, EngineError> {
        if self.journal.is_stale() {
            let free = self.journal.available()?;
            let room = Disk { free, wanted: room::SEGMENT_BYTES, settled: false }.room();
            if room != Room::Enough {
                return Ok(false);
            }
            self.journal.renew()?;
        }
        Ok(true)
    }

    /// Leaves older keys, and the history that needs `key`.
    fn leave(&mut self, key: Option<KeyId>) -> Result<Result<(), Stays>, EngineError> {
        if !self.renew()? {
            return Ok(Err(Stays::NoRoom));
        }
        let Some(key) = key else { return Ok(Ok(())) };
        let Some(end) = self.journal.end_of(key)? else { return Ok(Ok(())) };
        if self.shared.settled.load(Ordering::SeqCst) < end.0 {
            return Ok(Err(Stays::Unapplied));
        }
        if self.shared.readers().iter().any(|after| *after < end) {
            return Ok(Err(Stays::Read));
        }
        self.shared.floor.fetch_max(end.0, Ordering::SeqCst);
        self.journal.trim(end)?;
        Ok(Ok(()))
    }

    /// Takes all that waits, up to a group's size, and journals it with one flush. Whether to go on.
    fn work(&mut self, from: &Receiver<Message>) -> Result<bool, EngineError> {
        while let Some(message) = self.ready.pop_front() {
            match message {
                Message::Link { link, answers, ready } => {
                    self.link = Some((link, answers));
                    let view = self.shared.view();
                    let (durable, applied) = (view.durable, view.applied);
                    // A link that is gone already needs no greeting.
                    let _ = ready.send(Greeting { durable, applied, damaged: view.damaged });
                }
                Message::Replay { after, ready } => {
                    // Who asked may have gone.
                    let _ = ready.send(self.journal.replay(after));
                }
                Message::Leave { key, ready } => {
                    let left = self.leave(key)?;
                    // Who asked may look at once; or may have gone.
                    self.trim()?;
                    let _ = ready.send(left);
                }
                Message::Batch { link, records } => {
                    if !self.group(from, link, records)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// The next message, if there is one now: those that were taken off the queue come first.
    fn next(&mut self, from: &Receiver<Message>) -> Option<Message> {
        self.ready.pop_front().or_else(|| {
            let message = from.try_recv().ok()?;
            self.taken.notify_one();
            Some(message)
        })
    }

    fn group(
        &mut self,
        from: &Receiver<Message>,
        link: u64,
        records: Vec<Record>,
    ) -> Result<bool, EngineError> {
        let mut taken = Vec::new();
        let mut bytes = self.admit(link, records, &mut taken);
        while bytes < GROUP_BYTES {
            match self.next(from) {
                Some(Message::Batch { link, records }) => {
                    bytes += self.admit(link, records, &mut taken);
                }
                Some(other) => {
                    self.ready.push_front(other);
                    break;
                }
                None => break,
            }
        }
        if taken.is_empty() {
            return Ok(true);
        }
        let wanted = room::wanted(taken.iter().map(|(records, _)| records.as_slice()));
        if !self.await_room(from, wanted)? {
            return Ok(false);
        }
        let promised = self.shared.view().durable.seq;
        for (records, _) in &taken {
            self.journal.append(records, promised)?;
        }
        self.journal.flush()?;
        self.journal.promise()?;
        let answers = self.link.as_ref().map(|(_, answers)| answers);
        for (records, point) in taken {
            {
                let mut view = self.shared.view();
                view.durable = point;
                view.damaged &= point.window.is_none() || point.broken();
            }
            let applied = Applied { records, point, answers: answers.cloned() };
            let durable = point;
            self.shared.progress.send_modify(|progress| {
                progress.received = durable.seq;
                progress.durable = durable;
            });
            if self.to_apply.send(Work::Batch(applied)).is_err() {
                return Ok(true); // the applier has said why it stopped
            }
        }
        Ok(true)
    }

    /// Waits until the disk has room for `wanted` bytes of records. Little is read from the link
    /// meanwhile, so that the source keeps what comes. Whether to go on.
    fn await_room(&mut self, from: &Receiver<Message>, wanted: u64) -> Result<bool, EngineError> {
        let mut said = None;
        loop {
            let settled = self.trim()?;
            let (free, settled) = (self.journal.available()?, self.journal.would_shrink(settled));
            match (Disk { free, wanted, settled }).room() {
                Room::Enough => {
                    if said.is_some() {
                        self.shared.view().waits = None;
                        tracing::info!(journal = self.place, "the journal has room again");
                    }
                    return Ok(true);
                }
                Room::Rotate => self.journal.rotate()?,
                Room::Wait { .. } if self.history_gives_way() => {}
                Room::Wait { needed } => {
                    if self.shared.stopping.load(Ordering::SeqCst) || self.shared.ends() {
                        return Ok(false);
                    }
                    self.say(&mut said, free, needed);
                    self.answer_meanwhile(from);
                    std::thread::sleep(LOOK);
                }
            }
        }
    }

    /// Answers those who read, while nothing can be taken; what else there is waits in its order.
    fn answer_meanwhile(&mut self, from: &Receiver<Message>) {
        while self.ready.len() < QUEUE
            && let Ok(message) = from.try_recv()
        {
            // Who asked may have gone.
            match message {
                Message::Replay { after, ready } => drop(ready.send(self.journal.replay(after))),
                Message::Leave { ready, .. } => drop(ready.send(Err(Stays::NoRoom))),
                other => {
                    self.taken.notify_one();
                    self.ready.push_back(other);
                }
            }
        }
    }

    /// Where history alone keeps the journal from being trimmed, its oldest part goes: the stream
    /// comes first. Whether that may help.
    fn history_gives_way(&self) -> bool {
        let settled = Seq(self.shared.settled.load(Ordering::SeqCst));
        let floor = Seq(self.shared.floor.load(Ordering::SeqCst));
        let oldest = self.journal.oldest_end();
        let readers = self.shared.readers().clone().into_iter();
        let Some(upto) = keeping::give_way(floor, settled, readers, oldest) else { return false };
        self.shared.floor.store(upto.0, Ordering::SeqCst);
        tracing::warn!(
            journal = self.place,
            %upto,
            "the journal's disk is full: points in time up to here leave the history"
        );
        true
    }

    fn say(&self, said: &mut Option<Instant>, free: u64, needed: u64) {
        let (free, needed) = (ByteLen(free), ByteLen(needed));
        let rolled = self.shared.view().rolled.is_some();
        let or = if rolled { ", or undo the rollback" } else { "" };
        let text = format!(
            "the journal in {} has no room: {free} are free and {needed} are needed; free some, or \
             give it a larger disk{or}: the replica goes on by itself",
            self.place
        );
        if said.is_none_or(|since| since.elapsed() >= SAY_EVERY) {
            tracing::warn!(reason = text, "the replica takes nothing from its link");
            *said = Some(Instant::now());
        }
        self.shared.view().waits = Some(text);
    }

    /// Admits a batch of the present link, cut so that no part crosses a resync's begin or end,
    /// or a marker (R5). What follows a refused record is dropped; the link is told. What it takes in the
    /// journal.
    fn admit(
        &mut self,
        link: u64,
        records: Vec<Record>,
        taken: &mut Vec<(Vec<Record>, Point)>,
    ) -> u64 {
        if self.link.as_ref().is_none_or(|(known, _)| *known != link) {
            return 0;
        }
        let first = taken.len();
        let mut part = Vec::new();
        for record in records {
            let chained = self.admit.point().chain.is_some();
            let hash = if chained { Chain::data_hash(&record) } else { None };
            let before = self.admit.point();
            if let Err(error) = self.admit.admit(&record, hash) {
                if matches!(error, AdmitError::Chain { .. }) {
                    self.shared.view().damaged = true;
                }
                self.link = None;
                self.shared.refused.send_replace(Some((link, error)));
                break;
            }
            let border = record.is_border();
            if border && !part.is_empty() {
                taken.push((std::mem::take(&mut part), before));
            }
            part.push(record);
            if border {
                taken.push((std::mem::take(&mut part), self.admit.point()));
            }
        }
        if !part.is_empty() {
            taken.push((part, self.admit.point()));
        }
        self.shared.view().received = self.admit.point();
        taken[first..].iter().map(|(records, _)| room::journaled(records)).sum()
    }
}
