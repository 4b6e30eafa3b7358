//! What README.md and ARCHITECTURE.md list is what there is: keys of the configuration, problem types, files. (The metrics
//! are held by `tests/house.rs`.)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate::config::{self, WithoutSecrets};
use tollgate::model::FaultKind;

/// A configuration that says `zz` wherever there are keys: each mistake lists those there are.
const EVERYWHERE: &str = r#"
[server]
zz = 1
tls.zz = 1
[admin]
zz = 1
[log]
zz = 1
[cache]
zz = 1
[upstreams.u]
url = "http://127.0.0.1:1"
zz = 1
tls.zz = 1
[upstreams.u.accounts.a]
zz = 1
quota = "none"
[clients.c]
key = "any key"
zz = 1
[[routes]]
name = "r"
path = "/r"
upstream = "u"
zz = 1
[routes.params]
page = { type = "integer", default = 1 }
size = { type = "integer", default = 1 }
[routes.cache]
zz = 1
[routes.pages]
page = "page"
size = "size"
zz = 1
"#;

/// The heading of README's table for each place a mistake names, and keys that have a place of their own.
const TABLES: [(&str, &str, &[&str]); 9] = [
    ("server", "`[server]`", &[]),
    ("admin", "`[admin]`", &[]),
    ("log", "`[log]`", &[]),
    ("cache", "`[cache]`", &[]),
    ("upstreams.u", "`[upstreams.NAME]`", &["accounts"]),
    ("upstreams.u.accounts.a", "`[upstreams.NAME.accounts.NAME]`", &[]),
    ("clients.c", "`[clients.NAME]`", &[]),
    ("routes[r]", "`[[routes]]`", &["params", "cache", "pages"]),
    ("routes[r].cache", "`[routes.cache]`", &[]),
];
/// The same for tables within a table's rows.
const WITHIN: [(&str, &str, &str); 2] =
    [("server.tls", "`[server]`", "tls."), ("upstreams.u.tls", "`[upstreams.NAME]`", "tls.")];

#[test]
fn the_readme_lists_exactly_the_keys_there_are() {
    let mistakes =
        config::load(EVERYWHERE, "x.toml", &WithoutSecrets).expect_err("`zz` is no key").to_string();
    let keys = |place: &str| -> BTreeSet<String> {
        let told = format!(": {place}.zz: is not a key; expected one of ");
        let line = mistakes.lines().find_map(|line| line.split_once(&told));
        let (_, keys) = line.unwrap_or_else(|| panic!("nothing is said of {place}.zz in\n{mistakes}"));
        keys.split(", ").map(str::to_owned).collect()
    };
    let readme = read("README.md");
    for (place, heading, elsewhere) in TABLES {
        let rows = rows_of(&readme, heading);
        let listed = rows.iter().map(|name| name.split('.').next().unwrap_or_default().to_owned());
        let listed: BTreeSet<String> = listed.chain(elsewhere.iter().map(ToString::to_string)).collect();
        assert_eq!(listed, keys(place), "README's table of {heading} beside the keys there are");
    }
    for (place, heading, prefix) in WITHIN {
        let rows = rows_of(&readme, heading);
        let listed: BTreeSet<String> =
            rows.iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect();
        assert_eq!(listed, keys(place), "README's table of {heading} beside the keys of {place}");
    }
    // The table of `[routes.pages]` may name several members in one row; each key stands there all the same.
    let pages = rows_of(&readme, "`[routes.pages]`");
    let listed: BTreeSet<String> =
        pages.iter().map(|name| name.split('.').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(listed, keys("routes[r].pages"), "README's table of [routes.pages]");
}

#[test]
fn the_readme_lists_exactly_the_problem_types_there_are() {
    let readme = read("README.md");
    let listed: BTreeSet<(u16, String, String)> = readme
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, status, kind, fault, ..] = cells.as_slice() else { return None };
            let kind = kind.strip_prefix('`')?.strip_suffix('`')?;
            Some((status.parse().ok()?, kind.to_owned(), (*fault).to_owned()))
        })
        .collect();
    let known = FaultKind::ALL.iter().map(|kind| {
        let row = kind.row();
        (row.status.as_u16(), row.name.to_owned(), format!("{:?}", row.party).to_lowercase())
    });
    assert_eq!(listed, known.collect());
}

#[test]
fn the_map_names_every_file() {
    let map = read("ARCHITECTURE.md");
    let source = root().join("src");
    let mut missing = Vec::new();
    for folder in ["", "config", "edge", "stages", "state", "rules", "model"] {
        for entry in fs::read_dir(source.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let Some(stem) = name.strip_suffix(".rs").filter(|stem| *stem != "mod") else { continue };
            // The configuration's files are named within one row.
            let is_named = map.contains(&format!("`{name}`"))
                || folder == "config" && map.contains(&format!("`{stem}`"));
            if !is_named {
                missing.push(path);
            }
        }
    }
    assert_eq!(missing, Vec::<PathBuf>::new(), "ARCHITECTURE.md's map lacks these");
}

/// The names in the first cells of the table whose heading's first cell begins with `heading`.
fn rows_of(readme: &str, heading: &str) -> BTreeSet<String> {
    let mut lines = readme.lines().skip_while(|line| !line.starts_with(&format!("| {heading}"))).skip(2);
    let rows: Vec<&str> = lines.by_ref().take_while(|line| line.starts_with('|')).collect();
    assert!(!rows.is_empty(), "README has no table of {heading}");
    let cells = rows.iter().map(|row| row.split('|').nth(1).unwrap_or_default());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn read(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
