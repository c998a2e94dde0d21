//! Copying a template from one store to another, and mending one from another, without its key.

use vgship_base::ids::Name;

use super::create::{OnProgress, Progress, tell};
use super::objects::{Objects, SharedObjects};
use super::place::{Kind, ObjectId, Place, Ref};
use super::session::Session;
use super::walk::{Found, walk};
use super::{TemplateError, standing};

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The id of the root, the same in both stores.
    pub root: ObjectId,
    /// How much was looked at and stored; nothing when it was there already.
    pub progress: Progress,
}

/// Copies the template `name` from one store to another, where it is the same template with the
/// same root and under the same key. To pull is to push with the stores the other way round.
///
/// Objects that the other store has are not sent, also those that an earlier attempt left. All that
/// is read is proven before it is written; the template begins to be there when all of it is.
///
/// Durable: the template in the other store, once this has returned.
///
/// # Errors
/// [`TemplateError::Absent`] when there is none, [`TemplateError::Taken`] when the other store has
/// another one of this name, damage that the first store has. After any error the same call may be
/// made again.
pub fn push(
    from: &SharedObjects,
    to: &dyn Objects,
    name: &Name,
    progress: OnProgress<'_>,
) -> Result<Pushed, TemplateError> {
    let (root, shelves) = standing(from, name)?;
    let mut told = Progress::default();
    let there = |error| match error {
        TemplateError::Taken { root: found, .. } if found == root => Ok(()),
        error => Err(error),
    };
    let mut session = match Session::begin(to, name) {
        Ok(session) => session,
        Err(error) => return there(error).map(|()| Pushed { root, progress: told }),
    };
    walk(&shelves, root, &mut |found| {
        match found {
            Found::Damaged(error) => return Err(error),
            Found::Node(bytes) => drop(session.put(Kind::Node, bytes.to_vec())?),
            Found::Pack(id) => {
                let pack = Ref { kind: Kind::Pack, id };
                if !session.uses(pack) {
                    session.put(Kind::Pack, shelves.fetch(pack)?.1)?;
                }
            }
        }
        told.objects += 1;
        told.stored = session.stored();
        tell(&told, progress)
    })?;
    session.commit(root).or_else(there)?;
    Ok(Pushed { root, progress: told })
}

/// Mends the template `name` of one store by what another store has of the same template: all its
/// objects are read there, and those that are damaged or missing are written anew.
///
/// What stands and is whole stays untouched, so this is safe while the template is in use.
///
/// # Errors
/// [`TemplateError::Absent`] when one store has none, [`TemplateError::Taken`] when theirs is
/// another one of this name, damage that the first store has. After any error the same call may be
/// made again.
pub fn mend(
    from: &SharedObjects,
    to: &SharedObjects,
    name: &Name,
    progress: OnProgress<'_>,
) -> Result<Pushed, TemplateError> {
    let (root, whole) = standing(from, name)?;
    let (theirs, damaged) = standing(to, name)?;
    if theirs != root {
        return Err(TemplateError::Taken { name: name.clone(), root: theirs });
    }
    let mut told = Progress::default();
    walk(&whole, root, &mut |found| {
        let (object, bytes) = match found {
            Found::Damaged(error) => return Err(error),
            Found::Node(bytes) => {
                (Ref { kind: Kind::Node, id: ObjectId::of(bytes) }, Some(bytes.to_vec()))
            }
            Found::Pack(id) => (Ref { kind: Kind::Pack, id }, None),
        };
        let key = match damaged.fetch(object) {
            Ok(_) => None,
            Err(TemplateError::Changed { key }) => Some(key),
            Err(TemplateError::Missing { .. }) => {
                damaged.shelf().map(|writer| Place { writer, object }.key())
            }
            Err(error) => return Err(error),
        };
        if let Some(key) = key {
            let bytes = bytes.map_or_else(|| whole.fetch(object).map(|(_, it)| it), Ok)?;
            to.put(&key, &bytes)?;
            told.stored += bytes.len() as u64;
        }
        told.objects += 1;
        tell(&told, progress)
    })?;
    Ok(Pushed { root, progress: told })
}
