//! One entry for every habit of development.
fn main() {}
