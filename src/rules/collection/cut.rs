//! A window as it is answered: cut from the blocks that hold it, with fields and a tag of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};

use super::view::View;
use crate::model::entry::Entry;
use crate::model::exchange::Window;
use crate::model::fields::WALK;
use crate::model::{Body, Fields};
use crate::rules::reuse::Policy;
use crate::rules::slices::{Address, Counting, Links, Place, Role, Run, Seen, Shape, compose, tag};
use crate::rules::understanding::Reading;

/// How a route's answers are paged.
#[derive(Debug, Clone)]
pub struct Paging {
    /// How its requests are read: which windows are of one collection.
    pub reading: Reading,
    /// How windows are counted.
    pub counting: Counting,
    /// What its answers look like.
    pub shape: Shape,
    /// The response fields that speak of a window.
    pub headers: Vec<(Role, HeaderName)>,
    /// Items of a block, as configured.
    pub block: u64,
    /// The most blocks that are asked for to answer one request.
    pub max_blocks: u64,
    /// When the first and the last block are reused.
    pub edges: Policy,
    /// When those between them are.
    pub settled: Policy,
    /// How long a walk may pause.
    pub walk_idle: Duration,
    /// How long a walk may last.
    pub walk_total: Duration,
    /// Where clients find the gate; empty: links are relative.
    pub base: String,
}

/// A window, ready to be answered.
#[derive(Debug)]
pub struct Cut {
    /// Status, fields and age of the answer; its body is in the pieces. What is told to its client alone has its place among
    /// the fields, and no value.
    pub entry: Arc<Entry>,
    /// The body, in order, no piece of it empty.
    pieces: Arc<[Bytes]>,
    /// The windows around it, where the upstream's own answer would have a `Link`, as far as is known.
    pub links: Option<Links>,
    /// Where it stands.
    pub place: Place,
    /// What it was cut from.
    pub view: View,
}

/// Fields that say something of the upstream's own answer which is not so of a part of it.
static OF_THE_WHOLE: [HeaderName; 11] = [
    header::ETAG,
    header::LAST_MODIFIED,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::LINK,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

impl Paging {
    /// Cuts `window` out of `view`; `walk` is the token that addresses in it carry, `links`: whether the upstream may have
    /// them in a `Link`, `seen`: what it was seen to put around items, `share`: packs fields with those of others. `None`
    /// where a declared member needs to know what is not known.
    pub fn cut(
        &self,
        view: View,
        window: Window,
        (target, walk): (&str, Option<&str>),
        (links, seen): (bool, &Seen),
        share: impl FnOnce(Fields) -> Fields,
    ) -> Option<Cut> {
        let place = Place {
            counting: self.counting,
            window,
            count: view.count(),
            total: view.total,
            more: view.more,
        };
        let runs: Vec<Run<'_>> = view
            .parts
            .iter()
            .map(|part| Run { block: &part.held.block, items: part.items.clone() })
            .collect();
        let (oldest, like) = (view.oldest().clone(), view.like().clone());
        let (mut pieces, tag) = self.at(target, walk, |address| {
            let pieces = compose(&self.shape, &view.frame.block, &runs, &place, address, seen)?;
            Some((pieces, tag(&self.shape, &view.frame.block, &runs, &place, address, seen)))
        })??;
        let mut fields = like.fields.to_map(4);
        for name in OF_THE_WHOLE.iter().chain(self.headers.iter().map(|(_, name)| name)) {
            fields.remove(name);
        }
        for (name, value) in place.fields(&self.headers) {
            fields.insert(name, value);
        }
        fields.insert(header::ETAG, tag);
        drop(runs);
        let leads = place.prev().is_some() || place.next().is_some();
        let linked = view.frame.is_linked() || (links && leads);
        let links = if linked { self.at(target, None, |address| address.links(&place)) } else { None };
        let links = links.filter(|links| links.value(b"").is_some());
        // What each client is told has its place already, so that no answer's map grows.
        fields.insert(WALK, HeaderValue::from_static(""));
        if links.is_some() {
            fields.insert(header::LINK, HeaderValue::from_static(""));
        }
        let parts = (like.status, share(Fields::from_map(&fields)), Bytes::new());
        let entry = Entry::new(parts, oldest.arrived, oldest.initial_age, like.facts, like.selectors.clone());
        pieces.retain(|piece| !piece.is_empty());
        Some(Cut { entry: Arc::new(entry), pieces: pieces.into(), links, place, view })
    }

    /// Whether bodies name addresses, which differ from walk to walk.
    pub fn names_addresses(&self) -> bool {
        use crate::rules::slices::Follow;
        self.shape.follow == Follow::Url && self.shape.members.iter().any(|(role, _)| role.leads())
    }

    /// With the address under which clients ask for `target`, as the upstream is asked.
    fn at<T>(&self, target: &str, walk: Option<&str>, with: impl FnOnce(&Address<'_>) -> T) -> Option<T> {
        let (page, size) = self.reading.window_names()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = self.reading.path_of(path)?;
        Some(with(&Address { base: &self.base, path: &path, query, window: (&page, &size), walk }))
    }
}

impl Cut {
    /// The body, its items shared.
    pub fn body(&self) -> Body {
        self.pieces.clone().into()
    }

    /// How many bytes it keeps beside its blocks.
    pub fn size(&self) -> usize {
        size_of::<Arc<Self>>()
            + 4 * size_of::<usize>()
            + size_of::<Self>()
            + self.entry.size()
            + self.links.as_ref().map_or(0, Links::size)
            + (self.pieces.len() + self.view.parts.len()) * 2 * size_of::<Bytes>()
    }
}
