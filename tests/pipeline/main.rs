//! The whole way of a request, in process: every stage as `provision` builds it, on paused time, around an upstream
//! that follows a script. No sockets; what needs them is tested by the program's own tests.
//!
//! | module | is about |
//! |---|---|
//! | [`world`] | the gate, the scripted upstream, the clients |
//! | [`flight`] | one call for everyone who asks the same |
//! | [`cache`] | what is answered from memory, and until when |
//! | [`codings`] | what is compressed, and for whom |
//! | [`keep`] | what of an answer is kept |
//! | [`pages`] | windows cut from blocks, generations and walks |
//! | [`model`] | pages against a list that remembers every state it was in |
//! | [`quota`] | what is spent, and who waits |
//! | [`fairness`] | who of those that share an account is served when |
//! | [`pool`] | several accounts that see the same data |
//! | [`paused`] | what the upstream says of its limits |
//! | [`credentials`] | what the upstream sees and the client does not |
//! | [`observe`] | what is counted |
//! | [`failures`] | the n-th call fails, in every way; an optimisation changes no content |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep the gate's tasks counted and its bodies bounded; a test is not the gate"
)]

mod cache;
mod codings;
mod credentials;
mod failures;
mod fairness;
mod flight;
mod keep;
mod model;
mod observe;
mod pages;
mod paused;
mod pool;
mod quota;
mod world;
