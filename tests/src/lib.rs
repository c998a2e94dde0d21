//! The simulation world: sources and replicas made of the agent's own cores on simulated disks,
//! with faults, equal for equal seeds. See `docs/simulation.md`.

pub mod world;
