//! Goal: whatever makers, copiers, deleters and collectors do at the same time, and wherever each
//! of them ends, every template that stands is whole, and in the end nothing is left over.
//!
//! Method: some actors, each a thread that does one thing after another over one store. Before each
//! step on the store an actor waits for its turn; dice say whose it is, who stands still for long,
//! and whose process ends there. All dice come from one seed, so a run repeats exactly. After each
//! step that removes an object or fills a place, all templates that stand are proven while
//! everybody waits.

use std::collections::BTreeSet;
use std::sync::{Condvar, MutexGuard};
use std::thread;
use std::time::Duration;

use vgship_base::sim::Rng;

use super::*;
use crate::seal::dice;
use crate::template::mark::{Lying, Marker};

const ACTORS: usize = 4;
const OPERATIONS: usize = 7;
const NAMES: [&str; 2] = ["a", "b"];

/// Whose turn it is.
#[derive(Default)]
struct Turns {
    /// What each actor that waits wants to do.
    waiting: BTreeMap<usize, (&'static str, String)>,
    ended: usize,
    /// Who may go on, and whether its process ends instead.
    granted: Option<(usize, bool)>,
    crashed: BTreeSet<usize>,
    /// A test failed: nobody waits any more.
    over: bool,
}

#[derive(Default)]
struct Table {
    turns: Mutex<Turns>,
    changed: Condvar,
}

impl Table {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap()
    }

    /// Lets nobody wait for a thread that fails.
    fn left(&self) {
        if thread::panicking() {
            self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner).over = true;
        }
        self.changed.notify_all();
    }

    /// Waits until everybody waits or has ended.
    fn settled(&self) -> MutexGuard<'_, Turns> {
        let busy = |turns: &mut Turns| {
            !turns.over && (turns.granted.is_some() || turns.waiting.len() + turns.ended < ACTORS)
        };
        let turns = self.changed.wait_while(self.turns(), busy).unwrap();
        assert!(!turns.over, "an actor failed");
        turns
    }
}

struct Watch<'a>(&'a Table);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.left();
    }
}

/// Where one actor waits.
struct Seat {
    table: Arc<Table>,
    actor: usize,
}

impl Gate for Seat {
    fn pass(&self, action: &'static str, key: &str) -> io::Result<()> {
        let mut turns = self.table.turns();
        if !turns.crashed.contains(&self.actor) {
            turns.waiting.insert(self.actor, (action, key.to_owned()));
            self.table.changed.notify_all();
            let not_yet = |turns: &mut Turns| {
                !turns.over && turns.granted.is_none_or(|(actor, _)| actor != self.actor)
            };
            turns = self.table.changed.wait_while(turns, not_yet).unwrap();
            turns.waiting.remove(&self.actor);
            if let Some((_, true)) = turns.granted.take() {
                turns.crashed.insert(self.actor);
            }
        }
        match turns.over || turns.crashed.contains(&self.actor) {
            true => Err(io::Error::other("this process has ended")),
            false => Ok(()),
        }
    }
}

/// Volumes that share much with each other.
fn some_disk(rng: &mut Rng) -> (SharedDisk, String) {
    let texts: Vec<u64> = (0..3).map(|_| 1 + rng.below(3)).collect();
    let disk = Sparse::new(2050 * CHUNK);
    for (block, text) in [0, 1024, 2049].into_iter().zip(&texts) {
        disk.fill(block, *text);
    }
    (disk.shared(), format!("{texts:?}"))
}

fn make_some(store: &dyn Objects, text: &str, rng: &mut Rng) -> Result<(), TemplateError> {
    let (disk, texts) = some_disk(rng);
    let (layout, mut meta) = (layout(&[disk.len()]), meta(1));
    meta.facts.insert("texts".to_owned(), texts);
    create(store, &key(), &name(text), &[disk], &layout, &meta, &mut go_on).map(drop)
}

/// A store with a template of each name, as another side has it.
fn other_side(rng: &mut Rng) -> SharedObjects {
    let store = MemoryObjects::default();
    for name in NAMES {
        make_some(&store, name, rng).unwrap();
    }
    shared(&store)
}

/// One thing that an actor does.
fn operate(
    store: &MemoryObjects,
    other: &SharedObjects,
    collections: u64,
    rng: &mut Rng,
) -> Result<(), TemplateError> {
    let name = NAMES[rng.index(NAMES.len())];
    match rng.below(7 + collections) {
        0..3 => make_some(store, name, rng),
        3..5 => push(other, store, &super::name(name), &mut go_on).map(drop),
        5..7 => delete(store, &super::name(name)),
        _ => {
            let grace = [0, 0, 50, 10_000][rng.index(4)];
            collect_garbage(store, Duration::from_millis(grace)).map(drop)
        }
    }
}

/// Proves every template that stands; `deeply` also that it holds what was put into it.
fn prove(store: &MemoryObjects, deeply: bool, seed: u64) {
    let store = shared(store);
    for found in list(&store).unwrap() {
        let blind = verify_blind(&store, &found.name, &mut go_on).unwrap();
        assert!(blind.damage.is_empty(), "seed {seed}, template {}: {blind:?}", found.name);
        if deeply {
            let template = Template::open(&store, &key(), &found.name).unwrap();
            let deep = template.verify(&mut go_on).unwrap();
            assert!(deep.damage.is_empty(), "seed {seed}, template {}: {deep:?}", found.name);
            let disk = template.volume(VolumeId(0)).unwrap();
            let texts = &template.manifest().facts["texts"];
            let texts = texts.trim_matches(['[', ']']).split(", ");
            for (block, text) in [0, 1024, 2049].into_iter().zip(texts) {
                let mut bytes = [0; BLOCK];
                disk.read_at(block * CHUNK, &mut bytes).unwrap();
                assert!(bytes == block_of(text.parse().unwrap()), "seed {seed}");
            }
        }
    }
}

/// Gives turns until all have ended.
fn preside(table: &Table, store: &MemoryObjects, rng: &mut Rng, seed: u64) {
    let _watch = Watch(table);
    let mut still = BTreeSet::new();
    loop {
        let mut turns = table.settled();
        if turns.ended == ACTORS {
            return;
        }
        if rng.one_in(40) {
            still = (0..ACTORS).filter(|_| rng.one_in(2)).collect();
            store.pass_time(rng.below(60));
        }
        let waiting: Vec<usize> = turns.waiting.keys().copied().collect();
        let moving: Vec<usize> =
            waiting.iter().copied().filter(|actor| !still.contains(actor)).collect();
        let choice = if moving.is_empty() { &waiting } else { &moving };
        let actor = choice[rng.index(choice.len())];
        let (action, key) = turns.waiting[&actor].clone();
        turns.granted = Some((actor, rng.one_in(150)));
        drop(turns);
        table.changed.notify_all();
        let removes = action == "remove" && key.starts_with("objects/");
        if removes || (action == "write" && key.starts_with("templates/")) {
            drop(table.settled());
            prove(store, false, seed);
        }
    }
}

/// Nothing is left but what templates need, and in the end nothing but that names were used.
fn tidy_up(store: &MemoryObjects, seed: u64) {
    for _ in 0..3 {
        collect_garbage(store, Duration::ZERO).unwrap();
    }
    prove(store, true, seed);
    let mut lying = Lying::all(store).unwrap();
    let all = Lying::all(store).unwrap();
    Marker::new(store).take_needed(&mut lying).unwrap();
    assert_eq!(lying.into_sorted(), [], "seed {seed}: left over");
    for key in store.keys() {
        assert!(!key.starts_with("intents/"), "seed {seed}: {key}");
        if key.starts_with("condemned/") && key.ends_with("/list") {
            let keys = keylist::decode(&store.get(&key).unwrap().unwrap()).unwrap();
            let lies = |key: &String| all.contains(&place::Place::parse(key).unwrap());
            assert!(keys.iter().any(lies), "seed {seed}: {key} has nothing to do");
        }
    }
    for found in list(&shared(store)).unwrap() {
        delete(store, &found.name).unwrap();
    }
    for _ in 0..3 {
        collect_garbage(store, Duration::ZERO).unwrap();
    }
    store.pass_time(24 * 3600 * 1000);
    collect_garbage(store, Duration::ZERO).unwrap();
    let left = store.keys();
    assert!(left.iter().all(|key| key.starts_with("templates/")), "seed {seed}: {left:?}");
    assert!(left.len() <= NAMES.len(), "seed {seed}: {left:?}");
}

/// What came of it all: kinds of ends, so that none is missing without anybody's noticing.
fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut rng = Rng::new(seed);
    dice::take(rng.fork());
    let other = other_side(&mut rng);
    let (store, table) = (MemoryObjects::default(), Arc::new(Table::default()));
    let (collections, ends) = ([3, 12][rng.index(2)], Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for actor in 0..ACTORS {
            let (mut rng, other, ends) = (rng.fork(), &other, &ends);
            let (seat, table) = (Seat { table: table.clone(), actor }, &table);
            let store = store.through(Arc::new(seat));
            scope.spawn(move || {
                dice::take(rng.fork());
                let _watch = Watch(table);
                for _ in 0..OPERATIONS {
                    let end = match operate(&store, other, collections, &mut rng) {
                        Ok(()) => "done",
                        Err(TemplateError::Store(_)) => "crashed",
                        Err(TemplateError::Taken { .. }) => "taken",
                        Err(TemplateError::Absent(_)) => "absent",
                        Err(TemplateError::GivenUp { .. }) => "given up",
                        Err(error) => panic!("seed {seed}: {error:?}"),
                    };
                    *ends.lock().unwrap().entry(end).or_insert(0) += 1;
                    table.turns().crashed.remove(&actor);
                }
                table.turns().ended += 1;
            });
        }
        preside(&table, &store, &mut rng, seed);
    });
    tidy_up(&store, seed);
    ends.into_inner().unwrap()
}

#[test]
fn templates_that_stand_are_whole_whoever_works_and_ends_wherever() {
    let seeds = std::env::var("VGSHIP_SEEDS").ok().and_then(|text| text.parse().ok());
    let first = std::env::var("VGSHIP_SEED").ok().and_then(|text| text.parse().ok());
    let first = first.unwrap_or(0);
    let mut ends = BTreeMap::new();
    for seed in first..first + seeds.unwrap_or(150) {
        for (end, count) in run(seed) {
            *ends.entry(end).or_insert(0) += count;
        }
    }
    for end in ["done", "crashed", "taken", "absent", "given up"] {
        assert!(ends.get(end).is_some_and(|count| *count > 0), "{end}: {ends:?}");
    }
    println!("{ends:?}");
}
