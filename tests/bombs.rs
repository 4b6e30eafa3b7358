//! Compressed blocks of an upstream that means ill, or is broken: a route that cuts pages decodes gzip, as far as it is
//! worth, and forwards what it cannot read as it was asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use support::gate::{Gate, Setup};
use support::shipped::cache_status;
use support::upstream::{Reply, Upstream};

const MIB: usize = 1 << 20;
/// What a gate may hold of one answer here.
const MOST: usize = 2 * MIB;

/// A gate before an upstream whose blocks are `coded`. Whatever else it is asked, it answers in plain text.
async fn before(coded: &'static [u8]) -> (Upstream, Gate) {
    let upstream = Upstream::start(move |request| {
        match request.header("accept-encoding").is_some_and(|codings| codings.contains("gzip")) {
            true => Reply::json(coded).header("content-encoding", "gzip"),
            false => Reply::json(format!("[{:?}]", request.target)),
        }
    })
    .await;
    let config = format!(
        r#"
[cache]
max_entry_bytes = "{MOST}B"
max_inflight_bytes = "{MOST}B"
[upstreams.u]
url = "{}"
[upstreams.u.accounts.a]
quota = "none"
[[routes]]
name = "r"
path = "/r"
upstream = "u"
[routes.params]
page = {{ type = "integer", default = 1, min = 1 }}
size = {{ type = "integer", default = 10, min = 1 }}
[routes.cache]
ttl = "10m"
[routes.pages]
page = "page"
size = "size"
block = 100
"#,
        upstream.url()
    );
    (upstream, Setup::new(config).start().await)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// What is held of the block is told by what stands in the list that clients get of it.
#[tokio::test]
async fn a_block_is_decoded() {
    let list = format!("[1,2,3{}]", ",4".repeat(97));
    let (upstream, gate) = before(gzip(list.as_bytes()).leak()).await;
    for (target, page) in [("/r?size=2", "[1,2]"), ("/r?size=2&page=2", "[3,4]")] {
        let answer = gate.get(target, &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, page));
        assert_eq!(answer.header("content-encoding"), None);
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_asked_for_as_the_client_asked() {
    let list = format!("[{}]", vec!["\"item\""; 100].join(","));
    let whole = gzip(list.as_bytes());
    let mut damaged = whole.clone();
    *damaged.last_chunk_mut::<8>().unwrap() = [7; 8];
    // A gibibyte and a half, valid to its end.
    let blank = gzip(&vec![b' '; MIB]);
    let bomb = [gzip(b"["), blank.repeat(1536), gzip(b"]")].concat();
    assert!(bomb.len() < MOST);
    for (what, coded, reason) in [
        ("a bomb", bomb, "too_large"),
        ("cut short", whole[..whole.len() / 2].to_vec(), "coding"),
        ("cut short of its last byte", whole[..whole.len() - 1].to_vec(), "coding"),
        ("cut short within its head", whole[..5].to_vec(), "coding"),
        ("nothing at all", Vec::new(), "coding"),
        ("something behind it", [&whole[..], b"[1]"].concat(), "coding"),
        ("a second half", [&whole[..], &whole[..20]].concat(), "coding"),
        ("a wrong checksum", damaged, "coding"),
        ("no gzip", list.clone().into_bytes(), "coding"),
    ] {
        let (upstream, gate) = before(coded.leak()).await;
        let before = gate.memory("VmRSS");
        for asked_for in [1, 2] {
            let answer = gate.get("/r?size=2", &[]).await;
            assert_eq!((answer.status, answer.complete), (200, true), "{what}");
            assert_eq!(answer.text(), "[\"/r?page=1&size=2\"]", "{what}: as it was asked");
            assert_eq!(cache_status(&answer).contains("; hit"), asked_for == 2, "{what}");
        }
        // Nothing is cut from what could not be read.
        assert_eq!(gate.get("/r?size=3", &[]).await.text(), "[\"/r?page=1&size=3\"]", "{what}");
        let reason = format!("reason={reason:?}");
        assert!(gate.metric("tollgate_pages_unsliceable_total", &[&reason]).await >= 1.0, "{what}");
        assert_eq!(upstream.count(), 3, "{what}: the block once");
        let grown = gate.memory("VmHWM").saturating_sub(before);
        assert!(grown < 64 * MIB as u64, "{what}: {grown} bytes");
    }
}
