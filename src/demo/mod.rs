//! The simulated upstream and its traffic; nothing else imports it.
//!
//! This is a third party that happens to live in the same binary: but for [`show`] it imports nothing of the gate, reads its own
//! clock, and follows Octopush's public reference page rather than any rule of ours. `tollgate demo` starts it, and
//! whole-program tests use it as an upstream that counts, remembers and misbehaves on request.
//!
//! | file | is |
//! |---|---|
//! | [`dice`] | a small seeded generator, and Zipf's law |
//! | [`texts`] | what people write in messages |
//! | [`conversations`] | contacts, conversations and messages, generated |
//! | [`asked`] | what a query means to Octopush, read as leniently as its page says |
//! | [`limit`] | a limit over every sliding interval |
//! | [`settings`] | how Octopush behaves: latency, limit, failures, habits at the end of a list |
//! | [`octopush`] | the server; its `books` are what it remembers, its `reply` what it answers with |
//! | [`spelling`] | one question, spelt as different programmers would |
//! | [`traffic`] | several services asking the gate |
//! | [`show`] | the demo itself: both of them together |
//! | [`tour`] | the curl lines that `tollgate demo` prints |

pub mod asked;
mod books;
pub mod conversations;
pub mod dice;
pub mod limit;
pub mod octopush;
mod reply;
pub mod settings;
pub mod show;
#[cfg(test)]
mod sockets;
pub mod spelling;
pub mod texts;
pub mod tour;
pub mod traffic;
