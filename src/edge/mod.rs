//! Floor 4: sockets. No policy: what is decided is decided above and below.

pub mod admin;
pub mod arriving;
pub mod listener;
pub mod tracked;
pub mod upstream;
