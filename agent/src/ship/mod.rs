//! Ship: the source's side of one peering. What a replica lacks, what is under way to it, what its
//! hello means.

pub mod budget;
pub mod dirty;
pub mod flight;
pub mod io;
pub mod pace;
pub mod pieces;
pub mod replica;
pub mod standing;
pub mod verdict;
