//! Floor 4: sockets. No policy: what is decided is decided above and below.

pub mod admin;
pub mod arriving;
pub mod connect;
pub mod framed;
pub mod http1;
pub mod http2;
pub mod interims;
pub mod listener;
pub mod tls;
pub mod tracked;
pub mod upstream;
