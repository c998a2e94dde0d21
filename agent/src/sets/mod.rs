//! Sets: groups on several agents whose snapshots are taken as one.
//!
//! A set lives on one agent, its coordinator, which is the source of each member or a replica of it
//! with a link to its source. [`core`] decides over one try. What of a snapshot must survive a crash
//! stands in its [`record`], which is written before anybody is asked for anything: a try that was
//! not made by the time the coordinator dies is taken back by its next life, wherever it left a
//! marker, for the members' snapshots have a name that no other try uses ([`names`]).

pub mod config;

pub mod core;

pub mod names;

pub mod record;
