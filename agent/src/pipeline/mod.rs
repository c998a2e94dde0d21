//! The running agent: which task owns which core, how groups and links start and stop.

mod agent;

mod beat;

mod control;

mod exports;

mod keys;

mod links;

mod opening;

mod replica;

mod source;

mod status;

mod turned_away;

mod view;

pub use agent::start;
