//! The past of a replica: points, snapshots, what of both stays, and what is made of them.

mod clone;

pub(super) mod control;

pub(super) mod environments;

mod export;

pub(super) mod hash;

pub(super) mod historian;

mod live;

mod marking;

mod places;

pub(super) mod points;

pub(super) mod program;
pub(super) mod reading;

mod quiesced;

mod rollback;

pub(super) mod sets;

mod templates;
