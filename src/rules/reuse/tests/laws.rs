//! What holds of every answer under every plan.

use proptest::prelude::*;

use super::*;

fn words() -> impl Strategy<Value = String> {
    let number = |name: &'static str| (0u64..50).prop_map(move |seconds| format!("{name}={seconds}"));
    let word = prop_oneof![
        number("ttl"),
        number("max"),
        number("swr"),
        number("sie"),
        number("siu"),
        Just("private".to_owned()),
        Just("no-cache".to_owned()),
        Just("max-age-0".to_owned()),
        Just("honour".to_owned()),
    ];
    prop::collection::vec(word, 0..6).prop_map(|words| words.join(" "))
}

fn directives() -> impl Strategy<Value = String> {
    let number = |name: &'static str| (0u64..50).prop_map(move |seconds| format!("{name}={seconds}"));
    let word = prop_oneof![
        number("max-age"),
        number("s-maxage"),
        number("stale-while-revalidate"),
        number("stale-if-error"),
        prop::sample::select(vec![
            "private",
            "public",
            "no-cache",
            "no-store",
            "must-revalidate",
            "proxy-revalidate"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(word, 1..5).prop_map(|words| format!("cache-control: {}", words.join(", ")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A fresh verdict never exceeds what anybody granted, a stale one never what anybody allowed; and what is kept
    /// may be given out at least once.
    #[test]
    fn no_answer_outlives_its_word(
        words in words(), said in directives(), asked in directives(), age in 0u64..30, after in 0u64..200,
    ) {
        let policy = policy(&words);
        let Some(entry) = entry(&words, &format!("{said} | age: {age}")) else { return Ok(()) };
        let upstream = Directives::from_headers(&headers(&said), &header::CACHE_CONTROL);
        let asked = Directives::from_headers(&headers(&asked), &header::CACHE_CONTROL);
        prop_assert!(!upstream.no_store && (!upstream.private || policy.overrides.private));
        let granted = upstream.s_maxage.or(upstream.max_age);
        let longest = granted.unwrap_or_default().max(policy.ttl.unwrap_or_default());
        let now_age = s(age + after);
        let honoured = policy.honour_request_directives;
        match decide(&policy, &entry, &asked, honoured, Moment::ORIGIN + s(after)) {
            Verdict::Accepted { over } => {
                prop_assert!(asked.max_stale.is_some_and(|most| over <= most));
            }
            Verdict::Fresh { left } => {
                prop_assert!(now_age + left <= longest);
                prop_assert!(!left.is_zero());
                if policy.honour_request_directives {
                    prop_assert!(!asked.no_cache && asked.max_age.is_none_or(|most| now_age <= most));
                }
            }
            Verdict::FreshenMeanwhile { over } => {
                let swr = policy.stale_while_revalidate.or(upstream.stale_while_revalidate);
                prop_assert!(over < swr.unwrap_or_default());
                prop_assert!(!upstream.no_cache || policy.overrides.no_cache);
            }
            Verdict::Fetch { if_error, if_unreachable, .. } => {
                let allowed = policy.stale_if_error.or(upstream.stale_if_error).unwrap_or_default();
                prop_assert!(if_error <= allowed);
                prop_assert!(if_unreachable <= allowed.max(policy.stale_if_unreachable));
                let wish = asked.stale_if_error.unwrap_or(Duration::MAX);
                prop_assert!(if_error <= wish && if_unreachable <= wish);
            }
        }
        // `admit` and `decide` agree: on arrival, were it new, something would come of it.
        let new = Entry::new(
            (entry.status, Fields::default(), Bytes::new()), Moment::ORIGIN, Duration::ZERO, entry.facts, std::sync::Arc::default(),
        );
        let useful = match decide(&policy, &new, &Directives::default(), false, Moment::ORIGIN) {
            Verdict::Fetch { if_error, .. } => !if_error.is_zero(),
            _ => true,
        };
        prop_assert!(useful, "{:?}", entry.facts);
    }

    /// As time passes a verdict only gets worse, and says the same of the same moment.
    #[test]
    fn a_verdict_only_gets_worse(words in words(), said in directives(), early in 0u64..120, wait in 0u64..120) {
        let policy = policy(&words);
        let Some(entry) = entry(&words, &said) else { return Ok(()) };
        let rank = |after: u64| match decide(&policy, &entry, &Directives::default(), false, Moment::ORIGIN + s(after)) {
            Verdict::Fresh { .. } => 0,
            Verdict::FreshenMeanwhile { .. } | Verdict::Accepted { .. } => 1,
            Verdict::Fetch { .. } => 2,
        };
        prop_assert!(rank(early) <= rank(early + wait));
    }
}
