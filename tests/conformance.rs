//! The public suite of tests for HTTP caches (`tests/conformance/run`), through the built gate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is told by its environment which suite to run")]

use std::path::Path;
use std::process::Command;

#[test]
fn every_required_and_optimal_test_of_the_public_suite_passes_but_the_named_exceptions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    assert!(
        folder.join("node_modules/http-cache-tests/package.json").exists(),
        "http-cache-tests is missing in {}: run ./test, which fetches it",
        folder.display()
    );
    let mut run = Command::new("node");
    run.arg(folder.join("run")).args(["--gate", env!("CARGO_BIN_EXE_tollgate")]);
    // The suite's repository is ahead of what was published.
    if let Some(checkout) = std::env::var_os("CACHE_TESTS") {
        run.arg("--suite").arg(checkout);
    }
    let run = run.output().expect("node, which ./test asks for");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.trim_end().ends_with("conforms"), "{said}");
}
