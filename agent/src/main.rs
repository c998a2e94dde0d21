//! The vgship program: joins the command line with the parts behind it.
fn main() {}
