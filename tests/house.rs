//! House rules over the source tree. ARCHITECTURE.md says what they are for; here they are held.
//!
//! The scanner knows just enough of Rust: it blanks comments, literals and `#[cfg(test)]` items, keeping every
//! line where it is, and reads paths that start with `crate`, `super` or `self`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first. A file imports lower floors only.
const FLOORS: [&[&str]; 13] = [
    &["model"],
    &["rules"],
    &["state"],
    &["stages"],
    &["edge"],
    &["config"],
    &["pipeline", "lasting"],
    &["provision"],
    &["explain"],
    &["hand", "purge", "usage"],
    &["console", "handler"],
    &["gateway"],
    &["main", "lib"],
];

/// Floors whose files may import each other. Stages may not: each wraps what it is given.
const OPEN_FLOORS: [&str; 6] = ["model", "rules", "state", "edge", "config", "demo"];

/// What all stages are made of, and so may import from their own floor.
const SEAMS: [&str; 2] = ["stage", "step"];

/// What decides must not do: wait, log, lock, read a clock, or touch the world.
const BANNED_WHERE_RULES_ARE: [&str; 14] = [
    "async fn",
    "async move",
    ".await",
    "Instant::now",
    "SystemTime::now",
    "Mutex",
    "RwLock",
    "tracing::",
    "std::fs",
    "std::env",
    "std::net::TcpStream",
    "tokio::",
    "println!",
    "thread_local!",
];

const LINES_A_FILE: usize = 400;

/// One file under `src/`.
struct Source {
    path: PathBuf,
    /// `["rules", "params", "phone"]` for `src/rules/params/phone.rs`; `mod.rs` names its folder.
    module: Vec<String>,
    /// As written, the tests blanked.
    text: String,
    /// The same, with comments and literals blanked too.
    code: String,
}

#[test]
fn files_import_lower_floors_only() {
    let sources = sources();
    let mut wrong = Vec::new();
    for source in &sources {
        for import in imports(&source.module, &source.code) {
            if let Err(why) = may_import(&sources, source, &import) {
                wrong.push(format!("{}: {} ({why})", source.path.display(), import.join("::")));
            }
        }
    }
    none(&wrong, "imports that climb");
}

#[test]
fn main_is_one_file_that_uses_the_library() {
    let main = sources().into_iter().find(|s| s.module == ["main"]).expect("src/main.rs");
    let own = main.code.lines().filter(|line| {
        let line = line.trim_start();
        line.starts_with("mod ") || line.contains("crate::")
    });
    none(&own.map(str::to_owned).collect::<Vec<_>>(), "main.rs names modules by `tollgate::`, it has none");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = rust_files(&["src", "tests", "benches"])
        .into_iter()
        .filter(|path| !read(path).starts_with("//! "))
        .map(|path| path.display().to_string());
    none(&silent.collect::<Vec<_>>(), "files that do not open with `//! …`");
}

#[test]
fn no_file_is_too_long_to_read() {
    let long = sources().into_iter().filter_map(|source| {
        let lines = source.text.trim_end().lines().count();
        (lines > LINES_A_FILE).then(|| format!("{}: {lines} lines without its tests", source.path.display()))
    });
    none(&long.collect::<Vec<_>>(), &format!("files above {LINES_A_FILE} lines"));
}

#[test]
fn model_and_rules_do_not_wait_log_lock_or_read_a_clock() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| matches!(s.module[0].as_str(), "model" | "rules")) {
        for (number, line) in source.code.lines().enumerate() {
            for word in BANNED_WHERE_RULES_ARE {
                if line.contains(word) {
                    found.push(format!("{}:{}: {word}", source.path.display(), number + 1));
                }
            }
        }
    }
    none(&found, "what model and rules must not do");
}

#[test]
fn only_the_demo_knows_the_first_upstream() {
    let mut found = Vec::new();
    for source in sources()
        .iter()
        .filter(|s| s.module[0] != "demo" && s.module.get(1).map(String::as_str) != Some("tests"))
    {
        for (number, line) in source.text.lines().enumerate() {
            if line.to_lowercase().contains("octopush") {
                found.push(format!("{}:{}: {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    none(&found, "lines outside src/demo that know Octopush; say it in config.toml");
}

#[test]
fn unsafe_code_is_forbidden_where_a_reader_looks_for_it() {
    for root in ["src/lib.rs", "src/main.rs"] {
        let text = read(&repository().join(root));
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root} lacks #![forbid(unsafe_code)]");
    }
}

#[test]
fn what_can_panic_is_still_linted() {
    let manifest = read(&repository().join("Cargo.toml"));
    let (_, lints) = manifest.split_once("[lints.clippy]\n").expect("[lints.clippy] in Cargo.toml");
    let lints = lints.split("\n[").next().expect("a first part");
    for lint in ["unwrap_used", "expect_used", "panic", "todo", "unimplemented"] {
        let levels = ["warn", "deny", "forbid"].map(|level| format!("{lint} = \"{level}\""));
        let held = lints.lines().any(|line| levels.iter().any(|level| line == level));
        assert!(held, "clippy::{lint} is not linted by Cargo.toml");
    }
    let script = read(&repository().join("test"));
    assert!(script.contains("-D warnings"), "./test must turn warnings into failures");
}

#[test]
fn the_readme_documents_exactly_the_metrics_there_are() {
    let readme = repository().join("README.md");
    let metrics = repository().join("src/state/metrics.rs");
    for file in [&readme, &metrics] {
        assert!(file.exists(), "{} is missing: the metrics table cannot be held to the code", file.display());
    }
    let readme = read(&readme);
    let table = readme.lines().filter(|line| line.trim_start().starts_with('|'));
    // The first cell names the metric; others may mention it.
    let documented: BTreeSet<String> =
        table.flat_map(|row| metric_names(row.split('|').nth(1).unwrap_or_default())).collect();
    let source = Source::new(metrics, vec!["state".to_owned(), "metrics".to_owned()]);
    // Only literals name metrics; comments may speak of others.
    let registered: BTreeSet<String> = literals(&source.text).iter().flat_map(|l| metric_names(l)).collect();
    assert!(
        !registered.is_empty(),
        "no literal in src/state/metrics.rs names a metric: is it still the place?"
    );
    let difference =
        |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    none(&difference(&registered, &documented), "metrics that README's table lacks");
    none(&difference(&documented, &registered), "metrics in README's table that src/state/metrics.rs lacks");
}

// ---- the rules' own helpers ---------------------------------------------------------------------------------

/// Whether `source` may import the module path `import`, and why not.
fn may_import(sources: &[Source], source: &Source, import: &[String]) -> Result<(), String> {
    let own = source.module[0].as_str();
    let Some(theirs) = import.first().map(String::as_str) else { return Ok(()) };
    if own == "lib" {
        return Ok(());
    }
    if theirs == "demo" {
        return match own {
            "demo" | "main" => Ok(()),
            _ => Err("only main.rs knows the demo".to_owned()),
        };
    }
    if own == "demo" {
        return Ok(());
    }
    let floor = |name: &str| FLOORS.iter().position(|names| names.contains(&name));
    let own_floor = floor(own).ok_or_else(|| format!("src/{own} stands on no floor: add it to FLOORS"))?;
    let Some(their_floor) = floor(theirs) else {
        // An item and not a file, as `super::Thing` in an inline module is. A file must have its floor.
        let is_file = sources.iter().any(|s| s.module[0] == theirs);
        return if is_file {
            Err(format!("src/{theirs} stands on no floor: add it to FLOORS"))
        } else {
            Ok(())
        };
    };
    if their_floor < own_floor || own == "main" {
        return Ok(());
    }
    if their_floor > own_floor {
        return Err(format!("{theirs} is above {own}"));
    }
    if own == theirs && OPEN_FLOORS.contains(&own) {
        return Ok(());
    }
    // The same floor, and a closed one: oneself, what is below oneself, and the floor's own items.
    match (source.module.get(1), import.get(1)) {
        (None, _) | (_, None) => Ok(()),
        (Some(a), Some(b)) if a == b || SEAMS.contains(&b.as_str()) => Ok(()),
        (_, Some(b)) => {
            let is_file =
                sources.iter().any(|s| s.module.len() > 1 && s.module[0] == own && s.module[1] == *b);
            if is_file { Err(format!("{own} do not know each other")) } else { Ok(()) }
        }
    }
}

impl Source {
    fn new(path: PathBuf, module: Vec<String>) -> Self {
        let whole = read(&path);
        let blanked = without_literals(&whole);
        let mut text = whole.into_bytes();
        let mut code = blanked.clone().into_bytes();
        for (from, to) in test_parts(&blanked) {
            blank(&mut text[from..to]);
            blank(&mut code[from..to]);
        }
        let text = String::from_utf8(text).expect("whole characters are blanked");
        let code = String::from_utf8(code).expect("whole characters are blanked");
        let path = path.strip_prefix(repository()).map(Path::to_path_buf).unwrap_or(path);
        Self { path, module, text, code }
    }
}

/// All of `src/`, tests blanked.
fn sources() -> Vec<Source> {
    let root = repository().join("src");
    let files = rust_files(&["src"]).into_iter().map(|path| {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Vec<String> =
            relative.iter().map(|part| part.to_str().expect("a file named in UTF-8").to_owned()).collect();
        if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        Source::new(path, module)
    });
    let files: Vec<Source> = files.collect();
    assert!(files.len() > 2, "src/ was not found");
    files
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "node_modules" {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&repository().join(folder), &mut found);
    }
    found.sort();
    found
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn none(found: &[String], what: &str) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn metric_names(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.len() > 9 && word.starts_with("tollgate_")).map(str::to_owned).collect()
}

// ---- the scanner --------------------------------------------------------------------------------------------

/// Every module path that `code` names from `crate`, `super` or `self`, from the crate's root.
fn imports(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    // The library is called by its name in main.rs.
    for start in ["crate", "super", "self", "tollgate"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            let joined = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            let after = &code[at + start.len()..];
            if joined || !after.trim_start().starts_with("::") {
                continue;
            }
            let mut base = match start {
                "super" => module[..module.len() - 1].to_vec(),
                "self" => module.to_vec(),
                _ => Vec::new(),
            };
            let mut rest = after;
            while let Some(deeper) = path_separator(rest).and_then(|rest| rest.strip_prefix("super")) {
                base.pop();
                rest = deeper;
            }
            tree(&base, rest, &mut found);
        }
    }
    found
}

/// Reads what follows a path's segment: `::a::{b, c::d}`, `::a`, or nothing more. Returns what is left.
fn tree<'a>(base: &[String], rest: &'a str, found: &mut Vec<Vec<String>>) -> &'a str {
    let Some(next) = path_separator(rest) else {
        found.push(base.to_vec());
        return rest;
    };
    if let Some(mut group) = next.strip_prefix('{') {
        loop {
            group = group.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(after) = group.strip_prefix('}') {
                return after;
            }
            let (name, after) = identifier(group);
            if name.is_empty() {
                // `*`, or the end of a text that is no Rust.
                match group.chars().next() {
                    Some(c) => group = &group[c.len_utf8()..],
                    None => return group,
                }
                continue;
            }
            group = tree(&joined(base, name), after, found);
            // `as name`
            while !group.is_empty() && !group.starts_with([',', '}']) {
                let c = group.chars().next().expect("not empty");
                group = &group[c.len_utf8()..];
            }
        }
    }
    let (name, after) = identifier(next);
    if name.is_empty() {
        found.push(base.to_vec());
        return next;
    }
    tree(&joined(base, name), after, found)
}

fn joined(base: &[String], name: &str) -> Vec<String> {
    let mut path = base.to_vec();
    if name != "self" {
        path.push(name.to_owned());
    }
    path
}

fn path_separator(text: &str) -> Option<&str> {
    Some(text.trim_start().strip_prefix("::")?.trim_start())
}

fn identifier(text: &str) -> (&str, &str) {
    let text = text.strip_prefix("r#").unwrap_or(text);
    text.split_at(text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len()))
}

/// The byte ranges of items under `#[cfg(test)]`, in code whose literals are blank.
fn test_parts(code: &str) -> Vec<(usize, usize)> {
    const MARK: &str = "#[cfg(test)]";
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find(MARK).map(|at| from + at) {
        let mut depth = 0_usize;
        let end = code[at + MARK.len()..].char_indices().find_map(|(offset, c)| {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0 && matches!(c, '}' | ';')).then_some(at + MARK.len() + offset + 1)
        });
        let end = end.unwrap_or(code.len());
        parts.push((at, end));
        from = end;
    }
    parts
}

/// The text with comments and the insides of literals made blank; every line and byte stays where it is.
fn without_literals(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (from, to) in scan(text).into_iter().map(|(_, from, to)| (from, to)) {
        blank(&mut bytes[from..to]);
    }
    String::from_utf8(bytes).expect("whole characters are blanked")
}

/// The insides of the string literals, as written.
fn literals(text: &str) -> Vec<&str> {
    let strings = scan(text).into_iter().filter(|(kind, ..)| matches!(kind, Kind::String));
    strings.map(|(_, from, to)| &text[from..to]).collect()
}

enum Kind {
    Comment,
    String,
    Character,
}

/// Where comments and the insides of literals lie.
fn scan(text: &str) -> Vec<(Kind, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let joined = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let raw = rest.strip_prefix("br").or(rest.strip_prefix('r')).filter(|_| !joined).and_then(|quoted| {
            let hashes = quoted.len() - quoted.trim_start_matches('#').len();
            quoted[hashes..].starts_with('"').then_some((rest.len() - quoted.len() + hashes + 1, hashes))
        });
        at = if rest.starts_with("//") {
            let end = at + rest.find('\n').unwrap_or(rest.len());
            found.push((Kind::Comment, at, end));
            end
        } else if rest.starts_with("/*") {
            let end = at + comment(rest);
            found.push((Kind::Comment, at, end));
            end
        } else if let Some((open, hashes)) = raw {
            let close = format!("\"{}", "#".repeat(hashes));
            let from = at + open;
            let to = text[from..].find(&close).map_or(text.len(), |end| from + end);
            found.push((Kind::String, from, to));
            (to + close.len()).min(text.len())
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let to = at + 1 + closing(quoted, '"');
            found.push((Kind::String, at + 1, to));
            (to + 1).min(text.len())
        } else if let Some(quoted) = rest.strip_prefix('\'') {
            // A lifetime has no closing quote after its first character.
            let mut two = quoted.chars();
            match (two.next(), two.next()) {
                (Some('\\'), _) | (Some(_), Some('\'')) => {
                    let to = at + 1 + closing(quoted, '\'');
                    found.push((Kind::Character, at + 1, to));
                    (to + 1).min(text.len())
                }
                _ => at + 1,
            }
        } else {
            at + rest.chars().next().map_or(1, char::len_utf8)
        };
    }
    found
}

/// Where the block comment at the start of `text` ends; they nest.
fn comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Where the literal ends that `text` begins within.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at,
            _ => {}
        }
    }
    text.len()
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

// ---- the scanner under test ---------------------------------------------------------------------------------

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let text = r####"use a; // crate::x
/* crate::y /* nested */ still */ let s = "crate::\"z"; let r = r#"crate::"q"#; let c = '"'; let l: &'static str;
#[cfg(test)]
mod tests { use crate::edge; fn f() { } }
fn after() {}
"####;
    let code = without_literals(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("crate::x") && !code.contains("crate::y") && !code.contains("still"));
    assert!(!code.contains("z") && !code.contains("q") && code.contains("&'static str;"), "{code}");
    let parts = test_parts(&code);
    assert_eq!(parts.len(), 1);
    assert!(text[parts[0].0..parts[0].1].ends_with("fn f() { } }"));
    assert_eq!(literals(text), ["crate::\\\"z", "crate::\"q"]);
}

#[test]
fn the_scanner_reads_every_way_to_name_a_module() {
    let module = ["stages", "cache"].map(str::to_owned);
    for (code, expected) in [
        ("use crate::model::key;", vec!["model::key"]),
        (
            "use crate::{model::{self, key}, rules::reuse as r, state};",
            vec!["model", "model::key", "rules::reuse", "state"],
        ),
        ("let x = crate::edge::listener::bind();", vec!["edge::listener::bind"]),
        ("use super::flight;", vec!["stages::flight"]),
        ("use super::super::edge::*;", vec!["edge"]),
        ("pub(crate) fn f() {} pub(in crate::rules) fn g() {}", vec!["rules"]),
        ("use self::entry::Entry;", vec!["stages::cache::entry::Entry"]),
        ("my_crate::x(); a::super_(); self.x(); Self::y();", vec![]),
        ("$crate::state::clock()", vec!["state::clock"]),
    ] {
        let found: Vec<String> = imports(&module, code).iter().map(|path| path.join("::")).collect();
        assert_eq!(found, expected, "{code}");
    }
}

#[test]
fn the_floors_allow_and_forbid_what_they_say() {
    let file = |module: &str| Source {
        path: PathBuf::from(module),
        module: module.split("::").map(str::to_owned).collect(),
        text: String::new(),
        code: String::new(),
    };
    let sources = ["stages::cache", "stages::flight", "stages::stage", "stages"].map(file);
    for (from, to, allowed) in [
        ("model::key", "model::fault", true),
        ("model::key", "rules::reuse", false),
        ("rules::params::phone", "rules::reuse", true),
        ("state::store", "stages::cache", false),
        ("stages::cache", "state::store", true),
        ("stages::cache", "stages::flight::Flight", false),
        ("stages::cache::entry", "stages::cache", true),
        ("stages::cache", "stages::stage::Stage", true),
        ("stages::cache", "stages::Stage", true),
        ("stages", "stages::cache", true),
        ("edge::admin", "edge::listener", true),
        ("edge::admin", "config::Plan", false),
        ("config", "pipeline", false),
        ("pipeline", "config", true),
        ("gateway", "pipeline", true),
        ("gateway", "demo", false),
        ("main", "demo", true),
        ("demo::traffic", "gateway", true),
        ("surprise", "model", false),
    ] {
        let path: Vec<String> = to.split("::").map(str::to_owned).collect();
        let verdict = may_import(&sources, &file(from), &path);
        assert_eq!(verdict.is_ok(), allowed, "{from} imports {to}: {verdict:?}");
    }
}
