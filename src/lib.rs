//! Tollgate: one gate in front of a metered, rate-limited, paginated API. It holds the API's credentials, understands
//! what each caller meant to ask, answers from memory what it already knows, and spends the account's quota only on
//! questions nobody has answered yet.
//!
//! The modules below stand on floors; a file imports lower floors only, and `tests/house.rs` holds it to that. Read
//! [`pipeline`] and [`model::exchange`] first: the way of a request, and the types it turns into.
#![forbid(unsafe_code)]

// floor 5: one program
pub mod config;
pub mod console;
pub mod explain;
pub mod gateway;
pub mod hand;
pub mod handler;
pub mod lasting;
pub mod pipeline;
pub mod provision;
pub mod purge;
pub mod usage;

// floor 4: sockets, without policy
pub mod edge;

// floor 3: what a request passes
pub mod stages;

// floor 2: what is shared and lives long
pub mod state;

// floor 1: decisions, pure
pub mod rules;

// floor 0: nouns
pub mod model;

// a third party, played: the simulated upstream and its callers; nothing imports it but `main`
pub mod demo;
