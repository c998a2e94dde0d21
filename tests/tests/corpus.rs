//! The fuzz targets as plain tests: every file of the corpus, and a short search by dice.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use vgship_base::sim::Rng;
use vgship_tests::fuzz::allocs::{Counting, most_held};
use vgship_tests::fuzz::{TARGETS, Target, corpus, mutate};

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a corpus may take: it is for everyone who clones.
const FILES_MAX: usize = 40;
const FILE_BYTES_MAX: usize = 4096;
const CORPUS_BYTES_MAX: usize = 1 << 20;

/// Inputs per target of the search by dice.
const SEARCHED: u64 = 1000;

fn files(target: &Target) -> Vec<(String, Vec<u8>)> {
    corpus::load(&corpus::folder(target.name)).expect("the corpus can be read")
}

#[test]
fn every_input_of_the_corpus_holds() {
    for target in &TARGETS {
        for (name, data) in files(target) {
            assert!(
                catch_unwind(AssertUnwindSafe(|| target.check(&data))).is_ok(),
                "tests/fuzz/corpus/{}/{name} does not hold",
                target.name
            );
        }
    }
}

#[test]
fn what_the_real_encoders_make_holds_and_so_does_no_input_at_all() {
    for target in &TARGETS {
        target.check(&[]);
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        seeds.iter().for_each(|seed| target.check(seed));
    }
}

/// Goal: an input near the corpus that fails is found by everyone, without a fuzzer.
/// Method: fixed seeds, so that what passed once passes again.
#[test]
fn inputs_near_the_corpus_hold() {
    for target in &TARGETS {
        let known: Vec<Vec<u8>> = files(target).into_iter().map(|(_, data)| data).collect();
        for seed in 0..SEARCHED {
            let data = mutate::mutated(&mut Rng::new(seed), &known, target.longest);
            if catch_unwind(AssertUnwindSafe(|| target.check(&data))).is_err() {
                let place = std::env::temp_dir().join(format!("vgship-{}", target.name));
                let path = corpus::save(&place, &data).expect("a temporary folder");
                panic!("{} fails with {}", target.name, path.display());
            }
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let mut bytes = 0;
    for target in &TARGETS {
        let files = files(target);
        assert!((1..=FILES_MAX).contains(&files.len()), "{}: {} files", target.name, files.len());
        for (name, data) in files {
            assert!(data.len() <= FILE_BYTES_MAX, "{}/{name}: {} bytes", target.name, data.len());
            bytes += data.len();
        }
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}

/// Each target has a program for libFuzzer and a corpus, and nothing else has.
#[test]
fn targets_programs_and_corpora_agree() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let named = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(fuzz.join(folder)).expect("it is in the repository");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.expect("it can be listed").path();
            path.file_stem().expect("a name").to_string_lossy().into_owned()
        };
        entries.map(name).collect()
    };
    let known: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(named("targets"), known);
    assert_eq!(named("corpus"), known);
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("it is there");
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} has no [[bin]]");
        let program = std::fs::read_to_string(fuzz.join(format!("targets/{name}.rs")));
        assert!(program.expect("listed").contains(&format!("\"{name}\"")), "{name} runs another");
    }
}

/// The limits on memory mean something: this program counts.
#[test]
fn memory_is_counted() {
    let most = most_held(|| {
        let held = vec![0_u8; 1 << 20];
        drop(held);
        drop(Vec::<u8>::with_capacity(1 << 10));
    });
    assert!((1 << 20..1 << 21).contains(&most), "{most}");
}
