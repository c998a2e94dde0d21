//! The copy of the tree that is mutated and built. The tree itself is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::place::Mutant;
use super::schema::{self, Schema};
use crate::tree;

const BASE_LIB: &str = "agent/base/src/lib.rs";
const SWITCH_FILE: &str = "agent/base/src/mutant.rs";

/// The crate with the tests of the cores, and the one with the scenarios.
const PACKAGES: [&str; 4] = ["--package", "vgship", "--package", "vgship-tests"];

/// How often places that do not compile are taken out before giving up.
const ROUNDS: usize = 12;

/// The copy, and where it is built.
pub struct Copy {
    root: PathBuf,
    target: PathBuf,
}

/// A program that was built: of which target, and where.
pub struct Built {
    /// `lib`, `rules`, `sim`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
}

/// What rustc says against a place.
struct Complaint {
    file: String,
    at: Range<usize>,
    text: String,
}

impl Copy {
    /// Makes the copy equal to what git lists in the tree, changes included.
    pub fn make() -> Result<Copy> {
        let base = tree::target().join("mutants");
        let copy = Copy { root: base.join("tree"), target: base.join("build") };
        let mut git = Command::new("git");
        git.current_dir(tree::root());
        let listed = ["ls-files", "--cached", "--others", "--exclude-standard"];
        let listed = tree::output(git.args(listed))?;
        let mut wanted = BTreeSet::from([PathBuf::from(SWITCH_FILE)]);
        for path in listed.lines().filter(|path| tree::root().join(path).is_file()) {
            wanted.insert(path.into());
            let bytes = std::fs::read(tree::root().join(path)).with_context(|| path.to_owned())?;
            if path != BASE_LIB {
                copy.put(path, &bytes)?;
            }
        }
        copy.put(SWITCH_FILE, schema::SWITCH.as_bytes())?;
        let base_lib = std::fs::read_to_string(tree::root().join(BASE_LIB)).context(BASE_LIB)?;
        copy.put(BASE_LIB, format!("{base_lib}\npub mod mutant;\n").as_bytes())?;
        copy.forget_others(&copy.root, &wanted)?;
        Ok(copy)
    }

    /// Writes a file, unless it is so already: cargo looks at its time.
    fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let to = self.root.join(path);
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        std::fs::create_dir_all(to.parent().unwrap_or(&self.root))?;
        std::fs::write(&to, bytes).with_context(|| to.display().to_string())
    }

    fn forget_others(&self, folder: &Path, wanted: &BTreeSet<PathBuf>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.forget_others(&path, wanted)?;
            } else if path.strip_prefix(&self.root).is_ok_and(|inside| !wanted.contains(inside)) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Writes the mutants, numbered from 1, into the copy, and builds all programs that judge.
    /// Gives the numbers that had to be left out because they do not compile, and the programs.
    pub fn build(
        &self,
        mutants: &[Mutant],
        tests: &[String],
    ) -> Result<(BTreeSet<u32>, Vec<Built>)> {
        let mut left_out = BTreeSet::new();
        for _ in 0..ROUNDS {
            let schemas = self.write(mutants, &left_out)?;
            let complaints = self.check()?;
            if complaints.is_empty() {
                return Ok((left_out, self.programs(tests)?));
            }
            let before = left_out.len();
            for complaint in &complaints {
                let schema = schemas.get(&complaint.file);
                let blamed = schema.map_or(&[][..], |schema| schema.blamed(&complaint.at));
                left_out.extend(blamed);
            }
            if left_out.len() == before {
                bail!(
                    "the copy does not compile, and no mutant is to blame: {}",
                    complaints[0].text
                );
            }
        }
        bail!("the copy does not compile after {ROUNDS} rounds of leaving out mutants")
    }

    fn write(
        &self,
        mutants: &[Mutant],
        left_out: &BTreeSet<u32>,
    ) -> Result<BTreeMap<String, Schema>> {
        let mut files: BTreeMap<&str, Vec<(u32, &Mutant)>> = BTreeMap::new();
        for (number, mutant) in (1..).zip(mutants) {
            let file = files.entry(&mutant.file).or_default();
            if !left_out.contains(&number) {
                file.push((number, mutant));
            }
        }
        let mut schemas = BTreeMap::new();
        for (file, mutants) in files {
            let text = std::fs::read_to_string(tree::root().join(file)).context(file.to_owned())?;
            let schema = schema::write(&text, &mutants);
            self.put(file, schema.text.as_bytes())?;
            schemas.insert(file.to_owned(), schema);
        }
        Ok(schemas)
    }

    fn cargo(&self, words: &[&str]) -> Command {
        let mut cargo = tree::cargo();
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        cargo.args(words).args(["--message-format", "json"]).stderr(Stdio::inherit());
        cargo
    }

    /// What rustc says against the cores as they are written now.
    fn check(&self) -> Result<Vec<Complaint>> {
        let mut cargo = self.cargo(&["check", "--quiet", "--package", "vgship", "--lib"]);
        let output = cargo.output().with_context(|| tree::line(&cargo))?;
        let complaints: Vec<Complaint> =
            messages(&output.stdout).filter_map(|message| complaint(&message)).collect();
        if complaints.is_empty() && !output.status.success() {
            bail!("{} ended with {}", tree::line(&cargo), output.status);
        }
        Ok(complaints)
    }

    fn programs(&self, tests: &[String]) -> Result<Vec<Built>> {
        // The simulation is built along with the scenarios of its package: building it by itself
        // would build everything once more, with other features.
        let mut words = vec!["test", "--no-run", "--lib"];
        words.extend(PACKAGES);
        tests.iter().for_each(|test| words.extend(["--test", test]));
        let mut cargo = self.cargo(&words);
        let output = cargo.output().with_context(|| tree::line(&cargo))?;
        if !output.status.success() {
            let said = messages(&output.stdout).find_map(|message| complaint(&message));
            bail!("{} failed: {}", tree::line(&cargo), said.map_or(String::new(), |it| it.text));
        }
        // Cargo builds the package's other programs along.
        let judges = |it: &Built| {
            ["vgship lib", "sim"].contains(&it.name.as_str()) || tests.contains(&it.name)
        };
        let built = messages(&output.stdout).filter_map(|message| program(&message));
        Ok(built.filter(judges).collect())
    }
}

fn messages(output: &[u8]) -> impl Iterator<Item = Value> {
    output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// An error of the compiler, where it points to; `None` for anything else.
fn complaint(message: &Value) -> Option<Complaint> {
    let said = message.get("message")?;
    if said["level"] != "error" {
        return None;
    }
    let text = said["rendered"].as_str().unwrap_or_default().to_owned();
    let spans = said["spans"].as_array()?;
    // A span inside a macro points to where that was called.
    let mut span = spans.iter().find(|span| span["is_primary"] == true)?;
    while span["expansion"].is_object() {
        span = &span["expansion"]["span"];
    }
    let place = |name: &str| span[name].as_u64().and_then(|at| usize::try_from(at).ok());
    let at = place("byte_start")?..place("byte_end")?;
    Some(Complaint { file: span["file_name"].as_str()?.to_owned(), at, text })
}

/// A program that cargo built, by the name of its target.
fn program(message: &Value) -> Option<Built> {
    let path = PathBuf::from(message["executable"].as_str()?);
    let target = &message["target"];
    let name = match target["kind"][0].as_str()? {
        "lib" => format!("{} lib", target["name"].as_str()?),
        _ => target["name"].as_str()?.to_owned(),
    };
    Some(Built { name, path })
}
