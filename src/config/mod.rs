//! Floor 5: TOML as written → [`Plan`] as meant.

pub mod plan;

pub use plan::Plan;
