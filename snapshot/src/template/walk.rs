//! Goes through all objects of a template without its key.

use std::collections::HashSet;

use super::TemplateError;
use super::node::{Clear, ROOT};
use super::place::{Kind, ObjectId, Ref};
use super::shelves::Shelves;

/// What is found on the way, each object once.
pub(super) enum Found<'a> {
    /// A node that is whole, and its bytes.
    Node(&'a [u8]),
    /// A pack that is needed. Nobody has looked at it.
    Pack(ObjectId),
    /// A node that is not there, or not what it should be. What it needs is not known.
    Damaged(TemplateError),
}

/// Goes through a template from its root down.
///
/// # Errors
/// What `visit` gives, and what the store refuses. Damage is [`Found::Damaged`].
pub(super) fn walk(
    shelves: &Shelves,
    root: ObjectId,
    visit: &mut dyn FnMut(Found<'_>) -> Result<(), TemplateError>,
) -> Result<(), TemplateError> {
    let mut seen = HashSet::from([Ref { kind: Kind::Node, id: root }]);
    let mut open: Vec<(ObjectId, Option<Clear>)> = vec![(root, None)];
    while let Some((id, parent)) = open.pop() {
        let (bytes, clear) = match read(shelves, id, parent.as_ref()) {
            Ok(found) => found,
            Err(error) if error.is_damage() => {
                visit(Found::Damaged(error))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        visit(Found::Node(&bytes))?;
        // So that no node carries the references of its parent along.
        let level = Clear { level: clear.level, refs: Vec::new() };
        for needed in clear.needs().filter(|needed| seen.insert(*needed)) {
            match needed.kind {
                Kind::Pack => visit(Found::Pack(needed.id))?,
                Kind::Node => open.push((needed.id, Some(level.clone()))),
            }
        }
    }
    Ok(())
}

/// A node, proven by its id and to be of a level that its parent may need.
fn read(
    shelves: &Shelves,
    id: ObjectId,
    parent: Option<&Clear>,
) -> Result<(Vec<u8>, Clear), TemplateError> {
    let (key, bytes) = shelves.fetch(Ref { kind: Kind::Node, id })?;
    let clear = Clear::decode(&bytes).map_err(super::in_format(&key))?;
    let fits = parent.map_or(clear.level == ROOT, |parent| parent.takes(clear.level));
    if fits { Ok((bytes, clear)) } else { Err(TemplateError::Changed { key }) }
}
