//! Ship: the source's side of one peering. What a replica lacks, what is under way to it, what its
//! hello means.

pub mod dirty;
pub mod flight;
pub mod io;
pub mod pieces;
pub mod replica;
pub mod verdict;
