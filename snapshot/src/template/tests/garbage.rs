//! Collecting garbage, case by case; `race.rs` has all of them at once.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::template::place::{INTENTS, Intent, Slot};
use crate::template::session::Session;

const HOUR: Duration = Duration::from_hours(1);

fn objects(store: &MemoryObjects) -> usize {
    store.keys().iter().filter(|key| key.starts_with("objects/")).count()
}

fn leftover(store: &MemoryObjects) -> Vec<String> {
    let plain = |key: &String| !key.starts_with("objects/") && !key.starts_with("templates/");
    store.keys().into_iter().filter(plain).collect()
}

#[test]
fn what_no_template_needs_goes_and_the_rest_stays() {
    let store = MemoryObjects::default();
    make(&store, "one", &[disk(1500, &(1..=1500).collect::<Vec<_>>())]).unwrap();
    make(&store, "two", &[disk(1500, &(1..=1024).collect::<Vec<_>>())]).unwrap();
    assert_eq!(collect_garbage(&store, HOUR).unwrap(), Collected::default());
    let all = objects(&store);
    delete(&store, &name("one")).unwrap();
    let found = collect_garbage(&store, HOUR).unwrap();
    // The second pack, the leaf that spoke of it, the node above, and the root.
    assert_eq!(found, Collected { removed: 4, ..Collected::default() });
    assert_eq!((objects(&store), leftover(&store)), (all - 4, vec![]));
    assert!(is_whole(&store, "two"));
    delete(&store, &name("two")).unwrap();
    collect_garbage(&store, HOUR).unwrap();
    assert_eq!(store.keys().len(), 2, "that the names were used");
}

/// Goal: what a maker at work could use is not removed before it has ended.
#[test]
fn condemned_objects_wait_for_those_who_may_have_seen_them() {
    let store = MemoryObjects::default();
    make(&store, "old", &[disk(3, &[1, 2, 3])]).unwrap();
    delete(&store, &name("old")).unwrap();
    let mut session = Session::begin(&store, &name("new")).unwrap();
    let found = collect_garbage(&store, HOUR).unwrap();
    assert_eq!((found.removed, found.condemned), (0, 3));
    let waits_for = found.waits_for.first().unwrap();
    assert_eq!((found.waits_for.len(), waits_for.name.as_str()), (1, "new"));
    // One who begins now sees that they are condemned, and need not be waited for.
    let late = Session::begin(&store, &name("late")).unwrap();
    assert_eq!((session.nodes().count(), late.nodes().count()), (2, 0));
    let (pack, _) = session.nodes().next().unwrap().unwrap();
    assert!(session.uses(place::Ref { kind: Kind::Node, id: pack }));
    session.put(Kind::Pack, b"of its own".to_vec()).unwrap();
    assert_eq!(collect_garbage(&store, HOUR).unwrap().condemned, 3);
    // It ends by being given up. What it wrote is garbage as well, which waits for the one who came
    // late and may have seen it.
    store.put_if_absent("templates/new/0000000000000001", &State::GivenUp.encode()).unwrap();
    let found = collect_garbage(&store, HOUR).unwrap();
    assert_eq!((found.removed, found.condemned), (3, 1));
    assert_eq!(found.waits_for.first().unwrap().name.as_str(), "late");
    let lost = session.commit(pack).unwrap_err();
    assert!(matches!(lost, TemplateError::GivenUp { .. }), "{lost}");
}

#[test]
fn a_silent_writer_is_given_up_after_the_grace_period() {
    let store = MemoryObjects::default();
    let disks = [disk(2050, &(1..=2050).collect::<Vec<_>>())];
    assert!(make(&store.failing_after(400), "gold", &disks).is_err());
    store.pass_time(3_599_999);
    assert_eq!(collect_garbage(&store, HOUR).unwrap(), Collected::default());
    let before = objects(&store);
    assert!(before > 0);
    store.pass_time(1);
    let found = collect_garbage(&store, HOUR).unwrap();
    assert_eq!((found.removed, found.given_up.len()), (before as u64, 1));
    assert_eq!((objects(&store), leftover(&store)), (0, vec![]));
    make(&store, "gold", &disks).unwrap();
    assert!(is_whole(&store, "gold"));
    assert!(store.keys().contains(&"templates/gold/0000000000000002".to_owned()));
    collect_garbage(&store, HOUR).unwrap();
    assert!(!store.keys().contains(&"templates/gold/0000000000000001".to_owned()));
}

/// Goal: doing it again is not punished for the attempt that was broken off.
#[test]
fn a_new_attempt_keeps_the_old_one_from_being_given_up() {
    let store = MemoryObjects::default();
    drop(Session::begin(&store, &name("gold")).unwrap());
    store.pass_time(7_000_000);
    let session = Session::begin(&store, &name("gold")).unwrap();
    assert!(collect_garbage(&store, HOUR).unwrap().given_up.is_empty());
    assert_eq!(listed(&store, INTENTS).unwrap().len(), 2);
    drop(session);
}

#[test]
fn a_writer_at_work_says_so_and_learns_that_it_was_given_up() {
    let store = MemoryObjects::default();
    let mut session = Session::begin(&store, &name("gold")).unwrap();
    store.pass_time(3_000_000);
    session.worked(1 << 30).unwrap();
    store.pass_time(3_000_000);
    assert!(collect_garbage(&store, HOUR).unwrap().given_up.is_empty());
    store.pass_time(3_000_000);
    assert_eq!(collect_garbage(&store, HOUR).unwrap().given_up.len(), 1);
    let lost = session.worked(1 << 30).unwrap_err();
    assert!(matches!(lost, TemplateError::GivenUp { .. }));
    collect_garbage(&store, HOUR).unwrap();
    assert_eq!(leftover(&store), [""; 0], "also what it said too late is gone");
}

/// Goal: a writer whose place was given up and forgotten does not believe that it has made it.
#[test]
fn who_comes_too_late_is_told_so() {
    let store = MemoryObjects::default();
    let mut late = Session::begin(&store, &name("gold")).unwrap();
    let root = late.put(Kind::Node, b"no matter".to_vec()).unwrap();
    collect_garbage(&store, Duration::ZERO).unwrap();
    make(&store, "gold", &[disk(2, &[1])]).unwrap();
    collect_garbage(&store, HOUR).unwrap();
    assert!(!store.keys().contains(&"templates/gold/0000000000000001".to_owned()));
    let lost = late.commit(root).unwrap_err();
    assert!(matches!(lost, TemplateError::Taken { .. }), "{lost}");
    assert!(is_whole(&store, "gold"));
    collect_garbage(&store, HOUR).unwrap();
    assert!(is_whole(&store, "gold"));
    assert!(!store.keys().contains(&"templates/gold/0000000000000001".to_owned()));
}

/// Lets one step of another thread wait: the first on a key that begins so.
struct Hold {
    prefix: &'static str,
    reached: Mutex<Option<mpsc::Sender<()>>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Gate for Hold {
    fn pass(&self, action: &'static str, key: &str) -> io::Result<()> {
        if action == "remove"
            && key.starts_with(self.prefix)
            && let Some(reached) = self.reached.lock().unwrap().take()
        {
            reached.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        Ok(())
    }
}

/// Goal: a collector that stands still before it removes harms nobody, and what it does not remove
/// does not stay.
/// Method: it is held before its first removal; meanwhile the same volumes become a template again,
/// and others collect; then it goes on.
#[test]
fn a_collector_that_stands_still_harms_nobody() {
    let store = MemoryObjects::default();
    let disks = [disk(3, &[1, 2, 3])];
    make(&store, "old", &disks).unwrap();
    delete(&store, &name("old")).unwrap();
    let ((reached, wait), (free, go_on)) = (mpsc::channel(), mpsc::channel());
    let hold =
        Hold { prefix: "objects/", reached: Mutex::new(Some(reached)), go_on: Mutex::new(go_on) };
    let slow = store.through(Arc::new(hold));
    let collector = thread::spawn(move || collect_garbage(&slow, HOUR));
    wait.recv().unwrap();
    let made = make(&store, "new", &disks).unwrap();
    assert!(made.progress.stored > 3 * 2048, "nothing that is condemned was used");
    let found = collect_garbage(&store, HOUR).unwrap();
    assert_eq!((found.removed, found.condemned), (3, 0), "condemned again, by another list");
    assert!(is_whole(&store, "new"));
    free.send(()).unwrap();
    assert_eq!(collector.join().unwrap().unwrap().removed, 3);
    assert!(is_whole(&store, "new"));
    assert_eq!(leftover(&store), [""; 0]);
}

/// Goal: of a copy that lies twice the one that goes is not missed, also by who looked before.
#[test]
fn a_reader_finds_the_copy_that_stays() {
    let (from, store) = (MemoryObjects::default(), MemoryObjects::default());
    make(&from, "one", &[disk(1500, &(1..=1500).collect::<Vec<_>>())]).unwrap();
    make(&from, "two", &[disk(1500, &(1..=1024).collect::<Vec<_>>())]).unwrap();
    push(&shared(&from), &store, &name("one"), &mut go_on).unwrap();
    push(&shared(&from), &store, &name("two"), &mut go_on).unwrap();
    let expected = content(&opened(&store, "two"), 0);
    let reader = opened(&store, "two");
    reader.volume(VolumeId(0)).unwrap().read_at(0, &mut [0; 1]).unwrap();
    // As if "two" had a copy of its own of all that it uses of "one", which goes.
    let State::Template { shelves, .. } =
        state_of(&store, &Slot { name: name("two"), number: 1 }).unwrap().unwrap()
    else {
        panic!("it stands")
    };
    assert_eq!(shelves.len(), 2);
    let shelves: Vec<_> = shelves.iter().map(|shelf| format!("objects/{shelf}/")).collect();
    for key in store.keys() {
        let Some(at) = shelves.iter().position(|shelf| key.starts_with(shelf)) else { continue };
        let copy = key.replace(&shelves[at], &shelves[1 - at]);
        let bytes = store.get(&key).unwrap().unwrap();
        store.put_if_absent(&copy, &bytes).unwrap();
        store.delete(&key).unwrap();
    }
    assert!(content(&reader, 0) == expected);
}

#[test]
fn an_answer_that_was_lost_is_no_defeat() {
    /// Tries everything twice, as who hears no answer does.
    struct Twice(MemoryObjects);
    impl Objects for Twice {
        fn put(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectError> {
            self.0.put(key, bytes)
        }
        fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
            self.0.put_if_absent(key, bytes)?;
            self.0.put_if_absent(key, bytes)
        }
        fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
            self.0.get(key)
        }
        fn get_range(&self, key: &str, at: u64, len: u64) -> Result<Option<Vec<u8>>, ObjectError> {
            self.0.get_range(key, at, len)
        }
        fn head(&self, key: &str) -> Result<Option<ObjectInfo>, ObjectError> {
            self.0.head(key)
        }
        fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), ObjectError> {
            self.0.list(prefix, each)
        }
        fn delete(&self, key: &str) -> Result<(), ObjectError> {
            self.0.delete(key)
        }
    }
    let store = MemoryObjects::default();
    let (sizes, disks) = (layout(&[2 * CHUNK]), [disk(2, &[1])]);
    let twice = Twice(store.clone());
    create(&twice, &key(), &name("gold"), &disks, &sizes, &meta(1), &mut go_on).unwrap();
    assert!(is_whole(&store, "gold"));
    // A claim whose answer was lost is nobody's: what it names is condemned again, and goes.
    delete(&store, &name("gold")).unwrap();
    assert_eq!(collect_garbage(&twice, HOUR).unwrap().removed, 0);
    assert_eq!(collect_garbage(&store, HOUR).unwrap().removed, 3);
    collect_garbage(&store, HOUR).unwrap();
    assert_eq!(leftover(&store), [""; 0]);
    assert!(Intent::parse("intents/gold/1/x").is_none());
}
