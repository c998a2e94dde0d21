//! `config.toml`: what one agent is, as a person writes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vgship_base::ids::Name;

use super::error::HomeError;
use super::text;

/// Where an agent listens for its peers unless told otherwise.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7300);

/// Largest configuration that is read. Unit: bytes.
pub const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// The agent's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What its peers and its operator call it.
    #[serde(with = "text")]
    pub name: Name,
    /// Where peers reach it, over UDP.
    #[serde(default = "listen_default")]
    pub listen: SocketAddr,
    /// Where peers are told to reach it, when that is another address than the one it listens at.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// The command that prints its key-encryption key, instead of the file `key`.
    #[serde(default)]
    pub key_command: Option<String>,
    /// Where applications reach it over TCP besides the socket; loopback only.
    #[serde(default)]
    pub nbd_tcp: Option<SocketAddr>,
    /// What it logs and how.
    #[serde(default)]
    pub log: LogConfig,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The least urgent events that are logged.
    pub level: LogLevel,
    /// For people or for programs.
    pub format: LogFormat,
}

/// The least urgent events that are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What needs a look.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// What was decided.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

fn listen_default() -> SocketAddr {
    LISTEN_DEFAULT
}

impl Config {
    /// Reads and checks a configuration; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Config, HomeError> {
        let config: Config = parse(text, path)?;
        match config.nbd_tcp {
            Some(address) if !address.ip().is_loopback() => Err(HomeError::Value {
                path: path.to_owned(),
                key: "nbd_tcp",
                why: format!(
                    "{address} can be reached from outside, and NBD neither asks who is there \
                     nor encrypts; use a loopback address such as 127.0.0.1:10809"
                ),
            }),
            _ => Ok(config),
        }
    }

    /// What an invitation tells a peer to connect to; none while it cannot be known.
    ///
    /// `bound` is where a running agent really listens (its port may have been configured as 0);
    /// `own` is this machine's address towards others, for an agent that listens on all.
    pub fn reachable_at(
        &self,
        bound: Option<SocketAddr>,
        own: Option<IpAddr>,
    ) -> Option<SocketAddr> {
        if self.advertise.is_some() {
            return self.advertise;
        }
        let listens = bound.unwrap_or(self.listen);
        let ip = match listens.ip() {
            ip if ip.is_unspecified() => own?,
            ip => ip,
        };
        (listens.port() != 0).then(|| SocketAddr::new(ip, listens.port()))
    }

    /// A new agent's configuration, with every key explained.
    pub fn sample(name: &Name, listen: SocketAddr, key_command: Option<&str>) -> String {
        let key_command = match key_command {
            None => "# key_command = \"/usr/local/bin/get-key vgship\"".to_owned(),
            Some(command) => format!("key_command = {}", toml::Value::from(command)),
        };
        format!(
            "\
# The vgship agent of this machine. The agent reads it when it starts;
# check it with: vgship agent --check

# What peers and operators call this agent.
name = \"{name}\"

# Where peers reach it: UDP, encrypted, paired peers only.
listen = \"{listen}\"

# What invitations tell peers to connect to, where that is another address:
# behind address translation, or on a machine with several networks.
# advertise = \"192.0.2.10:7300\"

# What wraps the data keys: without this line the file \"key\" beside this one.
# With it, what the command prints: 32 bytes, as they are, in hexadecimal or in
# base64. Change it with: vgship key rewrap
{key_command}

# Volumes are served over NBD at nbd.sock in this home. For applications that
# need TCP, a loopback address can be added:
# nbd_tcp = \"127.0.0.1:10809\"

[log]
# error, warn, info, debug or trace; VGSHIP_LOG overrides it.
level = \"info\"
# text for people, json for programs.
format = \"text\"
"
        )
    }
}

/// Reads a TOML text; the error names line and key.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, HomeError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..at).unwrap_or_default();
        let row = text.lines().nth(before.matches('\n').count()).unwrap_or_default();
        let key = row.split_once('=').map(|(key, _)| key.trim().to_owned());
        HomeError::Text {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            key: key.filter(|key| !key.is_empty()),
            why: error.message().trim().replace('\n', " "),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("config.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_is_what_the_golden_file_shows_and_means_the_defaults() {
        let sample = Config::sample(&"prod".parse().unwrap(), LISTEN_DEFAULT, None);
        assert_eq!(sample, include_str!("golden/config.toml"));
        let config = read(&sample).unwrap();
        assert_eq!(config, read("name = \"prod\"").unwrap());
        assert_eq!(config.listen.port(), 7300);
        let all = sample.replace("# nbd_tcp", "nbd_tcp").replace("\"text\"", "\"json\"");
        let config = read(&all).unwrap();
        assert_eq!(config.nbd_tcp, Some("127.0.0.1:10809".parse().unwrap()));
        assert_eq!(config.log.format, LogFormat::Json);
        let command = "echo \"a\\b\" # c";
        let sample = Config::sample(&"prod".parse().unwrap(), LISTEN_DEFAULT, Some(command));
        assert_eq!(read(&sample).unwrap().key_command.as_deref(), Some(command));
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_key() {
        for (text, said) in [
            ("name = \"a b\"", "config.toml, line 1, key `name`: \"a b\" is not a name"),
            ("name = \"a\"\nlisten = \"here\"", "line 2, key `listen`: invalid socket address"),
            ("name = \"a\"\ncolour = 1", "line 2, key `colour`: unknown field `colour`"),
            (
                "name = \"a\"\n[log]\nlevel = \"loud\"",
                "line 3, key `level`: unknown variant `loud`",
            ),
            ("listen = \"0.0.0.0:1\"", "missing field `name`"),
            ("name = \"a\"\nname = \"b\"", "line 2, key `name`: duplicate key"),
            ("name = ", "line 1, key `name`"),
            ("name = \"a\"\nnbd_tcp = \"0.0.0.0:10809\"", "key `nbd_tcp`: 0.0.0.0:10809 can be"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(said), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_invitation_names_an_address_that_can_be_reached() {
        let config = |rest: &str| read(&format!("name = \"a\"\n{rest}")).unwrap();
        let at = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        let own = Some("192.0.2.7".parse().unwrap());
        assert_eq!(config("").reachable_at(None, own), at("192.0.2.7:7300"));
        assert_eq!(config("").reachable_at(None, None), None);
        let fixed = config("listen = \"127.0.0.1:0\"");
        assert_eq!(fixed.reachable_at(None, own), None, "the port is not known yet");
        assert_eq!(fixed.reachable_at(at("127.0.0.1:9"), own), at("127.0.0.1:9"));
        let told = config("advertise = \"192.0.2.10:1\"");
        assert_eq!(told.reachable_at(at("127.0.0.1:9"), own), at("192.0.2.10:1"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_refused(text in "[ -~\n\u{e9}\"=\\[\\]]{0,80}") {
            let _ = read(&text);
        }
    }
}
