//! The command line as a whole: help texts, exit codes, commands with and without an agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser};
use vgship_base::extent::ExtentSize;
use vgship_base::ids::{Name, PeerId};
use vgship_base::layout::{Layout, VolumeLayout};

use super::parts::{Listing, Running};
use super::{Cli, Context, Output, Parts, block_on, run};
use crate::api::control::{
    Answer, Invitation, InviteRequest, Pairings, Removed, Revoked, SharedControl,
};
use crate::api::tests::Fake;
use crate::api::{Client, ControlError, ErrorKind};
use crate::home::{Config, Home, LockedHome};

/// Compares with a file of `golden/`; with `VGSHIP_BLESS=1` writes it instead.
pub(super) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/golden").join(name);
    if std::env::var_os("VGSHIP_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    assert!(known == text, "{name} differs; look at it with VGSHIP_BLESS=1 and git diff:\n{text}");
}

/// Knows volumes at every path but `/missing`, and an agent that knows the group payroll.
pub(super) struct FakeParts;

/// Keeps the home, as a real agent does.
struct FakeAgent(LockedHome);

impl Running for FakeAgent {
    fn control(&self) -> SharedControl {
        Arc::new(Fake::default())
    }

    fn failed(&mut self) -> Answer<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn stop(self: Box<Self>) -> Answer<'static, ()> {
        drop(self.0);
        Box::pin(async { Ok(()) })
    }
}

impl Parts for FakeParts {
    fn make_identity(&self, folder: &Path) -> Result<PeerId, ControlError> {
        std::fs::create_dir_all(folder).map_err(ControlError::failed)?;
        Ok(PeerId([7; 32]))
    }

    fn check_identity(&self, folder: &Path) -> Result<PeerId, ControlError> {
        match folder.exists() {
            true => Ok(PeerId([7; 32])),
            false => Err(ControlError::failed("there is no identity").hint("make one")),
        }
    }

    fn resolve_volumes(&self, spec: &str) -> Result<String, ControlError> {
        match spec.contains(':') {
            true => Ok(spec.to_owned()),
            false => Err(ControlError::usage(format!("{spec:?} does not say where volumes are"))),
        }
    }

    fn check_volumes(
        &self,
        spec: &str,
        extent: ExtentSize,
        replica_of: Option<&Layout>,
    ) -> Result<Layout, ControlError> {
        let volume = VolumeLayout { name: "lv".parse().unwrap(), bytes: 1 << 20, masked: 0 };
        match spec {
            "images:/missing" => Err(ControlError::failed("cannot read /missing: not found")),
            "lvm2:rootvg" => Err(ControlError::refused("rootvg is not replicated")),
            _ => Ok(replica_of.cloned().unwrap_or(Layout { extent, volumes: vec![volume] })),
        }
    }

    fn find_groups(&self, paths: &[PathBuf]) -> Result<Listing, ControlError> {
        Ok(Listing { text: format!("{paths:?}"), json: serde_json::json!({"groups": []}) })
    }

    fn pair_invite(
        &self,
        _: &LockedHome,
        invite: InviteRequest,
    ) -> Result<Invitation, ControlError> {
        let (group, role) = (invite.group.to_string(), invite.role);
        let (blind, expires) = (invite.blind, invite.expires.to_string());
        let token = "token".into();
        Ok(Invitation { token, group, role, blind, wants_escrow: false, expires })
    }

    fn group_remove(&self, home: &LockedHome, group: &Name) -> Result<Removed, ControlError> {
        let (config, kept) = (home.load_group(group)?, home.remove_group(group)?);
        Ok(Removed {
            group: group.to_string(),
            role: config.role,
            volumes: config.volumes,
            kept: kept.display().to_string(),
            revoked: Vec::new(),
        })
    }

    fn pair_list(&self, _: &Home) -> Result<Pairings, ControlError> {
        Ok(Pairings { pairs: Vec::new() })
    }

    fn pair_revoke(&self, _: &LockedHome, peer: &str) -> Result<Revoked, ControlError> {
        Err(ControlError::failed(format!("nobody called {peer} is paired")))
    }

    fn start(&self, home: LockedHome, config: Config) -> Answer<'static, Box<dyn Running>> {
        Box::pin(async move {
            match config.name.as_str() {
                "broken" => Err(ControlError::failed("this agent cannot start")),
                _ => Ok(Box::new(FakeAgent(home)) as Box<dyn Running>),
            }
        })
    }
}

/// Runs a command on a home; the result is its exit code and message.
fn vgship(home: &Home, args: &str) -> Result<(), (u8, String)> {
    vgship_with(&FakeParts, home, args)
}

/// The same with other parts.
pub(super) fn vgship_with(parts: &dyn Parts, home: &Home, args: &str) -> Result<(), (u8, String)> {
    let words = std::iter::once("vgship").chain(args.split(' '));
    let cli = Cli::try_parse_from(words)
        .map_err(|error| (u8::try_from(error.exit_code()).unwrap(), error.to_string()))?;
    let context = Context {
        home: home.clone(),
        output: Output::new(cli.globals.json),
        log_format: cli.globals.log_format,
        parts,
    };
    run(cli.command, &context).map_err(|error| (error.kind.exit_code(), error.message))
}

fn help(command: &mut clap::Command, path: &str, parts: &mut Vec<String>) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    parts.push(format!("== {path} --help\n{}\n", command.render_long_help()));
    for sub in
        command.get_subcommands_mut().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set())
    {
        help(sub, &path, parts);
    }
}

#[test]
fn every_help_text_is_what_the_golden_file_shows() {
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    let mut parts = Vec::new();
    help(&mut command, "", &mut parts);
    golden("help.txt", &parts.concat());
}

#[test]
fn a_home_is_made_once() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path().join("h"));
    let (code, said) = vgship(&home, "group list").unwrap_err();
    assert!(code == 1 && said.starts_with("there is no agent in this home"), "{said}");
    assert_eq!(vgship(&home, "init --name prod --listen 127.0.0.1:0"), Ok(()));
    assert_eq!(home.load_config().unwrap().listen.port(), 0);
    let key = std::fs::read(home.key()).unwrap();
    let (code, said) = vgship(&home, "init --name again").unwrap_err();
    assert!(code == 3 && said.contains("has been set up already"), "{said}");
    assert_eq!(std::fs::read(home.key()).unwrap(), key);
    assert_eq!(vgship(&home, "agent --check"), Ok(()));
}

#[test]
fn without_an_agent_the_home_itself_is_changed() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    vgship(&home, "init --name prod --json").unwrap();
    vgship(&home, "group add g --volumes images:/srv/g --extent 4KiB --history 48h").unwrap();
    let group = home.load_group(&"g".parse().unwrap()).unwrap();
    let window = group.policy.history_window.to_string();
    assert_eq!((group.extent.to_string(), window), ("4 KiB".into(), "2 d".into()));
    vgship(&home, "group list").unwrap();
    vgship(&home, "pair invite --group g --role replica").unwrap();
    vgship(&home, "pair invite --group brought --role source").unwrap();
    vgship(&home, "pair list --json").unwrap();
    vgship(&home, "vg list /d/disk.img").unwrap();
    for (args, code, said) in [
        ("group add g --volumes images:/srv/g", 3, "there is a group g already"),
        ("group add h --volumes images:/srv/h --max-lag 1ms", 2, "--max-lag: 1 ms is less than"),
        ("group add h --volumes images:/missing", 1, "cannot read /missing"),
        ("group add h --volumes lvm2:rootvg", 3, "rootvg is not replicated"),
        ("group add h --volumes /srv/h", 2, "does not say where"),
        ("group add h --volumes images:/h --extent 4096", 2, "the unit is missing"),
        ("group add h --volumes images:/h --extent 48KiB", 2, "48 KiB is no extent size"),
        ("group add .h --volumes images:/h", 2, "is not a name"),
        ("pair invite --group other --role replica", 3, "there is no group other here"),
        ("pair invite --group g --role boss", 2, "invalid value 'boss'"),
        ("pair revoke nobody", 1, "nobody called nobody"),
        ("pair join token", 1, "no agent answers at"),
        ("status", 1, "no agent answers at"),
        ("wait g --for in-sync --timeout 1s", 1, "no agent answers at"),
        ("wait g --for ever", 2, "invalid value 'ever'"),
        ("pause g", 1, "no agent answers at"),
        ("group remove other", 3, "there is no group other here; there are: g"),
        ("group remove", 2, "required arguments were not provided"),
        ("fly", 2, "unrecognized subcommand"),
    ] {
        let (found, message) = vgship(&home, args).expect_err(args);
        assert!(found == code && message.contains(said), "{args}: {found} {message}");
    }
    assert_eq!(home.group_names().unwrap().len(), 1);
    vgship(&home, "group remove g").unwrap();
    assert_eq!(home.group_names().unwrap(), []);
    vgship(&home, "group add g --volumes images:/srv/g").unwrap();
}

#[test]
fn a_home_that_another_holds_is_not_changed() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    vgship(&home, "init --name prod").unwrap();
    let locked = home.lock().unwrap();
    let (code, said) = vgship(&home, "group add g --volumes images:/srv/g").unwrap_err();
    assert!(code == 1 && said.starts_with("another vgship process is at work"), "{said}");
    drop(locked);
    vgship(&home, "group add g --volumes images:/srv/g").unwrap();
}

#[test]
fn an_agent_serves_until_it_is_told_to_stop() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    vgship(&home, "init --name prod").unwrap();
    let agent = std::thread::spawn({
        let home = home.clone();
        move || vgship(&home, "agent --log-format json")
    });
    let begun = Instant::now();
    while block_on(Client::new(&home).status(None)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never served");
        std::thread::yield_now();
    }
    vgship(&home, "status").unwrap();
    vgship(&home, "status payroll --json").unwrap();
    vgship(&home, "group add new --volumes images:/srv/new").unwrap();
    assert_eq!(home.group_names().unwrap(), [], "the agent was asked, the home left alone");
    vgship(&home, "pair invite --group payroll --role replica").unwrap();
    vgship(&home, "pair revoke recovery").unwrap();
    vgship(&home, "resume payroll").unwrap();
    vgship(&home, "wait payroll --for durable").unwrap();
    vgship(&home, "group remove payroll --force").unwrap();
    for (args, code, said) in [
        ("agent", 1, "another vgship process is at work"),
        ("pause payroll", 3, "is paused already"),
        ("group remove payroll", 3, "2 NBD clients are connected to payroll"),
        ("wait payroll --for in-sync --timeout 1ms", 4, "was not in-sync within 1 ms"),
        ("status other", 3, "there is no group other here; there are: payroll"),
        ("pair join token", 1, "token is no token"),
    ] {
        let (found, message) = vgship(&home, args).expect_err(args);
        assert!(found == code && message.contains(said), "{args}: {found} {message}");
    }
    nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGTERM).unwrap();
    assert_eq!(agent.join().unwrap(), Ok(()));
    assert!(!home.api_socket().exists());
    assert!(home.lock().is_ok());
}

#[test]
fn an_agent_that_cannot_start_leaves_the_home_free() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    vgship(&home, "init --name broken").unwrap();
    let (code, said) = vgship(&home, "agent").unwrap_err();
    assert_eq!((code, said.as_str()), (1, "this agent cannot start"));
    assert!(home.lock().is_ok() && !home.api_socket().exists());
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let kinds = [ErrorKind::Failed, ErrorKind::Usage, ErrorKind::Refused, ErrorKind::TimedOut];
    assert_eq!(kinds.map(ErrorKind::exit_code), [1, 2, 3, 4]);
}

#[test]
fn keys_are_asked_of_the_agent_and_without_one_of_the_home() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    vgship(&home, "init --name prod").unwrap();
    vgship(&home, "group add g --volumes images:/srv/g").unwrap();
    vgship(&home, "key list").unwrap();
    vgship(&home, "key rotate").unwrap();
    vgship(&home, "key rotate g --json").unwrap();
    let config = home.load_group(&"g".parse().unwrap()).unwrap();
    let known = || crate::keys::list(&home.group(&config.name), config.id).unwrap();
    let ids: Vec<String> = known().iter().map(|it| it.kept.id.to_string()).collect();
    assert_eq!(ids.len(), 3, "the first is made with the second");
    vgship(&home, &format!("key retire g {}", ids[0])).unwrap();
    vgship(&home, &format!("key destroy g {} --i-lose journal", &ids[1][..8])).unwrap();
    assert!(known()[..2].iter().all(|it| !it.is_usable()) && known()[2].is_usable());
    vgship(&home, "key list g --json").unwrap();
    let (command, key) = ("key_command", "7e".repeat(32));
    for (args, code, said) in [
        ("key rotate h".to_owned(), 3, "there is no group h here"),
        (format!("key retire g {}", ids[2]), 3, "is the current one"),
        (format!("key retire g {}", ids[0]), 3, "was destroyed already"),
        ("key retire g 1".to_owned(), 3, "there is no key 1 here"),
        (format!("key destroy g {}", ids[2]), 2, "--i-lose"),
        ("key destroy g 0000 --i-lose all".to_owned(), 2, "invalid value 'all'"),
        ("key rewrap --to-file --finish".to_owned(), 2, "cannot be used with"),
        ("key rewrap --to-file".to_owned(), 3, "is in its key file already"),
        ("key rewrap --to-command false".to_owned(), 1, "it ended with exit status: 1"),
    ] {
        let (found, message) = vgship(&home, &args).expect_err(&args);
        assert!(found == code && message.contains(said), "{args}: {found} {message}");
    }
    vgship(&home, "key rewrap").unwrap();
    vgship(&home, "template key rotate").unwrap();
    vgship(&home, "template key list").unwrap();
    let (code, said) = vgship(&home, "template key retire 00").unwrap_err();
    assert!(code == 3 && said.contains("there is no key 00"), "{said}");
    let text = std::fs::read_to_string(home.config()).unwrap();
    let line = format!("{command} = \"echo {key}\"\n");
    std::fs::write(home.config(), format!("{line}{text}")).unwrap();
    let (code, said) = vgship(&home, "key rotate g").unwrap_err();
    assert!(code == 1 && said.contains("is wrapped by"), "{said}");
    assert_eq!(vgship(&home, "agent --check").unwrap_err().0, 1, "its keys do not open");
}

#[test]
fn a_home_may_have_a_command_instead_of_a_key_file() {
    let place = tempfile::tempdir().unwrap();
    let home = Home::at(place.path());
    let script = place.path().join("get-key");
    std::fs::write(&script, format!("echo {}\n", "7e".repeat(32))).unwrap();
    // A command of one word, as this test splits at spaces.
    let init = format!("init --name prod --key-command .{}", script.display());
    let (code, said) = vgship(&home, &init).unwrap_err();
    assert!(code == 1 && said.contains("key_command gives no key"), "{said}");
    assert!(!home.config().exists(), "it can be repeated");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&script, mode).unwrap();
    let init = format!("init --name prod --key-command {}", script.display());
    vgship(&home, &init).unwrap();
    assert!(!home.key().exists());
    vgship(&home, "agent --check").unwrap();
    vgship(&home, "group add g --volumes images:/srv/g").unwrap();
    vgship(&home, "key rotate").unwrap();
    std::fs::write(&script, "exit 4\n").unwrap();
    let (code, said) = vgship(&home, "key rotate").unwrap_err();
    assert!(code == 1 && said.contains("exit status: 4"), "{said}");
    assert_eq!(vgship(&home, "agent --check").unwrap_err().0, 1);
    assert_eq!(vgship(&home, "agent").unwrap_err().0, 1);
}
