//! Header fields as an entry keeps them: the names, and the values that nearly every answer of an API has alike, in a
//! shape that all such entries share; an entry's own values beside it, packed into one run of bytes.
//!
//! A `HeaderMap` of ten fields keeps 2.4 KB; this keeps some hundred bytes. An answer from memory begins as a clone of
//! its shape's map, with every name and every common value in its place and nothing hashed, and an entry's own values are
//! put where they belong.

use std::borrow::Borrow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The field that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How the cache took part (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What was done to the parameters.
pub const UNDERSTOOD: HeaderName = HeaderName::from_static("tollgate-understood");
/// The field that names a walk: on answers its token and state, on requests the token.
pub const WALK: HeaderName = HeaderName::from_static("tollgate-walk");
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
    own: Own,
}

/// The names of an entry's fields, and the values that another entry had there; of those that are shared, what it lends.
#[derive(Debug, Default)]
pub struct Shape {
    names: Box<[HeaderName]>,
    /// One for each name: slices of one run of bytes.
    values: Box<[HeaderValue]>,
    /// Made when it is first needed.
    delivered: OnceLock<Delivered>,
}

/// Fields that speak of an API and not of one resource or client: their values alone are lent by one entry to others, and
/// may stay when it is erased.
static LENT: [HeaderName; 18] = [
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::REFERRER_POLICY,
    header::SERVER,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::VIA,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
];

/// Values that differ from those of a shape: how many, the place and the length of each, in order, and then their bytes,
/// one behind the other.
#[derive(Debug, Clone, Default)]
struct Own(Bytes);

/// How many bytes a count, a place and a length take in [`Own`].
const COUNT: usize = 2;
const PLACE: usize = 2;
const LENGTH: usize = 4;

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

/// What a walk adds to the fields of a window.
#[derive(Debug)]
pub struct Told {
    /// `Tollgate-Walk`
    pub walk: HeaderValue,
    /// `Link`, with the walk's token in every address.
    pub link: Option<HeaderValue>,
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
        let shape = Shape { names: names.into(), values: values.into(), delivered: OnceLock::new() };
        Self { shape: Arc::new(shape), own: Own::default() }
    }

    /// The same fields, what they have in common with others of the same `shape` shared with them.
    #[must_use]
    pub fn shaped(self, shape: &Arc<Shape>) -> Self {
        if self.shape.names != shape.names {
            return self;
        }
        let kept = (0..).zip(self.values()).zip(shape.names.iter().zip(&shape.values));
        let own = kept.filter(|((_, own), (name, common))| !LENT.contains(name) || own != common);
        match Own::of(own.map(|(own, _)| own)) {
            Some(own) => Self { shape: shape.clone(), own },
            None => self,
        }
    }

    /// What they have in common with others.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// A new map of these fields with room for `more`.
    pub fn to_map(&self, more: usize) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.shape.names.len() + more);
        for (place, name) in self.shape.names.iter().enumerate() {
            map.extend(self.value_at(place).map(|value| (name.clone(), value)));
        }
        map
    }

    /// A new map of these fields and of those that an answer from memory has beside them: `Cache-Status` behind what others
    /// said there, everything else in its place.
    pub fn to_answer(&self, delivery: Delivery) -> HeaderMap {
        let Delivered { map, places } = self.shape.delivered.get_or_init(|| Delivered::of(&self.shape));
        let mut map = map.clone();
        let Delivery { mut age, mut cache_status, mut server_timing, mut request_id } = delivery;
        let mut own = self.own.iter().peekable();
        for (value, place) in map.values_mut().zip(places) {
            match place {
                Place::Held(at) => {
                    // What is told of this delivery stands in place of what the entry says there.
                    while own.next_if(|(place, _)| place < at).is_some() {}
                    if let Some((_, range)) = own.next_if(|(place, _)| place == at) {
                        *value = self.own.value(range);
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
        self.bytes_at(self.place(name)?)
    }

    /// The bytes of every value of `name`.
    pub fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let names = self.shape.names.iter().enumerate();
        names.filter(move |(_, held)| *held == name).filter_map(|(place, _)| self.bytes_at(place))
    }

    /// The first value of `name`.
    pub fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        self.value_at(self.place(name)?)
    }

    fn place(&self, name: &HeaderName) -> Option<usize> {
        self.shape.names.iter().position(|held| held == name)
    }

    fn bytes_at(&self, place: usize) -> Option<&[u8]> {
        match self.own.at(place) {
            Some(range) => self.own.0.get(range),
            None => self.shape.values.get(place).map(HeaderValue::as_bytes),
        }
    }

    fn value_at(&self, place: usize) -> Option<HeaderValue> {
        match self.own.at(place) {
            Some(range) => Some(self.own.value(range)),
            None => self.shape.values.get(place).cloned(),
        }
    }

    fn values(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.shape.names.len()).map(|place| self.bytes_at(place).unwrap_or_default())
    }

    /// How many bytes the list keeps; what others share too costs nothing.
    pub fn size(&self) -> usize {
        let own = self.own.0.len();
        if Arc::strong_count(&self.shape) > 1 { own } else { own + self.shape.size() }
    }
}

impl Own {
    /// These values, each with its place, in order; `None` where one is too far behind or too long.
    fn of<'a>(values: impl Iterator<Item = (usize, &'a [u8])>) -> Option<Self> {
        let values: Vec<_> = values.collect();
        if values.is_empty() {
            return Some(Self::default());
        }
        let bytes: usize = values.iter().map(|(_, value)| value.len()).sum();
        let mut packed = BytesMut::with_capacity(COUNT + values.len() * (PLACE + LENGTH) + bytes);
        packed.extend_from_slice(&u16::try_from(values.len()).ok()?.to_ne_bytes());
        for (place, value) in &values {
            packed.extend_from_slice(&u16::try_from(*place).ok()?.to_ne_bytes());
            packed.extend_from_slice(&u32::try_from(value.len()).ok()?.to_ne_bytes());
        }
        values.iter().for_each(|(_, value)| packed.extend_from_slice(value));
        Some(Self(packed.freeze()))
    }

    /// The place of each value, and where its bytes lie.
    fn iter(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let count = self.0.first_chunk().map_or(0, |count| usize::from(u16::from_ne_bytes(*count)));
        let mut end = COUNT + count * (PLACE + LENGTH);
        let heads = self.0.get(COUNT..end).unwrap_or_default().chunks_exact(PLACE + LENGTH);
        heads.filter_map(move |head| {
            let (place, length) = (head.first_chunk()?, head.last_chunk()?);
            let start = end;
            end += usize::try_from(u32::from_ne_bytes(*length)).ok()?;
            Some((usize::from(u16::from_ne_bytes(*place)), start..end))
        })
    }

    /// Where the bytes of the value at `place` lie.
    fn at(&self, place: usize) -> Option<Range<usize>> {
        self.iter().find_map(|(held, range)| (held == place).then_some(range))
    }

    fn value(&self, range: Range<usize>) -> HeaderValue {
        // The bytes came out of a HeaderValue, so this cannot fail; an empty value is better than a panic.
        HeaderValue::from_maybe_shared(self.0.slice(range)).unwrap_or(HeaderValue::from_static(""))
    }
}

impl Shape {
    /// The names, in order.
    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// Of the same names, with the values that are lent alone.
    #[must_use]
    pub fn lent(&self) -> Self {
        self.with_values(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone()))
    }

    /// The same, kept for as long as the process lives: whoever takes such values counts no references.
    #[must_use]
    pub fn lasting(&self) -> Self {
        self.with_values(|value| {
            let bytes: &'static [u8] = Box::leak(value.as_bytes().into());
            HeaderValue::from_maybe_shared(Bytes::from_static(bytes)).unwrap_or_else(|_| value.clone())
        })
    }

    fn with_values(&self, lend: impl Fn(&HeaderValue) -> HeaderValue) -> Self {
        let values = self.names.iter().zip(&self.values).map(|(name, value)| match LENT.contains(name) {
            true => lend(value),
            false => HeaderValue::from_static(""),
        });
        Self { names: self.names.clone(), values: values.collect(), delivered: OnceLock::new() }
    }

    /// How many bytes its values have together.
    pub fn bytes(&self) -> usize {
        self.values.iter().map(HeaderValue::len).sum()
    }

    /// How many bytes it keeps once answers were made from it.
    fn size(&self) -> usize {
        let field =
            size_of::<HeaderName>() + size_of::<HeaderValue>() + size_of::<Place>() + A_FIELD_OF_A_MAP;
        let names = self.names.iter().map(|name| name.as_str().len() + field);
        names.sum::<usize>() + self.bytes() + 8 * A_FIELD_OF_A_MAP
    }
}

impl Told {
    /// Puts it among the fields of an answer, in place of what they say there.
    pub fn write(self, headers: &mut HeaderMap) {
        let link = self.link.map(|link| (header::LINK, link));
        for (name, value) in link.into_iter().chain([(WALK, self.walk)]) {
            // Whoever inserts makes room first, whether it is needed or not.
            match headers.get_mut(&name) {
                Some(held) => *held = value,
                None => _ = headers.insert(name, value),
            }
        }
    }
}

impl Delivered {
    fn of(shape: &Shape) -> Self {
        let names = &shape.names;
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
            let place = value.to_str().ok().and_then(|at| places.get(at.parse::<usize>().ok()?)).copied();
            let common = match place {
                Some(Place::Held(at)) => shape.values.get(at).cloned(),
                _ => None,
            };
            *value = common.unwrap_or(HeaderValue::from_static(""));
            ordered.extend(place);
        }
        Self { map, places: ordered.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn what_a_walk_adds_stands_in_its_place() {
        let told = || Told {
            walk: HeaderValue::from_static("token"),
            link: Some(HeaderValue::from_static("</a>; rel=\"next\"")),
        };
        let mut without = HeaderMap::new();
        told().write(&mut without);
        let mut with = fields();
        with.remove(header::LINK);
        for name in [header::LINK, WALK] {
            with.insert(name, HeaderValue::from_static(""));
        }
        let mut answer = Fields::from_map(&with).to_map(0);
        told().write(&mut answer);
        for headers in [&without, &answer] {
            assert_eq!(headers.get_all(WALK).iter().collect::<Vec<_>>(), ["token"]);
            assert_eq!(headers.get_all(header::LINK).iter().collect::<Vec<_>>(), ["</a>; rel=\"next\""]);
        }
        assert!(answer.keys().eq(with.keys()));
    }

    proptest! {
        /// However many values differ from those of the entry that came first.
        #[test]
        fn what_is_shared_changes_nothing(
            names in prop::collection::vec(0usize..6, 0..9),
            values in prop::collection::vec((0u8..3, 0u8..3), 9),
            lasts: bool,
        ) {
            let names = names.iter().map(|at| ["a", "server", "cache-status", "x-request-id", "via", "date"][*at]);
            let (mut one, mut other) = (HeaderMap::new(), HeaderMap::new());
            for (name, (first, second)) in names.zip(values) {
                let value = |number: u8| HeaderValue::from_bytes(&vec![b'x'; usize::from(number)]);
                one.append(name, value(first).expect("is a value"));
                other.append(name, value(second).expect("is a value"));
            }
            let delivery = || Delivery {
                age: HeaderValue::from_static("1"),
                cache_status: HeaderValue::from_static("c"),
                server_timing: HeaderValue::from_static("t"),
                request_id: HeaderValue::from_static("id"),
            };
            let (first, alone) = (Fields::from_map(&one), Fields::from_map(&other));
            let shared = alone.clone().shaped(first.shape());
            prop_assert!(Arc::ptr_eq(first.shape(), shared.shape()));
            prop_assert_eq!(shared.to_map(0), alone.to_map(0));
            prop_assert_eq!(&alone.to_map(0), &other);
            let answer = shared.to_answer(delivery());
            prop_assert_eq!(&answer, &alone.to_answer(delivery()));
            prop_assert_eq!(answer.get_all("date").iter().collect::<Vec<_>>(), other.get_all("date").iter().collect::<Vec<_>>());
            for name in other.keys() {
                let expected: Vec<_> = other.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                prop_assert_eq!(shared.all(name).collect::<Vec<_>>(), expected);
                prop_assert_eq!(shared.value(name), other.get(name).cloned());
            }
            // What is lent lasts, and what speaks of one resource stays with its entry.
            let lent = Arc::new(if lasts { first.shape().lasting() } else { first.shape().lent() });
            let borrowing = alone.clone().shaped(&lent);
            prop_assert!(Arc::ptr_eq(&lent, borrowing.shape()));
            prop_assert_eq!(&borrowing.to_answer(delivery()), &answer);
            prop_assert_eq!(borrowing.to_map(0), alone.to_map(0));
            for (name, value) in lent.names.iter().zip(&lent.values) {
                prop_assert!(LENT.contains(name) || value.is_empty());
            }
            let differs = |((name, one), (_, other)): ((_, _), (_, _))| !LENT.contains(name) || one != other;
            prop_assert_eq!(shared.size() > 0, one.iter().zip(&other).any(differs));
        }
    }

    #[test]
    fn another_shape_is_not_taken() {
        let (one, other) = (Fields::from_map(&fields()), Fields::default());
        assert_eq!(one.shaped(other.shape()).to_map(0), fields());
    }
}
