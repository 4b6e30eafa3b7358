//! Walks: one client reading a collection page after page. Which generation it reads is said by a token, or guessed from
//! who asks for what.
//!
//! A token names a generation and when the walk began, and is sealed: it is good for one client and one collection of one
//! route, and nothing has to be remembered for it. What is remembered, for a while and for so many, is which page
//! each client without a token would ask for next.

use std::collections::HashMap;
use std::hash::{self, BuildHasher as _};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use foldhash::fast::RandomState;
use http::header::HeaderValue;

use crate::model::exchange::{ClientId, RouteId};
use crate::model::key::Key;
use crate::model::moment::Moment;
use crate::model::short::Short;
use crate::rules::slices::address::WALK;

/// New for every process: tokens of another one open nothing.
static SEAL: LazyLock<hash::RandomState> = LazyLock::new(hash::RandomState::new);

/// The longest token that is looked at: whatever is longer is none of ours.
const LONGEST: usize = 64;

/// The most next pages that are remembered of a collection.
const MOST_READERS: usize = 512;
/// The most generations that one next page is remembered in.
const MOST_GUESSES: usize = 8;

/// One state of a collection: a chain of it, and the place where its list begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Generation {
    /// Which chain.
    pub serial: u32,
    /// Where it begins.
    pub head: i64,
}

/// A walk: what it reads, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The generation.
    pub generation: Generation,
    /// When it began, in whole seconds of the gate's clock.
    pub opened: u32,
}

/// How an answer's generation was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// By a token, or because the walk begins here.
    Pinned,
    /// By who asks, and what was asked before.
    Guessed,
    /// The page before it may be of another generation: several walks could be meant, or the one that is meant has ended.
    Torn,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 3] = [Self::Pinned, Self::Guessed, Self::Torn];

    /// Its word in `Tollgate-Walk` and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Guessed => "guessed",
            Self::Torn => "torn",
        }
    }
}

/// Whom a walk belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The client.
    pub client: ClientId,
    /// The route.
    pub route: RouteId,
    /// The collection.
    pub collection: &'a Key,
}

impl Walk {
    /// A walk that begins now.
    pub fn begun(generation: Generation, now: Moment) -> Self {
        Self { generation, opened: u32::try_from(now.since(Moment::ORIGIN).as_secs()).unwrap_or(u32::MAX) }
    }

    /// How long it has gone on.
    pub fn lasts(&self, now: Moment) -> Duration {
        now.since(Moment::ORIGIN + Duration::from_secs(self.opened.into()))
    }

    /// Its token.
    pub fn token(&self, owner: &Owner<'_>) -> Short<40> {
        let mut token = Short::new();
        token.push_hex(self.generation.serial.into(), 8);
        token.push_hex(self.back().into(), 8);
        token.push_hex(self.opened.into(), 8);
        token.push_hex(self.seal(owner), 16);
        token
    }

    /// The walk that `token` names; `None` for what is no token of this owner's.
    pub fn of(token: &[u8], owner: &Owner<'_>) -> Option<Self> {
        let text = std::str::from_utf8(token).ok().filter(|text| text.len() == 40 && text.is_ascii())?;
        let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
        let generation = Generation { serial: word(0)?, head: -i64::from(word(8)?) };
        let walk = Self { generation, opened: word(16)? };
        (walk.token(owner).as_bytes() == token).then_some(walk)
    }

    /// How far its generation's head lies before the chain's beginning.
    fn back(&self) -> u32 {
        u32::try_from(self.generation.head.unsigned_abs()).unwrap_or(u32::MAX)
    }

    fn seal(&self, owner: &Owner<'_>) -> u64 {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        // One run of bytes, of which a hasher makes short work.
        SEAL.hash_one([
            owner.collection.hash_word(),
            pair(owner.client.0.into(), owner.route.0.into()),
            pair(self.generation.serial, self.back()),
            self.opened.into(),
        ])
    }
}

/// The target of `path` and `query` without the parameter that names a walk, and the token it gave; `None` without such a
/// parameter. Of several the last counts.
pub fn taken_from(path: &str, query: &str) -> Option<(String, HeaderValue)> {
    if !query.contains(WALK) {
        return None;
    }
    let token = |pair: &str| pair.strip_prefix(WALK)?.strip_prefix('=').map(str::to_owned);
    let (mut rest, mut found) = (String::with_capacity(path.len() + 1 + query.len()), None);
    rest.push_str(path);
    let mut gap = '?';
    for pair in query.split('&') {
        match token(pair) {
            Some(token) => found = Some(token),
            None => {
                rest.push(gap);
                rest.push_str(pair);
                gap = '&';
            }
        }
    }
    // What is no token opens nothing, and is told so.
    Some((rest, HeaderValue::try_from(found?).unwrap_or(HeaderValue::from_static("?"))))
}

/// The token in the value of [`WALK`](crate::model::fields::WALK), which may carry more.
pub fn token_in(value: &HeaderValue) -> &[u8] {
    let value = value.as_bytes();
    let token = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    token.get(..token.len().min(LONGEST)).unwrap_or_default()
}

/// Who would ask for a page next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reader {
    /// The client.
    pub client: ClientId,
    /// From where.
    pub peer: IpAddr,
    /// Items on a page.
    pub size: u64,
    /// The position of the page's first item.
    pub next: u64,
}

/// A walk that may go on with a page.
#[derive(Debug, Clone, Copy)]
struct Guess {
    walk: Walk,
    /// How many walks stand there and have not gone on.
    waiting: u32,
    /// How long it is remembered.
    until: Moment,
}

/// Which pages would be asked for next, and in which generations.
#[derive(Debug, Default)]
pub struct Guesses(HashMap<Reader, Vec<Guess>, RandomState>);

/// What was remembered of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guessed {
    /// Nothing.
    Nothing,
    /// One walk, in one generation.
    One(Walk),
    /// Walks in several generations.
    Several,
}

impl Guesses {
    /// The walk that goes on with `reader`'s page, if it is one. Where nobody waits there, it is whoever has gone on from
    /// there: an answer may be lost, and its page asked for once more.
    pub fn expected(&self, reader: &Reader, now: Moment) -> Guessed {
        let guesses = self.0.get(reader).into_iter().flatten().filter(|guess| now < guess.until);
        let waits = |guess: &&Guess| guess.waiting > 0;
        let only = |walks: &mut dyn Iterator<Item = &Guess>| match (walks.next(), walks.next()) {
            (None, _) => Guessed::Nothing,
            (Some(only), None) => Guessed::One(only.walk),
            _ => Guessed::Several,
        };
        match only(&mut guesses.clone().filter(waits)) {
            Guessed::Nothing => only(&mut guesses.clone()),
            guessed => guessed,
        }
    }

    /// `reader` was answered, and `walk` has gone on from there.
    pub fn passed(&mut self, reader: &Reader, walk: Walk) {
        let guesses = self.0.get_mut(reader).into_iter().flatten();
        for guess in guesses.filter(|guess| guess.walk.generation == walk.generation) {
            guess.waiting = guess.waiting.saturating_sub(1);
        }
    }

    /// `reader` may go on with `walk` for as long as `idle`.
    pub fn remember(&mut self, reader: Reader, walk: Walk, now: Moment, idle: Duration) {
        if self.0.len() >= MOST_READERS && !self.0.contains_key(&reader) {
            self.make_room(now);
        }
        let (guesses, until) = (self.0.entry(reader).or_default(), now + idle);
        guesses.retain(|guess| now < guess.until);
        match guesses.iter_mut().find(|guess| guess.walk.generation == walk.generation) {
            Some(guess) => {
                *guess = Guess { walk, waiting: guess.waiting.saturating_add(1), until };
            }
            None => {
                if guesses.len() == MOST_GUESSES {
                    guesses.remove(0);
                }
                guesses.push(Guess { walk, waiting: 1, until });
            }
        }
    }

    /// How many pages somebody is due to read, and how many of them in one of several generations.
    pub fn open(&self, now: Moment) -> (u64, u64) {
        let waits = |guess: &&Guess| guess.waiting > 0 && now < guess.until;
        let walks = self.0.values().map(|guesses| guesses.iter().filter(waits).count());
        walks
            .filter(|walks| *walks > 0)
            .fold((0, 0), |(open, ambiguous), walks| (open + 1, ambiguous + u64::from(walks > 1)))
    }

    /// How many pages somebody may ask for next.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is expected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes they keep, about.
    pub fn size(&self) -> usize {
        self.0.capacity() * (size_of::<(Reader, Vec<Guess>)>() + size_of::<Guess>())
    }

    /// Forgets what nobody waits for; else what is forgotten next.
    fn make_room(&mut self, now: Moment) {
        let last = |guesses: &[Guess]| guesses.iter().map(|guess| guess.until).max();
        self.0.retain(|_, guesses| guesses.iter().any(|guess| guess.waiting > 0 && now < guess.until));
        if self.0.len() >= MOST_READERS
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, guesses)| last(guesses)).map(|(reader, _)| *reader)
        {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    fn walk(serial: u32, head: i64) -> Walk {
        Walk::begun(Generation { serial, head }, Moment::from_nanos(7_000_000_000))
    }

    #[test]
    fn a_token_is_good_for_its_owner_alone() {
        let (one, other) = (Key::from_parts([&b"a"[..]]), Key::from_parts([&b"b"[..]]));
        let owner =
            |client, route, collection| Owner { client: ClientId(client), route: RouteId(route), collection };
        let token = walk(3, -250).token(&owner(1, 2, &one));
        assert_eq!(Walk::of(token.as_bytes(), &owner(1, 2, &one)), Some(walk(3, -250)));
        for stranger in [owner(2, 2, &one), owner(1, 3, &one), owner(1, 2, &other)] {
            assert_eq!(Walk::of(token.as_bytes(), &stranger), None);
        }
        let mut forged = token.as_bytes().to_vec();
        forged[7] = b'9';
        for token in [&forged[..], b"", b"x", "é".repeat(20).as_bytes(), &[b'+'; 40]] {
            assert_eq!(Walk::of(token, &owner(1, 2, &one)), None);
        }
    }

    #[test]
    fn the_token_leaves_the_query() {
        for (target, without, token) in [
            ("/a?page=2&tollgate_walk=x&b=1", "/a?page=2&b=1", "x"),
            ("/a?tollgate_walk=x", "/a", "x"),
            ("/a?tollgate_walk=x&c&tollgate_walk=y", "/a?c", "y"),
        ] {
            let expected = (without.to_owned(), HeaderValue::from_static(token));
            let (path, query) = target.split_once('?').expect("has a query");
            assert_eq!(taken_from(path, query), Some(expected), "{target}");
        }
        for target in ["/a", "/a?tollgate_walks=1", "/tollgate_walk=1?b", "/a?b=tollgate_walk=1"] {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            assert_eq!(taken_from(path, query), None, "{target}");
        }
        assert_eq!(token_in(&HeaderValue::from_static("abc;state=pinned")), b"abc");
    }

    #[test]
    fn only_one_generation_is_guessed() {
        let reader = |next| Reader { client: ClientId(0), peer: [127, 0, 0, 1].into(), size: 20, next };
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let mut guesses = Guesses::default();
        assert_eq!(guesses.expected(&reader(20), at(0)), Guessed::Nothing);
        guesses.remember(reader(20), walk(1, 0), at(0), IDLE);
        guesses.remember(reader(20), walk(1, 0), at(1), IDLE);
        assert_eq!(guesses.expected(&reader(40), at(2)), Guessed::Nothing);
        assert_eq!(guesses.expected(&reader(20), at(2)), Guessed::One(walk(1, 0)));
        guesses.passed(&reader(20), walk(1, 0));
        guesses.remember(reader(20), walk(1, -5), at(3), IDLE);
        assert_eq!((guesses.expected(&reader(20), at(4)), guesses.open(at(4))), (Guessed::Several, (1, 1)));
        // The older one has idled out.
        assert_eq!(guesses.expected(&reader(20), at(31)), Guessed::One(walk(1, -5)));
        assert_eq!((guesses.open(at(31)), guesses.open(at(33))), ((1, 0), (0, 0)));
    }

    #[test]
    fn who_has_gone_on_is_known_again_while_nobody_else_waits() {
        let reader = Reader { client: ClientId(0), peer: [127, 0, 0, 1].into(), size: 20, next: 20 };
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let mut guesses = Guesses::default();
        guesses.remember(reader, walk(1, 0), at(0), IDLE);
        guesses.passed(&reader, walk(1, 0));
        assert_eq!(
            (guesses.expected(&reader, at(1)), guesses.open(at(1))),
            (Guessed::One(walk(1, 0)), (0, 0))
        );
        guesses.remember(reader, walk(2, 0), at(2), IDLE);
        assert_eq!(guesses.expected(&reader, at(3)), Guessed::One(walk(2, 0)));
        guesses.passed(&reader, walk(2, 0));
        assert_eq!(guesses.expected(&reader, at(4)), Guessed::Several, "either may have lost its answer");
        // Asking once more does not make it last.
        assert_eq!(guesses.expected(&reader, at(31)), Guessed::One(walk(2, 0)));
        assert_eq!(guesses.expected(&reader, at(32)), Guessed::Nothing);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut guesses = Guesses::default();
        for next in 0..10_000 {
            let reader = Reader { client: ClientId(0), peer: [127, 0, 0, 1].into(), size: 20, next };
            guesses.remember(reader, walk(1, 0), Moment::from_nanos(next), IDLE);
            guesses.remember(reader, walk(2, -i64::try_from(next).unwrap()), Moment::from_nanos(next), IDLE);
        }
        assert!(guesses.len() <= MOST_READERS, "{}", guesses.len());
    }
}
