//! Floor 2: what is shared between requests and lives long. Locks are held for a few instructions and never across
//! an await.

mod books;
pub mod causes;
pub mod clock;
pub mod collecting;
pub mod collections;
pub mod compression;
mod erased;
pub mod flights;
pub mod grant;
pub mod hand;
pub mod journal;
pub mod limits;
mod line;
pub mod metrics;
pub mod paged;
pub mod quota;
pub mod relay;
pub mod remembered;
pub mod scope;
pub mod shapes;
pub mod store;
pub mod tasks;
pub mod tells;
mod terms;
pub mod windows;
