//! Every parser of what others write, under bytes nobody would write. `FUZZ_SECONDS=10` gives each so much time, as
//! `./test` does; otherwise each gets a short pass. What was once found, and what is worth beginning with, is kept in
//! `tests/__fuzz__/NAME/corpus` and always played first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep the gate's environment in one place; a test is not the gate"
)]

use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use answers::{End, World};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use serde_json::Value;
use tollgate::config::plan::Plan;
use tollgate::config::{self, WithoutSecrets};
use tollgate::explain::{Explanation, Reader};
use tollgate::model::Key;
use tollgate::model::exchange::{ClientId, RouteId};
use tollgate::model::{Moment, Secret};
use tollgate::provision::reading;
use tollgate::rules::cache_control::Directives;
use tollgate::rules::forwarded;
use tollgate::rules::framing::Framing;
use tollgate::rules::headers::{remove_echoes, strip_hop_by_hop};
use tollgate::rules::message::{HeadRules, is_host, normalized, normalized_path};
use tollgate::rules::params::{Params, sorted_by_name};
use tollgate::rules::records::Kept;
use tollgate::rules::routes::Path;
use tollgate::rules::slices::{Pointer, Role, Shape};
use tollgate::rules::told::Told;
use tollgate::rules::understanding::{prefers_strict, stated_timeout};
use tollgate::rules::walks::{self, Generation, Owner, Walk};

#[path = "fuzz/answers.rs"]
mod answers;

/// How many inputs the short pass tries.
const SHORT_PASS: usize = 500;
/// The longest input, in bytes before they are spelled.
const LONGEST: usize = 160;

/// Plays `law` on every input as it is, and as it spells words of the tongue in question.
macro_rules! fuzz {
    ($name:literal, $words:expr, $law:expr) => {
        fuzz!($name, $words, $law, SHORT_PASS)
    };
    ($name:literal, $words:expr, $law:expr, $short_pass:expr) => {{
        let (words, law): (&[&str], fn(&str)) = ($words, $law);
        let check = bolero::check!(name = $name).with_max_len(LONGEST);
        let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        let check = match seconds {
            Some(seconds) => check.with_test_time(Duration::from_secs(seconds)),
            None => check.with_iterations($short_pass),
        };
        check.for_each(|input: &[u8]| {
            law(&String::from_utf8_lossy(input));
            law(&spelled(input, words));
        });
    }};
}

/// The words whose places the bytes name; other bytes stand for themselves.
fn spelled(input: &[u8], words: &[&str]) -> String {
    let mut text = String::new();
    for byte in input {
        match words.get(usize::from(*byte)) {
            Some(word) => text.push_str(word),
            None => text.push(char::from(*byte)),
        }
    }
    text
}

const SHIPPED: &str = include_str!("../config.toml");

/// A route with every type of parameter, and one below a path.
static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let text = r#"
        [upstreams.u]
        url = "http://u.example/base"
        [upstreams.u.accounts.a]
        query.token = "mellon"
        headers.api-key = "sesame"
        quota = "none"
        [[routes]]
        name = "everything"
        path = "/everything"
        upstream = "u"
        account = "a"
        [routes.params]
        page = { type = "integer", default = 1, min = 1 }
        per_page = { type = "integer", default = 50, min = 1, below = "default" }
        ratio = "number"
        archived = { type = "boolean", default = false }
        channel = { type = "enum", values = ["sms", "multi_channel"] }
        since = "datetime"
        q = "string"
        short = { type = "string", max_length = 5 }
        id = "uuid"
        phone_number = "phone"
        french = { type = "phone", country = "33" }
        email = "email"
        facebook_id = { type = "prefixed", prefix = "fid_" }
        conversation_id = { type = "prefixed_uuid", prefix = "cid_" }
        contact = { type = "list", of = ["conversation_id", "facebook_id", "email", "phone_number"] }
        [[routes]]
        name = "below"
        path = "/below/*"
        upstream = "u"
        account = "a"
    "#;
    config::load(text, "fuzz", &config::System).unwrap_or_else(|mistakes| panic!("{mistakes}"))
});

fn params() -> &'static Params {
    PLAN.routes[0].params.as_ref().expect("the route declares some")
}

const QUERY: &[&str] = &[
    "page",
    "=",
    "&",
    "%",
    "+",
    "per_page",
    "PerPage",
    "ratio",
    "archived",
    "channel",
    "since",
    "q",
    "short",
    "id",
    "phone_number",
    "french",
    "email",
    "facebook_id",
    "conversation_id",
    "contact",
    "fid_",
    "cid_",
    "@",
    ".",
    "-",
    "e",
    "0x",
    "00",
    "1",
    "2024-02-30T25:00",
    "Z",
    "%2B",
    "%00",
    "%C3%A9",
    "é",
    "²",
    "\u{200b}",
    "\u{202e}",
    "ﬁ",
    "(0)",
    "tel:",
    "mailto:",
    ";",
    "|",
    ",",
    "123e4567-e89b-12d3-a456-426614174000",
    "{",
    "}",
    "urn:uuid:",
    "\"",
    "yes",
    "[]",
    "99999999999999999999",
    "token",
    " ",
    "٣",
];

#[test]
fn understanding_a_query_twice_changes_nothing() {
    fuzz!("query", QUERY, |text| {
        let params = params();
        let once = params.understand(text);
        let twice = params.understand(&once.query);
        assert_eq!(once.query, twice.query, "{text:?}");
        assert!(once.query.is_ascii(), "{text:?}");
        if let Some(header) = once.header(params) {
            HeaderValue::try_from(header).expect("what was understood can be told");
        }
        let _ = (once.strict_refusal(params), once.required_refusal(params));
        let sorted = sorted_by_name(text);
        assert_eq!(sorted_by_name(&sorted), sorted, "{text:?}");
    });
}

#[test]
fn every_type_understands_what_it_has_understood() {
    fuzz!("types", QUERY, |text| {
        let params = params();
        for index in 0..params.names().count() {
            if let Some(once) = params.canonical(index, text) {
                assert_eq!(params.canonical(index, &once).as_deref(), Some(&*once), "{index} {text:?}");
            }
        }
    });
}

#[test]
fn every_target_has_one_key_however_it_is_spelled() {
    fuzz!("target", TARGET, |text| {
        for route in &PLAN.routes {
            let (path, query) = text.split_once('?').unwrap_or((text, ""));
            let reading = reading(&PLAN, route);
            let (once, _) = reading.read(path, query);
            assert!(!once.target().contains("mellon"), "{text:?}");
            let own = once.target().strip_prefix("/base").expect("stands below the upstream's path");
            // A path that has no `?` of its own is told apart from its query.
            if let Some(query) = own.strip_prefix(path).map(|rest| rest.strip_prefix('?').unwrap_or(rest)) {
                assert_eq!(reading.read(path, query).0.key, once.key, "{text:?}");
            }
        }
    });
}

const TARGET: &[&str] = &[
    "/", "..", ".", "%2e", "%2F", "%5c", "\\", "%", "?", "#", ";", "a", "%61", "é", "%00", "*", ":", "@",
    "//", "http://", "token=", "&", "=", "b", "c", "%74oken", "https://", "[::1]", ":80", "%zz", "+",
];

#[test]
fn targets_are_written_one_way_or_refused() {
    fuzz!("path", TARGET, |text| {
        if let Ok(written) = normalized(text) {
            let written = written.as_deref().unwrap_or(text);
            assert_eq!(normalized(written), Ok(None), "{text:?}");
        }
        if let Ok(path) = normalized_path(text) {
            assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{text:?}");
        }
        if let Some(path) = Path::parse(text) {
            assert_eq!(Path::parse(&path.to_string()), Some(path), "{text:?}");
        }
    });
}

#[test]
fn heads_are_refused_or_name_a_host() {
    const HEAD: &[&str] = &[
        "host",
        "gate.example",
        ":",
        "80",
        "[::1]",
        "@",
        "/",
        "expect",
        "100-continue",
        ",",
        "transfer-encoding",
        "chunked",
        "gzip",
        " ",
        "\n",
        "prefer",
        "handling=strict",
        "tollgate-timeout",
        "2.5",
        "connection",
        "x-a",
        "\"",
    ];
    fuzz!("head", HEAD, |text| {
        let mut headers = HeaderMap::new();
        for line in text.split('\n') {
            let (name, value) = line.split_once(':').unwrap_or(("host", line));
            if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        }
        let rules = HeadRules { max_target_bytes: 8192, max_headers: 100, hosts: None };
        let uri = Uri::from_static("/a");
        if rules.inspect(&Method::GET, &uri, Version::HTTP_11, &headers).is_ok() {
            let host = headers.get(header::HOST).expect("was demanded").to_str().expect("was looked at");
            assert!(is_host(host.trim()), "{text:?}");
        }
        let _ = (prefers_strict(&headers), stated_timeout(&headers));
        remove_echoes(&mut headers, &["gate.example", "80"].map(|secret| Secret::new(secret.into())));
        strip_hop_by_hop(&mut headers);
        assert!(
            !headers.contains_key(header::CONNECTION) && !headers.contains_key(header::TRANSFER_ENCODING)
        );
    });
}

#[test]
fn nobody_names_another_as_the_peer() {
    const FORWARDED: &[&str] = &[
        "for=",
        "by=",
        "\"",
        "\\",
        "[",
        "]",
        "::1",
        "192.0.2.1",
        ":80",
        ",",
        ";",
        "unknown",
        "\n",
        "10.0.0.2",
    ];
    fuzz!("forwarded", FORWARDED, |text| {
        let (proxy, client) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 9]));
        let trusted = ["10.0.0.0/8".parse().expect("is a network")];
        for name in [header::FORWARDED, http::HeaderName::from_static("x-forwarded-for")] {
            let word = if name == header::FORWARDED { "for=192.0.2.9" } else { "192.0.2.9" };
            let mut headers = HeaderMap::new();
            for line in format!("{text}, {word}").split('\n') {
                if let Ok(value) = HeaderValue::from_str(line) {
                    headers.append(name.clone(), value);
                }
            }
            // Where the last line was no field, its sender is whoever stands there.
            if headers
                .get_all(&name)
                .iter()
                .next_back()
                .is_some_and(|last| last.as_bytes().ends_with(word.as_bytes()))
            {
                let found = forwarded::peer(&trusted, proxy, &headers);
                assert!(found == client || found == proxy, "{text:?}: {found}");
            }
        }
    });
}

#[test]
fn requests_end_where_they_end_however_they_arrive() {
    const STREAM: &[&str] = &[
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\n",
        "\r\n",
        "\n",
        "\r",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "5",
        "hello",
        "0\r\n",
        ";a=b",
        "Host: a\r\n",
        "f",
        "x",
        ":",
        " ",
        "Content-Length: 5\r\n\r\nhello",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "X-T: 1\r\n",
    ];
    fuzz!("framing", STREAM, |text| {
        let bytes = text.as_bytes();
        let (mut whole, mut pieces) = (Framing::default(), Framing::default());
        let at_once = whole.read(bytes).map_err(|refused| refused.before);
        let byte_by_byte = bytes.iter().enumerate().try_for_each(|(at, byte)| {
            pieces.read(std::slice::from_ref(byte)).map_err(|refused| at + refused.before)
        });
        assert_eq!(at_once, byte_by_byte, "{text:?}");
        assert_eq!(whole.is_between(), pieces.is_between(), "{text:?}");
    });
}

#[test]
fn directives_are_read_from_any_field() {
    const DIRECTIVES: &[&str] = &[
        "max-age",
        "s-maxage",
        "=",
        ",",
        "0",
        "9",
        "99999999999",
        "no-store",
        "no-cache",
        "private",
        "public",
        "\"",
        "\\",
        " ",
        "\t",
        "must-revalidate",
        "stale-while-revalidate",
        "stale-if-error",
        "only-if-cached",
        "-",
        "x",
        ";",
    ];
    fuzz!("directives", DIRECTIVES, |text| {
        let Ok(value) = HeaderValue::from_str(text) else { return };
        let mut headers = HeaderMap::new();
        headers.append(header::CACHE_CONTROL, value.clone());
        let once = Directives::from_headers(&headers, &header::CACHE_CONTROL);
        headers.append(header::CACHE_CONTROL, value);
        let twice = Directives::from_headers(&headers, &header::CACHE_CONTROL);
        assert_eq!(format!("{once:?}"), format!("{twice:?}"), "{text:?}");
    });
}

#[test]
fn what_an_upstream_says_of_its_limits_is_read_or_ignored() {
    const LIMITS: &[&str] = &[
        "\"a\"",
        "\"b\"",
        ";r=",
        ";t=",
        ";q=",
        ";w=",
        ",",
        " ",
        "0",
        "9",
        "60",
        "1700000000",
        "-",
        ".",
        "1e9",
        "ms",
        "s",
        "m",
        "h",
        "limit=",
        "remaining=",
        "reset=",
        "NaN",
        "inf",
        "Tue, 14 Nov 2023 22:14:20 GMT",
        "99999999999999999999",
        "(",
        "?1",
    ];
    fuzz!("told", LIMITS, |text| {
        let mut headers = HeaderMap::new();
        for name in tollgate::rules::told::FIELDS.iter().chain(&["retry-after", "date"]) {
            let Ok(value) = HeaderValue::from_str(text) else { return };
            headers.insert(*name, value);
        }
        let told = Told::of(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let year = Duration::from_secs(366 * 86_400);
        assert!(told.comes_back().is_none_or(|wait| wait <= year), "{text:?}");
        assert!(told.words.len() <= 16, "{text:?}");
    });
}

#[test]
fn a_ledger_on_disk_means_the_same_after_it_is_written_anew() {
    const RECORDS: &[&str] = &[
        "lease ",
        "unspent ",
        "spent ",
        "closed ",
        "opened ",
        "day ",
        "month ",
        "7200s ",
        "5 ",
        "4294967295 ",
        "1700000000000 ",
        "9 ",
        ".",
        "\n",
        " .\n",
        "-",
        "\r",
    ];
    fuzz!("records", RECORDS, |text| {
        let Ok(kept) = Kept::of_text(text) else { return };
        let again = Kept::of_text(&kept.to_text()).expect("what the gate writes it reads");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for window in ["day", "month", "7200s"] {
            let spent = |kept: &Kept| kept.spent(window, now).map(|(calls, _)| u64::from(calls)).sum::<u64>();
            assert_eq!(spent(&again), spent(&kept), "{text:?}");
        }
    });
}

#[test]
fn any_configuration_is_a_plan_or_a_list_of_mistakes() {
    const CONFIG: &[&str] = &[
        "\n",
        "[",
        "]",
        "[[routes]]",
        "=",
        "\"",
        "{",
        "}",
        ",",
        " ",
        "true",
        "-1",
        "0",
        "1e999",
        "\"30s\"",
        "\"256MiB\"",
        "name",
        "path",
        "upstream",
        "account",
        "[server]",
        "listen",
        "[cache]",
        "ttl",
        "\"/*\"",
        "\"/a\"",
        "type",
        "#",
        "'",
        "\\u0000",
        "é",
        "[routes.params]",
        "[routes.pages]",
        "[clients.a]",
        "key",
        "quota",
        "requests",
        "per",
        "\"day\"",
        ".",
        "hosts",
        "trusted_proxies",
        "methods",
        "url",
        "[upstreams.u]",
        "\"http://u\"",
        "9223372036854775808",
        "inf",
        "1979-05-27",
    ];
    fuzz!("config", CONFIG, |text| {
        // By itself, and as a slip of the hand in a configuration that was right.
        let at = text.len().wrapping_mul(7919) % SHIPPED.len();
        let at = (at..).find(|at| SHIPPED.is_char_boundary(*at)).unwrap_or(SHIPPED.len());
        let slipped = format!("{}{text}{}", &SHIPPED[..at], &SHIPPED[at..]);
        for config in [text, &slipped] {
            match config::load(config, "fuzz", &WithoutSecrets) {
                Ok(plan) => assert!(!plan.describe().is_empty()),
                Err(mistakes) => {
                    assert!(mistakes.iter().count() > 0, "{config:?}");
                    let _ = mistakes.to_string();
                }
            }
        }
    });
}

#[test]
fn what_is_cut_from_a_body_is_what_stands_in_it() {
    const BODY: &[&str] = &[
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"data\"",
        "\"id\"",
        "\"d\\u0061ta\"",
        "\"\\ud800\"",
        "1",
        "-0.5e+9",
        "01",
        "null",
        "true",
        "NaN",
        " ",
        "\n",
        "\\",
        "\"",
        "[[[[[[[[",
        "]]]]]]]]",
        "\"total\":",
        "\"next\":",
        "{\"id\":\"a\"},",
        "{\"data\":[",
        "]}",
    ];
    fuzz!("slices", BODY, |text| {
        let at = |text| Pointer::parse(text).expect("is a pointer");
        let id = Some(at("/id"));
        let array = Shape { id: id.clone(), ..Shape::default() };
        let members = vec![(Role::Total, at("/total")), (Role::Next, at("/next"))];
        let bare = Shape { items: Some(at("/data")), id, ..Shape::default() };
        let declared = Shape { members, ..bare.clone() };
        for shape in [array, bare, declared] {
            let Ok(block) = shape.scan(&text.as_bytes().to_vec().into()) else { continue };
            // A tree takes less than JSON is: no half characters, no number beyond all bounds.
            let Ok(whole) = serde_json::from_str::<Value>(text) else { continue };
            let list = if shape.items.is_some() { &whole["data"] } else { &whole };
            let list = list.as_array().expect("what is sliceable is a list");
            assert_eq!(block.len(), list.len(), "{text:?}");
            for first in 0..list.len() {
                let run = block.items(&(first..list.len())).expect("is there");
                let run = format!("[{}]", std::str::from_utf8(&run).expect("is text"));
                let run: Vec<Value> = serde_json::from_str(&run).expect("is JSON");
                assert_eq!(run, list[first..], "{text:?}");
                let named = block.id(first, &at("/id")).is_some();
                assert_eq!(block.id_hash(first).is_some(), named, "{text:?}");
            }
        }
    });
}

#[test]
fn only_tokens_that_were_given_name_walks() {
    const TARGET: &[&str] = &[
        "/a",
        "?",
        "&",
        "=",
        "tollgate_walk=",
        "tollgate_walk",
        "tollgate_walks=",
        "%74ollgate_walk=",
        "page=2",
        ";",
        ";state=pinned",
        " ",
        "00000001",
        "000000000000002a",
        "ffffffff",
        "+0000001",
        "é",
        "\0",
        "#",
    ];
    fuzz!("walks", TARGET, |text| {
        let pairs = |target: &str| -> Vec<String> {
            let query =
                target.split_once('?').map(|(_, query)| query.split('&').map(str::to_owned).collect());
            query.unwrap_or_default()
        };
        let names = |pair: &String| pair.starts_with("tollgate_walk=");
        let taken_from = |target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            walks::taken_from(path, query)
        };
        match taken_from(text) {
            None => assert!(!pairs(text).iter().any(names), "{text:?} names a walk"),
            Some((rest, token)) => {
                assert_eq!(taken_from(&rest), None, "{text:?} left {rest:?}");
                assert_eq!(rest.split('?').next(), text.split('?').next());
                let (given, others): (Vec<_>, Vec<_>) = pairs(text).into_iter().partition(names);
                assert_eq!(pairs(&rest), others, "{text:?} left {rest:?}");
                let last =
                    given.last().and_then(|pair| pair.strip_prefix("tollgate_walk=")).expect("named one");
                assert!(token == last || HeaderValue::from_str(last).is_err(), "{text:?} gave {token:?}");
            }
        }
        let key = Key::from_parts([&b"a collection"[..]]);
        let owner = Owner { client: ClientId(1), route: RouteId(2), collection: &key };
        let generation = Generation { serial: 1, head: -42 };
        let given = Walk::begun(generation, Moment::from_nanos(7_000_000_000)).token(&owner);
        // Whatever is written over a token that was given, or in its place, opens nothing.
        for at in [0, 4, 8, 24, 39, 40] {
            let mut token = given.as_bytes().get(..at).expect("is as long").to_vec();
            token.extend_from_slice(text.as_bytes());
            token.extend_from_slice(given.as_bytes().get(token.len()..).unwrap_or_default());
            let is_given = token == given.as_bytes();
            assert_eq!(Walk::of(&token, &owner).is_some(), is_given, "{token:?}");
            if let Ok(value) = HeaderValue::from_bytes(&token) {
                assert!(walks::token_in(&value).len() <= 64);
            }
        }
    });
}

#[test]
fn any_request_is_explained_or_told_what_is_wrong() {
    const REQUEST: &[&str] = &[
        "GET ",
        "POST ",
        "/everything",
        "?",
        "page=",
        "contact=",
        "/below/",
        "%2e%2e",
        "%",
        "&",
        "http://",
        " ",
        "\n",
        "é",
        "token=",
        "\0",
        "/-/explain?request=",
        "HTTP/1.1",
        "q=",
        "phone_number=",
        "06",
        "+33",
    ];
    fuzz!("explain", REQUEST, |text| {
        for reader in [Reader::Operator, Reader::Client(ClientId(0))] {
            if let Ok(explanation) = Explanation::of(&PLAN, text, reader) {
                let json = explanation.to_json();
                assert!(!json.contains("mellon") && !json.contains("sesame"), "{text:?}");
            }
        }
    });
}

/// One for all inputs: what one answer leaves behind meets the next.
static WORLD: LazyLock<Mutex<(World, usize)>> = LazyLock::new(|| Mutex::new((World::new(), 0)));

/// Whatever bytes an upstream answers with, over real connections: a client gets 502, 504 or an answer, never one that
/// looks whole and is not; only a whole one is kept; and the next question is answered as if nothing had been.
#[test]
fn whatever_an_upstream_writes_is_an_answer_or_a_fault() {
    /// What an answer begins with; the last is nothing at all.
    const BEGINNINGS: &[&str] = &[
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 206 Partial Content\r\n",
        "HTTP/1.1 304 Not Modified\r\n",
        "HTTP/1.1 401 Unauthorized\r\n",
        "HTTP/1.1 429 Too Many Requests\r\n",
        "HTTP/1.1 503 Service Unavailable\r\n",
        "",
    ];
    /// Lines of a head, its end, and what may stand behind it.
    const LINES: &[&str] = &[
        "\r\n",
        "content-length: 5\r\n",
        "content-length: 5\r\n\r\nhello",
        "content-length: 2\r\n\r\nok",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: gzip\r\n",
        "\r\n5\r\nhello\r\n",
        "0\r\n\r\n",
        "hello",
        "cache-control: max-age=60\r\n",
        "cache-control: no-store\r\n",
        "cache-control: stale-if-error=9, private=\"a\r\n",
        "age: 99999999999999999999\r\n",
        "date: Tue, 14 Nov 2023 22:14:20 GMT\r\n",
        "expires: 0\r\n",
        "vary: *\r\n",
        "vary: accept\r\n",
        "etag: \"a\"\r\n",
        "content-range: bytes 0-4/9\r\n",
        "content-range: bytes */5\r\n",
        "retry-after: 9\r\n",
        "ratelimit: \"a\";r=0;t=9\r\n",
        "x-ratelimit-remaining: 0\r\n",
        "connection: close\r\n",
        "connection: content-length, cache-control\r\n",
        "set-cookie: a=b\r\n",
        "location: /a\r\n",
        "content-encoding: gzip\r\n",
        "trailer: x\r\n",
        "upgrade: h2c\r\n",
    ];
    const PIECES: &[&str] = &[
        "HTTP/1.1 200 OK\r\n",
        "\n",
        "\r",
        ":",
        " ",
        ",",
        ";",
        "\0",
        "5",
        "content-length: ",
        "transfer-encoding: ",
        "age: ",
        "é",
    ];
    // Few bytes are pieces, or hardly any head would be read to its end.
    let lines = LINES.iter().cycle().take(256 - PIECES.len());
    let words: Vec<_> = lines.chain(PIECES).copied().collect();
    let law = |text: &str| {
        let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        world.1 += 1;
        // Two in a row are one input, as it is and as it spells words.
        let (world, number, turn) = (&world.0, world.1, world.1 / 2);
        let text = format!("{}{text}", BEGINNINGS[turn % BEGINNINGS.len()]);
        let bytes = text.as_bytes();
        let route = ["kept", "streamed"][turn / BEGINNINGS.len() % 2];
        let target = |name: &str| format!("/{route}/{number}/{name}");
        let look = |name: &str, bytes: &[u8], end: End| {
            let got = world.told(&target(name), bytes, end);
            // 429 and 503: of an account that the upstream itself has closed.
            let fault = matches!(got.status.as_u16(), 429 | 502 | 503 | 504);
            assert!(if got.passed { got.status.as_u16() >= 200 } else { fault }, "{text:?}: {got:?}");
            let length =
                got.length.as_ref().and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
            let bodiless = matches!(got.status.as_u16(), 204 | 304);
            assert!(!got.whole || bodiless || length.is_none_or(|length: usize| length == got.body.len()));
            let next = world.ask("/plain");
            assert!((next.status.as_u16(), &*next.body) == (200, b"ok"), "{text:?} is followed by {next:?}");
            let again = world.ask(&target(name));
            if again.held {
                assert!(got.passed && got.whole, "{text:?} is kept: {again:?}");
                assert_eq!((again.status, &again.body), (got.status, &got.body), "{text:?}");
            }
            got
        };
        let closed = look("closed", bytes, End::Close);
        // No body ends by a reset: what is whole then is whole by its own framing, and nothing behind it changes it.
        let reset = look("reset", &bytes[..bytes.len() - bytes.len().min(turn % 16)], End::Reset);
        if reset.passed && reset.whole {
            let stays = look("stays", bytes, End::Stay);
            for other in [closed, stays] {
                assert_eq!((other.status, other.body), (reset.status, reset.body.clone()), "{text:?}");
            }
        }
    };
    fuzz!("answer", &words, law, SHORT_PASS / 5);
}
