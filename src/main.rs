//! The command line: which command, which plan, run, drain. The only place that exits.
fn main() {}
