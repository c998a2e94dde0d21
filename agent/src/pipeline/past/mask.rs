//! The masking step: a program that takes out of a clone what its users must not see, before they
//! can see anything.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vgship_base::ids::Name;

use super::clone::CloneVolume;
use crate::api::ControlError;
use crate::pipeline::exports::Served;

/// How long a masking step may take.
const MASK_MAX: Duration = Duration::from_hours(6);

const LOOK: Duration = Duration::from_millis(50);

/// How much of what the program said is repeated. Unit: bytes.
const SAID_MAX: u64 = 2000;

/// Runs the program with the clones served under names that nobody can guess. Its environment:
/// `VGSHIP_ENV`, `VGSHIP_NBD_SOCKET`, and `VGSHIP_EXPORTS`, a line `LV EXPORT` for each volume.
///
/// # Errors
/// It cannot be run, does not end with 0, or takes too long: then it is killed.
pub(super) fn run(
    program: &Path,
    name: &Name,
    volumes: &[(String, Arc<CloneVolume>)],
    served: &Served,
    socket: &Path,
    folder: &Path,
) -> Result<(), ControlError> {
    let shown = program.display();
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        ControlError::failed(format!("the masking step {shown} {what}: {error}"))
            .hint("nothing was made; mend the program and try again")
    };
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|it| failed("cannot get a hidden name", &it))?;
    let hidden = format!("mask-{:032x}/", u128::from_be_bytes(secret));
    let mut lines = Vec::new();
    for (volume, clone) in volumes {
        let export = format!("{hidden}{volume}");
        lines.push(format!("{volume} {export}"));
        served.add_clone(export, Arc::clone(clone) as _);
    }
    let log = folder.join("mask.log");
    let ended = (|| {
        let output = File::create(&log)?;
        let child = Command::new(program)
            .env("VGSHIP_ENV", name.as_str())
            .env("VGSHIP_NBD_SOCKET", socket)
            .env("VGSHIP_EXPORTS", lines.join("\n"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        wait(child)
    })();
    served.remove_clones(&hidden);
    match ended.map_err(|it| failed("cannot be run", &it))? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(failed(&format!("ended with {status}"), &said(&log))),
        None => Err(failed("took too long and was killed", &said(&log))),
    }
}

fn wait(mut child: Child) -> std::io::Result<Option<ExitStatus>> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if since.elapsed() >= MASK_MAX {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// The end of what the program said.
fn said(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(SAID_MAX)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    };
    read().ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "it said nothing".into())
}
