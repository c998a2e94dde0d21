//! Steps of the historian: snapshots by schedule, what goes, how far back the journal is kept; and
//! whether what was said to be there is (R12).

use std::sync::Arc;

use vgship::history::keeping::{self, Standing};
use vgship_base::ids::Seq;
use vgship_snapshot::retention::{Plan, Reason, Short};
use vgship_snapshot::set::{Listed, Origin, Snapshot, SnapshotSet};

use super::World;
use super::replica::{Ended, stopped};

impl World {
    /// A replica's historian looks, as it does each 30 s in the agent.
    pub fn keep_history(&mut self, index: usize) {
        if !self.replica_up(index) || self.replicas[index].history.is_none() {
            return;
        }
        if let Err(ended) = self.keep(index) {
            self.ended(index, &ended);
        }
        self.note_snapshots(index);
    }

    fn standing(&self, index: usize) -> Standing {
        let host = &self.replicas[index];
        let life = host.life.as_ref().expect("it is up");
        Standing {
            applied: life.stored,
            rolled: life.hold.is_some(),
            journal_after: life.journal.first_after(),
            journal_bytes: life.journal.bytes(),
            closed: life.journal.closed(),
            wall: host.past.wall()(),
        }
    }

    fn keep(&mut self, index: usize) -> Result<(), Ended> {
        let (set, standing) = (self.set(index), self.standing(index));
        let wanted = self.replicas[index].history.clone().expect("it was just seen");
        if standing.applied.generation.is_none() {
            return Ok(());
        }
        if keeping::is_due(&wanted, &standing, &set.points()?) {
            let name = self.fresh_name("auto").parse().expect("a name");
            let life = self.replicas[index].life.as_mut().expect("it is up");
            let keeper = life.applier.keeper().expect("replicas keep snapshots");
            match keeper.take_here(name, Origin::Automatic) {
                Err(error) if !error.is_refusal() => return Err(stopped(&error)),
                _ => self.coverage.hit("snapshot taken by the schedule"),
            }
        }
        let listed = set.list_costs()?;
        let plan = keeping::plan(&set, &wanted, &standing)?;
        Self::check_plan(index, &plan, &listed);
        let (mut floor, mut gone) = (Seq::ZERO, Vec::new());
        let tell = |upto| floor = upto;
        let done = keeping::carry_out(&set, &plan, tell, |_, it| gone.push(it.reason.clone()));
        self.note_gone(&plan, &gone);
        let life = self.replicas[index].life.as_mut().expect("it is up");
        life.floor = floor;
        done?;
        let reach = set.points()?.iter().map(|it| it.point).find(|point| *point >= floor);
        assert_eq!(reach.is_some(), plan.reaches.is_some(), "what reaches back is there: {plan:?}");
        self.replicas[index].past.reach = reach;
        if self.rng.one_in(2) {
            self.trim(index)?;
        }
        Ok(())
    }

    fn trim(&mut self, index: usize) -> Result<(), Ended> {
        let life = self.replicas[index].life.as_mut().expect("it is up");
        let (before, floor) = (life.journal.first_after(), life.floor);
        life.trim()?;
        if life.journal.first_after() > before && floor < life.checkpointed {
            self.coverage.hit("journal trimmed to the history's floor");
        }
        Ok(())
    }

    /// Retention takes nothing away that somebody needs.
    fn check_plan(index: usize, plan: &Plan, listed: &[Listed]) {
        for gone in &plan.delete {
            let found = listed.iter().find(|it| it.snapshot.seq == gone.seq);
            let Listed { snapshot, holders, .. } = found.expect("only what is there can go");
            let needed = snapshot.pinned || snapshot.guards || !holders.is_empty();
            let made = snapshot.origin == Origin::Manual;
            assert!(
                !needed && !made,
                "replica {index}: {gone:?} would go, which is held by {holders:?}: {snapshot:?}"
            );
        }
    }

    fn note_gone(&mut self, plan: &Plan, gone: &[Reason]) {
        for reason in gone {
            self.coverage.hit(match reason {
                Reason::Thinned { .. } => "snapshot thinned",
                Reason::BeyondGrid => "snapshot older than the grid went",
                Reason::BeyondWindow { .. } => "snapshot older than the window went",
                Reason::Budget { .. } => "snapshot went for the budget",
            });
        }
        match plan.short {
            None => {}
            Some(Short::Budget { .. }) => self.coverage.hit("history over its budget, and said"),
            Some(Short::Window { .. }) => {
                self.coverage.hit("history short of its window, and said");
            }
        }
    }

    /// The disk of a journal is full, and history gives way.
    pub(super) fn history_gives_way(&mut self, index: usize) {
        let life = self.replicas[index].life.as_mut().expect("it is up");
        let oldest = life.journal.oldest_end();
        let upto = keeping::give_way(life.floor, life.checkpointed, life.readers(), oldest);
        let Some(upto) = upto else { return };
        life.floor = upto;
        self.coverage.hit("history gave way to a full disk");
        self.replicas[index].past.reach = Some(upto);
        if let Err(ended) = self.trim(index) {
            self.ended(index, &ended);
        }
    }

    /// R12: any point from where the history was said to reach can be opened.
    ///
    /// # Errors
    /// A disk refused.
    pub(super) fn check_reach(
        &mut self,
        index: usize,
        set: &Arc<SnapshotSet>,
    ) -> Result<(), Ended> {
        let host = &self.replicas[index];
        let Some(reach) = host.past.reach.filter(|_| !host.decayed) else { return Ok(()) };
        let all = set.points()?;
        // A person may have deleted the oldest one since.
        let Some(oldest) = all.iter().find(|it| it.point >= reach) else { return Ok(()) };
        let life = host.life.as_ref().expect("it is up");
        let after = life.journal.first_after();
        assert!(
            after <= oldest.point,
            "R12: history was said to reach back to {reach}, now to {} at {}, and the journal of \
             replica {index} begins after {after}",
            oldest.name,
            oldest.point
        );
        let settled: Vec<Snapshot> = all.iter().filter(|it| set.is_settled(it)).cloned().collect();
        let Some(offered) = keeping::oldest(&settled, after) else { return Ok(()) };
        let Some(wanted) = self.some_record(index, offered.point) else { return Ok(()) };
        let Some(base) = keeping::base_of(&settled, wanted).cloned() else { return Ok(()) };
        assert!(
            keeping::reaches(after, &base, wanted),
            "R12: {wanted} of replica {index} was offered, and cannot be opened from {base:?}"
        );
        let Some(images) = self.read_back(index, set, &base)? else { return Ok(()) };
        self.coverage.hit("R12 checked: a point that the history offers");
        self.roll_to(index, &base, &images, wanted)
    }
}
