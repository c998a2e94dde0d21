//! `vgship switchover`, `failover`, `failback`: who is the source.

use std::fmt::Write as _;
use std::time::Duration;

use vgship_base::ids::Name;
use vgship_base::units::ByteLen;

use super::Context;
use super::table::Table;
use crate::api::roles::{
    FailbackPreview, FailbackRequest, FailoverRequest, OtherSource, SwitchoverRequest,
};
use crate::api::{Client, ControlError};
use crate::history::spec::At;
use crate::home::Period;
use crate::role::procedure::{Procedure, Step};

/// How often it is looked how far a procedure is.
const LOOK: Duration = Duration::from_millis(100);

/// Hand the source's role to a replica that has everything, and follow it
///
/// Runs at the source: the stop hook, then writes are kept away, everything is drained and proved
/// equal, the replica takes the role, and ships back at once without a full sync. When a step fails
/// before that, the source goes on as it was.
#[derive(Debug, clap::Args)]
pub struct Switchover {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// The replica that becomes the source, when there are several
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// How long draining, and the other side's taking over, may take each [default: 1 m]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Period>,
    /// Cut off NBD clients that are still connected
    #[arg(long)]
    force: bool,
    /// Say what would be done, and whether it could be done now
    #[arg(long)]
    dry_run: bool,
}

/// Make this replica the source, when its source is lost
///
/// Nothing that was received is lost; what was not is. A new generation begins, and the LVs are
/// served for writing. When the old source comes back it is asked which history counts: see vgship
/// failback.
#[derive(Debug, clap::Args)]
pub struct Failover {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// The generation that is given up, or its beginning, as vgship status shows it
    #[arg(long, value_name = "GEN")]
    generation: String,
    /// To which snapshot or point instead of the newest
    #[arg(long, value_name = "NAME|POINT")]
    to: Option<At>,
    /// Also while the source is connected
    #[arg(long)]
    force: bool,
    /// Say what would be done, and whether it could be done now
    #[arg(long)]
    dry_run: bool,
}

/// Give up what was written here since another side became the source, and follow it
///
/// Runs on the side whose history is given up. What it holds stays as a snapshot, branch-GEN, until
/// somebody deletes it. Only what differs is shipped.
#[derive(Debug, clap::Args)]
pub struct Failback {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// The generation of this side, which is given up, or its beginning
    #[arg(long, value_name = "GEN")]
    generation: String,
    /// The peer to follow, when several are a source
    #[arg(long, value_name = "NAME")]
    follow: Option<String>,
    /// Cut off NBD clients that are still connected
    #[arg(long)]
    force: bool,
}

/// What a failback here would give up
#[derive(Debug, clap::Args)]
pub struct PreviewFailback {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
}

pub(super) fn switchover(args: Switchover, context: &Context<'_>) -> Result<(), ControlError> {
    let Switchover { group, to, timeout, force, dry_run } = args;
    let request = SwitchoverRequest { to, timeout, force, dry_run };
    procedure("switchover", &group, context, async |it| it.switchover(&group, &request).await)
}

pub(super) fn failover(args: Failover, context: &Context<'_>) -> Result<(), ControlError> {
    let Failover { group, generation, to, force, dry_run } = args;
    let to = to.map(|it| it.to_string());
    let request = FailoverRequest { generation, to, force, dry_run };
    procedure("failover", &group, context, async |it| it.failover(&group, &request).await)
}

pub(super) fn failback(args: Failback, context: &Context<'_>) -> Result<(), ControlError> {
    let Failback { group, generation, follow, force } = args;
    let request = FailbackRequest { generation, follow, force };
    procedure("failback", &group, context, async |it| it.failback(&group, &request).await)
}

pub(super) fn preview(args: &PreviewFailback, context: &Context<'_>) -> Result<(), ControlError> {
    let told = super::block_on(async { context.client().preview_failback(&args.group).await })?;
    context.output.result(&told, previewed)
}

fn previewed(told: &FailbackPreview) -> String {
    if told.peers.is_empty() {
        return format!(
            "no connected peer is a source of {} too: there is nothing to give up",
            told.group
        );
    }
    let one = |other: &OtherSource| {
        let mut table = Table::new(["LV", "SIZE", "GIVEN UP AT MOST"]);
        for volume in &other.volumes {
            let (size, changed) = (ByteLen(volume.bytes), ByteLen(volume.changed_bytes));
            table.row([volume.name.clone(), size.to_string(), changed.to_string()]);
        }
        format!("{}\n{table}", other.relation)
    };
    let peers: Vec<String> = told.peers.iter().map(one).collect();
    format!("generation here: {}\n{}", told.generation, peers.join("\n"))
}

/// Asks for a procedure, shows its steps as they come, and prints what it was.
fn procedure(
    kind: &str,
    group: &Name,
    context: &Context<'_>,
    ask: impl AsyncFnOnce(Client) -> Result<Procedure, ControlError>,
) -> Result<(), ControlError> {
    let done = watched(kind, group, context, ask)?;
    context.output.result(&done, summary)
}

/// Asks for a procedure whose kind begins with `kind`, and shows its steps as they come.
pub(super) fn watched<T>(
    kind: &str,
    group: &Name,
    context: &Context<'_>,
    ask: impl AsyncFnOnce(Client) -> Result<T, ControlError>,
) -> Result<T, ControlError> {
    let output = context.output;
    super::block_on(async {
        let before = context.client().procedure(group).await?.procedure;
        let mut shown = Shown { kind, before: before.map(|it| it.started), steps: 0 };
        let asking = ask(context.client());
        tokio::pin!(asking);
        let done = loop {
            tokio::select! {
                done = &mut asking => break done,
                () = tokio::time::sleep(LOOK) => {}
            }
            // What cannot be asked now is asked again.
            if let Ok(now) = context.client().procedure(group).await
                && let Some(now) = now.procedure
                && !output.is_json()
            {
                shown.show(&now, |line| output.line(line))?;
            }
        };
        if !output.is_json()
            && let Some(last) = context.client().procedure(group).await?.procedure
        {
            shown.show(&last, |line| output.line(line))?;
        }
        done
    })
}

/// What has been shown of a procedure.
struct Shown<'a> {
    /// What the kind of this one begins with: another may be under way by now.
    kind: &'a str,
    /// When the last one began: that is not this one.
    before: Option<String>,
    steps: usize,
}

impl Shown<'_> {
    fn show(
        &mut self,
        now: &Procedure,
        mut line: impl FnMut(&str) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        if self.before.as_ref() == Some(&now.started) || !now.kind.starts_with(self.kind) {
            return Ok(());
        }
        let over = |step: &&Step| step.seconds.is_some();
        for step in now.steps.iter().take_while(over).skip(self.steps) {
            line(&step.line())?;
            self.steps += 1;
        }
        Ok(())
    }
}

fn summary(done: &Procedure) -> String {
    let mut text = format!("{} of {}: done in {:.3} s", done.kind, done.group, done.seconds);
    for (name, fact) in &done.facts {
        let _ = write!(text, "\n{name}: {fact}");
    }
    text
}
