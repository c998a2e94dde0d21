//! `cargo xtask tidy`: what a program can say about the tree. Wrong things fail, long things are
//! printed as advice.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tree;

/// Check the rules of the tree that no compiler knows
///
/// Fails on I/O outside `io.rs` in a stage, non-ASCII sources, an open end without an issue number,
/// a stage list in README.md that differs from agent/src/lib.rs, and addresses of machines. Prints
/// long files and functions as advice.
#[derive(clap::Args)]
pub struct Args {}

/// Stages of `agent/src` whose decisions stand apart from their I/O.
const STAGES: [&str; 8] =
    ["capture", "outbox", "ship", "wire", "receive", "apply", "quiesce", "role"];

/// Words that only `io.rs`, or a file in a folder `io`, of a stage may contain.
const IO_WORDS: [&str; 7] =
    ["tokio::", "quinn::", "std::fs", "std::net", "std::thread", "Instant::now", "SystemTime::now"];

/// Hosts that a text may point a reader to. Everything else is some machine's own address.
const HOSTS: [&str; 5] =
    ["docs.rs", "github.com", "www.apache.org", "www.rfc-editor.org", "localhost"];

/// Lines of a file, and of a function, above which to look for a hidden noun.
const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

/// What was found. Unit of both: one printed line each.
#[derive(Default)]
struct Found {
    wrong: Vec<String>,
    advice: Vec<String>,
}

/// Gives whether nothing is wrong.
pub fn run(_: &Args) -> Result<bool> {
    let root = tree::root();
    let mut git = Command::new("git");
    let listed = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let files = tree::output(git.current_dir(&root).args(listed))?;
    let mut found = Found::default();
    let mut count = 0;
    for path in files.lines() {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        count += 1;
        check_text(path, &text, &mut found);
        if Path::new(path).extension().is_some_and(|it| it == "rs") {
            check_source(path, &text, &mut found);
        }
    }
    let read = |path: &str| std::fs::read_to_string(root.join(path)).context(path.to_owned());
    let (readme, lib) = (read("README.md")?, read("agent/src/lib.rs")?);
    let (told, is) = (stages_told(&readme), stages_in(&lib));
    if told != is {
        found.wrong.push(format!("README.md: stages {told:?}, but agent/src/lib.rs has {is:?}"));
    }
    for line in &found.advice {
        println!("advice: {line}");
    }
    for line in &found.wrong {
        println!("wrong: {line}");
    }
    let (wrong, advice) = (found.wrong.len(), found.advice.len());
    println!("tidy: {count} files, {wrong} wrong, {advice} advice");
    Ok(found.wrong.is_empty())
}

/// What holds for every text: no address of a machine, no folder of one.
fn check_text(path: &str, text: &str, found: &mut Found) {
    // In pieces, so that this file does not name them.
    let folders = ["work", "home", "root"].map(|name| format!("/{name}/"));
    for (line, number) in text.lines().zip(1..) {
        for host in line.split("://").skip(1).filter_map(host_of) {
            let is_number = host.starts_with(|letter: char| letter.is_ascii_digit());
            let is_example = host.ends_with("example") || host.starts_with("example.");
            if !is_number && !is_example && !HOSTS.contains(&host) {
                found.wrong.push(format!("{path}:{number}: points to the host {host}"));
            }
        }
        for folder in &folders {
            let begins = |at: usize| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|letter| !letter.is_alphanumeric() && !"._-/})".contains(letter))
            };
            if line.match_indices(folder.as_str()).any(|(at, _)| begins(at)) {
                found.wrong.push(format!("{path}:{number}: a folder of some machine: {folder}"));
            }
        }
    }
}

/// The host at the head of what follows `://`, if it is a name with a dot or a word of its own.
fn host_of(rest: &str) -> Option<&str> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
    let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
    let host = &rest[..end];
    host.contains('.').then_some(host)
}

/// What holds for Rust sources.
fn check_source(path: &str, text: &str, found: &mut Found) {
    let lines = text.lines().count();
    if lines > FILE_LINES {
        found.advice.push(format!("{path}: {lines} lines"));
    }
    for (name, at, length) in functions(text) {
        if length > FUNCTION_LINES {
            found.advice.push(format!("{path}:{at}: fn {name} has {length} lines"));
        }
    }
    let open_end = concat!("TO", "DO");
    for (line, number) in text.lines().zip(1..) {
        if !line.is_ascii() {
            found.wrong.push(format!("{path}:{number}: a letter outside ASCII"));
        }
        if let Some((_, rest)) = line.split_once(open_end)
            && !rest.starts_with("(#")
        {
            found.wrong.push(format!("{path}:{number}: {open_end} without (#issue)"));
        }
    }
    if !may_not_do_io(path) {
        return;
    }
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break; // tests stand last in a file and may do what they like
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        for word in IO_WORDS {
            if line.contains(word) {
                found.wrong.push(format!("{path}:{number}: {word} belongs in this stage's io.rs"));
            }
        }
    }
}

/// Whether the file is part of a stage's core.
fn may_not_do_io(path: &str) -> bool {
    let Some(inside) = path.strip_prefix("agent/src/") else { return false };
    let mut parts = inside.split('/');
    let in_stage = parts.next().is_some_and(|stage| STAGES.contains(&stage));
    let is_test = ["tests.rs", "testing.rs"].into_iter().any(|end| path.ends_with(end));
    in_stage && !is_test && !parts.any(|part| ["io", "io.rs", "tests"].contains(&part))
}

/// Every function with its line and its length in lines, by indentation as rustfmt leaves it.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let mut done = Vec::new();
    let mut open: Vec<(String, usize, usize)> = Vec::new();
    for (line, number) in text.lines().zip(1_usize..) {
        let indent = line.len() - line.trim_start().len();
        if let Some(&(_, at, depth)) = open.last()
            && indent == depth
            && (line.trim() == "}" || line.trim_end().ends_with(';'))
            && number > at
            && let Some((name, at, _)) = open.pop()
        {
            done.push((name, at, number - at + 1));
        }
        if let Some(name) = function_name(line)
            && !line.ends_with('}')
            && !line.ends_with(';')
        {
            open.push((name.to_owned(), number, indent));
        }
    }
    done
}

fn function_name(line: &str) -> Option<&str> {
    let words = line.trim_start();
    let (before, after) = words.split_once("fn ")?;
    let known = ["pub", "pub(crate)", "pub(super)", "const", "async"];
    if !before.split_whitespace().all(|word| known.contains(&word)) {
        return None;
    }
    after.split(['(', '<']).next()
}

/// The modules of `lib.rs`, in order.
fn stages_in(lib: &str) -> Vec<&str> {
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect()
}

/// The first column of the table in README.md whose head begins with `| stage`.
fn stages_told(readme: &str) -> Vec<&str> {
    let rows = readme.lines().skip_while(|line| !line.starts_with("| stage")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.split('|').nth(1)).map(|it| it.trim().trim_matches('`')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(path: &str, text: &str) -> Vec<String> {
        let mut found = Found::default();
        check_text(path, text, &mut found);
        check_source(path, text, &mut found);
        found.wrong
    }

    #[test]
    fn io_is_refused_in_a_core_alone() {
        let text = "// tokio::spawn is named here only\nfn a() {\n    tokio::spawn(b());\n}\n";
        assert_eq!(wrong("agent/src/ship/core.rs", text).len(), 1);
        assert!(wrong("agent/src/ship/io.rs", text).is_empty());
        assert!(wrong("agent/src/capture/nbd/io/server.rs", text).is_empty());
        assert!(wrong("agent/src/cli/agent.rs", text).is_empty());
        assert!(wrong("agent/src/ship/core_tests.rs", text).is_empty());
        let tested = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert!(wrong("agent/src/ship/core.rs", tested).is_empty());
    }

    #[test]
    fn letters_and_open_ends() {
        assert_eq!(wrong("a.rs", "// caf\u{e9}\n").len(), 1);
        assert_eq!(wrong("a.rs", concat!("// TO", "DO later\n")).len(), 1);
        assert!(wrong("a.rs", concat!("// TO", "DO(#12) later\n")).is_empty());
    }

    #[test]
    fn machines_are_not_named() {
        let by_name = concat!("see https:", "//mirror.corp.net/x\n");
        assert_eq!(wrong("a.md", by_name).len(), 1);
        let fine = "https://docs.rs/quinn http://127.0.0.1:80 nbd+unix:///g/lv https://a.example/x";
        assert!(wrong("a.md", fine).is_empty());
        assert_eq!(wrong("a.md", concat!("cd /wo", "rk/x\n")).len(), 1);
        assert!(wrong("a.md", concat!("target/ro", "ot/etc and $DIR/wo", "rk/x\n")).is_empty());
    }

    #[test]
    fn functions_are_measured() {
        let text = "impl A {\n    pub fn one(\n        &self,\n    ) -> u8 {\n        1\n    }\n\n    \
                    fn two() {}\n}\n\nfn three() {\n}\n";
        let found = functions(text);
        assert_eq!(found, vec![("one".to_owned(), 2, 5), ("three".to_owned(), 11, 2)]);
    }

    #[test]
    fn stages_are_compared_in_order() {
        let readme = "# x\n\n| stage | what |\n|---|---|\n| `a` | x |\n| `b` | y |\n\nrest | no\n";
        assert_eq!(stages_told(readme), stages_in("/// A.\npub mod a;\n\npub mod b;\n"));
    }
}
