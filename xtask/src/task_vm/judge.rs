//! Compares the LVs that should be on a disk with the partitions that the kernel found there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::guest::ANSWER;

/// Where an LV lies. Unit of both: sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    start: u64,
    sectors: u64,
}

/// LVs by name.
pub type Places = BTreeMap<String, Place>;

/// Reads lines of NAME START SECTORS.
pub fn expected(text: &str) -> Result<Places> {
    let mut places = Places::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, start, sectors] = words[..] else {
            bail!("expected NAME START SECTORS, got {line:?}")
        };
        let place = Place { start: start.parse()?, sectors: sectors.parse()? };
        if places.insert(name.to_owned(), place).is_some() {
            bail!("{name} is named twice");
        }
    }
    Ok(places)
}

/// Reads what the guest said: the kernel's log names the partitions, sysfs has their places.
pub fn found(said: &str) -> Result<Places> {
    let mut names = BTreeMap::new();
    let mut parts = BTreeMap::new();
    let mut has_header = false;
    for line in said.lines().filter_map(|line| line.strip_prefix(ANSWER)) {
        if line == "no disk" {
            bail!("the guest has no disk");
        } else if let Some(log) = line.strip_prefix("log ") {
            println!("vm: kernel: {}", log.trim());
            has_header |= log.contains("AIX LVM header");
            names.extend(names_in(log));
        } else if let Some(part) = line.strip_prefix("part ") {
            let words: Vec<&str> = part.split_whitespace().collect();
            let [name, start, sectors] = words[..] else { bail!("no partition: {part:?}") };
            let place = Place { start: start.parse()?, sectors: sectors.parse()? };
            parts.insert(name.to_owned(), place);
        }
    }
    if !has_header {
        bail!("the kernel did not take the disk for one of a volume group");
    }
    let named = parts.into_iter().map(|(part, place)| {
        let name = names.get(&part).with_context(|| format!("{part} has no name in the log"))?;
        Ok((name.clone(), place))
    });
    named.collect()
}

/// Every `PART <NAME>` of a line of the log.
fn names_in(log: &str) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for (before, after) in log.match_indices(" <").map(|(at, _)| (&log[..at], &log[at + 2..])) {
        let part = before.split_whitespace().next_back().unwrap_or_default();
        if let Some((name, _)) = after.split_once('>') {
            names.push((part.to_owned(), name.to_owned()));
        }
    }
    names
}

/// Prints both side by side; gives whether they are the same.
pub fn compare(expected: &Places, found: &Places) -> bool {
    let show = |place: Option<&Place>| {
        place.map_or("-".to_owned(), |place| format!("{}+{}", place.start, place.sectors))
    };
    println!("{:<16} {:>20} {:>20}", "LV", "expected", "kernel");
    let mut same = true;
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for name in names {
        let (mine, theirs) = (expected.get(name), found.get(name));
        let mark = if mine == theirs { "" } else { "  DIFFERENT" };
        println!("{name:<16} {:>20} {:>20}{mark}", show(mine), show(theirs));
        same &= mine == theirs;
    }
    println!(
        "vm: the kernel {} (start+length in sectors)",
        if same { "agrees" } else { "DISAGREES" }
    );
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "SLOF\nguest: kernel 6.1\nguest: log [    1.0] vda: AIX LVM header version 1 \
                        found\nguest: log [    1.0]  vda: vda1 <hd5> vda2 <datalv>\nguest: part \
                        vda1 4352 16384\nguest: part vda2 20736 24576\nguest: end\n";

    #[test]
    fn agrees_with_what_was_written() {
        let found = found(SAID).expect("readable");
        assert!(compare(&expected("hd5 4352 16384\ndatalv 20736 24576\n").expect("lines"), &found));
        assert!(!compare(
            &expected("hd5 4352 16384\ndatalv 20736 24575\n").expect("lines"),
            &found
        ));
        assert!(!compare(&expected("hd5 4352 16384\n").expect("lines"), &found));
    }

    #[test]
    fn a_disk_that_the_kernel_does_not_know_is_no_agreement() {
        assert!(found("guest: kernel 6.1\nguest: end\n").is_err());
        assert!(found("guest: no disk\nguest: end\n").is_err());
        assert!(expected("hd5 4352\n").is_err());
    }
}
