//! A store whose catalogue was changed behind its back.

use vgship_base::folder::Folder;

use super::*;

const CATALOGUE: &str = "catalogue";

/// All files of a folder.
fn files(folder: &SimFolder) -> BTreeMap<String, Vec<u8>> {
    let names = folder.list().unwrap().into_iter();
    names.map(|name| (name.clone(), folder.file(&name).unwrap().live())).collect()
}

/// Makes a folder hold these files and no others.
fn put(folder: &SimFolder, files: &BTreeMap<String, Vec<u8>>) {
    folder.list().unwrap().iter().for_each(|name| folder.remove(name).unwrap());
    for (name, bytes) in files {
        let file = folder.create(name).unwrap();
        file.write_at(0, bytes).unwrap();
        file.flush().unwrap();
    }
}

/// Goal: a catalogue of which a byte flipped, or that was cut, never panics and never shows what is
/// not so: every snapshot reads as it did, or an error says what is damaged.
/// Method: one store, of a seed; each round damages its closed catalogue once, by dice.
#[test]
fn a_damaged_catalogue_is_an_error_or_shows_what_it_showed() {
    let mut world = World::new(3);
    world.live(160).unwrap();
    drop(world.open().unwrap());
    let whole = files(&world.folder);
    let names: Vec<_> = world.open().unwrap().set.list().unwrap();
    assert!(names.len() > 2, "there is something to lose");
    let (mut errors, mut unharmed) = (0, 0);
    let mut rng = Rng::new(7);
    for round in 0..600 {
        let mut changed = whole.clone();
        let bytes = changed.get_mut(CATALOGUE).unwrap();
        // Pages of which something is read lie at the beginning.
        let end = if rng.one_in(2) { bytes.len() } else { bytes.len().min(80 << 10) };
        let (place, bit) = (rng.index(end), rng.below(8));
        let cut = rng.one_in(6);
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= 1 << bit;
        }
        put(&world.folder, &changed);
        let found = world.open().and_then(|life| {
            assert_eq!(life.set.list()?, names, "round {round}, byte {place}");
            world.compare(&life)
        });
        match found {
            Ok(()) => unharmed += 1,
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    text = format!("{text}: {error}");
                    cause = error.source();
                }
                let says = text.contains("catalogue") || text.contains("store");
                assert!(says, "round {round}, byte {place}, cut: {cut}: {text}");
                assert!(!error.is_refusal() && !error.is_full(), "{text}");
                errors += 1;
            }
        }
    }
    assert!(errors > 100 && unharmed > 50, "{errors} errors, {unharmed} unharmed");
}
