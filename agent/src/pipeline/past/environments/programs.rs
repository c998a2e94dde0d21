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
use crate::capture::nbd::io::NbdClients;
use crate::pipeline::exports::Served;
use crate::pipeline::past::program::{How, Ran, run};

/// The file of what all programs said, in the environment's folder.
pub(super) const LOG: &str = "log";

/// How long a masking step may take.
const MASK_MAX: Duration = Duration::from_hours(6);

/// What to do when a mask fails.
pub(super) const MEND: &str = "nothing was made; mend the program and try again";

/// How long a step or a teardown may take unless it is said.
pub(super) const STEP_MAX: Duration = Duration::from_hours(1);

/// How long clients of a program that has ended may take to go, too.
const DETACH: Duration = Duration::from_secs(5);

/// What names of clones begin with that only programs know.
const HIDDEN: &str = "mask-";

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

/// Clones that are served under names that nobody can guess, for as long as this lives. Its clients
/// end with it.
pub(super) struct Hidden<'a> {
    served: &'a Served,
    clients: &'a NbdClients,
    prefix: String,
    pub(super) shown: Shown,
}

impl<'a> Hidden<'a> {
    /// Serves an environment's.
    pub(super) fn serve(
        env: &Name,
        volumes: &[Volume],
        served: &'a Served,
        clients: &'a NbdClients,
    ) -> Result<Hidden<'a>, ControlError> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)
            .map_err(|it| ControlError::failed(format!("cannot get a hidden name: {it}")))?;
        let prefix = format!("{HIDDEN}{:032x}/{env}/", u128::from_be_bytes(secret));
        let mut hidden = Hidden { served, clients, prefix, shown: Shown::default() };
        for volume in volumes {
            let Volume { group, name, clone } = volume;
            let export = format!("{}{group}/{name}", hidden.prefix);
            hidden.shown.add_export(group, name, &export);
            served.add_clone(export, Arc::clone(clone) as _);
        }
        Ok(hidden)
    }

    /// Serves them no more. What still writes to them would change what is handed out.
    ///
    /// # Errors
    /// Clients that did not detach within a while; they are ended.
    pub(super) fn close(self, what: &str) -> Result<(), ControlError> {
        // First, so that nobody new comes in while it is counted.
        self.served.remove_clones(&self.prefix);
        let is_here = |export: &str| export.starts_with(&self.prefix);
        match self.clients.wait_until_gone(is_here, DETACH) {
            0 => Ok(()),
            left => Err(ControlError::failed(format!(
                "{left} NBD clients were still connected when {what} had ended; \
                 it must detach them before it ends"
            ))),
        }
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.served.remove_clones(&self.prefix);
        let left = self.clients.end(|export| export.starts_with(&self.prefix));
        if left > 0 {
            tracing::warn!(left, "clients of clones that are not handed out do not end");
        }
    }
}

/// Whether an export is a clone of an environment, under a name that only its programs know.
pub(super) fn is_hidden_of(env: &Name, export: &str) -> bool {
    let behind = export.strip_prefix(HIDDEN).and_then(|it| it.split_once('/'));
    behind.and_then(|it| it.1.split_once('/')).is_some_and(|(of, _)| of == env.as_str())
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
    /// Runs a program that finds these volumes. `title` stands in the log before what it says.
    pub(super) fn run(
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
        let ran = self.run(Command::new(program), &title, shown, MASK_MAX);
        let ran = ran.map_err(|it| it.hint(MEND))?;
        if !ran.is_good() {
            self.log("the masking step", &ran);
            return Err(broken(&title, &ran).hint(MEND));
        }
        if ran.left_work() {
            let text = format!(
                "{title} left processes at work when it ended; they were killed. It must wait for \
                 all that it starts"
            );
            return Err(ControlError::failed(text).hint(MEND));
        }
        Ok(facts(program.display().to_string(), &ran))
    }

    /// Says in the agent's log that a program failed: not how it was called nor what it said, for
    /// both may hold secrets, and others read that log.
    fn log(&self, program: &str, ran: &Ran) {
        let (environment, ended) = (self.name, ran.ended());
        tracing::warn!(%environment, program, ended, "a program of an environment failed");
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
                self.log(&format!("step {number}"), &ran);
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
        if ran.is_good() {
            return Ok(());
        }
        self.log("the teardown", &ran);
        Err(broken(&title, &ran))
    }
}

/// A shell that runs a command.
pub(super) fn shell(command: &str) -> Command {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn hidden_exports_are_of_one_environment() {
        let is = |env: &str, export: &str| is_hidden_of(&env.parse().unwrap(), export);
        assert!(is("e", "mask-00ff/e/g/data"));
        for export in ["mask-00ff/e2/g/data", "mask-e/g/data", "env/e/g/data", "g/e/g", "mask-e"] {
            assert!(!is("e", export), "{export}");
        }
    }

    /// Goal: whoever is served the clones as soon as a mask has ended meets nobody who still masks.
    #[test]
    fn a_mask_that_leaves_something_at_work_is_not_good() {
        let place = tempfile::tempdir().unwrap();
        let stopping = AtomicBool::new(false);
        let name = "e".parse().unwrap();
        let (socket, folder) = (Path::new("/none"), place.path());
        let programs = Programs { name: &name, socket, folder, stopping: &stopping };
        let mask = |text: &str| {
            let path = place.path().join("mask");
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
            loop {
                let ran = programs.mask(&path, &Shown::default()).map_err(|it| it.to_string());
                match ran {
                    // What another test begins at this moment has it open until it is executed.
                    Err(error) if error.contains("file busy") => std::thread::yield_now(),
                    ran => break ran.map(drop),
                }
            }
        };
        assert_eq!(mask("exit 0"), Ok(()));
        let error = mask("sleep 600 >/dev/null 2>&1 & exit 0").unwrap_err();
        assert!(error.contains("left processes at work"), "{error}");
    }
}
