//! Raw bytes at the edge: every case of `tests/edge/*.cases` is played over real sockets against the built gate, each
//! with a gate and an upstream of its own. `tests/edge/README.md` says how a case is written; `tests/edge/run FILE`
//! plays anyone's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nothing outside a test reaches into it")]
#![allow(clippy::print_stderr, reason = "what is known to fail is said at every run")]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep the gate's tasks counted and its clock owned; a test is not the gate"
)]

#[path = "edge/form.rs"]
mod form;
#[path = "edge/origin.rs"]
mod origin;
#[path = "edge/play.rs"]
mod play;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use form::Case;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many cases are played at once: each runs a gate of its own.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_at_the_edge() {
    let files = match std::env::var_os("EDGE_CASES") {
        Some(file) => vec![PathBuf::from(file)],
        None => case_files(),
    };
    let only = std::env::var("EDGE_ONLY").unwrap_or_default();
    let mut cases = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let read = form::read(&text).unwrap_or_else(|mistake| panic!("{}:{mistake}", file.display()));
        cases.extend(read.into_iter().filter(|case| case.name.contains(&only)));
    }
    let mut names: Vec<_> = cases.iter().map(|case| case.name.clone()).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(twice.is_empty(), "names used twice: {twice:?}");

    let count = cases.len();
    let (failed, known) = play_all(cases).await;
    for (case, why) in &known {
        eprintln!("known: {case}: {why}");
    }
    eprintln!("{count} cases, {} known to fail, {} failed", known.len(), failed.len());
    assert!(failed.is_empty(), "{} of {count} cases failed:\n\n{}", failed.len(), failed.join("\n\n"));
}

/// Plays `cases`; those that failed, told in full, and those that are known to fail and did, each with its reason.
async fn play_all(cases: Vec<Case>) -> (Vec<String>, Vec<(String, String)>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = JoinSet::new();
    for case in cases {
        let places = places.clone();
        playing.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let mut result = Ok(());
            for _ in 0..case.repeat {
                result = play::play(&case).await;
                if result.is_err() {
                    break;
                }
            }
            (case, result)
        });
    }
    let (mut failed, mut known) = (Vec::new(), Vec::new());
    while let Some(played) = playing.join_next().await {
        let (case, result) = played.unwrap();
        match (result, &case.known) {
            (Ok(()), None) => {}
            (Err(_), Some(reason)) => known.push((case.name, reason.clone())),
            (Err(why), None) => failed.push(format!("{} (RFC {})\n{why}", case.name, case.rfc)),
            (Ok(()), Some(_)) => failed.push(format!("{}\n  passes, and is `known` to fail", case.name)),
        }
    }
    failed.sort_unstable();
    known.sort_unstable();
    (failed, known)
}

fn case_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/edge");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "cases")).collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "{} has no cases", folder.display());
    files
}
