//! What programs run for an environment, and what they are told: the mask before anybody can see
//! anything, the steps before it is handed out, the teardown before it goes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vgship_base::ids::Name;

use super::env::Volume;
use super::facts::{StepFacts, TeardownFacts};
use super::outside::Outside;
use crate::api::ControlError;
use crate::pipeline::exports::Served;
use crate::pipeline::past::program::{How, Ran, run};

/// The file of what all programs said, in the environment's folder.
pub(super) const LOG: &str = "log";

/// How long a masking step may take.
const MASK_MAX: Duration = Duration::from_hours(6);

/// How long a step or a teardown may take unless it is said.
pub(super) const STEP_MAX: Duration = Duration::from_hours(1);

/// What all programs of an environment are told.
pub(super) struct Programs<'a> {
    pub(super) name: &'a Name,
    /// Where NBD clients connect.
    pub(super) socket: &'a Path,
    /// The environment's own folder.
    pub(super) folder: &'a Path,
    pub(super) stopping: &'a AtomicBool,
}

/// Volumes as a program finds them.
#[derive(Default)]
pub(super) struct Shown {
    /// A line `LV EXPORT` each.
    exports: Vec<String>,
    /// A line `GROUP LV EXPORT`, or `GROUP LV PLACE`, each.
    volumes: Vec<String>,
}

/// Clones that are served under names that nobody can guess, for as long as this lives.
pub(super) struct Hidden<'a> {
    served: &'a Served,
    prefix: String,
    pub(super) shown: Shown,
}

impl<'a> Hidden<'a> {
    /// Serves them.
    pub(super) fn serve(
        volumes: &[Volume],
        served: &'a Served,
    ) -> Result<Hidden<'a>, ControlError> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)
            .map_err(|it| ControlError::failed(format!("cannot get a hidden name: {it}")))?;
        let prefix = format!("mask-{:032x}/", u128::from_be_bytes(secret));
        let mut hidden = Hidden { served, prefix, shown: Shown::default() };
        for volume in volumes {
            let Volume { group, name, clone } = volume;
            let export = format!("{}{group}/{name}", hidden.prefix);
            hidden.shown.add_export(group, name, &export);
            served.add_clone(export, Arc::clone(clone) as _);
        }
        Ok(hidden)
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.served.remove_clones(&self.prefix);
    }
}

impl Shown {
    /// The volumes that were written outside.
    pub(super) fn outside(outside: &Outside) -> Shown {
        let volumes = outside.volumes.iter();
        let line = volumes.map(|it| format!("{} {} {}", it.group, it.lv, it.place));
        Shown { exports: Vec::new(), volumes: line.collect() }
    }

    /// A clone that is served.
    pub(super) fn add_export(&mut self, group: &Name, lv: &Name, export: &str) {
        self.exports.push(format!("{lv} {export}"));
        self.volumes.push(format!("{group} {lv} {export}"));
    }
}

impl Programs<'_> {
    fn run(
        &self,
        mut command: Command,
        title: &str,
        shown: &Shown,
        most: Duration,
    ) -> Result<Ran, ControlError> {
        command
            .env("VGSHIP_ENV", self.name.as_str())
            .env("VGSHIP_NBD_SOCKET", self.socket)
            .env("VGSHIP_FOLDER", self.folder)
            .env("VGSHIP_EXPORTS", shown.exports.join("\n"))
            .env("VGSHIP_VOLUMES", shown.volumes.join("\n"));
        let ran = run(command, title, &self.folder.join(LOG), most, self.stopping);
        ran.map_err(|it| ControlError::failed(format!("{title} cannot be run: {it}")))
    }

    /// Takes out of the clones what their users must not see.
    pub(super) fn mask(&self, program: &Path, shown: &Shown) -> Result<StepFacts, ControlError> {
        let title = format!("the masking step {}", program.display());
        let mend = "nothing was made; mend the program and try again";
        let ran = self.run(Command::new(program), &title, shown, MASK_MAX);
        let ran = ran.map_err(|it| it.hint(mend))?;
        match ran.is_good() {
            true => Ok(facts(program.display().to_string(), &ran)),
            false => Err(broken(&title, &ran).hint(mend)),
        }
    }

    /// Runs the steps in their order up to the first that fails; what ran, and why not all did.
    pub(super) fn steps(
        &self,
        commands: &[String],
        shown: &Shown,
        most: Duration,
    ) -> (Vec<StepFacts>, Result<(), ControlError>) {
        let mut done = Vec::new();
        for (command, number) in commands.iter().zip(1..) {
            let title = format!("step {number}, `{command}`");
            let ran = match self.run(shell(command), &title, shown, most) {
                Ok(ran) => ran,
                Err(error) => return (done, Err(error)),
            };
            done.push(facts(command.clone(), &ran));
            if !ran.is_good() {
                return (done, Err(broken(&title, &ran)));
            }
        }
        (done, Ok(()))
    }

    /// Runs before the environment goes.
    pub(super) fn teardown(
        &self,
        teardown: &TeardownFacts,
        shown: &Shown,
    ) -> Result<(), ControlError> {
        let title = format!("the teardown `{}`", teardown.command);
        let most = Duration::from_millis(teardown.most_millis);
        let ran = self.run(shell(&teardown.command), &title, shown, most)?;
        if ran.is_good() { Ok(()) } else { Err(broken(&title, &ran)) }
    }
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]);
    shell
}

fn facts(command: String, ran: &Ran) -> StepFacts {
    let millis = u64::try_from(ran.took.as_millis()).unwrap_or(u64::MAX);
    StepFacts { command, millis, ended: ran.ended() }
}

fn broken(title: &str, ran: &Ran) -> ControlError {
    let how = match ran.how {
        How::Ended(status) => format!("ended with {status}"),
        How::TooLong | How::Stopping => ran.ended(),
    };
    ControlError::failed(format!("{title} {how}: {}", ran.said))
}
