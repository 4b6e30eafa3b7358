//! Where the windows around an answer are found: the addresses that `Link` and an envelope's members name.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};

use super::compose::Place;
use crate::model::exchange::Window;

/// The parameter that names a walk. It belongs to the gate: no upstream receives it.
pub const WALK: &str = "tollgate_walk";

/// The address a window was asked at, without the window.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// What stands before the path: `public_url`, or nothing, which makes addresses relative.
    pub base: &'a str,
    /// The path as clients ask for it.
    pub path: &'a str,
    /// The canonical query, page and size in it.
    pub query: &'a str,
    /// The names of the parameters that say page and size, as the query writes them.
    pub window: (&'a str, &'a str),
    /// The walk's token, if it has one.
    pub walk: Option<&'a str>,
}

impl Address<'_> {
    /// Where `window` is found.
    pub fn of(&self, window: Window) -> String {
        let query = with_window(self.query, self.window, window);
        // "//x" would name a host (RFC 3986 §4.2).
        let guard = if self.base.is_empty() && self.path.starts_with("//") { "/." } else { "" };
        let mut target = format!("{}{guard}{}?{query}", self.base, self.path);
        if let Some(token) = self.walk {
            // Writing to a String does not fail.
            let _ = write!(target, "&{WALK}={token}");
        }
        target
    }

    /// `Link` with `first`, `prev`, `next` and `last` (RFC 8288), as far as they are known and there.
    pub fn links(&self, place: &Place) -> Links {
        let windows = [
            ("first", Some(place.first())),
            ("prev", place.prev()),
            ("next", place.next()),
            ("last", place.last()),
        ];
        let unwalked = Address { walk: None, ..*self };
        let (mut pieces, mut piece) = (Vec::with_capacity(5), String::from("<"));
        for (relation, window) in windows {
            let Some(window) = window else { continue };
            if !pieces.is_empty() {
                piece.push_str(", <");
            }
            let _ = write!(piece, "{}&{WALK}=", unwalked.of(window));
            pieces.push(piece.into_boxed_str());
            piece = format!(">; rel=\"{relation}\"");
        }
        pieces.push(piece.into_boxed_str());
        Links(pieces.into())
    }
}

/// A `Link` that lacks its walk's token: between each two of these pieces.
#[derive(Debug)]
pub struct Links(Box<[Box<str>]>);

impl Links {
    /// The field's value, with the token of a walk in every address.
    pub fn value(&self, token: &[u8]) -> Option<HeaderValue> {
        let mut value = Vec::with_capacity(self.size() + self.0.len() * token.len());
        for (place, piece) in self.0.iter().enumerate() {
            value.extend_from_slice(if place > 0 { token } else { b"" });
            value.extend_from_slice(piece.as_bytes());
        }
        HeaderValue::from_maybe_shared(Bytes::from(value)).ok()
    }

    /// How many bytes its text has.
    pub fn size(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }
}

/// `query`, which is canonical, with another window in it.
pub fn with_window(query: &str, (page, size): (&str, &str), window: Window) -> String {
    let mut written = String::with_capacity(query.len() + 24);
    for (place, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let pair = match pair.split_once('=') {
            Some((name, _)) if name == page => Cow::Owned(format!("{name}={}", window.page)),
            Some((name, _)) if name == size => Cow::Owned(format!("{name}={}", window.size)),
            _ => Cow::Borrowed(pair),
        };
        written.push_str(if place > 0 { "&" } else { "" });
        written.push_str(&pair);
    }
    written
}

/// Whether a response's `Link` leads to a next page; `None` where it has no `Link`.
pub fn leads_on(headers: &HeaderMap) -> Option<bool> {
    let mut links = headers.get_all(header::LINK).iter().peekable();
    links.peek()?;
    Some(links.filter_map(|link| link.to_str().ok()).any(names_next))
}

/// Whether a list of links has one with `rel=next`. Addresses stand between `<` and `>`, so no comma of theirs matters.
fn names_next(links: &str) -> bool {
    let params = links
        .split('<')
        .filter_map(|link| link.split_once('>'))
        .flat_map(|(_, params)| params.split([';', ',']));
    let mut relations = params.filter_map(|param| param.split_once('='));
    relations.any(|(name, value)| {
        let relation = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relation.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::slices::Counting;

    const ADDRESS: Address<'static> = Address {
        base: "",
        path: "/messages",
        query: "page=1&per_page=20&email=a%26b%40c",
        window: ("page", "per_page"),
        walk: None,
    };

    #[test]
    fn addresses_are_relative_unless_told_where_the_gate_is() {
        let window = Window { page: 3, size: 10 };
        assert_eq!(ADDRESS.of(window), "/messages?page=3&per_page=10&email=a%26b%40c");
        let address = Address { base: "https://gate.example", walk: Some("t0k"), ..ADDRESS };
        let of = address.of(window);
        assert_eq!(of, "https://gate.example/messages?page=3&per_page=10&email=a%26b%40c&tollgate_walk=t0k");
        assert_eq!(
            Address { path: "//x", query: "page=1&per_page=2", ..ADDRESS }.of(window),
            "/.//x?page=3&per_page=10"
        );
    }

    #[test]
    fn links_name_the_windows_around() {
        let place = |page, total, more| Place {
            counting: Counting::Pages { first: 1 },
            window: Window { page, size: 20 },
            count: 20,
            total,
            more,
        };
        let to =
            |page: u64, relation: &str| format!("</m?p={page}&s=20&tollgate_walk=t0k>; rel=\"{relation}\"");
        let address = Address { path: "/m", query: "p=9&s=9", window: ("p", "s"), ..ADDRESS };
        for (place, relations) in [
            (place(1, Some(50), true), vec![to(1, "first"), to(2, "next"), to(3, "last")]),
            (place(2, None, true), vec![to(1, "first"), to(1, "prev"), to(3, "next")]),
            (place(3, Some(50), false), vec![to(1, "first"), to(2, "prev"), to(3, "last")]),
        ] {
            let link = address.links(&place).value(b"t0k").expect("is a field");
            assert_eq!(link.to_str().expect("is text"), relations.join(", "));
        }
    }

    #[test]
    fn a_next_page_is_heard_of() {
        for (links, leads) in [
            (&[][..], None),
            (&["<https://x/?a=1,2;rel=next>; rel=\"prev\""], Some(false)),
            (&["<a>; rel=\"first\", <b>; title=\"x\"; REL=\"Next last\""], Some(true)),
            (&["<a>; rel=prev", "<b>;rel=next"], Some(true)),
            (&["rel=next"], Some(false)),
            (&[""], Some(false)),
        ] {
            let links = links.iter().map(|link| (header::LINK, HeaderValue::from_static(link)));
            assert_eq!(leads_on(&links.collect()), leads);
        }
    }
}
