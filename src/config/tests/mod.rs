//! Configurations right ([`plans`]), wrong ([`wrong`]) and arbitrary ([`laws`]), in a world of few variables and files.

mod laws;
mod plans;
mod wrong;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::{Environment, Mistakes, Plan, load};

const SHIPPED: &str = include_str!("../../../config.toml");

/// Six lines that are right; what a case adds begins at line 7, in the route.
const BASE: &str = r#"[upstreams.u]
url = "http://127.0.0.1:1"
[[routes]]
name = "r"
path = "/r"
upstream = "u"
"#;

/// A base whose route has an account.
const ACCOUNT: &str = "account = \"a\"\n[upstreams.u.accounts.a]\nheaders.x-key = \"hunter2\"\n";

/// An environment of these variables and files.
#[derive(Debug, Default)]
struct Fake {
    vars: HashMap<&'static str, &'static str>,
    files: HashMap<&'static str, Vec<u8>>,
}

impl Environment for Fake {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).map(|value| (*value).into())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = path.to_str().and_then(|path| self.files.get(path));
        file.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn world() -> Fake {
    let vars = [
        ("OCTOPUSH_API_KEY", "hunter2-key"),
        ("OCTOPUSH_API_LOGIN", "hunter2-login"),
        ("KEY", "hunter2-client"),
        ("SAME", "hunter2-client"),
        ("EMPTY", ""),
        ("BROKEN", "hunter2\nhunter2"),
        ("SPACED", "hunter2 x"),
    ];
    let mut files: HashMap<&'static str, Vec<u8>> = HashMap::new();
    files.insert("secret", b"hunter2-file\n".to_vec());
    files.insert("two-lines", b"hunter2\n\n".to_vec());
    files.insert("no.pem", b"hello".to_vec());
    files.insert("odd.pem", b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n".to_vec());
    let authority =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("makes a certificate");
    files.insert("ca.pem", authority.cert.pem().into_bytes());
    Fake { vars: vars.into(), files }
}

fn plan(text: &str) -> Plan {
    load(text, "config.toml", &world()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn with(added: &str) -> Plan {
    plan(&format!("{BASE}{added}"))
}

fn mistakes(text: &str) -> Mistakes {
    load(text, "config.toml", &world()).expect_err(text)
}
