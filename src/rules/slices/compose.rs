//! The answer to a window, put together from slices of blocks: the body as the upstream would have written it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;

use bytes::Bytes;
use foldhash::quality::FixedState;
use http::header::{HeaderName, HeaderValue};

use super::address::Address;
use super::block::Block;
use super::counting::{self, Counting};
use super::envelope::{self, Change, Seen};
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
    pub(super) fn items(&self) -> Option<(u64, u64)> {
        let span = self.counting.span(self.window).filter(|_| self.count > 0)?;
        Some((span.start.saturating_add(1), span.start.saturating_add(self.count)))
    }

    /// Whether a member of this role has something to say; `None` for those that always have.
    pub(super) fn says(&self, role: Role) -> Option<bool> {
        Some(match role {
            Role::Next => self.next().is_some(),
            Role::Prev => self.prev().is_some(),
            Role::More => self.more,
            Role::From | Role::To => self.items().is_some(),
            _ => return None,
        })
    }

    /// What a response field of this role says; empty where there is nothing to say. `None` for what is not known.
    pub(super) fn field(&self, role: Role) -> Option<String> {
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
/// `place` does not, or where nobody knows whether the upstream would give it: what was `seen` of its envelopes says that.
pub fn compose(
    shape: &Shape,
    frame: &Block,
    runs: &[Run<'_>],
    place: &Place,
    address: &Address<'_>,
    seen: &Seen,
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
        Some(_) => envelope::envelope(shape, frame, place, address, Change::of(shape, frame, place, seen)?)?,
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

/// A strong tag of what [`compose`] makes of the same arguments (RFC 9110 §8.8.3): made from digests taken when the
/// blocks were stored, not from the bytes. Equal content has an equal tag unless another item of its blocks differs.
pub fn tag(
    shape: &Shape,
    frame: &Block,
    runs: &[Run<'_>],
    place: &Place,
    address: &Address<'_>,
    seen: &Seen,
) -> HeaderValue {
    let half = |seed: u64| {
        let mut hasher = FixedState::with_seed(seed).build_hasher();
        for run in runs {
            (run.block.digest, &run.items).hash(&mut hasher);
        }
        if shape.items.is_some() {
            (frame.skeleton, place.window.page, place.window.size).hash(&mut hasher);
            (place.count, place.total, place.more).hash(&mut hasher);
            Change::of(shape, frame, place, seen).hash(&mut hasher);
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
