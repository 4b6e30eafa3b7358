//! The gate's decision beside an independent one, the crate `http-cache-semantics`, over generated exchanges: every
//! difference is one of those explained below, each with the sentence that decides it. (That crate implements RFC 7234,
//! which RFC 9111 replaced.)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};
use proptest::prelude::*;
use tollgate::model::entry::Entry;
use tollgate::model::{Fields, Moment};
use tollgate::rules::cache_control::Directives;
use tollgate::rules::reuse::{Admission, Exchange, Policy, Verdict, admit, decide};
use tollgate::rules::serving::Wishes;
use tollgate::rules::vary;

/// A request, its response, and a second request some seconds later.
#[derive(Debug, Clone)]
struct Case {
    first: HeaderMap,
    status: StatusCode,
    said: HeaderMap,
    second: HeaderMap,
    after: u64,
}

/// Who answers from memory where the other does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bolder {
    Gate,
    Crate,
}

/// A difference: who is bolder, when it may be, and why the gate is right.
struct Difference {
    bolder: Bolder,
    when: fn(&Case, &Directives) -> bool,
    because: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        bolder: Bolder::Crate,
        when: |case, _| date(&case.said, &header::DATE).is_some_and(|dated| dated < wall()),
        because: "RFC 9111 §4.2.3: apparent_age = max(0, response_time - date_value); the crate reads Age alone",
    },
    Difference {
        bolder: Bolder::Crate,
        when: |case, _| case.said.get(header::AGE).is_some_and(|age| age.as_bytes().contains(&b',')),
        because: "RFC 9111 §5.1: of a list-based Age the first member counts; the crate takes none",
    },
    Difference {
        bolder: Bolder::Crate,
        when: |case, _| {
            [header::COOKIE, header::AUTHORIZATION].iter().any(|name| case.first.contains_key(name))
        },
        because: "design §3: a request's Cookie counts as Authorization does, and neither is answered by a guess",
    },
    Difference {
        bolder: Bolder::Crate,
        when: |case, _| matches!(case.status.as_u16(), 428 | 429 | 431 | 511),
        because: "RFC 6585 §3-§6: MUST NOT be stored by a cache (428, 429, 431, 511)",
    },
    Difference {
        bolder: Bolder::Crate,
        when: |case, said| {
            case.said.contains_key(header::SET_COOKIE) && said.max_age.or(said.s_maxage).is_none()
        },
        because: "design §3: what sets a cookie is not shared by a guess",
    },
    Difference {
        bolder: Bolder::Crate,
        when: |case, said| {
            wishes(&case.second).max_stale.is_some()
                && (said.s_maxage.is_some() || said.proxy_revalidate || said.no_cache)
        },
        because: "RFC 9111 §4.2.4, §5.2.2.10: s-maxage has proxy-revalidate's meaning, which forbids stale",
    },
    Difference {
        bolder: Bolder::Crate,
        when: |case, _| repeats(&case.said) || repeats(&case.second),
        because: "RFC 9111 §4.2.1: of a directive that stands twice the gate takes the more restrictive value",
    },
    Difference {
        bolder: Bolder::Crate,
        when: |case, said| {
            let stated = said.s_maxage.or(said.max_age);
            wishes(&case.second).max_stale.is_some() && stated.is_none_or(|stated| stated.is_zero())
        },
        because: "RFC 9111 §3 lets a cache store; what is never fresh and cannot be validated the gate does not",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |_, said| said.proxy_revalidate,
        because: "RFC 9111 §5.2.2.8: once it has become stale; until then it is as fresh as any",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |case, said| {
            case.said.contains_key(header::SET_COOKIE) && said.max_age.or(said.s_maxage).is_some()
                || case.said.contains_key(header::SET_COOKIE) && case.said.contains_key(header::EXPIRES)
        },
        because: "RFC 9111 §7.3: Set-Cookie does not inhibit caching where the response itself allows it",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |case, _| case.said.contains_key(header::PRAGMA),
        because: "RFC 9111 §5.4: Pragma says something in requests alone",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |case, _| {
            case.second.contains_key(header::PRAGMA) && case.second.contains_key(header::CACHE_CONTROL)
        },
        because: "RFC 7234 §5.4: Pragma counts where there is no Cache-Control",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |case, _| matches!(case.status.as_u16(), 299 | 302 | 303 | 307 | 400 | 403 | 499..=599),
        because: "RFC 9111 §3: the status must be final; understood only for 206, 304 and must-understand",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |_, said| !said.private_fields.is_empty() || !said.no_cache_fields.is_empty(),
        because: "RFC 9111 §5.2.2.4, §5.2.2.7: the qualified form is about the named fields",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |case, _| {
            let spelt = |headers: &HeaderMap| headers.get("foo").cloned();
            spelt(&case.first) != spelt(&case.second)
        },
        because: "RFC 9111 §4.1: fields match if normalizing makes them the same",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |_, said| said.max_age.is_some_and(|most| most > Duration::from_secs(1 << 30)),
        because: "RFC 9111 §1.2.2: a number that does not fit counts as the greatest that does",
    },
    Difference {
        bolder: Bolder::Gate,
        when: |case, _| wishes(&case.second).max_stale.is_some(),
        because: "RFC 9111 §5.2.2.2: of duplicate directives one counts; the crate makes must-revalidate of them",
    },
];

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// Whether a directive stands twice.
fn repeats(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CACHE_CONTROL).map_or("", |value| value.to_str().unwrap());
    let names: Vec<_> = value.split(", ").filter_map(|word| word.split('=').next()).collect();
    names.iter().enumerate().any(|(at, name)| names[..at].contains(name))
}

fn wishes(headers: &HeaderMap) -> Directives {
    Wishes::from_headers(headers).directives
}

/// Whether the gate answers the second request from memory.
fn gate(case: &Case) -> bool {
    let policy = Policy { honour_request_directives: true, ..Policy::default() };
    if wishes(&case.first).no_store {
        return false;
    }
    let exchange = Exchange {
        method: &Method::GET,
        sent: &case.first,
        status: case.status,
        headers: &case.said,
        is_of_target: false,
        delay: Duration::ZERO,
        wall: wall(),
    };
    let Admission::Keep(kept) = admit(&policy, exchange) else { return false };
    let parts = (case.status, Fields::from_map(&case.said), Bytes::new());
    let entry = Entry::new(parts, Moment::ORIGIN, kept.initial_age, kept.facts, kept.selectors);
    let now = Moment::ORIGIN + Duration::from_secs(case.after);
    vary::selects(&entry, |name| vary::combined(&case.second, name))
        && matches!(
            decide(&policy, &entry, &wishes(&case.second), true, now),
            Verdict::Fresh { .. } | Verdict::Accepted { .. }
        )
}

/// Whether the crate does.
fn other(case: &Case) -> bool {
    let request = |headers: &HeaderMap| {
        let mut request = Request::get("http://api.test/").body(()).unwrap();
        *request.headers_mut() = headers.clone();
        request
    };
    let mut response = Response::builder().status(case.status).body(()).unwrap();
    *response.headers_mut() = case.said.clone();
    let policy = CachePolicy::new_options(&request(&case.first), &response, wall(), CacheOptions::default());
    let now = wall() + Duration::from_secs(case.after);
    policy.is_storable()
        && policy.before_request(&request(&case.second), now).satisfies_without_revalidation()
}

fn directives(of_request: bool) -> impl Strategy<Value = Vec<String>> {
    let number = |name: &'static str| {
        prop_oneof![9 => 0u64..120, 1 => Just(99_999_999_999)]
            .prop_map(move |seconds| format!("{name}={seconds}"))
    };
    let words: &[&str] = if of_request {
        &["no-cache", "no-store", "max-stale", "foo"]
    } else {
        &[
            "no-cache",
            "no-store",
            "private",
            "public",
            "must-revalidate",
            "proxy-revalidate",
            "private=\"x\"",
            "no-cache=\"x\"",
            "foo=bar",
        ]
    };
    let numbers: &[&str] =
        if of_request { &["max-age", "min-fresh", "max-stale"] } else { &["max-age", "s-maxage"] };
    let word = prop::sample::select(words.to_vec()).prop_map(str::to_owned);
    let numbered = prop::sample::select(numbers.to_vec()).prop_flat_map(number);
    prop::collection::vec(prop_oneof![word, numbered], 0..if of_request { 2 } else { 4 })
}

fn request() -> impl Strategy<Value = HeaderMap> {
    let varied = prop::option::of(prop::sample::select(vec!["1", "2", "1, 2", "1,2"]));
    let rare = |name: &'static str, value: &'static str| prop_oneof![6 => Just(None), 1 => Just(Some((name, value)))];
    (directives(true), varied, rare("authorization", "x"), rare("cookie", "a=b"), rare("pragma", "no-cache"))
        .prop_map(|(words, varied, authorization, cookie, pragma)| {
            let mut headers = HeaderMap::new();
            if !words.is_empty() {
                headers.insert(header::CACHE_CONTROL, HeaderValue::try_from(words.join(", ")).unwrap());
            }
            let fields = varied
                .map(|value| ("foo", value))
                .into_iter()
                .chain(authorization)
                .chain(cookie)
                .chain(pragma);
            for (name, value) in fields {
                headers.insert(name, HeaderValue::from_static(value));
            }
            headers
        })
}

fn response() -> impl Strategy<Value = HeaderMap> {
    let when = |from: i64, to: i64| prop::option::of(from..to);
    let rare = |name: &'static str, values: Vec<&'static str>| {
        let value = prop::sample::select(values).prop_map(move |value| Some((name, value)));
        prop_oneof![3 => Just(None), 1 => value]
    };
    let others = (
        rare("age", vec!["0", "30", "x", "7, 9"]),
        rare("vary", vec!["foo", "*", "Foo, bar"]),
        rare("set-cookie", vec!["a=b"]),
        rare("pragma", vec!["no-cache"]),
        rare("expires", vec!["0", "soon"]),
    );
    (directives(false), prop::option::of(-60i64..60), when(-60, 120), when(-86_400, 0), others).prop_map(
        |(words, dated, expires, modified, others)| {
            let mut headers = HeaderMap::new();
            if !words.is_empty() {
                headers.insert(header::CACHE_CONTROL, HeaderValue::try_from(words.join(", ")).unwrap());
            }
            let dates =
                [(header::DATE, dated), (header::EXPIRES, expires), (header::LAST_MODIFIED, modified)];
            for (name, offset) in dates {
                let Some(offset) = offset else { continue };
                let from = Duration::from_secs(offset.unsigned_abs());
                let at = if offset < 0 { wall() - from } else { wall() + from };
                headers.insert(name, HeaderValue::try_from(httpdate::fmt_http_date(at)).unwrap());
            }
            let (age, vary, cookie, pragma, expires) = others;
            for (name, value) in [age, vary, cookie, pragma, expires].into_iter().flatten() {
                headers.insert(name, HeaderValue::from_static(value));
            }
            headers
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let status = prop_oneof![
        6 => Just(200u16),
        4 => prop::sample::select(vec![
            203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 429, 499, 500, 501, 503, 599,
        ]),
    ];
    let second = prop_oneof![1 => Just(None), 1 => request().prop_map(Some)];
    (request(), status, response(), second, 0u64..180).prop_map(|(first, status, said, second, after)| {
        let second = second.unwrap_or_else(|| {
            let mut same = first.clone();
            same.remove(header::CACHE_CONTROL);
            same
        });
        Case { first, status: StatusCode::from_u16(status).unwrap(), said, second, after }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_difference_has_its_sentence(case in case()) {
        let (ours, theirs) = (gate(&case), other(&case));
        if ours != theirs {
            let bolder = if ours { Bolder::Gate } else { Bolder::Crate };
            let said = Directives::from_headers(&case.said, &header::CACHE_CONTROL);
            let explained =
                DIFFERENCES.iter().find(|difference| difference.bolder == bolder && (difference.when)(&case, &said));
            prop_assert!(explained.is_some_and(|difference| !difference.because.is_empty()), "{bolder:?}");
        }
    }
}
