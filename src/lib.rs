//! Tollgate: one gate in front of a metered third-party API.
#![forbid(unsafe_code)]

pub mod config;
pub mod demo;
pub mod model;
pub mod rules;
