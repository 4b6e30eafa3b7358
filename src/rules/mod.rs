//! Floor 1: decisions. Pure and synchronous; whoever calls says what time it is.

pub mod breaker;
pub mod cache_control;
pub mod forwarded;
pub mod framing;
pub mod headers;
pub mod identity;
pub mod message;
pub mod params;
pub mod rest;
pub mod retry;
pub mod reuse;
pub mod routes;
pub mod understanding;
pub mod window;
