//! What a route declares its answers to look like, and the scanner that holds a body to it.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Unsliceable;
use super::block::{Block, Said, Slot, digest, id_hash};
use super::envelope::Roles;
use super::pointer::Pointer;

/// How deep a body may be nested: as deep as serde_json builds trees, and deeper than any list of messages.
pub const MOST_NESTING: usize = 128;
/// The most items of one body: what is kept of each must stay small beside the largest entry.
pub const MOST_ITEMS: usize = 1 << 18;

/// Where items lie and what stands around them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    /// Where the array of items is; `None`: the body is that array.
    pub items: Option<Pointer>,
    /// What else stands around it, each at a place of its own.
    pub members: Vec<(Role, Pointer)>,
    /// How the members that lead to other windows are written.
    pub follow: Follow,
    /// Where an item names itself.
    pub id: Option<Pointer>,
}

/// What a member of an envelope says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// How many items there are in all.
    Total,
    /// How many items this answer has.
    Count,
    /// The page, or the number of items before it.
    Page,
    /// The size asked for.
    Size,
    /// How many pages there are in all.
    Pages,
    /// Whether there is more behind it.
    More,
    /// The number of its first item, counted from 1.
    From,
    /// The number of its last item, counted from 1.
    To,
    /// The first page.
    First,
    /// The page before it.
    Prev,
    /// The page behind it.
    Next,
    /// The last page.
    Last,
    /// The same in every window.
    Constant,
}

impl Role {
    /// All that configuration names one by one, with their words.
    pub const NAMED: [(&'static str, Self); 12] = [
        ("total", Self::Total),
        ("count", Self::Count),
        ("page", Self::Page),
        ("size", Self::Size),
        ("pages", Self::Pages),
        ("more", Self::More),
        ("from", Self::From),
        ("to", Self::To),
        ("first", Self::First),
        ("prev", Self::Prev),
        ("next", Self::Next),
        ("last", Self::Last),
    ];

    /// Whether it leads to another window.
    pub fn leads(self) -> bool {
        matches!(self, Self::First | Self::Prev | Self::Next | Self::Last)
    }
}

/// How `first`, `prev`, `next` and `last` are written; where there is none, they are `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Follow {
    /// As an address.
    #[default]
    Url,
    /// As the number of a page.
    Page,
    /// As `true` or `false`: whether this is the first or the last page, whether there is one before or behind it.
    Flag,
}

impl Shape {
    /// Finds the items of `body`.
    ///
    /// # Errors
    /// Why windows cannot be cut from it.
    pub fn scan(&self, body: &Bytes) -> Result<Block, Unsliceable> {
        if u32::try_from(body.len()).is_err() {
            return Err(Unsliceable::TooLong);
        }
        // The whole is validated before anything is believed of a part of it.
        let whole: &RawValue = serde_json::from_slice(body).map_err(|_| Unsliceable::NotJson)?;
        if nesting(body) > MOST_NESTING {
            return Err(Unsliceable::TooDeep);
        }
        let mut found = Found { origin: body.as_ptr() as usize, ..Found::default() };
        match &self.items {
            None => found.items = Some(whole.get()),
            Some(_) => self.walk(whole.get(), &mut Vec::new(), &mut found)?,
        }
        let items = found.items.ok_or(Unsliceable::OtherShape)?;
        let list = found.place(items)?;
        let spans = spans(items, list.0)?;
        let mut starts = Vec::with_capacity(spans.0.len());
        let mut ids = Vec::with_capacity(self.id.as_ref().map_or(0, |_| spans.0.len()));
        for item in spans.0 {
            starts.push(found.place(item)?.0);
            ids.extend(self.id.as_ref().map(|at| at.id(item).map_or(0, |id| id_hash(&id))));
        }
        found.slots.sort_unstable_by_key(|slot| slot.from);
        let said = self.said(&found)?;
        let end = spans.1;
        let first = starts.first().copied().unwrap_or(end);
        Ok(Block {
            skeleton: skeleton(body, &found.slots, list),
            digest: digest(body.get(first as usize..end as usize).unwrap_or_default()),
            body: body.clone(),
            starts: starts.into(),
            ids: ids.into(),
            list: list.0..list.1,
            end,
            given: found.slots.iter().fold(Roles::default(), |given, slot| given.and(slot.role)),
            slots: found.slots.into(),
            said,
        })
    }

    /// Walks an object around the items, every member of which must be declared.
    fn walk<'a>(
        &self,
        json: &'a str,
        path: &mut Vec<String>,
        found: &mut Found<'a>,
    ) -> Result<(), Unsliceable> {
        let mut names = HashSet::new();
        for (name, value) in members(json)? {
            if !names.insert(name.clone()) {
                return Err(Unsliceable::TwiceNamed);
            }
            path.push(name);
            self.take(value, path, found)?;
            path.pop();
        }
        Ok(())
    }

    fn take<'a>(
        &self,
        json: &'a str,
        path: &mut Vec<String>,
        found: &mut Found<'a>,
    ) -> Result<(), Unsliceable> {
        let is_at = |pointer: &Pointer| {
            pointer.names().iter().map(|name| &**name).eq(path.iter().map(|name| &**name))
        };
        let leads_to = |pointer: &Pointer| {
            let mut names = pointer.names().iter().map(|name| &**name);
            path.iter().all(|name| names.next() == Some(name))
        };
        if self.items.as_ref().is_some_and(is_at) {
            found.items = Some(json);
            return Ok(());
        }
        if let Some((role, _)) = self.members.iter().find(|(_, pointer)| is_at(pointer)) {
            let (from, to) = found.place(json)?;
            found.slots.push(Slot { role: *role, from, to });
            found.values.push((*role, json));
            return Ok(());
        }
        let declared = self.items.iter().chain(self.members.iter().map(|(_, pointer)| pointer));
        if declared.into_iter().any(leads_to) {
            return self.walk(json, path, found);
        }
        Err(Unsliceable::Undeclared)
    }

    /// What the members say, each of the kind its role needs.
    fn said(&self, found: &Found<'_>) -> Result<Said, Unsliceable> {
        let mut said = Said::default();
        let mut constants = Vec::new();
        for (role, json) in &found.values {
            let number: Option<u64> = json.parse().ok();
            let null = *json == "null";
            let fits = match role {
                Role::Total => {
                    said.total = number;
                    null || number.is_some()
                }
                Role::More => {
                    said.more = json.parse().ok();
                    said.more.is_some()
                }
                Role::Count | Role::Page | Role::Size | Role::Pages => number.is_some(),
                Role::From | Role::To => null || number.is_some(),
                Role::Constant => {
                    constants.extend_from_slice(json.as_bytes());
                    constants.push(b'\n');
                    true
                }
                Role::First | Role::Prev | Role::Next | Role::Last => match self.follow {
                    Follow::Url => null || json.starts_with('"'),
                    Follow::Page => null || number.is_some(),
                    Follow::Flag => json.parse::<bool>().is_ok(),
                },
            };
            if !fits {
                return Err(Unsliceable::OddMember);
            }
            if *role == Role::Next && said.more.is_none() {
                said.more = Some(!null && *json != "false");
            }
        }
        said.constants = if constants.is_empty() { 0 } else { digest(&constants) };
        Ok(said)
    }
}

/// A digest of the envelope around the list at `list`, without the members that change from window to window.
fn skeleton(body: &[u8], slots: &[Slot], list: (u32, u32)) -> u128 {
    let changing = slots.iter().filter(|slot| slot.role != Role::Constant).map(|slot| (slot.from, slot.to));
    let mut cuts: Vec<_> = changing.chain([list]).collect();
    cuts.sort_unstable();
    let (mut kept, mut at) = (Vec::new(), 0);
    for (from, to) in cuts {
        kept.extend_from_slice(body.get(at..from as usize).unwrap_or_default());
        kept.push(0);
        at = to as usize;
    }
    kept.extend_from_slice(body.get(at..).unwrap_or_default());
    digest(&kept)
}

/// What a walk has found.
#[derive(Debug, Default)]
struct Found<'a> {
    /// Where the body begins in memory: places are counted from there.
    origin: usize,
    items: Option<&'a str>,
    slots: Vec<Slot>,
    values: Vec<(Role, &'a str)>,
}

impl Found<'_> {
    /// Where a part of the body begins and ends in it.
    fn place(&self, part: &str) -> Result<(u32, u32), Unsliceable> {
        let from = (part.as_ptr() as usize).checked_sub(self.origin).ok_or(Unsliceable::NotJson)?;
        let place = |at: usize| u32::try_from(at).map_err(|_| Unsliceable::TooLong);
        Ok((place(from)?, place(from + part.len())?))
    }
}

/// The items of an array that begins at `origin` of its body, and where the last of them ends there.
fn spans(json: &str, origin: u32) -> Result<(Vec<&str>, u32), Unsliceable> {
    if !json.starts_with('[') {
        return Err(Unsliceable::OtherShape);
    }
    let items = serde_json::Deserializer::from_str(json).deserialize_seq(Items);
    let items = items.map_err(|_| Unsliceable::TooManyItems)?;
    let last = items.last().map_or(1, |last| (last.as_ptr() as usize - json.as_ptr() as usize) + last.len());
    let end =
        u32::try_from(last).ok().and_then(|last| last.checked_add(origin)).ok_or(Unsliceable::TooLong)?;
    Ok((items, end))
}

/// The members of an object, in order.
pub(super) fn members(json: &str) -> Result<Vec<(String, &str)>, Unsliceable> {
    if !json.starts_with('{') {
        return Err(Unsliceable::OtherShape);
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Members).map_err(|_| Unsliceable::NotJson)
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MOST_ITEMS} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&RawValue>()? {
            if items.len() == MOST_ITEMS {
                return Err(serde::de::Error::invalid_length(items.len() + 1, &self));
            }
            items.push(item.get());
        }
        Ok(items)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            members.push((name, value.get()));
        }
        Ok(members)
    }
}

/// How deep `json`, which is valid, is nested.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut rest = json;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => rest = behind_string(rest),
            _ => {}
        }
    }
    deepest
}

/// What follows the string that `json` is in the middle of.
fn behind_string(json: &[u8]) -> &[u8] {
    let mut rest = json;
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let escaped = rest.get(at) == Some(&b'\\');
        rest = rest.get(at + if escaped { 2 } else { 1 }..).unwrap_or_default();
        if !escaped {
            return rest;
        }
    }
    &[]
}
