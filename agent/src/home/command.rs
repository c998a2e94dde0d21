//! A key-encryption key that a command prints: for keys that are kept elsewhere. The command is run
//! by `/bin/sh` whenever the key is needed; what it prints is in memory alone, and never logged.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use vgship_snapshot::seal::KeyEncryptionKey;
use zeroize::Zeroizing;

use super::HomeError;

/// How long a command may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The most that a command may print. Unit: bytes.
const PRINTED_MAX: usize = 256;

/// How much of what it says on stderr is shown. Unit: bytes.
const SAID_MAX: usize = 300;

const LOOK: Duration = Duration::from_millis(5);

/// The key that `command` prints: 32 bytes as they are, or as 64 hexadecimal digits or in base64,
/// which may end in a newline.
///
/// # Errors
/// [`HomeError::KeyCommand`]: it cannot be run, fails, takes longer than `patience`, or prints no
/// key. The error shows what it said on stderr, never what it printed.
pub fn key_of(command: &str, patience: Duration) -> Result<KeyEncryptionKey, HomeError> {
    let refused = |why: String| HomeError::KeyCommand { why };
    let printed = run(command, patience).map_err(refused)?;
    let key = parse(&printed).ok_or_else(|| {
        refused(format!(
            "what it printed is no key: {} bytes, where 32 bytes are expected, or 64 hexadecimal \
             digits, or 44 characters of base64",
            printed.len()
        ))
    })?;
    Ok(KeyEncryptionKey::from_bytes(key))
}

fn run(command: &str, patience: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).process_group(0);
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().map_err(|error| format!("it cannot be run: {error}"))?;
    let process = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + patience;
    let streams = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = streams else { return Err("it has no output".into()) };
    let started =
        hear(stdout, PRINTED_MAX, false).and_then(|it| Ok((it, hear(stderr, SAID_MAX, true)?)));
    let heard = match started {
        Ok((printed, said)) => end(&mut child, &printed, &said, deadline),
        Err(error) => Err(format!("no thread to hear it: {error}")),
    };
    // Also what it left behind. That nothing is there any more is as well.
    let _ = killpg(Pid::from_raw(process), Signal::SIGKILL);
    let _ = child.wait();
    heard
}

/// Waits for the end of a command and of what it prints.
fn end(
    child: &mut Child,
    printed: &Receiver<Zeroizing<Vec<u8>>>,
    said: &Receiver<Zeroizing<Vec<u8>>>,
    deadline: Instant,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let late = || "it has not ended in time, and was killed".to_owned();
    let status = loop {
        match child.try_wait().map_err(|error| format!("it cannot be waited for: {error}"))? {
            Some(status) => break status,
            None if Instant::now() >= deadline => return Err(late()),
            None => std::thread::sleep(LOOK),
        }
    };
    let left = |least: Duration| deadline.saturating_duration_since(Instant::now()).max(least);
    let too_much = || format!("it printed more than {PRINTED_MAX} bytes");
    if !status.success() {
        let brief = left(LOOK).min(Duration::from_secs(1));
        // Such a one fails because nobody hears the rest.
        if printed.recv_timeout(brief).is_ok_and(|it| it.len() > PRINTED_MAX) {
            return Err(too_much());
        }
        let text = said.recv_timeout(brief).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
        let text = if lines.is_empty() { "it said nothing".into() } else { lines.join("; ") };
        return Err(format!("it ended with {status}: {text}"));
    }
    match printed.recv_timeout(left(LOOK)) {
        Ok(printed) if printed.len() > PRINTED_MAX => Err(too_much()),
        Ok(printed) => Ok(printed),
        Err(RecvTimeoutError::Timeout) => Err(late()),
        Err(RecvTimeoutError::Disconnected) => Err("what it printed cannot be read".into()),
    }
}

/// Reads a stream to its end, or to one byte more than `most`. With `lets_talk` whoever says more is
/// not stopped by that.
fn hear(
    mut from: impl Read + Send + 'static,
    most: usize,
    lets_talk: bool,
) -> io::Result<Receiver<Zeroizing<Vec<u8>>>> {
    let (tell, heard) = channel();
    std::thread::Builder::new().name("key-command".to_owned()).spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
        // With room for all of it nothing is copied that would then not be wiped.
        if from.by_ref().take(most as u64 + 1).read_to_end(&mut bytes).is_ok() {
            // Who asked may have given up.
            let _ = tell.send(bytes);
        }
        if lets_talk {
            // That it cannot be read is seen in how the command ends.
            let _ = io::copy(&mut from, &mut io::sink());
        }
    })?;
    Ok(heard)
}

fn parse(printed: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if let Ok(raw) = <[u8; 32]>::try_from(printed) {
        return Some(Zeroizing::new(raw));
    }
    let text = printed.trim_ascii();
    match text.len() {
        64 => decode(text, 16, digit_of_hex),
        43 | 44 => decode(text.strip_suffix(b"=").unwrap_or(text), 64, digit_of_base64),
        _ => None,
    }
}

fn digit_of_hex(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}

fn digit_of_base64(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

/// 32 bytes of digits of a base, the highest first; bits beyond them must be zero.
fn decode(
    text: &[u8],
    base: u32,
    digit: impl Fn(u8) -> Option<u32>,
) -> Option<Zeroizing<[u8; 32]>> {
    let bits = base.ilog2();
    let mut key = Zeroizing::new([0; 32]);
    let (mut held, mut count, mut at) = (0u32, 0, 0);
    for &byte in text {
        held = held << bits | digit(byte)?;
        count += bits;
        if count >= 8 {
            count -= 8;
            *key.get_mut(at)? = u8::try_from(held >> count).ok()?;
            held &= (1 << count) - 1;
            at += 1;
        }
    }
    (at == key.len() && held == 0).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn told(command: &str) -> String {
        key_of(command, PATIENCE).unwrap_err().to_string()
    }

    #[test]
    fn a_key_is_taken_in_each_form_and_is_the_same() {
        let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let key = KeyEncryptionKey::from_bytes(Zeroizing::new(bytes)).id();
        let digits = |one: fn(&u8) -> String| bytes.iter().map(one).collect::<Vec<_>>().concat();
        let hex = digits(|byte| format!("{byte:02x}"));
        let octal = digits(|byte| format!("\\{byte:03o}"));
        for command in [
            format!("echo {hex}"),
            format!("printf {}", hex.to_uppercase()),
            format!("echo {BASE64}"),
            format!("printf %s {}", BASE64.trim_end_matches('=')),
            format!("printf '{octal}'"),
            format!("set -e; head -c 200000 /dev/zero >&2; echo {hex}"),
        ] {
            assert_eq!(key_of(&command, PATIENCE).unwrap().id(), key, "{command}");
        }
    }

    #[test]
    fn what_fails_is_told_and_what_was_printed_is_not() {
        let said = told("echo no such slot >&2; echo 5ec7e7; exit 3");
        assert!(said.contains("exit status: 3") && said.contains("no such slot"), "{said}");
        assert!(!said.contains("5ec7e7"), "{said}");
        let said = told("echo 5ec7e7");
        assert!(said.contains("no key: 7 bytes") && !said.contains("5ec7e7"), "{said}");
        assert!(told("yes").contains("more than 256 bytes"));
        assert!(told("/nowhere/at/all").contains("127"), "{}", told("/nowhere/at/all"));
        assert!(told(&format!("echo {}", "g".repeat(64))).contains("no key"));
        // One bit beyond 32 bytes.
        assert!(told("echo AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=").contains("no key"));
    }

    #[test]
    fn one_that_does_not_end_is_killed_with_what_it_started() {
        let since = Instant::now();
        for command in ["sleep 600", "sleep 600 & echo $!"] {
            let error = key_of(command, Duration::from_millis(200)).unwrap_err().to_string();
            assert!(error.contains("not ended in time"), "{error}");
        }
        assert!(since.elapsed() < Duration::from_mins(1));
    }
}
