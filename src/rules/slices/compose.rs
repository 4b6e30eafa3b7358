//! The answer to a window, put together from slices of blocks: the body as the upstream would have written it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;

use bytes::Bytes;
use foldhash::quality::FixedState;
use http::header::{HeaderName, HeaderValue};

use super::address::Address;
use super::block::Block;
use super::counting::{self, Counting};
use super::shape::{Follow, Role, Shape};
use crate::model::exchange::Window;

/// Consecutive items of one block.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// The block.
    pub block: &'a Block,
    /// Which of its items; never none.
    pub items: Range<usize>,
}

/// Where a window stands in its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How windows are counted.
    pub counting: Counting,
    /// The window that is answered.
    pub window: Window,
    /// How many items it holds.
    pub count: u64,
    /// How many items there are in all, where that is known.
    pub total: Option<u64>,
    /// Whether there are items behind it.
    pub more: bool,
}

impl Place {
    /// The first window.
    pub fn first(&self) -> Window {
        self.counting.first(self.window.size)
    }

    /// The window before.
    pub fn prev(&self) -> Option<Window> {
        self.counting.prev(self.window)
    }

    /// The window behind, if anything is there.
    pub fn next(&self) -> Option<Window> {
        self.more.then(|| self.counting.next(self.window))
    }

    /// The last window, where it is known how many items there are.
    pub fn last(&self) -> Option<Window> {
        Some(self.counting.last(self.window.size, self.total?))
    }

    /// How many windows there are.
    fn pages(&self) -> Option<u64> {
        Some(counting::pages(self.window.size, self.total?))
    }

    /// The numbers of its first and last item, counted from 1.
    fn items(&self) -> Option<(u64, u64)> {
        let span = self.counting.span(self.window).filter(|_| self.count > 0)?;
        Some((span.start.saturating_add(1), span.start.saturating_add(self.count)))
    }

    /// What a response field of this role says; empty where there is nothing to say. `None` for what is not known.
    fn field(&self, role: Role) -> Option<String> {
        let number = |window: Option<Window>| window.map_or(String::new(), |window| window.page.to_string());
        Some(match role {
            Role::Total => self.total?.to_string(),
            Role::Count => self.count.to_string(),
            Role::Page => self.window.page.to_string(),
            Role::Size => self.window.size.to_string(),
            Role::Pages => self.pages()?.to_string(),
            Role::More => self.more.to_string(),
            Role::From => self.items().map_or(String::new(), |(from, _)| from.to_string()),
            Role::To => self.items().map_or(String::new(), |(_, to)| to.to_string()),
            Role::First => number(Some(self.first())),
            Role::Prev => number(self.prev()),
            Role::Next => number(self.next()),
            Role::Last => number(Some(self.last()?)),
            Role::Constant => return None,
        })
    }

    /// The declared response fields, for this window; those that cannot be told are left out.
    pub fn fields(&self, declared: &[(Role, HeaderName)]) -> Vec<(HeaderName, HeaderValue)> {
        let field = |(role, name): &(Role, HeaderName)| {
            Some((name.clone(), HeaderValue::try_from(self.field(*role)?).ok()?))
        };
        declared.iter().filter_map(field).collect()
    }
}

/// The body of a window: `runs` one after the other, in the envelope of `frame`. Its pieces are to be sent in order;
/// every item is a reference into its block. `None` where a declared member needs to know how many items there are, and
/// `place` does not.
pub fn compose(
    shape: &Shape,
    frame: &Block,
    runs: &[Run<'_>],
    place: &Place,
    address: &Address<'_>,
) -> Option<Vec<Bytes>> {
    // A window that is its block, asked as it was asked: nothing to put together.
    if let ([run], None) = (runs, &shape.items)
        && run.items == (0..run.block.len())
    {
        return Some(vec![run.block.body.clone()]);
    }
    let mut pieces = Vec::with_capacity(2 * runs.len() + 1);
    let (before, after) = match shape.items {
        None => (Bytes::from_static(b"["), Bytes::from_static(b"]")),
        Some(_) => envelope(shape, frame, place, address)?,
    };
    pieces.push(before);
    for (number, run) in runs.iter().enumerate() {
        if number > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(run.block.items(&run.items)?);
    }
    pieces.push(after);
    Some(pieces)
}

/// What stands before the first item and behind the last, written for `place`.
fn envelope(shape: &Shape, frame: &Block, place: &Place, address: &Address<'_>) -> Option<(Bytes, Bytes)> {
    let body = |span: Range<u32>| frame.body.get(span.start as usize..span.end as usize).unwrap_or_default();
    let (mut before, mut written) = (Vec::with_capacity(256), Vec::with_capacity(256));
    let mut at = 0;
    let mut list_is_behind = true;
    for slot in &frame.slots {
        if list_is_behind && slot.from > frame.list.start {
            written.extend_from_slice(body(at..frame.list.start));
            written.push(b'[');
            before = std::mem::take(&mut written);
            written.push(b']');
            (at, list_is_behind) = (frame.list.end, false);
        }
        written.extend_from_slice(body(at..slot.from));
        let own = body(slot.from..slot.to);
        match member(slot.role, shape.follow, frame, place, address)? {
            Some(value) => written.extend_from_slice(value.as_bytes()),
            None => written.extend_from_slice(own),
        }
        at = slot.to;
    }
    if list_is_behind {
        written.extend_from_slice(body(at..frame.list.start));
        written.push(b'[');
        before = std::mem::take(&mut written);
        written.push(b']');
        at = frame.list.end;
    }
    written.extend_from_slice(body(at..u32::try_from(frame.body.len()).ok()?));
    Some((before.into(), written.into()))
}

/// What a member says of `place`; `Some(None)` where it says what it said in `frame`, `None` where nobody knows.
fn member(
    role: Role,
    follow: Follow,
    frame: &Block,
    place: &Place,
    address: &Address<'_>,
) -> Option<Option<String>> {
    let nothing = || "null".to_owned();
    let leads = |window: Option<Window>| match (window, follow) {
        (window, Follow::Flag) => window.is_some().to_string(),
        (None, _) => nothing(),
        (Some(window), Follow::Url) => serde_json::Value::from(address.of(window)).to_string(),
        (Some(window), _) => window.page.to_string(),
    };
    // Of an empty collection the upstream has its own opinion how many pages it has; it said so.
    let empty = place.total == Some(0);
    Some(match role {
        Role::Constant => None,
        Role::Total if place.total.is_none() || place.total == frame.said.total => None,
        Role::Pages if empty => None,
        Role::Last if empty && follow == Follow::Page => None,
        Role::From | Role::To if place.items().is_none() => Some(nothing()),
        Role::First if follow == Follow::Flag => Some(place.prev().is_none().to_string()),
        Role::Last if follow == Follow::Flag => Some((!place.more).to_string()),
        Role::First => Some(leads(Some(place.first()))),
        Role::Prev => Some(leads(place.prev())),
        Role::Next => Some(leads(place.next())),
        Role::Last => Some(leads(Some(place.last()?))),
        other => Some(place.field(other)?),
    })
}

/// A strong tag of what [`compose`] makes of the same arguments (RFC 9110 §8.8.3): made from digests taken when the
/// blocks were stored, not from the bytes. Equal content has an equal tag unless another item of its blocks differs.
pub fn tag(
    shape: &Shape,
    frame: &Block,
    runs: &[Run<'_>],
    place: &Place,
    address: &Address<'_>,
) -> HeaderValue {
    let half = |seed: u64| {
        let mut hasher = FixedState::with_seed(seed).build_hasher();
        for run in runs {
            (run.block.digest, &run.items).hash(&mut hasher);
        }
        if shape.items.is_some() {
            (frame.skeleton, place.window.page, place.window.size).hash(&mut hasher);
            (place.count, place.total, place.more).hash(&mut hasher);
            let addresses = shape.follow == Follow::Url && shape.members.iter().any(|(role, _)| role.leads());
            addresses.then_some((address.base, address.path, address.query, address.walk)).hash(&mut hasher);
        }
        hasher.finish()
    };
    let mut text = *b"\"0123456789abcdef0123456789abcdef\"";
    let wide = (u128::from(half(1)) << 64) | u128::from(half(2));
    for (place, digit) in text.iter_mut().skip(1).take(32).enumerate() {
        let value = (wide >> (124 - 4 * place)) & 15;
        *digit = b"0123456789abcdef".get(usize::try_from(value).unwrap_or_default()).copied().unwrap_or(b'0');
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}
