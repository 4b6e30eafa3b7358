//! Floor 1: decisions. Pure and synchronous; whoever calls says what time it is.

pub mod params;
