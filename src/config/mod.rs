//! Floor 5: TOML as written → [`Plan`] as meant.
//!
//! [`load`] reads the whole text once. `reader` walks its tables and refuses what nobody asked for, `values` reads single
//! values, `secrets` fetches credentials, and one file a block says which keys there are, with which defaults. Mistakes
//! are collected, never thrown: whoever mends a configuration sees all of them at once. [`Plan::describe`] is the way
//! back, with every default filled in and every secret masked.

mod clients;
mod mistakes;
mod pages;
mod params;
pub mod plan;
mod print;
mod quota;
mod reader;
mod reuse;
mod routes;
mod secrets;
pub use secrets::Place;
pub use server::log_level;
mod server;
mod shown;
#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
mod tests;
mod tls;
mod upstreams;
mod values;

use std::io;
use std::path::Path;

use toml::de::DeTable;

pub use mistakes::{Mistake, Mistakes};
pub use plan::Plan;

use mistakes::{Notes, Wrong};
use reader::Table;

/// What a configuration may read beside its own text.
pub trait Environment: Send + Sync {
    /// An environment variable; `None` if it is not set or no text.
    fn var(&self, name: &str) -> Option<String>;
    /// A file's bytes.
    ///
    /// # Errors
    /// Whatever kept it from being read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Whether secrets are to be read. Where not, each is a placeholder that names its source.
    fn has_secrets(&self) -> bool {
        true
    }
}

/// The process's own environment and files.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Environment for System {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// For a machine that has the files but must not have the secrets, such as one that checks proposed changes. A plan made
/// with it can be shown, not run.
#[derive(Debug, Clone, Copy, Default)]
pub struct WithoutSecrets;

impl Environment for WithoutSecrets {
    fn var(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        System.read(path)
    }

    fn has_secrets(&self) -> bool {
        false
    }
}

/// A duration as configuration writes it, elsewhere than in one: `10m`.
pub fn time(text: &str) -> Option<std::time::Duration> {
    values::time(text).ok()
}

/// The plan that `text` means; `name` is what mistakes call the file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(text: &str, name: &str, environment: &dyn Environment) -> Result<Plan, Mistakes> {
    let notes = Notes::new(text);
    let plan = match DeTable::parse(text) {
        Ok(table) => Some(read(Table::root(&notes, table.get_ref()), environment)),
        Err(error) => {
            let what = error.message().replace('\n', ", ");
            notes.tell(&error.span().unwrap_or(0..0), "", Wrong::new(format!("not TOML: {what}"), ""));
            None
        }
    };
    let warnings = notes.close(name)?;
    // Without mistakes there is a plan; an empty list of them would be a strange thing to tell.
    let plan = plan.ok_or_else(|| Mistakes::unexplained(name))?;
    Ok(Plan { warnings, ..plan })
}

/// Reads every block. Where something is wrong it stands in for it: the notes know, and [`load`] gives no plan out.
fn read(mut root: Table<'_>, environment: &dyn Environment) -> Plan {
    let (upstreams, accounts) = upstreams::read(&mut root, environment);
    let routes = routes::read(&mut root, &upstreams, &accounts);
    let server_table = root.table("server");
    let server = server::server(server_table, root.has("clients"), environment);
    let has_client_ca = server.tls.as_ref().is_some_and(|tls| !tls.client_roots.is_empty());
    let clients = clients::read(&mut root, &routes, has_client_ca, environment);
    let admin = server::admin(root.table("admin"), &server, environment);
    let log = server::log(root.table("log"));
    let cache = server::cache(root.table("cache"));
    let state = quota::state(root.table("state"));
    quota::check(&root, &state, &accounts);
    if !environment.has_secrets() {
        root.notes.warn("secrets were not read: this plan can be shown, not run");
    }
    root.finish();
    Plan { server, admin, log, cache, state, upstreams, accounts, clients, routes, warnings: Vec::new() }
}
