//! `vgship bisect`: the last point at which a check passes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Serialize;
use vgship_base::ids::{Name, Seq};

use super::{Context, output};
use crate::api::past::{EnvEnd, EnvRequest, Environment};
use crate::api::{Client, ControlError, ErrorKind};
use crate::history::bisect::{Bisect, Tried};
use crate::history::spec::{At, parse_seq};

/// Find the last point at which a check passes, on clones, by halving
///
/// The check is a program that ends with 0 where all is well, with 125 where it cannot tell, and with
/// anything else where it is not. It finds the clones in VGSHIP_NBD_SOCKET and VGSHIP_EXPORTS (a line
/// "LV EXPORT" for each volume), and the point in VGSHIP_POINT.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which group
    #[arg(value_name = "G")]
    group: Name,
    /// The program, with its arguments, as a shell takes them
    #[arg(long, value_name = "COMMAND")]
    check: String,
    /// Where it passes [default: the oldest point]
    #[arg(long, value_name = "POINT")]
    from: Option<At>,
    /// Where it does not [default: now]
    #[arg(long, value_name = "POINT")]
    to: Option<At>,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Found {
    group: String,
    /// The last point at which the check passed, as `start.count`.
    last_good: String,
    /// The source's clock there, RFC 3339.
    last_good_time: String,
    /// The first at which it did not.
    first_bad: String,
    first_bad_time: String,
    /// How many clones were checked.
    checked: u32,
}

struct Search<'a> {
    client: Client,
    group: &'a Name,
    check: &'a str,
    socket: PathBuf,
    checked: u32,
}

/// A point that was opened, checked and closed again.
struct Probe {
    seq: Seq,
    time: String,
    tried: Tried,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let (client, socket) = (context.client(), context.home.nbd_socket());
    let mut search = Search { client, group: &args.group, check: &args.check, socket, checked: 0 };
    let from = match &args.from {
        Some(at) => at.clone(),
        None => search.oldest()?,
    };
    let to = args.to.clone().unwrap_or(At::Now);
    let mut good = search.probe(&from, |_| true)?.ok_or_else(|| nowhere(&from))?;
    if good.tried != Tried::Good {
        return Err(ControlError::refused(format!("the check does not pass at {from} either"))
            .hint("begin earlier: --from POINT"));
    }
    let mut bad = search.probe(&to, |_| true)?.ok_or_else(|| nowhere(&to))?;
    if bad.tried != Tried::Bad {
        return Err(ControlError::refused(format!("the check passes at {to}: nothing to find")));
    }
    if bad.seq <= good.seq {
        return Err(ControlError::usage(format!("{to} is not after {from}")));
    }
    let mut bisect = Bisect::new(good.seq, bad.seq);
    while let Some(mut at) = bisect.ask() {
        let probe = loop {
            match search.probe(&at, |seq| bisect.is_new(seq)) {
                Err(error) if error.kind == ErrorKind::Refused => match bisect.not_there() {
                    Some(other) => at = other,
                    None => break None,
                },
                done => break done?,
            }
        };
        let Some(probe) = probe else { continue };
        bisect.tried(probe.seq, probe.tried);
        output::note(&format!(
            "{} ({}): {}, at most {} to go",
            probe.seq,
            probe.time,
            if probe.tried == Tried::Good { "passes" } else { "does not pass" },
            bisect.left()
        ));
        match probe.tried {
            Tried::Good => good = probe,
            Tried::Bad => bad = probe,
            Tried::Unknown => {}
        }
    }
    let found = Found {
        group: args.group.to_string(),
        last_good: good.seq.to_string(),
        last_good_time: good.time,
        first_bad: bad.seq.to_string(),
        first_bad_time: bad.time,
        checked: search.checked,
    };
    context.output.result(&found, |found| {
        format!(
            "last good:  {}@seq:{} ({})\nfirst bad:  {}@seq:{} ({})\n{} clones were checked",
            found.group,
            found.last_good,
            found.last_good_time,
            found.group,
            found.first_bad,
            found.first_bad_time,
            found.checked
        )
    })
}

fn nowhere(at: &At) -> ControlError {
    ControlError::refused(format!("{at} cannot be opened"))
}

impl Search<'_> {
    fn oldest(&self) -> Result<At, ControlError> {
        let history = super::block_on(async { self.client.history(self.group).await })?;
        let oldest = history.oldest.ok_or_else(|| {
            ControlError::refused(format!("group {} has no history yet", self.group))
        })?;
        Ok(At::Seq(Seq(oldest.seq)))
    }

    /// Opens a point and checks it, if `wanted` says so of what was opened.
    fn probe(
        &mut self,
        at: &At,
        wanted: impl FnOnce(Seq) -> bool,
    ) -> Result<Option<Probe>, ControlError> {
        let name = format!("bisect-{}-{}", std::process::id(), self.checked);
        let name: Name = name.parse().map_err(ControlError::failed)?;
        let from = format!("{}@{at}", self.group);
        let owner = Some("vgship bisect".to_owned());
        let request = EnvRequest { owner, ..EnvRequest::of(name.clone(), from) };
        let env = super::block_on(async { self.client.env_create(&request).await })?;
        let done = self.checked(&env, wanted);
        super::block_on(async { self.client.env_destroy(&name, EnvEnd::default()).await })?;
        done
    }

    fn checked(
        &mut self,
        env: &Environment,
        wanted: impl FnOnce(Seq) -> bool,
    ) -> Result<Option<Probe>, ControlError> {
        let odd = || ControlError::failed(format!("the agent names no record: {}", env.at));
        let seq = parse_seq(&env.at).ok_or_else(odd)?;
        if !wanted(seq) {
            return Ok(None);
        }
        self.checked += 1;
        let exports: Vec<String> = env
            .exports
            .iter()
            .map(|export| format!("{} {export}", export.rsplit('/').next().unwrap_or(export)))
            .collect();
        let status = Command::new("/bin/sh")
            .args(["-c", self.check])
            .env("VGSHIP_ENV", &env.name)
            .env("VGSHIP_POINT", format!("{}@seq:{}", env.group, env.at))
            .env("VGSHIP_NBD_SOCKET", &self.socket)
            .env("VGSHIP_EXPORTS", exports.join("\n"))
            .stdin(Stdio::null())
            // What it says is no part of the result.
            .stdout(std::io::stderr())
            .status()
            .map_err(|error| ControlError::failed(format!("the check cannot be run: {error}")))?;
        let tried = match status.code() {
            Some(0) => Tried::Good,
            Some(125) => Tried::Unknown,
            Some(_) => Tried::Bad,
            None => {
                return Err(ControlError::failed(format!("the check was ended by {status}")));
            }
        };
        Ok(Some(Probe { seq, time: env.time.clone(), tried }))
    }
}
