//! What tests of the whole program stand on: the gate as a process, upstreams that follow a script, and a client
//! that sends and sees plain bytes. All sockets are real, every port is the system's choice, and whatever has to
//! wait waits for an event; the deadline only turns a hang into a failure.
//!
//! | module | is |
//! |---|---|
//! | [`gate`] | the built program with a configuration of the test's own |
//! | [`upstream`] | an HTTP/1.1 server in the test, which records what it was asked and answers as told |
//! | [`json_server`] | the npm package `json-server` serving real messages |
//! | [`shipped`] | the gate with the shipped configuration, in front of another upstream |
//! | [`client`] | a client that neither corrects nor hides anything |
//! | [`http2`] | HTTP/2 on either side, and plain frames |
//! | [`tls`] | a private authority and what it signs |

#![allow(dead_code, unreachable_pub, reason = "each test file compiles this module and uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep the gate's tasks counted and its clock owned; a test is not the gate"
)]

pub mod client;
pub mod gate;
pub mod http2;
pub mod json_server;
pub mod lines;
pub mod shipped;
pub mod tls;
pub mod upstream;
pub mod wire;

use std::time::Duration;

/// How long a test waits for what should have happened at once. Generous: it is only met by failures.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits `event`, and fails naming `what` if it has not come by the [`DEADLINE`].
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain for {what}"),
    }
}
