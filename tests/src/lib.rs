//! The simulation worlds: sources and replicas made of the agent's own cores on simulated disks, with
//! faults, equal for equal seeds, see `docs/simulation.md`; and what is fuzzed.

pub mod world;

pub mod roles;

pub mod fuzz;
