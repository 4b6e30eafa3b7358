//! What stands around the items of a window: a block's envelope, told anew for the window.
//!
//! A member that a block lacks is left out, unless it is one that upstreams give only where it has something to say, such
//! as `next`: then it is written where this upstream was seen to write it, and left out where it was seen to leave it
//! out. Where neither was seen, nobody knows what the upstream would answer.

use std::ops::Range;

use bytes::Bytes;

use super::address::Address;
use super::block::Block;
use super::compose::Place;
use super::shape::{Follow, Role, Shape, members};
use crate::model::exchange::Window;

/// Some of the roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Roles(u16);

/// What was seen of an upstream's envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    /// Members that were there.
    pub given: Roles,
    /// Members that were not there, and had nothing to say.
    pub omitted: Roles,
    /// Members that were not there although there was something to say.
    pub silent: Roles,
}

/// How an envelope is to differ from its block's in the members it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Change {
    without: Roles,
    with: Roles,
}

impl Roles {
    /// With one more.
    #[must_use]
    pub fn and(self, role: Role) -> Self {
        Self(self.0 | bit(role))
    }

    /// Those of either.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether a role is among them.
    pub fn has(self, role: Role) -> bool {
        self.0 & bit(role) != 0
    }
}

/// Every role but that of constants has one.
fn bit(role: Role) -> u16 {
    let place = Role::NAMED.iter().position(|(_, named)| *named == role);
    place.map_or(0, |place| 1 << place)
}

impl Seen {
    /// With what was seen elsewhere.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            given: self.given.or(other.given),
            omitted: self.omitted.or(other.omitted),
            silent: self.silent.or(other.silent),
        }
    }
}

impl Change {
    /// What is to change in the envelope of `frame` for `place`; `None` where nobody knows.
    pub(super) fn of(shape: &Shape, frame: &Block, place: &Place, seen: &Seen) -> Option<Self> {
        let mut change = Self::default();
        for (role, _) in &shape.members {
            let has = frame.given.has(*role);
            match place.says(*role) {
                Some(false) if has && seen.omitted.has(*role) => change.without = change.without.and(*role),
                Some(true) if !has && seen.given.has(*role) => change.with = change.with.and(*role),
                Some(true) if !has && !seen.silent.has(*role) => return None,
                _ => {}
            }
        }
        Some(change)
    }
}

/// What stands before the first item and behind the last, written for `place`. `None` where a member needs to know what
/// is not known.
pub(super) fn envelope(
    shape: &Shape,
    frame: &Block,
    place: &Place,
    address: &Address<'_>,
    change: Change,
) -> Option<(Bytes, Bytes)> {
    let told = |role| member(role, shape.follow, frame, place, address);
    if change == Change::default() {
        as_it_came(frame, told)
    } else {
        Writer::new(shape, change, told).write(frame)
    }
}

/// The envelope of `frame` with the values of its members changed, and every other byte as it came.
fn as_it_came(frame: &Block, told: impl Fn(Role) -> Option<Option<String>>) -> Option<(Bytes, Bytes)> {
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
        match told(slot.role)? {
            Some(value) => written.extend_from_slice(value.as_bytes()),
            None => written.extend_from_slice(body(slot.from..slot.to)),
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

/// Writes an envelope that has other members than its block's.
struct Writer<'a, T> {
    shape: &'a Shape,
    change: Change,
    told: T,
    written: Vec<u8>,
    before: Option<Vec<u8>>,
    /// Which members were added.
    added: Roles,
}

impl<'a, T: Fn(Role) -> Option<Option<String>>> Writer<'a, T> {
    fn new(shape: &'a Shape, change: Change, told: T) -> Self {
        Self { shape, change, told, written: Vec::with_capacity(256), before: None, added: Roles::default() }
    }

    fn write(mut self, frame: &Block) -> Option<(Bytes, Bytes)> {
        let list = frame.list.start as usize..frame.list.end as usize;
        let around = [frame.body.get(..list.start)?, b"[]", frame.body.get(list.end..)?].concat();
        self.object(std::str::from_utf8(&around).ok()?, &mut Vec::new())?;
        // What should stand in an object that is not there has no place.
        (self.added == self.change.with).then_some(())?;
        Some((self.before?.into(), self.written.into()))
    }

    fn object(&mut self, json: &str, path: &mut Vec<String>) -> Option<()> {
        self.written.push(b'{');
        let mut empty = true;
        for (name, value) in members(json).ok()? {
            path.push(name);
            self.named(value, path, &mut empty)?;
            path.pop();
        }
        for (role, at) in &self.shape.members {
            let Some((name, parent)) = at.names().split_last() else { continue };
            if self.change.with.has(*role) && is_at(parent, path) {
                let value = (self.told)(*role)??;
                self.name(name, &mut empty)?;
                self.written.extend_from_slice(value.as_bytes());
                self.added = self.added.and(*role);
            }
        }
        self.written.push(b'}');
        Some(())
    }

    /// A member, at `path`.
    fn named(&mut self, value: &str, path: &mut Vec<String>, empty: &mut bool) -> Option<()> {
        let role = self.shape.members.iter().find(|(_, at)| is_at(at.names(), path)).map(|(role, _)| *role);
        if role.is_some_and(|role| self.change.without.has(role)) {
            return Some(());
        }
        self.name(path.last()?, empty)?;
        let told = role.map_or(Some(None), |role| (self.told)(role))?;
        if self.shape.items.as_ref().is_some_and(|at| is_at(at.names(), path)) {
            self.written.push(b'[');
            self.before = Some(std::mem::take(&mut self.written));
            self.written.push(b']');
        } else if let Some(told) = told {
            self.written.extend_from_slice(told.as_bytes());
        } else if role.is_some() {
            self.written.extend_from_slice(value.as_bytes());
        } else {
            self.object(value, path)?;
        }
        Some(())
    }

    fn name(&mut self, name: &str, empty: &mut bool) -> Option<()> {
        if !std::mem::replace(empty, false) {
            self.written.push(b',');
        }
        serde_json::to_writer(&mut self.written, name).ok()?;
        self.written.push(b':');
        Some(())
    }
}

/// Whether a pointer of these names leads to `path`.
fn is_at(names: &[Box<str>], path: &[String]) -> bool {
    names.iter().map(|name| &**name).eq(path.iter().map(String::as_str))
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
