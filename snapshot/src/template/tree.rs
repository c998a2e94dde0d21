//! The hash tree of a volume, built from its leaves on.

use super::TemplateError;
use super::page::{Page, SLOTS};
use super::place::ObjectId;

/// Takes the nodes of level 0 in order and has those above made as they fill.
pub(super) struct Tree {
    /// For each level what has no parent yet.
    levels: Vec<Vec<Option<ObjectId>>>,
}

impl Tree {
    /// A tree with `height` levels above level 0.
    pub(super) fn new(height: u8) -> Tree {
        Tree { levels: vec![Vec::new(); usize::from(height) + 1] }
    }

    /// Takes the next node of level 0; `make` stores a page as a node of a level.
    pub(super) fn push(
        &mut self,
        node: Option<ObjectId>,
        make: &mut impl FnMut(u8, Page) -> Result<ObjectId, TemplateError>,
    ) -> Result<(), TemplateError> {
        self.levels[0].push(node);
        for level in 0..self.levels.len() - 1 {
            if (self.levels[level].len() as u64) < SLOTS {
                break;
            }
            self.raise(level, make)?;
        }
        Ok(())
    }

    /// The top node, when all of level 0 was taken.
    pub(super) fn finish(
        mut self,
        make: &mut impl FnMut(u8, Page) -> Result<ObjectId, TemplateError>,
    ) -> Result<Option<ObjectId>, TemplateError> {
        for level in 0..self.levels.len() - 1 {
            if !self.levels[level].is_empty() {
                self.raise(level, make)?;
            }
        }
        let top = self.levels.pop().unwrap_or_default();
        assert!(top.len() == 1, "the height was that of {} top nodes", top.len());
        Ok(top[0])
    }

    /// Gives what waits in `level` a parent.
    fn raise(
        &mut self,
        level: usize,
        make: &mut impl FnMut(u8, Page) -> Result<ObjectId, TemplateError>,
    ) -> Result<(), TemplateError> {
        let slots = std::mem::take(&mut self.levels[level]);
        let above = u8::try_from(level + 1).expect("at most LEVEL_MAX");
        let parent = match slots.iter().any(Option::is_some) {
            true => Some(make(above, Page::Nodes(slots))?),
            false => None,
        };
        self.levels[level + 1].push(parent);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ObjectId {
        ObjectId::of(&number.to_be_bytes())
    }

    /// Builds a tree over `leaves`; gives the top and the levels and lengths of what was made.
    fn build(height: u8, leaves: &[Option<ObjectId>]) -> (Option<ObjectId>, Vec<(u8, usize)>) {
        let mut made = Vec::new();
        let mut make = |level, page| {
            let Page::Nodes(slots) = page else { panic!("only nodes are made here") };
            made.push((level, slots.len()));
            Ok(id(1 << 20 | made.len()))
        };
        let mut tree = Tree::new(height);
        for leaf in leaves {
            tree.push(*leaf, &mut make).unwrap();
        }
        let top = tree.finish(&mut make).unwrap();
        (top, made)
    }

    #[test]
    fn a_parent_is_made_for_each_full_row_and_for_the_rest() {
        assert_eq!(build(0, &[Some(id(1))]), (Some(id(1)), vec![]));
        assert_eq!(build(0, &[None]), (None, vec![]));
        assert_eq!(build(1, &[Some(id(1)), None]).1, [(1, 2)]);
        let many: Vec<_> = (0..1024 * 3).map(|at| Some(id(at))).collect();
        assert_eq!(build(1, &many[..1024]).1, [(1, 1024)]);
        assert_eq!(build(2, &many).1, [(1, 1024), (1, 1024), (1, 1024), (2, 3)]);
        assert_eq!(build(2, &many[..1025]).1, [(1, 1024), (1, 1), (2, 2)]);
    }

    #[test]
    fn rows_of_zeroes_have_no_parent() {
        let mut leaves = vec![None; 3000];
        assert_eq!(build(2, &leaves), (None, vec![]));
        leaves[1500] = Some(id(1));
        assert_eq!(build(2, &leaves).1, [(1, 1024), (2, 3)]);
    }
}
