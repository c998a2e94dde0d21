//! The commands that stop and start applications around a change of roles.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vgship_base::ids::Name;

use crate::api::ControlError;
use crate::home::io::make_folder;
use crate::pipeline::agent::Inner;
use crate::pipeline::past::program;

/// How long a hook may take: databases take minutes to stop.
const PATIENCE: Duration = Duration::from_mins(10);

impl Inner {
    /// Runs a group's hook, if there is one. What it says goes into the log beside the records of
    /// procedures.
    pub(super) async fn hook(
        self: &Arc<Self>,
        group: &Name,
        hook: &'static str,
        command: String,
    ) -> Result<String, ControlError> {
        if command.is_empty() {
            return Ok("none is set".to_owned());
        }
        let (agent, group) = (Arc::clone(self), group.clone());
        let ran = tokio::task::spawn_blocking(move || {
            let folder = agent.home.group(&group).folder().join("procedures");
            make_folder(&folder)?;
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(&command);
            shell.env("VGSHIP_GROUP", group.as_str()).env("VGSHIP_HOOK", hook);
            shell.env("VGSHIP_NBD", agent.home.nbd_socket());
            let never = AtomicBool::new(false);
            let log = folder.join("hooks.log");
            let ran = program::run(shell, &format!("{hook}: {command}"), &log, PATIENCE, &never);
            ran.map_err(|error| {
                ControlError::failed(format!("the {hook} hook cannot be run: {error}"))
            })
        });
        let ran = ran.await.map_err(|error| ControlError::from_error(&error))??;
        if ran.is_good() {
            return Ok(format!("it took {:.1} s", ran.took.as_secs_f64()));
        }
        let text = format!("the {hook} hook {}: {}", ran.ended(), ran.said.trim_end());
        Err(ControlError::failed(text).hint("see procedures/hooks.log in the group's folder"))
    }
}
