//! Words that all of vgship shares: units, identities, records, the seams to disks and folders,
//! and their simulation. Nothing here knows of networks, processes or volume groups' origin.

pub mod units;

pub mod ids;

pub mod limits;

pub mod bytes;

pub mod extent;

pub mod layout;

pub mod record;

pub mod disk;

pub mod folder;

pub mod io;

pub mod spread;

pub mod sim;
