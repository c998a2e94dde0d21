use super::facts::Facts;
use super::*;
use crate::capture::nbd::io::NbdServer;

const HOUR: u64 = 3_600_000_000;

fn with_lease(all: &Environments, name: &Name, expires: u64) {
    let mut facts = Facts::new(name.clone(), 0);
    facts.expires = Some(expires);
    folder::begin(&all.path(name)).unwrap();
    facts.store(&all.path(name)).unwrap();
    let (parts, outside) = (Vec::new(), None);
    let (broken, stuck, again, fleeting) = (None, None, None, false);
    let env = Env { facts, parts, outside, broken, stuck, again, fleeting };
    all.state().all.insert(name.clone(), env);
}

#[test]
fn a_lease_that_was_extended_since_it_was_looked_at_counts() {
    let place = tempfile::tempdir().unwrap();
    let all = Environments::new(&Home::at(place.path()));
    let served = Arc::new(Served::default());
    let server = NbdServer::start(Vec::new(), Arc::clone(&served) as _).unwrap();
    let destroy = |name: &Name, now| {
        all.destroy_expired(name, now, |_| None, &served, &server.handle()).unwrap();
    };
    let name: Name = "e".parse().unwrap();
    with_lease(&all, &name, 10);
    assert!(all.expired(9).is_empty());
    assert_eq!(all.expired(10), std::slice::from_ref(&name));
    let hour = Period(Duration::from_hours(1));
    all.extend(&name, hour, 10).unwrap();
    destroy(&name, 10);
    assert_eq!(all.list().len(), 1);
    destroy(&name, 10 + HOUR);
    assert!(all.list().is_empty() && folder::is_absent(&all.path(&name)));
    destroy(&name, 10 + HOUR);
}

#[test]
fn only_who_is_certainly_not_there_lets_go_of_a_snapshot() {
    let place = tempfile::tempdir().unwrap();
    let all = Environments::new(&Home::at(place.path()));
    assert!(!all.is_orphan("environment e"), "their folder is away");
    std::fs::create_dir(place.path().join("environments")).unwrap();
    assert!(all.is_orphan("environment e"));
    assert!(!all.is_orphan("reader 7"));
    std::os::unix::fs::symlink("nowhere", all.path(&"e".parse().unwrap())).unwrap();
    assert!(!all.is_orphan("environment e"));
}
