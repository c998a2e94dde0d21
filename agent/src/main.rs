//! The vgship program.
fn main() {}
