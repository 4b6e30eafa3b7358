//! What is sliceable, and the law of it: a window is what the upstream would have answered.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::exchange::Window;

const ADDRESS: Address<'static> =
    Address { base: "", path: "/m", query: "page=1&size=9&q=a%22b", window: ("page", "size"), walk: None };

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("is small")
}

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("is a pointer")
}

fn envelope(items: &str, members: &[(Role, &str)], follow: Follow) -> Shape {
    let members = members.iter().map(|(role, at)| (*role, pointer(at))).collect();
    Shape { items: Some(pointer(items)), members, follow, id: Some(pointer("/id")) }
}

fn array() -> Shape {
    Shape { id: Some(pointer("/id")), ..Shape::default() }
}

fn scan(shape: &Shape, body: &str) -> Result<Block, Unsliceable> {
    shape.scan(&Bytes::copy_from_slice(body.as_bytes()))
}

/// The window as bytes.
fn written(shape: &Shape, frame: &Block, runs: &[Run<'_>], place: &Place) -> Option<String> {
    let pieces = compose(shape, frame, runs, place, &ADDRESS, &Seen::default())?;
    Some(String::from_utf8(pieces.concat()).expect("is text"))
}

#[test]
fn items_are_found_where_they_stand() {
    for (body, items) in [
        ("[]", &[][..]),
        (" [ ] ", &[]),
        ("[1]", &["1"]),
        (
            " [ 1 , \"a,]\" ,\n{\"id\":\"x\\\"]\"},[[]], null ]\r\n",
            &["1", "\"a,]\"", "{\"id\":\"x\\\"]\"}", "[[]]", "null"],
        ),
        ("[\"é\",\"\\ud800\"]", &["\"é\"", "\"\\ud800\""]),
    ] {
        let block = scan(&array(), body).expect(body);
        let found: Vec<_> = (0..block.len()).map(|place| block.item(place)).collect();
        assert_eq!(found, items, "{body}");
        assert_eq!((block.item(items.len()), block.items(&(0..0))), ("", None));
        assert_eq!(block.items(&(0..items.len() + 1)), None, "{body}");
    }
    let block = scan(&array(), r#"[{"id":1},{"id":"1"},{},{"id":1.0}]"#).expect("is sliceable");
    assert_eq!(block.id_hash(0), Some(block::id_hash(b"1")));
    assert_ne!(block.id_hash(0), block.id_hash(1));
    assert_eq!(block.id_hash(2), None);
    assert_eq!(block.id(3, &pointer("/id")).as_deref(), Some(&b"1.0"[..]));
    assert_eq!(block.size() - size_of::<Block>() - block.body().len(), 8 * block.len());
}

#[test]
fn what_is_not_what_was_declared_is_not_sliced() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let data = envelope("/data", &[(Role::Total, "/total"), (Role::Constant, "/object")], Follow::Url);
    let nested = envelope("/a/data", &[(Role::More, "/a/more")], Follow::Url);
    let all = envelope("/data", &[(Role::Next, "/next"), (Role::Page, "/page")], Follow::Page);
    for (shape, body, why) in [
        (&array(), "", Unsliceable::NotJson),
        (&array(), "[1,2", Unsliceable::NotJson),
        (&array(), "[1,]", Unsliceable::NotJson),
        (&array(), "[1] x", Unsliceable::NotJson),
        (&array(), "[NaN]", Unsliceable::NotJson),
        (&array(), "[01]", Unsliceable::NotJson),
        (&array(), "[\"\n\"]", Unsliceable::NotJson),
        (&array(), "\u{feff}[]", Unsliceable::NotJson),
        (&array(), "{\"data\":[]}", Unsliceable::OtherShape),
        (&array(), "5", Unsliceable::OtherShape),
        (&array(), "null", Unsliceable::OtherShape),
        (&array(), &deep(200), Unsliceable::TooDeep),
        (&array(), &deep(100_000), Unsliceable::TooDeep),
        (&array(), &format!("[{}0]", "0,".repeat(shape::MOST_ITEMS)), Unsliceable::TooManyItems),
        (&data, "[]", Unsliceable::OtherShape),
        (&data, r#"{"data":{},"total":1,"object":0}"#, Unsliceable::OtherShape),
        (&data, r#"{"total":1,"object":0}"#, Unsliceable::OtherShape),
        (&data, r#"{"data":[],"total":1,"object":0,"x":1}"#, Unsliceable::Undeclared),
        (&data, r#"{"data":[],"total":1,"object":0,"d\u0061ta":[]}"#, Unsliceable::TwiceNamed),
        (&data, r#"{"data":[],"total":1,"total":1,"object":0}"#, Unsliceable::TwiceNamed),
        (&data, r#"{"data":[],"total":"1","object":0}"#, Unsliceable::OddMember),
        (&data, r#"{"data":[],"total":-1,"object":0}"#, Unsliceable::OddMember),
        (&data, r#"{"data":[],"total":1.5,"object":0}"#, Unsliceable::OddMember),
        (&nested, r#"{"a":{"data":[],"more":1}}"#, Unsliceable::OddMember),
        (&nested, r#"{"a":[]}"#, Unsliceable::OtherShape),
        (&nested, r#"{"a":{"data":[],"more":true},"a":1}"#, Unsliceable::TwiceNamed),
        (&all, r#"{"data":[],"next":"/x","page":1}"#, Unsliceable::OddMember),
        (&all, r#"{"data":[],"next":null,"page":null}"#, Unsliceable::OddMember),
    ] {
        let head: String = body.chars().take(60).collect();
        assert_eq!(scan(shape, body).err(), Some(why), "{head}");
    }
    assert_eq!(array().scan(&Bytes::from_static(b"[\"\xff\"]")).err(), Some(Unsliceable::NotJson));
    assert!(scan(&array(), &deep(128)).is_ok());
}

#[test]
fn what_an_envelope_says_is_read() {
    let shape = envelope("/data", &[(Role::Total, "/n"), (Role::Next, "/next")], Follow::Url);
    for (body, total, more) in [
        (r#"{"data":[],"n":5,"next":"http://x/?page=2"}"#, Some(5), Some(true)),
        (r#"{"next":null,"n":null,"data":[1]}"#, None, Some(false)),
    ] {
        let said = scan(&shape, body).expect(body).said();
        assert_eq!((said.total, said.more), (total, more), "{body}");
    }
}

/// An upstream that answers in every role, written as a program would write it.
fn answer(list: &[Value], page: u64, size: u64, follow: Follow) -> Value {
    let total = list.len() as u64;
    let pages = total.div_ceil(size);
    let items: Vec<_> = list.iter().skip(to_usize((page - 1) * size)).take(to_usize(size)).collect();
    let (from, to) = ((page - 1) * size + 1, (page - 1) * size + items.len() as u64);
    let leads = |there: bool, to: u64| match follow {
        Follow::Url if there => json!(format!("/m?page={to}&size={size}&q=a%22b")),
        Follow::Page if there => json!(to),
        Follow::Flag => json!(there),
        _ => Value::Null,
    };
    let more = page * size < total;
    let (first, last) = match follow {
        Follow::Flag => (json!(page == 1), json!(!more)),
        _ => (leads(true, 1), leads(true, pages.max(1))),
    };
    let none = items.is_empty();
    json!({
        "object": "list",
        "links": { "first": first, "prev": leads(page > 1, page - 1), "next": leads(more, page + 1), "last": last },
        "data": items,
        "meta": {
            "total": total, "count": items.len(), "page": page, "size": size, "pages": pages, "more": more,
            "from": if none { Value::Null } else { json!(from) },
            "to": if none { Value::Null } else { json!(to) },
        },
    })
}

fn everything(follow: Follow) -> Shape {
    let mut members = vec![(Role::Constant, "/object".to_owned())];
    for (word, role) in Role::NAMED {
        let parent = if role.leads() { "links" } else { "meta" };
        members.push((role, format!("/{parent}/{word}")));
    }
    let members: Vec<_> = members.iter().map(|(role, at)| (*role, at.as_str())).collect();
    envelope("/data", &members, follow)
}

fn items() -> impl Strategy<Value = Vec<Value>> {
    let text = prop_oneof![Just("é\"],[{\\".to_owned()), "\\PC{0,12}"];
    prop::collection::vec((any::<u32>(), text), 0..60)
        .prop_map(|list| list.into_iter().map(|(id, text)| json!({ "id": id, "text": text })).collect())
}

proptest! {
    /// Every window over the blocks of a list is, as JSON, the answer the upstream itself would have given to it.
    #[test]
    fn a_window_is_what_the_upstream_would_have_answered(
        list in items(), block in 1u64..30, size in 1u64..40, page in 1u64..5, way in 0usize..3, pretty: bool,
    ) {
        let follow = [Follow::Url, Follow::Page, Follow::Flag][way];
        let text = |value: &Value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let counting = Counting::default();
        let window = Window { page, size };
        let span = counting.span(window).expect("is one");
        let total = list.len() as u64;
        let (from, to) = (span.start.min(total), span.end.min(total));
        let needed = counting::blocks(&(from..to.max(from + 1)), block);
        for shape in [array(), everything(follow)] {
            let body = |page: u64, size: u64| {
                let whole = answer(&list, page, size, follow);
                if shape.items.is_some() { whole } else { whole["data"].clone() }
            };
            let blocks: Vec<_> = needed.clone().map(|number| {
                let body = text(&body(counting.window(number * block, block).page, block)).expect("is written");
                scan(&shape, &body).expect("is sliceable")
            }).collect();
            let runs: Vec<_> = blocks.iter().zip(needed.clone()).filter_map(|(held, number)| {
                let at = number * block;
                let (first, last) = (from.saturating_sub(at), to.saturating_sub(at).min(held.len() as u64));
                (first < last).then(|| Run { block: held, items: to_usize(first)..to_usize(last) })
            }).collect();
            let place = Place { counting, window, count: to - from, total: Some(total), more: span.end < total };
            let made = written(&shape, &blocks[0], &runs, &place).expect("all is known");
            let made: Value = serde_json::from_str(&made).expect("is JSON");
            prop_assert_eq!(made, body(page, size));
            // The same content has the same tag, and the tag is one.
            let made = tag(&shape, &blocks[0], &runs, &place, &ADDRESS, &Seen::default());
            prop_assert_eq!(&made, &tag(&shape, &blocks[0].clone(), &runs, &place, &ADDRESS, &Seen::default()));
            prop_assert_eq!(made.len(), 34);
        }
    }

    /// What was found is what serde_json finds, and no byte is copied.
    #[test]
    fn boundaries_are_those_of_a_parser(list in items(), pretty: bool) {
        let value = Value::Array(list.clone());
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let body = Bytes::from(text.expect("is written"));
        let block = array().scan(&body).expect("is sliceable");
        prop_assert_eq!(block.len(), list.len());
        for (place, item) in list.iter().enumerate() {
            prop_assert_eq!(&serde_json::from_str::<Value>(block.item(place)).expect("is JSON"), item);
        }
        for from in 0..list.len() {
            let run = block.items(&(from..list.len())).expect("is there");
            prop_assert!(body.as_ptr_range().contains(&run.as_ptr()));
            let run: Value = serde_json::from_str(&format!("[{}]", String::from_utf8_lossy(&run))).expect("is JSON");
            prop_assert_eq!(run, Value::Array(list[from..].to_vec()));
        }
    }

    /// Any bytes are sliceable or not, and whatever is sliced out of them is JSON.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select(b"[]{},:\"\\ 01dnullatrue".to_vec())], 0..60)) {
        let body = Bytes::from(bytes);
        for shape in [array(), envelope("/d", &[], Follow::Url)] {
            let Ok(block) = shape.scan(&body) else { continue };
            for place in 0..block.len() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(block.item(place)).is_ok());
            }
        }
    }
}

#[test]
fn a_window_that_needs_the_total_is_not_made_without_it() {
    let shape = envelope("/data", &[(Role::Pages, "/pages")], Follow::Url);
    let block = scan(&shape, r#"{"pages":7,"data":[1,2,3]}"#).expect("is sliceable");
    let place = |total| Place {
        counting: Counting::default(),
        window: Window { page: 1, size: 2 },
        count: 2,
        total,
        more: true,
    };
    let runs = [Run { block: &block, items: 0..2 }];
    assert_eq!(written(&shape, &block, &runs, &place(None)), None);
    assert_eq!(
        written(&shape, &block, &runs, &place(Some(3))).as_deref(),
        Some(r#"{"pages":2,"data":[1,2]}"#)
    );
    assert_eq!(
        written(&shape, &block, &[], &Place { count: 0, ..place(Some(0)) }).as_deref(),
        Some(r#"{"pages":7,"data":[]}"#)
    );
}

#[test]
fn tags_tell_windows_apart() {
    let shape = everything(Follow::Url);
    let list: Vec<_> = (0..10).map(|id| json!({ "id": id })).collect();
    let text = answer(&list, 1, 10, Follow::Url).to_string();
    let (block, again) = (scan(&shape, &text).expect("is one"), scan(&shape, &text).expect("is one"));
    let place = Place {
        counting: Counting::default(),
        window: Window { page: 1, size: 2 },
        count: 2,
        total: Some(10),
        more: true,
    };
    let of = |block: &Block, items: std::ops::Range<usize>, place: Place, address: &Address<'_>| {
        tag(&shape, block, &[Run { block, items }], &place, address, &Seen::default())
    };
    let one = of(&block, 0..2, place, &ADDRESS);
    assert_eq!(one, of(&again, 0..2, place, &ADDRESS));
    for other in [
        of(&block, 1..3, place, &ADDRESS),
        of(&block, 0..2, Place { total: Some(11), ..place }, &ADDRESS),
        of(&block, 0..2, place, &Address { walk: Some("t"), ..ADDRESS }),
    ] {
        assert_ne!(one, other);
    }
    // A bare array has no addresses in it.
    let bare = scan(&array(), "[1,2,3]").expect("is one");
    let runs = [Run { block: &bare, items: 0..2 }];
    let of = |address| tag(&array(), &bare, &runs, &place, address, &Seen::default());
    assert_eq!(of(&ADDRESS), of(&Address { walk: Some("t"), ..ADDRESS }));
}
