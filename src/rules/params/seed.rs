//! The first upstream's own sentences on incorrect data, point by point, and the shipped declaration they are
//! tried on.

use super::{Bare, Below, Kind, OnIgnored, Param, Params, Rule, Understood, Unknown};

/// The parameters of the shipped `config.toml`.
pub(super) fn messages_list() -> Params {
    let window = |name: &str, default: &str, below| Param {
        name: name.into(),
        kind: Kind::Integer { min: Some(1), max: None, below },
        default: Some(default.into()),
        on_ignored: OnIgnored::Ignore,
        window: true,
    };
    let filter = |name: &str, kind| Param {
        name: name.into(),
        kind,
        default: None,
        on_ignored: OnIgnored::Ignore,
        window: false,
    };
    let of = ["conversation_id", "facebook_id", "email", "phone_number"];
    let declared = vec![
        window("page", "1", Below::Clamp),
        window("per_page", "50", Below::Default),
        filter("phone_number", Kind::Phone { bare: Bare::International, country: None }),
        filter("email", Kind::Email),
        filter("facebook_id", Kind::Prefixed { prefix: "fid_".into() }),
        filter("conversation_id", Kind::PrefixedUuid { prefix: "cid_".into() }),
        filter("contact", Kind::List { of: of.map(String::from).into() }),
    ];
    Params::new(declared, Unknown::Drop).unwrap_or_else(|error| unreachable!("{error}"))
}

fn understand(query: &str) -> Understood {
    messages_list().understand(query)
}

fn table(table: &[(&str, &str)]) {
    for &(raw, expected) in table {
        assert_eq!(understand(raw).query, expected, "{raw:?}");
    }
}

/// "If a parameter has the wrong value, we will try to understand it anyway."
#[test]
fn a_wrong_value_is_understood_anyway() {
    table(&[
        ("page=0", "page=1&per_page=50"),
        ("page=-3", "page=1&per_page=50"),
        ("per_page=0", "page=1&per_page=50"),
        ("per_page=-20", "page=1&per_page=50"),
        ("phone_number=0033612345678", "page=1&per_page=50&phone_number=%2B33612345678"),
        ("facebook_id=7", "page=1&per_page=50&facebook_id=fid_7"),
        (
            "conversation_id=0B6A1C1E95A24C3F8A1E0123456789AB",
            "page=1&per_page=50&conversation_id=cid_0b6a1c1e-95a2-4c3f-8a1e-0123456789ab",
        ),
    ]);
}

/// "If the parameter has the wrong type, we will try to format it"; "'cast' (convert) it so that it can be
/// understood".
#[test]
fn a_wrong_type_is_cast() {
    table(&[
        ("page=2.0", "page=2&per_page=50"),
        ("page=2.7", "page=2&per_page=50"),
        ("page=2e1", "page=20&per_page=50"),
        ("page=0x10", "page=16&per_page=50"),
        ("page=2abc", "page=2&per_page=50"),
        ("page=page2", "page=2&per_page=50"),
        ("page[]=3", "page=3&per_page=50"),
        ("page=99999999999999999999", "page=9223372036854775807&per_page=50"),
    ]);
}

/// "format it (delete prohibited characters for example)".
#[test]
fn prohibited_characters_are_deleted() {
    table(&[
        ("page=%222%22", "page=2&per_page=50"),
        ("page=%002%0A", "page=2&per_page=50"),
        ("page=%E2%80%8B2", "page=2&per_page=50"),
        ("page=1,000", "page=1000&per_page=50"),
        ("phone_number=%2B33+(0)6-12.34.56.78", "page=1&per_page=50&phone_number=%2B33612345678"),
        ("email=+%3Ca%40B.com%3E+", "page=1&per_page=50&email=a%40b.com"),
        ("facebook_id=%22fid_7%22", "page=1&per_page=50&facebook_id=fid_7"),
    ]);
}

/// "Thus, we have determined default values, which are indicated in our documentation."
#[test]
fn defaults_stand_in() {
    table(&[
        ("", "page=1&per_page=50"),
        ("page=", "page=1&per_page=50"),
        ("page", "page=1&per_page=50"),
        ("page=abc&per_page=many", "page=1&per_page=50"),
        ("page=1&per_page=50", "page=1&per_page=50"),
    ]);
    assert!(understand("").changes.is_empty(), "an absent window parameter is no change");
}

/// "If a parameter could not be recognized or 'fixed', we will ignore it, but your request will be sent."
#[test]
fn what_cannot_be_fixed_is_ignored_and_the_request_still_sent() {
    table(&[
        ("email=", "page=1&per_page=50"),
        ("email=nobody", "page=1&per_page=50"),
        ("phone_number=FLOWERS", "page=1&per_page=50"),
        ("phone_number=12", "page=1&per_page=50"),
        ("facebook_id=fid_", "page=1&per_page=50"),
        ("conversation_id=cid_7", "page=1&per_page=50"),
        ("contact=hello", "page=1&per_page=50"),
        ("utm_source=x&api-key=y", "page=1&per_page=50"),
        ("%FF%00=%FF&&&=&%", "page=1&per_page=50"),
    ]);
    let understood = understand("email=&utm_source=x");
    assert_eq!(understood.unknown, 1);
    assert_eq!(understood.unknown_names, ["utm_source"]);
    assert_eq!(understood.changes.iter().map(|c| c.rule).collect::<Vec<_>>(), [Rule::Ignored]);
}

/// The example of the design: many spellings, one ask.
#[test]
fn one_ask_in_many_spellings() {
    const CANONICAL: &str = "page=1&per_page=20&phone_number=%2B33612345678";
    table(&[
        ("per-page=20.0&PAGE=abc&phone_number=+33+6+12+34+56+78&utm_source=x&email=", CANONICAL),
        ("phoneNumber=%2B33612345678&perPage=20", CANONICAL),
        ("phone_number=+33612345678&per_page=%EF%BC%92%EF%BC%90", CANONICAL),
        (CANONICAL, CANONICAL),
    ]);
    assert!(understand(CANONICAL).changes.is_empty());
}

/// An exact spelling beats folded ones; within one spelling the last that can be understood wins.
#[test]
fn occurrences() {
    table(&[
        ("page=2&page=3", "page=3&per_page=50"),
        ("page=2&page=abc", "page=2&per_page=50"),
        ("page=2&PAGE=3", "page=2&per_page=50"),
        ("PAGE=3&page=2", "page=2&per_page=50"),
        ("page=abc&PAGE=3", "page=3&per_page=50"),
        ("Page=4&PAGE=3", "page=3&per_page=50"),
        ("PAGE=3&Page=4", "page=3&per_page=50"),
        ("p%61ge=3&PAGE=4", "page=3&per_page=50"),
        ("contact=a@b.c&contact[]=d@e.f", "page=1&per_page=50&contact=a%40b.c%2Cd%40e.f"),
        ("contact=d@e.f,a@b.c", "page=1&per_page=50&contact=a%40b.c%2Cd%40e.f"),
    ]);
    let rules = |query| understand(query).changes.iter().map(|c| c.rule).collect::<Vec<_>>();
    assert_eq!(rules("page=2&page=3"), [Rule::Duplicate]);
    assert_eq!(rules("page=2&page=2.0"), [Rule::Repeated, Rule::Reformatted]);
    assert_eq!(rules("page=abc&page=2"), [Rule::Ignored]);
    assert_eq!(rules("page=0&page=1"), [Rule::Clamped]);
}

/// Only declared names count towards the cap, and what is beyond it is told.
#[test]
fn limits() {
    let noise = "utm=x&".repeat(500);
    assert_eq!(understand(&format!("{noise}page=2")).query, "page=2&per_page=50");
    let many = "page=2&".repeat(64);
    let understood = understand(&format!("{many}page=3&email=a@b.c"));
    assert_eq!(understood.query, "page=2&per_page=50");
    assert_eq!(understood.changes.iter().filter(|c| c.rule == Rule::TooMany).count(), 2);
    let long = "a".repeat(4096);
    let understood = understand(&format!("email={long}@b.c"));
    assert_eq!(
        (understood.query.as_str(), understood.changes[0].rule),
        ("page=1&per_page=50", Rule::TooLong)
    );
    assert_eq!(understood.changes[0].from.len(), 64);
    // With its prefix it would be too long to be read back.
    assert_eq!(understand(&format!("facebook_id={long}")).query, "page=1&per_page=50");
}
