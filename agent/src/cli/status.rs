//! `vgship status`: how the groups are, once or again and again.

use std::time::Duration;

use jiff::Timestamp;
use vgship_base::ids::Name;

use super::{Context, render};
use crate::api::{Client, ControlError, Status};

/// How often a watched status is asked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show how the groups are
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this group
    #[arg(value_name = "G")]
    group: Option<Name>,
    /// Show it again every second, in place on a terminal; with --json one document per line
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let client = context.client();
    super::block_on(async {
        let first = client.status(args.group.as_ref()).await?;
        if !args.watch {
            let now = Timestamp::now();
            return context.output.result(&first, |status| render::status(status, now));
        }
        tokio::select! {
            ended = watch(first, args, &client, context) => ended,
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| {
                ControlError::failed(format!("cannot await an interrupt: {error}"))
            }),
        }
    })
}

/// Shows the status until interrupted, also while the agent is away for a time.
async fn watch(
    first: Status,
    args: &Args,
    client: &Client,
    context: &Context<'_>,
) -> Result<(), ControlError> {
    let output = context.output;
    let mut screen = Screen { in_place: output.is_terminal(), begun: false };
    let mut status = Ok(first);
    loop {
        match &status {
            Ok(status) if output.is_json() => output.result(status, |_| String::new())?,
            Err(error) if output.is_json() => super::output::report(error),
            Ok(status) => {
                let text = render::watched(status, Timestamp::now(), screen.in_place);
                output.raw(&screen.frame(&text))?;
            }
            Err(error) => output.raw(&screen.frame(&format!("{error}\n")))?,
        }
        tokio::time::sleep(INTERVAL).await;
        status = client.status(args.group.as_ref()).await;
    }
}

/// What is drawn over itself on a terminal, and below itself elsewhere.
struct Screen {
    in_place: bool,
    begun: bool,
}

impl Screen {
    /// The characters that show `text` in place of the one before: clears the screen once, then
    /// only moves to its start and clears what longer lines left, so that nothing flickers.
    fn frame(&mut self, text: &str) -> String {
        if !self.in_place {
            return text.to_owned();
        }
        let begin = if self.begun { "\x1b[H" } else { "\x1b[2J\x1b[H" };
        self.begun = true;
        format!("{begin}{}\x1b[J", text.replace('\n', "\x1b[K\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_drawn_over_and_a_file_is_not() {
        let mut terminal = Screen { in_place: true, begun: false };
        assert_eq!(terminal.frame("a\n"), "\x1b[2J\x1b[Ha\x1b[K\n\x1b[J");
        assert_eq!(terminal.frame("b\n"), "\x1b[Hb\x1b[K\n\x1b[J");
        let mut file = Screen { in_place: false, begun: false };
        assert_eq!(file.frame("a\n"), "a\n");
    }
}
