//! Floor 1: decisions. Pure and synchronous; whoever calls says what time it is.

pub mod cache_control;
// headers
// identity
pub mod params;
// rest
pub mod reuse;
pub mod routes;
pub mod window;
