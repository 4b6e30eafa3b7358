//! Floor 1: decisions. Pure and synchronous; whoever calls says what time it is.

pub mod addresses;
pub mod breaker;
pub mod cache_control;
pub mod dates;
pub mod forwarded;
pub mod framing;
pub mod freshness;
pub mod groups;
pub mod headers;
pub mod heuristics;
pub mod identity;
pub mod message;
pub mod params;
pub mod ranges;
pub mod rest;
pub mod retry;
pub mod reuse;
pub mod routes;
pub mod serving;
pub mod slices;
pub mod targeted;
pub mod understanding;
pub mod validators;
pub mod vary;
pub mod window;
