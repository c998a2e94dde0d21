//! Log lines on stderr: one per event that a person can act on, as text or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::api::ControlError;
use crate::home::config::{LogConfig, LogFormat, LogLevel};

/// Overrides the configured level: a level, or a filter such as `info,vgship::wire=debug`.
pub const LOG_VARIABLE: &str = "VGSHIP_LOG";

/// Starts logging for this process.
pub fn start(config: LogConfig, chosen: Option<LogFormat>) -> Result<(), ControlError> {
    let variable = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = filter(config.level, variable.as_deref())?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A process that logs already goes on as it does: who embeds the agent chose first.
    let _ = match chosen.unwrap_or(config.format) {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// What the variable says, else the level; libraries speak only of what they warn of.
fn filter(level: LogLevel, variable: Option<&str>) -> Result<EnvFilter, ControlError> {
    let configured = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "warn,vgship=info",
        LogLevel::Debug => "warn,vgship=debug",
        LogLevel::Trace => "warn,vgship=trace",
    };
    EnvFilter::try_new(variable.unwrap_or(configured)).map_err(|error| {
        let text = variable.unwrap_or_default();
        ControlError::usage(format!("{LOG_VARIABLE}={text} is no log filter: {error}"))
            .hint("write a level such as debug, or info,vgship::wire=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_overrides_the_level_and_nonsense_is_wrong_usage() {
        let shown = |level, variable| filter(level, variable).map(|filter| filter.to_string());
        assert_eq!(shown(LogLevel::Error, None).unwrap(), "error");
        assert!(shown(LogLevel::Info, None).unwrap().contains("vgship=info"));
        assert_eq!(shown(LogLevel::Info, Some("trace")).unwrap(), "trace");
        let error = shown(LogLevel::Info, Some("vgship=loudest")).unwrap_err();
        assert_eq!(error.kind.exit_code(), 2);
        assert!(error.message.contains("VGSHIP_LOG=vgship=loudest"), "{error}");
    }
}
