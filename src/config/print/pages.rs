//! `[routes.pages]`, written back.

use super::{Page, duration, list, name, quote};
use crate::config::plan::Pages;
use crate::rules::params::Params;
use crate::rules::slices::{Counting, Follow, Role};

pub(super) fn describe(pages: &Pages, params: &Params, page: &mut Page) {
    page.header("[routes.pages]");
    match pages.counting {
        Counting::Pages { first } => {
            page.text("page", name(params, pages.page));
            page.line("first", first);
        }
        Counting::Items => page.text("offset", name(params, pages.page)),
    }
    page.text("size", name(params, pages.size));
    page.line("block", pages.block);
    let shape = &pages.shape;
    page.maybe("id", shape.id.as_ref().map(quote));
    page.maybe("items", shape.items.as_ref().map(quote));
    for (word, role) in Role::NAMED {
        let member = shape.members.iter().find(|(member, _)| *member == role);
        page.maybe(&format!("members.{word}"), member.map(|(_, at)| quote(at)));
    }
    let constant: Vec<_> = shape.members.iter().filter(|(role, _)| *role == Role::Constant).collect();
    let places = || list(constant.iter().map(|(_, at)| at));
    page.maybe("members.constant", (!constant.is_empty()).then(places));
    let words = [(Follow::Url, "url"), (Follow::Page, "page"), (Follow::Flag, "flag")];
    let word = words.iter().find(|(follow, _)| *follow == shape.follow).map_or("", |(_, word)| word);
    page.text("links", word);
    for (word, role) in Role::NAMED {
        let header = pages.headers.iter().find(|(header, _)| *header == role);
        page.maybe(&format!("headers.{word}"), header.map(|(_, name)| quote(name)));
    }
    page.maybe("settled_ttl", pages.settled_ttl.map(duration));
    page.line("max_blocks", pages.max_blocks);
    page.duration("walk_idle", pages.walk_idle);
    page.duration("walk_total", pages.walk_total);
}
