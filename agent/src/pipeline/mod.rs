//! The running agent: which task owns which core, how groups and links start and stop.

mod agent;

mod beat;

mod control;

mod drift;

mod exports;

mod keyring;

mod links;

mod opening;

mod past;

mod removal;

mod replica;

mod roles;

mod source;

mod status;

mod turned_away;

mod view;

mod volumes;

pub use agent::start;
pub use past::environments::stored_template_users;
