//! Who is the source: lineages that meet, and what each side must remember while the role goes from
//! one to the other.

pub mod ancestry;
pub mod demotion;
pub mod drill;
pub mod generation;
pub mod handing;
pub mod hearing;
pub mod meeting;
pub mod procedure;
pub mod promotion;
pub mod yields;

mod note;

pub use note::NoteError;
