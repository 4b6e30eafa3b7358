//! The laws of understanding, tried on spellings chosen to break them.

#![allow(clippy::unwrap_used, reason = "in a test a broken assumption should stop it where it stands")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::emit::encoded;
use super::seed::messages_list;
use super::{Bare, Below, Kind, OnIgnored, Param, Params, Understood, Unknown};

/// A route with every kind in every variant, so that a law holds for all of them or fails here.
fn everything(unknown: Unknown) -> Params {
    let kinds = vec![
        ("page", Kind::Integer { min: Some(1), max: Some(1_000_000), below: Below::Clamp }, Some("1"), true),
        ("per_page", Kind::Integer { min: Some(1), max: None, below: Below::Default }, Some("50"), true),
        ("count", Kind::Integer { min: None, max: None, below: Below::Clamp }, None, false),
        ("ratio", Kind::Number { min: None, max: None, below: Below::Clamp }, None, false),
        ("price", Kind::Number { min: Some(0.1), max: Some(1e6), below: Below::Clamp }, Some("1.5"), false),
        ("archived", Kind::Boolean, Some("false"), false),
        (
            "channel",
            Kind::Enum { values: ["sms", "multi_channel", "-date", "10²"].map(String::from).into() },
            Some("sms"),
            false,
        ),
        ("since", Kind::Datetime, None, false),
        ("q", Kind::String { max_length: None }, None, false),
        ("short", Kind::String { max_length: Some(5) }, None, false),
        ("id", Kind::Uuid, None, false),
        ("phone_number", Kind::Phone { bare: Bare::International, country: None }, None, false),
        ("kept", Kind::Phone { bare: Bare::Keep, country: None }, None, false),
        ("french", Kind::Phone { bare: Bare::International, country: Some("33".into()) }, None, false),
        ("email", Kind::Email, None, false),
        ("facebook_id", Kind::Prefixed { prefix: "fid_".into() }, None, false),
        ("conversation_id", Kind::PrefixedUuid { prefix: "cid_".into() }, None, false),
        (
            "contact",
            Kind::List {
                of: ["conversation_id", "facebook_id", "email", "phone_number"].map(String::from).into(),
            },
            None,
            false,
        ),
        (
            "any[]",
            Kind::List { of: ["count", "since", "french", "channel", "short", "q"].map(String::from).into() },
            None,
            false,
        ),
    ];
    let declared = kinds
        .into_iter()
        .map(|(name, kind, default, window)| Param {
            name: name.into(),
            kind,
            default: default.map(String::from),
            on_ignored: OnIgnored::Ignore,
            window,
        })
        .collect();
    Params::new(declared, unknown).unwrap()
}

/// Pieces values are glued from: canonical ones, their usual mistakes, and characters that change under cleaning.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec![
            "", "0", "1", "2", "33", "000", "612345678", "33612345678", "0612345678", "0033", "+33", "(0)", "ext 12",
            "tel:", ";ext=5", "9223372036854775808", "99999999999999999999", "1,000", "1,00", "2.0", "2.7", "2e1",
            "1.5e400", "e-400", "0x1F", "0x", "-", "+", "−", ".", "true", "YES", "off", "sms", "Multi-Channel",
            "multi_channel", "-date", "2024-01-02", "T03:04:05", "Z", "+02:00", "02:00", ".500", "1704164645",
            "1704164645123", "Tue, 02 Jan 2024 03:04:05 GMT", "0b6a1c1e-95a2-4c3f-8a1e-0123456789ab",
            "0B6A1C1E95A24C3F8A1E0123456789AB", "urn:uuid:", "cid_", "fid_", "FID_", "fid", "a@b.com", "A@B.COM",
            "@", "a", "bücher.example", "mailto:", "<", ">", "Name ", "?subject=", "page",
        ]).prop_map(String::from),
        3 => select(vec![
            " ", "  ", "\t", "\n", "\r\n", "\0", "\u{7f}", "\u{a0}", "\u{200b}", "\u{200c}", "\u{200d}", "\u{feff}",
            "\u{202e}", "\u{ad}", "\"", "'", "`", "“", "”", "„", "«", "»", "‘", "’", ",", ";", "|", "，", "；", "\u{37e}",
            "[", "]", "{", "}", "(", ")", "%", "%4", "%zz", "&", "=", "#", "_", "/", ":",
        ]).prop_map(String::from),
        2 => select(vec![
            "٣", "۴", "１", "２０", "𝟙", "²", "½", "①", "㏢", "ﬁ", "ﷺ", "℡", "e\u{301}", "\u{301}", "\u{327}\u{301}",
            "Å", "K", "ß", "ẞ", "İ", "ı", "ς", "가", "\u{1100}\u{1161}", "\u{fffd}", "🏴\u{e0067}\u{e007f}", "👩\u{200d}💻",
            "．", "。", "＠", "＋", "‑", "–", "ｔｒｕｅ", "ｆｉｄ＿",
        ]).prop_map(String::from),
        1 => any::<char>().prop_map(String::from),
    ]
}

fn value() -> impl Strategy<Value = String> {
    vec(piece(), 0..6).prop_map(|pieces| pieces.concat())
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..19_usize).prop_map(|index| everything(Unknown::Drop).names().nth(index).unwrap().to_owned()),
        2 => select(vec!["PAGE", "perPage", "per-page", "page[]", "Phone.Number", "E-Mail", "ANY", "contact[]", "ｐａｇｅ"])
            .prop_map(String::from),
        1 => select(vec!["utm_source", "", "pages", "é", "tollgate_walk"]).prop_map(String::from),
        1 => piece(),
    ]
}

/// One pair as clients write it: properly encoded, form-encoded, or hardly at all.
fn pair() -> impl Strategy<Value = String> {
    (name(), value(), 0..4_u8).prop_map(|(name, value, how)| match how {
        0 => format!("{}={}", encoded(&name), encoded(&value)),
        1 => format!("{}={}", encoded(&name), encoded(&value).replace("%20", "+")),
        2 => format!("{name}={}", value.replace('&', "%26")),
        _ => format!("{name}={value}"),
    })
}

fn query() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => vec(pair(), 0..8).prop_map(|pairs| pairs.join("&")),
        1 => vec(piece(), 0..20).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
        1 => vec(any::<u8>(), 0..60).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        1 => vec(any::<u8>(), 0..40).prop_map(|bytes| {
            bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>() + "&page=%"
        }),
    ]
}

fn assert_settled(params: &Params, understood: &Understood) {
    let again = params.understand(&understood.query);
    assert_eq!(again.query, understood.query);
    assert_eq!(again.values, understood.values);
    assert_eq!(again.changes, []);
    assert_eq!(again.unknown, 0);
    assert_eq!(again.header(params), None);
    assert_eq!(again.strict_refusal(params), None);
    assert_eq!(again.required_refusal(params), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Total and idempotent, and strictness never refuses what understanding made.
    #[test]
    fn understanding_twice_is_understanding_once(query in query()) {
        for unknown in [Unknown::Drop, Unknown::Pass] {
            let params = everything(unknown);
            assert_settled(&params, &params.understand(&query));
        }
    }

    /// The query is RFC 3986 in one spelling, whatever came.
    #[test]
    fn only_unreserved_characters_are_sent(query in query()) {
        let sent = everything(Unknown::Pass).understand(&query).query;
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._~%&=".contains(&b);
        prop_assert!(sent.bytes().all(fine), "{sent:?}");
    }

    /// Each kind by itself: what it makes of a value it leaves alone.
    #[test]
    fn a_canonical_value_is_its_own(value in value()) {
        let params = everything(Unknown::Drop);
        for index in 0..params.names().count() {
            if let Some(canonical) = params.canonical(index, &value) {
                let again = params.canonical(index, &canonical);
                prop_assert_eq!(again.as_deref(), Some(&*canonical), "{:?}", params.param(index));
                prop_assert!(!canonical.is_empty() && canonical.len() <= super::MAX_VALUE_BYTES);
            }
        }
    }

    /// A parameter in a query reads as the parameter by itself, the values purges and pointers compare with.
    #[test]
    fn one_value_reads_alike_in_a_query_and_alone(index in 0..19_usize, value in value()) {
        let params = everything(Unknown::Drop);
        let param = params.param(index).unwrap();
        let alone = params.canonical(index, &value).or_else(|| param.default.clone().filter(|_| param.window));
        let sent = alone.filter(|value| param.window || Some(value) != param.default.as_ref());
        let query = format!("{}={}", encoded(&param.name), encoded(&value));
        prop_assert_eq!(&params.understand(&query).values[index], &sent);
    }

    /// The order of pairs with different names makes no difference.
    #[test]
    fn the_order_of_names_does_not_matter(pairs in vec((name(), value()), 0..8), seed in any::<u64>()) {
        let params = everything(Unknown::Drop);
        let spelled = |pairs: &[(String, String)]| {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| format!("{}={}", encoded(n), encoded(v))).collect();
            pairs.join("&")
        };
        // A stable sort by something about the name alone keeps pairs of one name in order.
        let mut moved = pairs.clone();
        moved.sort_by_key(|(name, _)| {
            name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17))
        });
        let (one, other) = (params.understand(&spelled(&pairs)), params.understand(&spelled(&moved)));
        prop_assert_eq!(one.query, other.query);
        prop_assert_eq!(one.values, other.values);
        prop_assert_eq!(one.changes, other.changes);
        prop_assert_eq!(one.unknown, other.unknown);
    }

    /// Values decide the query and the query the values: no two meanings share a key, nor one meaning two.
    #[test]
    fn values_and_query_say_the_same(one in query(), other in query()) {
        let params = everything(Unknown::Drop);
        let (one, other) = (params.understand(&one), params.understand(&other));
        prop_assert_eq!(one.values == other.values, one.query == other.query);
    }

    /// What clients are told is a list of RFC 9651 in printable ASCII, and holds nothing of a person.
    #[test]
    fn the_header_is_a_list(query in query()) {
        let params = everything(Unknown::Drop);
        let understood = params.understand(&query);
        let told = understood.header(&params);
        prop_assert_eq!(told.is_none(), understood.changes.is_empty() && understood.unknown == 0);
        if let Some(told) = told {
            prop_assert!(told.bytes().all(|b| (0x20..0x7f).contains(&b)), "{told:?}");
            let list: sfv::List = sfv::Parser::new(&told).parse().unwrap();
            prop_assert!(!list.is_empty());
        }
    }

    /// Something was lost exactly where strictness refuses.
    #[test]
    fn strictness_refuses_exactly_what_lost_something(query in query()) {
        let params = everything(Unknown::Drop);
        let understood = params.understand(&query);
        let lost = understood.unknown > 0 || understood.changes.iter().any(|change| !change.rule.lossless());
        prop_assert_eq!(understood.strict_refusal(&params).is_some(), lost);
    }

    /// Different whole numbers stay different, however they are spelled.
    #[test]
    fn integers_do_not_merge(one in any::<i64>(), other in any::<i64>()) {
        let params = everything(Unknown::Drop);
        let count = params.get("count").unwrap();
        let plain = params.canonical(count, &one.to_string());
        prop_assert_eq!(plain.as_deref(), Some(&*one.to_string()));
        for spelled in [format!("{one}.0"), format!(" {one} "), format!("{one}e0"), format!("{one}0e-1")] {
            prop_assert_eq!(&params.canonical(count, &spelled), &plain, "{}", spelled);
        }
        prop_assert_eq!(plain == params.canonical(count, &other.to_string()), one == other);
    }

    /// Numbers keep every digit: two spellings share a key only if they are the same figure.
    #[test]
    fn numbers_do_not_merge(bits in any::<u64>()) {
        let figure = f64::from_bits(bits);
        prop_assume!(figure.is_finite());
        let params = everything(Unknown::Drop);
        let ratio = params.get("ratio").unwrap();
        let plain = params.canonical(ratio, &format!("{figure}")).unwrap();
        prop_assert_eq!(&params.canonical(ratio, &format!("{figure:e}")).unwrap(), &plain);
        prop_assert_eq!(plain.parse::<f64>().unwrap(), figure);
    }

    /// Instants are the same exactly when they are the same moment, whatever the offset they are written in.
    #[test]
    fn instants_do_not_merge(second in 0..4_000_000_000_i64, hours in -12..=14_i8, nanosecond in 0..1_000_000_000_i32) {
        let params = everything(Unknown::Drop);
        let since = params.get("since").unwrap();
        let instant = jiff::Timestamp::new(second, nanosecond).unwrap();
        let offset = jiff::tz::Offset::from_hours(hours).unwrap();
        let spelled = instant.display_with_offset(offset).to_string();
        prop_assert_eq!(params.canonical(since, &spelled), Some(instant.to_string()), "{}", spelled);
        // The `+` of an offset that was not escaped.
        prop_assert_eq!(params.canonical(since, &spelled.replace('+', " ")), Some(instant.to_string()));
    }

    /// Any separators, an unescaped `+` or `00`: one number. Another digit: another number.
    #[test]
    fn phone_numbers_do_not_merge(digits in "[1-9][0-9]{7,13}", gaps in vec(select(vec!["", " ", "-", ".", " - "]), 14), at in 0..8_usize) {
        let params = messages_list();
        let phone = params.get("phone_number").unwrap();
        let canonical = format!("+{digits}");
        let spaced: String = digits.chars().zip(&gaps).map(|(digit, gap)| format!("{digit}{gap}")).collect();
        for spelled in [format!("+{spaced}"), format!(" {spaced}"), format!("00{spaced}"), format!("tel:+{spaced}"), spaced] {
            prop_assert_eq!(params.canonical(phone, &spelled), Some(canonical.clone()), "{}", spelled);
        }
        let mut changed = digits.into_bytes();
        changed[at] = if changed[at] == b'9' { b'8' } else { changed[at] + 1 };
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_ne!(params.canonical(phone, &changed), Some(canonical));
    }
}

/// A route of as many parameters as there may be: its own canonical query is within the limit of pairs.
#[test]
fn the_largest_route_reads_its_own_query() {
    let param = |n: usize| Param {
        name: format!("p{n}"),
        kind: Kind::Integer { min: None, max: None, below: Below::Clamp },
        default: Some(n.to_string()),
        on_ignored: OnIgnored::Refuse,
        window: true,
    };
    let params = Params::new((0..super::MAX_PAIRS).map(param).collect(), Unknown::Drop).unwrap();
    assert_settled(&params, &params.understand("p63=2.0&P1=x"));
}
