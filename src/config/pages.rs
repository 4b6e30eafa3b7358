//! `[routes.pages]`: how a route's answers are paged, and what stands around their items.

use std::time::Duration;

use http::HeaderName;

use super::mistakes::Wrong;
use super::params::{self, Declaration};
use super::plan::Pages;
use super::reader::{Item, Table};
use super::values;
use crate::rules::params::Kind;
use crate::rules::slices::{Counting, Follow, Pointer, Role, Shape};

/// `[routes.pages]` before the parameters are known.
pub(super) struct PageNames<'a> {
    /// The parameter that says the page, or the items before it.
    pub(super) page: Option<Item<'a>>,
    /// The parameter that says the size.
    pub(super) size: Option<Item<'a>>,
    counting: Counting,
    block: u32,
    shape: Shape,
    headers: Vec<(Role, HeaderName)>,
    settled_ttl: Option<Duration>,
    max_blocks: u32,
    walk_idle: Duration,
    walk_total: Duration,
}

/// The most blocks that one request may cause to be asked for, where the route does not say.
const MAX_BLOCKS: u32 = 4;
/// How long a walk may pause.
const WALK_IDLE: Duration = Duration::from_secs(30);
/// How long a walk may last.
const WALK_TOTAL: Duration = Duration::from_secs(5 * 60);

/// Reads what does not depend on the parameters.
pub(super) fn read(mut table: Table<'_>) -> PageNames<'_> {
    let (page, offset) = (table.item("page"), table.item("offset"));
    let first = table.item("first");
    let counting = match (&page, &offset) {
        (Some(_), Some(item)) => {
            item.tell(Wrong::new("stands beside `page`", "one of the two"));
            Counting::Items
        }
        (None, Some(_)) => {
            if let Some(item) = &first {
                item.tell(Wrong::new("is the number of the first page", "`page`; an offset begins at 0"));
            }
            Counting::Items
        }
        (..) => {
            if page.is_none() {
                let expected =
                    "the name of the parameter that says the page, or `offset` for the items before it";
                table.missing("page", expected);
            }
            let first = first.and_then(|item| item.read(values::count(0..=1)));
            Counting::Pages { first: first.unwrap_or(1) }
        }
    };
    let size = table.item("size");
    if size.is_none() {
        table.missing("size", "the name of the parameter that says the size");
    }
    let names = PageNames {
        page: page.or(offset),
        size,
        counting,
        block: table.or("block", 100, values::count(1..=100_000)),
        shape: shape(&mut table),
        headers: table.take("headers", headers).unwrap_or_default(),
        settled_ttl: table.take("settled_ttl", values::duration),
        max_blocks: table.or("max_blocks", MAX_BLOCKS, values::count(1..=1000)),
        walk_idle: table.or("walk_idle", WALK_IDLE, values::duration),
        walk_total: table.or("walk_total", WALK_TOTAL, values::duration),
    };
    table.finish();
    names
}

fn shape(table: &mut Table<'_>) -> Shape {
    let items = table.take("items", |item| pointer(item, "/data"));
    let links = [("url", Follow::Url), ("page", Follow::Page), ("flag", Follow::Flag)];
    let members_item = table.item("members");
    let members = members_item.as_ref().and_then(|item| item.read(members)).unwrap_or_default();
    if let Some(item) = members_item.filter(|_| items.is_none() && !table.has("items")) {
        item.tell(Wrong::new(
            "stand around items that are nowhere",
            "`items` beside it, such as items = \"/data\"",
        ));
    }
    let shape = Shape {
        follow: table.or("links", Follow::default(), values::word(&links)),
        id: table.take("id", |item| pointer(item, "/message_id")),
        items,
        members,
    };
    let places: Vec<_> = shape.items.iter().chain(shape.members.iter().map(|(_, at)| at)).collect();
    for (number, place) in places.iter().enumerate() {
        let holds = |other: &&&Pointer| other.is_within(place);
        let others = places.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, at)| at);
        if let Some(other) = others.into_iter().find(holds) {
            let what = format!(
                "{} lies within {}",
                values::quoted(&other.to_string()),
                values::quoted(&place.to_string())
            );
            table.notes.tell(&table.at, &table.path, Wrong::new(what, "places that are apart"));
            break;
        }
    }
    shape
}

fn pointer(item: &Item<'_>, example: &str) -> Result<Pointer, Wrong> {
    values::pointer(item.text(&format!("a JSON pointer such as \"{example}\""))?, example)
}

/// `{ total = "/total", next = "/links/next", constant = ["/object"] }`
fn members(item: &Item<'_>) -> Result<Vec<(Role, Pointer)>, Wrong> {
    let mut table = item.table("roles and pointers, such as { total = \"/total\", next = \"/next\" }")?;
    let mut members = Vec::new();
    for (word, role) in Role::NAMED {
        members.extend(table.take(word, |item| Ok((role, pointer(item, "/total")?))));
    }
    let expected = "a list of JSON pointers such as [\"/object\"]";
    let constant = table.take("constant", |item| item.list(expected, |item| pointer(item, "/object")));
    members.extend(constant.into_iter().flatten().map(|at| (Role::Constant, at)));
    table.finish();
    Ok(members)
}

/// `{ total = "x-total-count" }`
fn headers(item: &Item<'_>) -> Result<Vec<(Role, HeaderName)>, Wrong> {
    let mut table = item.table("roles and header names, such as { total = \"x-total-count\" }")?;
    let mut headers = Vec::new();
    for (word, role) in Role::NAMED {
        let name = table.take(word, |item| values::header_name(item.text("a header name")?));
        headers.extend(name.map(|name| (role, name)));
    }
    table.finish();
    Ok(headers)
}

impl PageNames<'_> {
    /// With the parameters known.
    pub(super) fn resolve(self, declaration: Option<&Declaration>) -> Option<Pages> {
        let page = self.page.and_then(|item| item.read(|item| window(item, declaration)));
        let size = self.size.and_then(|item| {
            let size = item.read(|item| window(item, declaration))?;
            if page == Some(size) {
                item.tell(Wrong::new("is the parameter that says the page", "another one"));
            }
            Some(size)
        });
        Some(Pages {
            page: page?,
            size: size?,
            counting: self.counting,
            block: self.block,
            shape: self.shape,
            headers: self.headers,
            settled_ttl: self.settled_ttl,
            max_blocks: self.max_blocks,
            walk_idle: self.walk_idle,
            walk_total: self.walk_total,
        })
    }
}

/// The place of an integer parameter with a default: it is always sent, so it always needs a value.
fn window(item: &Item<'_>, declaration: Option<&Declaration>) -> Result<usize, Wrong> {
    let name = params::declared(item, declaration)?;
    let params = declaration.map(|declaration| &declaration.params);
    let place = params.and_then(|params| params.names().position(|declared| declared == name));
    let param = place.and_then(|place| params?.param(place));
    match (place, param) {
        (Some(place), Some(param)) if matches!(param.kind, Kind::Integer { .. }) => {
            if param.default.is_none() {
                let what = format!("parameter `{name}` has no default and is always sent");
                return Err(Wrong::new(what, "default = … in its declaration"));
            }
            Ok(place)
        }
        _ => Err(Wrong::new(format!("parameter `{name}` is no integer"), "a parameter of type integer")),
    }
}
