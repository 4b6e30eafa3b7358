//! Understanding parameters.
/// The rules.
#[derive(Debug)]
pub struct Params;
