//! Understanding parameters: from whatever a caller wrote in its query to the one spelling the upstream
//! receives and the key contains.
//!
//! Total, deterministic and idempotent: any text in, never a refusal from here, and understanding what was
//! understood changes nothing. A wrong value is understood anyway, a wrong type is cast, prohibited characters
//! are deleted, and what cannot be repaired is ignored while the request is still sent. Whether an ignored
//! parameter is acceptable is for the caller to say ([`Understood::strict_refusal`],
//! [`Understood::required_refusal`]).
//!
//! Two values that mean different things never get one spelling silently: where a reading loses something, its
//! [`Rule`] says so, and where two readings are equally good there is none.
//!
//! ```
//! use tollgate::rules::params::{Below, Kind, OnIgnored, Param, Params, Unknown};
//!
//! let page = Param {
//!     name: "page".into(),
//!     kind: Kind::Integer { min: Some(1), max: None, below: Below::Clamp },
//!     default: Some("1".into()),
//!     on_ignored: OnIgnored::Ignore,
//!     window: true,
//! };
//! let params = Params::new(vec![page], Unknown::Drop)?;
//! assert_eq!(params.understand("PAGE=2.0&utm_source=x").query, "page=2");
//! assert_eq!(params.understand("").query, "page=1");
//! # Ok::<(), tollgate::rules::params::DeclarationError>(())
//! ```
#![forbid(unsafe_code)]

mod boolean;
mod clean;
mod datetime;
mod decimal;
mod declaration;
mod email;
mod emit;
mod enumeration;
mod integer;
#[cfg(test)]
mod laws;
mod list;
mod names;
mod notes;
mod number;
mod phone;
mod prefixed;
mod query;
mod read;
#[cfg(test)]
mod seed;
mod spec;
mod text;
mod understand;
mod unicode;
mod uuid;

pub use declaration::DeclarationError;
pub use emit::sorted_by_name;
pub use notes::{Change, Refusal, Rule, capped};
pub use spec::{Bare, Below, Kind, OnIgnored, Param, Params, Unknown};
pub use understand::{MAX_PAIRS, MAX_VALUE_BYTES, Understood};
