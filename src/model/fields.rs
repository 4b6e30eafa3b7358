//! Header fields as an entry keeps them: values alone, beside a list of names that all entries of the same shape share.
//!
//! A `HeaderMap` of ten fields keeps 2.4 KB; this keeps a third of it. An answer from memory begins as a clone of its
//! shape's map, with every name in its place and nothing hashed, and each value is put where it belongs.

use std::borrow::Borrow;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The field that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How the cache took part (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What was done to the parameters.
pub const UNDERSTOOD: HeaderName = HeaderName::from_static("tollgate-understood");
/// Where the time went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Every value of `name` among a request's fields. Requests have few of them, and most names that are looked for are
/// absent: comparing each takes less than hashing the name.
pub fn named(headers: &HeaderMap, name: impl Borrow<HeaderName>) -> impl Iterator<Item = &HeaderValue> {
    headers.iter().filter(move |(held, _)| *held == name.borrow()).map(|(_, value)| value)
}

/// An ordered list of fields. Values may be any bytes that HTTP allows.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    shape: Arc<Shape>,
    /// Slices of one run of bytes.
    values: Box<[HeaderValue]>,
}

/// The names of an entry's fields. Entries from one place nearly always have the same ones.
#[derive(Debug, Default)]
pub struct Shape {
    names: Box<[HeaderName]>,
    /// Made when it is first needed.
    delivered: OnceLock<Delivered>,
}

/// What every answer from memory tells beside its entry's fields.
#[derive(Debug)]
pub struct Delivery {
    /// `Age`
    pub age: HeaderValue,
    /// `Cache-Status`
    pub cache_status: HeaderValue,
    /// `Server-Timing`
    pub server_timing: HeaderValue,
    /// `X-Request-Id`
    pub request_id: HeaderValue,
}

/// An answer from memory before its values are put in.
#[derive(Debug)]
struct Delivered {
    map: HeaderMap,
    /// What each value of the map is, in the map's own order.
    places: Box<[Place]>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// The value at this place of the list.
    Held(usize),
    Age,
    CacheStatus,
    ServerTiming,
    RequestId,
}

/// About what a `HeaderMap` keeps for each field: name, value, links and index.
const A_FIELD_OF_A_MAP: usize = 120;

impl Fields {
    /// Packs `map`; repeated names stay repeated, in order.
    pub fn from_map(map: &HeaderMap) -> Self {
        let mut names = Vec::with_capacity(map.len());
        let mut values = Vec::with_capacity(map.len());
        let mut bytes = BytesMut::with_capacity(map.values().map(HeaderValue::len).sum());
        for value in map.values() {
            bytes.extend_from_slice(value.as_bytes());
        }
        let mut bytes = bytes.freeze();
        for (name, value) in map {
            // The bytes come out of a HeaderValue, so this cannot fail; a field less is better than a panic.
            if let Ok(value) = HeaderValue::from_maybe_shared(bytes.split_to(value.len())) {
                names.push(name.clone());
                values.push(value);
            }
        }
        Self {
            shape: Arc::new(Shape { names: names.into(), delivered: OnceLock::new() }),
            values: values.into(),
        }
    }

    /// The same fields, their names shared with others of the same `shape`.
    #[must_use]
    pub fn shaped(self, shape: &Arc<Shape>) -> Self {
        if self.shape.names == shape.names { Self { shape: shape.clone(), ..self } } else { self }
    }

    /// Their names.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// A new map of these fields with room for `more`.
    pub fn to_map(&self, more: usize) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.values.len() + more);
        for (name, value) in self.shape.names.iter().zip(&self.values) {
            map.append(name.clone(), value.clone());
        }
        map
    }

    /// A new map of these fields and of those that an answer from memory has beside them: `Cache-Status` behind what others
    /// said there, everything else in its place.
    pub fn to_answer(&self, delivery: Delivery) -> HeaderMap {
        let Delivered { map, places } = self.shape.delivered.get_or_init(|| Delivered::of(&self.shape.names));
        let mut map = map.clone();
        let Delivery { mut age, mut cache_status, mut server_timing, mut request_id } = delivery;
        for (value, place) in map.values_mut().zip(places) {
            match place {
                Place::Held(at) => {
                    if let Some(held) = self.values.get(*at) {
                        *value = held.clone();
                    }
                }
                Place::Age => std::mem::swap(value, &mut age),
                Place::CacheStatus => std::mem::swap(value, &mut cache_status),
                Place::ServerTiming => std::mem::swap(value, &mut server_timing),
                Place::RequestId => std::mem::swap(value, &mut request_id),
            }
        }
        map
    }

    /// The bytes of the first value of `name`.
    pub fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.value(name).map(HeaderValue::as_bytes)
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.shape
            .names
            .iter()
            .zip(&self.values)
            .filter(move |(held, _)| *held == name)
            .map(|(_, value)| value)
    }

    /// The first value of `name`.
    pub fn value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let at = self.shape.names.iter().position(|held| held == name)?;
        self.values.get(at)
    }

    /// How many bytes the list keeps; names that others share too cost nothing.
    pub fn size(&self) -> usize {
        let values: usize = self.values.iter().map(|value| size_of::<HeaderValue>() + value.len()).sum();
        if Arc::strong_count(&self.shape) > 1 { values } else { values + self.shape.size() }
    }
}

impl Shape {
    /// The names, in order.
    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// How many bytes it keeps once answers were made from it.
    fn size(&self) -> usize {
        let field = size_of::<HeaderName>() + size_of::<Place>() + A_FIELD_OF_A_MAP;
        self.names.iter().map(|name| name.as_str().len() + field).sum::<usize>() + 8 * A_FIELD_OF_A_MAP
    }
}

impl Delivered {
    fn of(names: &[HeaderName]) -> Self {
        let mut map = HeaderMap::with_capacity(names.len() + 4);
        // Each value is its own place until all stand in their order.
        let mut places = Vec::with_capacity(names.len() + 4);
        let mut place = |place: Place| {
            places.push(place);
            HeaderValue::from(places.len() - 1)
        };
        for (at, name) in names.iter().enumerate() {
            map.append(name, place(Place::Held(at)));
        }
        map.insert(header::AGE, place(Place::Age));
        map.append(CACHE_STATUS, place(Place::CacheStatus));
        map.insert(REQUEST_ID, place(Place::RequestId));
        map.insert(SERVER_TIMING, place(Place::ServerTiming));
        let mut ordered = Vec::with_capacity(map.len());
        for value in map.values_mut() {
            let place = value.to_str().ok().and_then(|at| places.get(at.parse::<usize>().ok()?));
            ordered.extend(place);
            *value = HeaderValue::from_static("");
        }
        Self { map, places: ordered.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> HeaderMap {
        let mut map = HeaderMap::new();
        map.append("link", HeaderValue::from_static("a"));
        map.append("x-empty", HeaderValue::from_static(""));
        map.append("cache-status", HeaderValue::from_static("other"));
        map.append("link", HeaderValue::from_static("b"));
        map.append("x-request-id", HeaderValue::from_static("the upstream's"));
        map.append("etag", HeaderValue::from_bytes(b"\"\xe9\"").expect("opaque bytes are legal"));
        map
    }

    #[test]
    fn packing_keeps_names_values_and_repeats() {
        let fields = Fields::from_map(&fields());
        assert_eq!(fields.to_map(4), self::fields());
        assert_eq!(fields.first(&header::ETAG), Some(&b"\"\xe9\""[..]));
        assert_eq!(fields.first(&header::LINK), Some(&b"a"[..]));
    }

    #[test]
    fn an_answer_tells_what_is_held_and_what_is_of_this_delivery() {
        let mut expected = fields();
        for (name, value) in [("age", "1"), ("x-request-id", "id"), ("server-timing", "t")] {
            expected.insert(name, HeaderValue::from_static(value));
        }
        expected.append("cache-status", HeaderValue::from_static("c"));
        let (one, other) = (Fields::from_map(&fields()), Fields::from_map(&fields()));
        let other = other.shaped(one.shape());
        assert!(Arc::ptr_eq(one.shape(), other.shape()));
        for fields in [one, other] {
            let delivery = Delivery {
                age: HeaderValue::from_static("1"),
                cache_status: HeaderValue::from_static("c"),
                server_timing: HeaderValue::from_static("t"),
                request_id: HeaderValue::from_static("id"),
            };
            assert_eq!(fields.to_answer(delivery), expected);
        }
    }

    #[test]
    fn another_shape_is_not_taken() {
        let (one, other) = (Fields::from_map(&fields()), Fields::default());
        assert_eq!(one.shaped(other.shape()).to_map(0), fields());
    }
}
