//! Windows cut from blocks: what they hold, what they cost, and which state of the list they are of.

use std::sync::{Arc, Mutex};

use http::Method;

use crate::world::{Act, Config, Got, Reply, World, all, ms, pass, reply, s};

/// What the upstream makes of a page past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PastEnd {
    Empty,
    LastPage,
    Status(u16),
}

/// What the upstream makes of a size above its largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oversize {
    Clamp(u64),
    Refuse(u64),
    Unlimited,
}

/// A list of (id, version), newest first, and the upstream's habits.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) items: Vec<(u64, u64)>,
    pub(crate) past_end: PastEnd,
    pub(crate) oversize: Oversize,
    pub(crate) next: u64,
}

impl Listing {
    pub(crate) fn new(count: u64) -> Self {
        let items = (1..=count).rev().map(|id| (id, 0)).collect();
        Self { items, past_end: PastEnd::Empty, oversize: Oversize::Unlimited, next: count + 1 }
    }

    pub(crate) fn arrive(&mut self, count: u64) {
        for _ in 0..count {
            self.items.insert(0, (self.next, 0));
            self.next += 1;
        }
    }

    pub(crate) fn append(&mut self, count: u64) {
        for _ in 0..count {
            self.items.push((self.next, 0));
            self.next += 1;
        }
    }

    pub(crate) fn answer(&self, target: &str) -> Reply {
        let number = |name: &str, otherwise: u64| -> u64 {
            let query = target.split_once('?').map_or("", |(_, query)| query);
            let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.map_or(otherwise, |value| value.parse().unwrap())
        };
        let (mut page, mut size) = (number("page", 1), number("size", 5));
        match self.oversize {
            Oversize::Clamp(most) => size = size.min(most),
            Oversize::Refuse(most) if size > most => return reply(422, "{}"),
            Oversize::Refuse(_) | Oversize::Unlimited => {}
        }
        let last = (self.items.len() as u64).div_ceil(size).max(1);
        if page > last {
            match self.past_end {
                PastEnd::Empty => {}
                PastEnd::LastPage => page = last,
                PastEnd::Status(status) => return reply(status, "{}"),
            }
        }
        let items = self.items.iter().skip(usize::try_from((page - 1) * size).unwrap());
        reply(200, body(items.take(usize::try_from(size).unwrap())))
    }
}

fn body<'a>(items: impl Iterator<Item = &'a (u64, u64)>) -> String {
    let items: Vec<_> = items.map(|(id, version)| format!("{{\"id\":{id}, \"v\":{version}}}")).collect();
    format!("[{}]", items.join(","))
}

/// The ids of an answer.
pub(crate) fn ids(got: &Got) -> Vec<u64> {
    assert_eq!(got.status, 200, "{got:?}");
    let items: Vec<serde_json::Value> = serde_json::from_str(got.text()).unwrap();
    items.iter().map(|item| item["id"].as_u64().unwrap()).collect()
}

pub(crate) const PAGED: &str = "[routes.params]\n\
    page = { type = \"integer\", default = 1, min = 1 }\n\
    size = { type = \"integer\", default = 5, min = 1 }\n\
    q = \"string\"\n\
    [routes.pages]\npage = \"page\"\nsize = \"size\"\nblock = 10\nid = \"/id\"\n";

/// A gate before a list.
pub(crate) struct Paged {
    pub(crate) world: World,
    pub(crate) list: Arc<Mutex<Listing>>,
}

impl Paged {
    pub(crate) fn new(list: Listing) -> Self {
        Self::of(list, "ttl = \"30s\"", PAGED)
    }

    pub(crate) fn of(list: Listing, cache: &'static str, more: &'static str) -> Self {
        let world = World::new(&Config { cache, more, ..Config::default() });
        let list = Arc::new(Mutex::new(list));
        let played = list.clone();
        world.upstream.plays(move |heard| played.lock().unwrap().answer(&heard.target));
        Self { world, list }
    }

    pub(crate) async fn get(&self, page: u64, size: u64) -> Got {
        self.world.get(&format!("/r?page={page}&size={size}")).send().await
    }

    pub(crate) fn change(&self, act: impl FnOnce(&mut Listing)) {
        act(&mut self.list.lock().unwrap());
    }

    /// What the upstream itself would answer.
    pub(crate) fn direct(&self, page: u64, size: u64) -> Reply {
        self.list.lock().unwrap().answer(&format!("/r?page={page}&size={size}"))
    }

    pub(crate) fn direct_text(&self, page: u64, size: u64) -> String {
        let pieces = self.direct(page, size).pieces;
        pieces.into_iter().map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn every_window_is_cut_from_blocks_and_is_what_the_upstream_would_say() {
    let paged = Paged::new(Listing::new(47));
    for size in [1, 3, 5, 7, 10, 20, 25] {
        for page in 1..=47u64.div_ceil(size) {
            let got = paged.get(page, size).await;
            assert_eq!(got.text(), paged.direct_text(page, size), "page {page} of {size}");
        }
    }
    let heard: Vec<_> = paged.world.upstream.heard().iter().map(|heard| heard.target.clone()).collect();
    let mut pages: Vec<_> = (1..=5).map(|page| format!("/v1/r?page={page}&size=10")).collect();
    // Whether it gives more at once than a block has was not seen before.
    pages.extend([20, 25].map(|size| format!("/v1/r?page=1&size={size}")));
    assert_eq!(heard, pages, "each block once, and none to learn what its first full one told");
    let got = paged.get(2, 3).await;
    assert_eq!((got.cache(), got.header("age")), ("hit; ttl=30; detail=sliced", Some("0")));
}

#[tokio::test(start_paused = true)]
async fn what_was_partly_known_says_so() {
    let paged = Paged::new(Listing::new(47));
    assert_eq!(paged.get(1, 5).await.cache(), "fwd=uri-miss; fwd-status=200; stored");
    assert_eq!(paged.get(2, 7).await.cache(), "fwd=partial; fwd-status=200; stored");
    assert_eq!(paged.get(4, 5).await.cache(), "hit; ttl=30; detail=sliced");
    assert_eq!(paged.world.metric("tollgate_cache_results_total", &["result=\"sliced\""]), 1.0);
}

#[tokio::test(start_paused = true)]
async fn fifty_clients_cost_one_call_a_block() {
    let paged = Paged::new(Listing::new(100));
    let asks = (0..50).map(|at| paged.world.get(&format!("/r?page={}&size=2", at % 5 + 1)).start());
    for got in all(asks.collect()).await {
        assert_eq!(ids(&got).len(), 2);
    }
    assert_eq!(paged.world.calls(), 1);
    paged.world.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn ends_are_learned_whatever_lies_past_them() {
    for past_end in [PastEnd::Empty, PastEnd::LastPage, PastEnd::Status(404), PastEnd::Status(400)] {
        for count in [0, 1, 7, 10, 13, 20, 30] {
            let paged = Paged::new(Listing { past_end, ..Listing::new(count) });
            for round in 0..2 {
                for size in [10, 4, 20, 3] {
                    for page in 1..=count.div_ceil(size) + 2 {
                        let got = paged.get(page, size).await;
                        let direct = paged.direct(page, size);
                        assert_eq!(
                            got.status, direct.status,
                            "{past_end:?} {count} {page} {size} {round}: {got:?}"
                        );
                        let text = paged.direct_text(page, size);
                        assert_eq!(
                            got.text(),
                            text,
                            "{past_end:?} {count} items, page {page} of {size}, round {round}"
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sizes_are_learned_whatever_becomes_of_larger_ones() {
    for oversize in [Oversize::Clamp(4), Oversize::Clamp(7), Oversize::Refuse(6), Oversize::Unlimited] {
        for past_end in [PastEnd::Empty, PastEnd::LastPage, PastEnd::Status(404)] {
            for count in [3, 4, 12, 25] {
                let paged = Paged::new(Listing { past_end, oversize, ..Listing::new(count) });
                for round in 0..2 {
                    for (page, size) in
                        [(1, 3), (1, 5), (2, 5), (1, 8), (2, 8), (3, 3), (4, 3), (1, 40), (2, 2), (9, 5)]
                    {
                        let got = paged.get(page, size).await;
                        let direct = paged.direct(page, size);
                        let case = format!(
                            "{oversize:?} {past_end:?} {count} items, page {page} of {size}, round {round}"
                        );
                        assert_eq!(got.status, direct.status, "{case}: {got:?}");
                        assert_eq!(got.text(), paged.direct_text(page, size), "{case}");
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_block_tells_where_everything_stands() {
    let paged = Paged::new(Listing::new(60));
    for page in 1..=6 {
        paged.get(page, 10).await;
    }
    assert_eq!(paged.world.calls(), 6);
    pass(s(20)).await;
    for page in 2..=6 {
        paged.get(page, 10).await;
    }
    pass(s(11)).await;
    paged.change(|list| list.arrive(3));
    // The first block is refreshed; the others are asked for once they are too old themselves.
    assert_eq!(ids(&paged.get(1, 10).await), (54..=63).rev().collect::<Vec<_>>());
    assert_eq!(paged.world.calls(), 7);
    assert_eq!(paged.world.metric("tollgate_pages_shifts_total", &[]), 1.0);
}

#[tokio::test(start_paused = true)]
async fn settled_items_move_down_without_a_call() {
    let more = "[routes.params]\n\
        page = { type = \"integer\", default = 1, min = 1 }\nsize = { type = \"integer\", default = 5, min = 1 }\n\
        [routes.pages]\npage = \"page\"\nsize = \"size\"\nblock = 10\nid = \"/id\"\nsettled_ttl = \"5m\"\n";
    let paged = Paged::of(Listing::new(60), "ttl = \"30s\"", more);
    for page in 1..=6 {
        paged.get(page, 10).await;
    }
    pass(s(31)).await;
    paged.change(|list| list.arrive(3));
    for page in 1..=5 {
        let got = paged.get(page, 10).await;
        assert_eq!(got.text(), paged.direct_text(page, 10), "{page}");
        let age = if page == 1 { None } else { Some("31") };
        assert_eq!(got.header("age"), age, "{page}: {got:?}");
    }
    assert_eq!(paged.world.calls(), 7, "one call told where everything stands");
}

#[tokio::test(start_paused = true)]
async fn conditions_and_head_are_answered_here() {
    let paged = Paged::new(Listing::new(30));
    let got = paged.get(2, 3).await;
    let tag = got.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"'), "{tag}");
    let again = paged.world.get("/r?page=2&size=3").with("if-none-match", &tag).send().await;
    assert_eq!((again.status, again.text()), (304, ""));
    let other = paged.get(1, 3).await;
    assert_ne!(other.header("etag"), Some(tag.as_str()));
    let head = paged.world.ask(Method::HEAD, "/r?page=2&size=3").send().await;
    assert_eq!((head.status, head.header("etag")), (200, Some(tag.as_str())));
    assert_eq!(paged.world.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn stale_windows_stand_in_for_failures() {
    let paged = Paged::of(Listing::new(30), "ttl = \"30s\"\nstale_if_error = \"100s\"", PAGED);
    paged.get(1, 3).await;
    pass(s(31)).await;
    paged.world.upstream.plays(|_| Act::Unreachable(ms(1)));
    let got = paged.get(2, 3).await;
    assert_eq!((got.cache(), ids(&got)), ("hit; ttl=-2; detail=unreachable", vec![27, 26, 25]));
    assert_eq!(paged.get(9, 3).await.status, 502);
}

/// What stood in for a failed call was seen before it: nobody is given it once more where others have renewed a part since.
#[tokio::test(start_paused = true)]
async fn what_stood_in_for_a_failure_is_kept_for_nobody() {
    let paged = Paged::of(Listing::new(30), "ttl = \"30s\"\nstale_if_error = \"100s\"", PAGED);
    // It gives more at once than a block has.
    assert_eq!(ids(&paged.get(1, 20).await).len(), 20);
    paged.get(1, 10).await;
    paged.get(2, 10).await;
    pass(s(31)).await;
    paged.change(|list| list.items[15].1 = 1);
    let list = paged.list.clone();
    paged.world.upstream.plays(move |heard| match heard.target.contains("page=1&") {
        true => Act::Unreachable(ms(500)),
        false => list.lock().unwrap().answer(&heard.target).into(),
    });
    let waits = paged.world.get("/r?page=1&size=20").start();
    pass(ms(100)).await;
    let renewed = paged.get(2, 10).await.text().to_owned();
    assert!(renewed.contains("\"v\":1"), "{renewed}");
    let stood_in = waits.await.unwrap();
    assert!(stood_in.cache().contains("detail=unreachable"), "{stood_in:?}");
    let after = paged.get(1, 20).await;
    assert!(after.cache().contains("detail=unreachable"), "{after:?}");
    assert!(after.text().contains("\"v\":1"), "{after:?}");
    paged.world.quiet().await;
}

/// Two routes may lead to one list: they share its blocks, and each names its own addresses.
#[tokio::test(start_paused = true)]
async fn each_route_links_to_itself() {
    let more = format!(
        "{PAGED}[[routes]]\nname = \"b\"\npath = \"/b\"\nupstream_path = \"/r\"\nupstream = \"u\"\naccount = \"a\"\n\
         [routes.cache]\nttl = \"30s\"\n{PAGED}"
    );
    let world = World::new(&Config { more: more.leak(), ..Config::default() });
    let list = Listing::new(30);
    world
        .upstream
        .plays(move |heard| list.answer(&heard.target).with("link", "</v1/r?page=2>; rel=\"next\""));
    for round in 0..2 {
        for path in ["/r", "/b"] {
            let got = world.get(&format!("{path}?page=2&size=5")).send().await;
            assert_eq!(ids(&got), [25, 24, 23, 22, 21], "{path}, round {round}");
            let link = got.header("link").expect("the upstream has one");
            assert!(link.split(", ").all(|link| link.starts_with(&format!("<{path}?"))), "{path}: {link}");
        }
    }
    assert_eq!(world.calls(), 1);
}

/// An answer that cost no call says nothing of what is left of them.
#[tokio::test(start_paused = true)]
async fn a_window_from_memory_tells_nothing_of_the_account() {
    let config =
        Config { account: "quota = [{ requests = 3, per = \"10s\" }]", more: PAGED, ..Config::default() };
    let world = World::new(&config);
    let list = Listing::new(30);
    world.upstream.plays(move |heard| list.answer(&heard.target));
    let first = world.get("/r?page=1&size=5").send().await;
    assert_eq!(first.header("ratelimit"), Some("\"10s\";r=2;t=10"));
    let second = world.get("/r?page=2&size=5").send().await;
    assert_eq!((second.cache(), second.header("ratelimit")), ("hit; ttl=30; detail=sliced", None));
    assert_eq!(second.header("ratelimit-policy"), None);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_cut_is_forwarded_as_it_was_asked() {
    let paged = Paged::new(Listing::new(30));
    paged.world.upstream.plays(|heard| reply(200, format!("{{\"a\":\"{}\"}}", heard.target)));
    for _ in 0..3 {
        assert_eq!(paged.get(1, 3).await.text(), "{\"a\":\"/v1/r?page=1&size=3\"}");
    }
    assert_eq!(paged.world.calls(), 2, "tried once, then forwarded and kept whole");
    let wide = Paged::new(Listing::new(300));
    assert_eq!(ids(&wide.get(1, 200).await).len(), 200);
    assert_eq!(wide.world.upstream.heard().len(), 1);
    assert_eq!(wide.world.metric("tollgate_pages_forwarded_total", &["reason=\"too_wide\""]), 1.0);
}

#[tokio::test(start_paused = true)]
async fn gzip_is_decoded() {
    use std::io::Write as _;
    let paged = Paged::new(Listing::new(30));
    let list = paged.list.clone();
    paged.world.upstream.plays(move |heard| {
        assert_eq!(heard.header("accept-encoding"), Some("identity, gzip"));
        let mut reply = list.lock().unwrap().answer(&heard.target).with("content-encoding", "gzip");
        let body = reply.pieces[0].clone().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&body).unwrap();
        reply.pieces = vec![Ok(gzip.finish().unwrap().into())];
        reply
    });
    let got = paged.get(2, 3).await;
    assert_eq!((got.text(), got.header("content-encoding")), (paged.direct_text(2, 3).as_str(), None));
    paged.get(3, 3).await;
    assert_eq!(paged.world.calls(), 1);
}

// ---- walks -------------------------------------------------------------------------------------------------------

fn token(got: &Got) -> String {
    got.header("tollgate-walk").unwrap().split(';').next().unwrap().to_owned()
}

fn state(got: &Got) -> &str {
    got.header("tollgate-walk").unwrap().split("state=").nth(1).unwrap()
}

/// Walks from page 1 to the end, `between` two pages something happens; the ids in order.
async fn walk(paged: &Paged, size: u64, with_token: bool, between: impl Fn(&Paged, u64)) -> Vec<u64> {
    let (mut read, mut held) = (Vec::new(), None::<String>);
    for page in 1.. {
        let mut ask = paged.world.get(&format!("/r?page={page}&size={size}"));
        if let Some(held) = held.as_ref().filter(|_| with_token) {
            ask = ask.with("tollgate-walk", held);
        }
        let got = ask.send().await;
        let page_ids = ids(&got);
        held = Some(token(&got));
        let last = (page_ids.len() as u64) < size;
        read.extend(page_ids);
        if last {
            return read;
        }
        between(paged, page);
        pass(s(1)).await;
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_walk_reads_one_state_while_items_arrive_at_the_head() {
    for with_token in [true, false] {
        for (arrivals, size) in [(1, 7), (3, 10), (12, 4), (1, 9)] {
            let paged = Paged::new(Listing::new(64));
            // Somebody else reads the first page all the time, so that the head is seen to move.
            let read = walk(&paged, size, with_token, |paged, page| {
                if page % 2 == 0 {
                    paged.change(|list| list.arrive(arrivals));
                }
            });
            let read = read.await;
            assert_eq!(read, (1..=64).rev().collect::<Vec<_>>(), "{arrivals} {size} {with_token}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_walk_goes_on_in_its_generation_when_others_have_seen_a_newer_head() {
    for with_token in [true, false] {
        let paged = Paged::of(Listing::new(64), "ttl = \"2s\"", PAGED);
        let (mut read, mut held) = (Vec::new(), None::<String>);
        for page in 1..=8 {
            let mut ask = paged.world.get(&format!("/r?page={page}&size=9"));
            if let Some(held) = held.as_ref().filter(|_| with_token) {
                ask = ask.with("tollgate-walk", held);
            }
            let got = ask.send().await;
            let expected = if with_token || page == 1 { "pinned" } else { "guessed" };
            assert_eq!(state(&got), expected, "{page}");
            read.extend(ids(&got));
            held = Some(token(&got));
            paged.change(|list| list.arrive(2));
            pass(s(3)).await;
            // Another size: another walk, which sees the newest.
            let first = ids(&paged.get(1, 10).await);
            assert_eq!(first[0], 64 + 2 * page, "{page}");
        }
        assert_eq!(read, (1..=64).rev().collect::<Vec<_>>(), "{with_token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_walk_meets_what_is_appended_at_its_end() {
    let paged = Paged::new(Listing::new(33));
    let read = walk(&paged, 10, false, |paged, _| paged.change(|list| list.append(2))).await;
    assert_eq!(read[..33], (1..=33).rev().collect::<Vec<_>>());
    let appended = &read[33..];
    assert!(appended.iter().zip(34..).all(|(id, next)| *id == next), "{appended:?}");
}

/// A list whose end is asked for anew while what stands before it may be older.
const SETTLED: &str = "[routes.params]\n\
    page = { type = \"integer\", default = 1, min = 1 }\n\
    size = { type = \"integer\", default = 5, min = 1 }\n\
    [routes.pages]\npage = \"page\"\nsize = \"size\"\nblock = 10\nid = \"/id\"\nsettled_ttl = \"5m\"\n";

#[tokio::test(start_paused = true)]
async fn a_walk_ends_where_its_list_ended() {
    for (count, seen) in (46..=51).flat_map(|count| [0, 1, 4].map(|seen| (count, seen))) {
        for (unseen, size, with_token) in [(0, 5, true), (3, 5, false), (3, 10, true), (4, 10, false)] {
            let paged = Paged::of(Listing::new(count), "ttl = \"2s\"", SETTLED);
            // Somebody has read it all, and more has arrived since.
            walk(&paged, 10, true, |_, _| {}).await;
            paged.change(|list| list.arrive(seen));
            pass(s(3)).await;
            let total = count + seen;
            let read = walk(&paged, size, with_token, |paged, page| {
                if page == total / size {
                    paged.change(|list| list.arrive(unseen));
                }
            });
            let expected: Vec<_> = (1..=total).rev().collect();
            assert_eq!(read.await, expected, "{count} {seen} {unseen} {size} {with_token}");
            assert_eq!(
                paged.world.metric("tollgate_pages_forwarded_total", &[]),
                0.0,
                "{count} {seen} {size}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_walk_whose_generation_is_gone_ends() {
    let paged = Paged::of(Listing::new(64), "ttl = \"2s\"", PAGED);
    let held = token(&paged.get(1, 10).await);
    let go_on = |page: u64, held: &str| {
        paged.world.get(&format!("/r?page={page}&size=10&tollgate_walk={held}")).send()
    };
    assert_eq!(ids(&go_on(2, &held).await)[0], 54);
    // An item goes away: what is known of the old list is read on, what is not cannot be.
    paged.change(|list| {
        list.items.remove(3);
    });
    pass(s(3)).await;
    assert_eq!(ids(&paged.get(1, 5).await), [64, 63, 62, 60, 59]);
    assert_eq!(paged.world.metric("tollgate_pages_restarts_total", &["reason=\"moved\""]), 1.0);
    assert_eq!(ids(&go_on(2, &held).await)[0], 54);
    let ended = go_on(3, &held).await;
    assert_eq!((ended.status, ended.problem().as_str()), (410, "walk-ended"));
    // Nor does a token open anything that is not its own, and none outlives `walk_total`.
    let other = paged.world.get(&format!("/r?page=2&size=10&q=x&tollgate_walk={held}")).send().await;
    assert_eq!(other.status, 410);
    assert_eq!(go_on(2, "nonsense").await.status, 410);
    let young = token(&paged.get(1, 10).await);
    pass(s(301)).await;
    assert_eq!(go_on(2, &young).await.status, 410);
    // What is removed before keying is removed before the upstream sees it.
    assert!(paged.world.upstream.heard().iter().all(|heard| !heard.target.contains("tollgate")));
}

#[tokio::test(start_paused = true)]
async fn a_walk_goes_on_where_as_many_items_arrive_as_a_block_has() {
    let paged = Paged::of(Listing::new(21), "ttl = \"30s\"", PAGED);
    let first = paged.get(1, 7).await;
    paged.change(|list| list.arrive(10));
    let second = paged.world.get("/r?page=2&size=7").with("tollgate-walk", &token(&first)).send().await;
    assert_eq!((state(&second), ids(&second)), ("pinned", (8..=14).rev().collect()));
}

#[tokio::test(start_paused = true)]
async fn of_several_walks_the_newest_generation_is_read() {
    let paged = Paged::of(Listing::new(64), "ttl = \"2s\"", PAGED);
    // What lies past an end is learned first: until then what stands apart is forwarded as it is asked.
    for page in [1, 9] {
        paged.world.get(&format!("/r?q=none&page={page}&size=10")).send().await;
    }
    assert_eq!(state(&paged.get(1, 10).await), "pinned");
    paged.change(|list| list.arrive(4));
    pass(s(3)).await;
    paged.get(1, 10).await;
    let torn = paged.get(2, 10).await;
    assert_eq!((state(&torn), ids(&torn)[0]), ("torn", 58));
    // Nobody was expected there: the walk begins where it is.
    assert_eq!(state(&paged.get(5, 10).await), "pinned");
    // What was not read on for `walk_idle` is forgotten.
    paged.change(|list| list.arrive(1));
    pass(s(31)).await;
    paged.get(1, 10).await;
    assert_eq!(state(&paged.get(2, 10).await), "guessed");
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_what_items_say_erases_the_collection_and_ends_its_walks() {
    let paged = Paged::of(Listing::new(30), "ttl = \"30s\"\ntags = { \"/id\" = \"q\" }", PAGED);
    let held = token(&paged.get(1, 5).await);
    paged.get(2, 10).await;
    let group = tollgate::rules::groups::named(b"u", b"?q=14");
    let store = &paged.world.lasting.store;
    assert_eq!(store.remove_group(tollgate::rules::groups::named(b"u", b"?q=99"), paged.world.now()), 0);
    assert!(store.remove_group(group, paged.world.now()) > 0, "item 14 is in the second block");
    let ended = paged.world.get("/r?page=2&size=5").with("tollgate-walk", &held).send().await;
    assert_eq!(ended.status, 410);
    pass(ms(1)).await;
    assert_eq!(paged.get(1, 5).await.cache(), "fwd=uri-miss; fwd-status=200; stored");
    assert_eq!(paged.world.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_asked_for_once_more_is_of_its_walk() {
    let paged = Paged::of(Listing::new(64), "ttl = \"2s\"", PAGED);
    assert_eq!(ids(&paged.get(1, 10).await)[0], 64);
    paged.change(|list| list.arrive(4));
    pass(s(3)).await;
    // Another size sees the head move.
    assert_eq!(ids(&paged.get(1, 7).await)[0], 68);
    let list = paged.list.clone();
    paged.world.upstream.plays(|_| reply(500, "{}"));
    assert_eq!(paged.get(2, 10).await.status, 500);
    paged.world.upstream.plays(move |heard| list.lock().unwrap().answer(&heard.target));
    pass(s(2)).await;
    // The answer that came may be lost on its way: whoever asks again is read the same.
    for _ in 0..2 {
        let got = paged.get(2, 10).await;
        assert_eq!((state(&got), ids(&got)[0]), ("guessed", 54));
    }
    let got = paged.get(3, 10).await;
    assert_eq!((state(&got), ids(&got)[0]), ("guessed", 44));
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_walk_that_is_forwarded_says_so_and_the_walk_goes_on() {
    const ONE: &str = "[routes.params]\n\
        page = { type = \"integer\", default = 1, min = 1 }\n\
        size = { type = \"integer\", default = 5, min = 1 }\n\
        [routes.pages]\npage = \"page\"\nsize = \"size\"\nblock = 10\nid = \"/id\"\nmax_blocks = 1\n";
    for with_token in [true, false] {
        let paged = Paged::of(Listing::new(64), "ttl = \"2s\"", ONE);
        let held = token(&paged.get(1, 10).await);
        paged.change(|list| list.arrive(4));
        pass(s(3)).await;
        paged.get(1, 5).await;
        let next = |page: u64| {
            let ask = paged.world.get(&format!("/r?page={page}&size=10"));
            let ask = if with_token { ask.with("tollgate-walk", &held) } else { ask };
            ask.send()
        };
        // The second page of old lies in two blocks by now, and one may be asked for.
        let got = next(2).await;
        assert_eq!(got.text(), paged.direct_text(2, 10), "as it was asked for");
        assert_eq!((state(&got), token(&got)), ("torn", held.clone()));
        assert_eq!(paged.world.metric("tollgate_pages_forwarded_total", &["reason=\"too_wide\""]), 1.0);
        // What was seen meanwhile does for the next page, which is the walk's own.
        let got = next(2).await;
        assert_eq!(ids(&got), (45..=54).rev().collect::<Vec<_>>());
        assert_eq!(token(&got), held);
        assert_eq!(state(&got), if with_token { "pinned" } else { "guessed" });
        // A token whose list is gone is told so, however wide the page.
        paged.change(|list| list.items.truncate(3));
        pass(s(3)).await;
        paged.get(1, 5).await;
        pass(s(301)).await;
        let wide = paged.world.get("/r?page=2&size=20").with("tollgate-walk", &held).send().await;
        assert_eq!(wide.status, 410);
    }
}

#[tokio::test(start_paused = true)]
async fn what_pages_save_is_counted() {
    let paged = Paged::of(Listing::new(64), "ttl = \"2s\"", PAGED);
    let metric = |name: &str| {
        paged.world.lasting.refresh();
        paged.world.metric(name, &[])
    };
    paged.get(1, 5).await;
    assert_eq!((metric("tollgate_walks_open"), metric("tollgate_pages_calls_saved")), (1.0, 0.0));
    paged.get(2, 5).await;
    paged.get(2, 7).await;
    assert_eq!((metric("tollgate_walks_open"), metric("tollgate_pages_calls_saved")), (2.0, 1.0));
    assert_eq!(metric("tollgate_pages_blocks_total"), 4.0, "the last window lies in two");
    assert_eq!(metric("tollgate_walks_ambiguous"), 0.0);
    pass(s(3)).await;
    paged.change(|list| list.arrive(1));
    paged.get(1, 5).await;
    pass(s(3)).await;
    paged.change(|list| list.arrive(1));
    paged.get(1, 5).await;
    assert_eq!((metric("tollgate_walks_open"), metric("tollgate_walks_ambiguous")), (3.0, 1.0));
    pass(s(31)).await;
    assert_eq!((metric("tollgate_walks_open"), metric("tollgate_walks_ambiguous")), (0.0, 0.0));
}

#[tokio::test(start_paused = true)]
async fn a_size_that_is_cut_is_told() {
    let paged = Paged::new(Listing { oversize: Oversize::Clamp(4), ..Listing::new(30) });
    for _ in 0..2 {
        paged.get(1, 3).await;
        paged.get(2, 8).await;
    }
    let told = |got: &Got| {
        let lines = got.headers.get_all("tollgate-understood").iter();
        lines.map(|line| line.to_str().unwrap()).collect::<Vec<_>>().join(", ")
    };
    let capped = || paged.world.metric("tollgate_params_total", &["param=\"size\"", "rule=\"capped\""]);
    let before = capped();
    let got = paged.get(2, 8).await;
    assert_eq!((ids(&got), told(&got).as_str()), (vec![26, 25, 24, 23], "size;from=\"8\";rule=\"capped\""));
    assert_eq!(capped(), before + 1.0);
    let got = paged.world.get("/r?page=2&size=8.0").send().await;
    let both = "size;from=\"8\";rule=\"capped\", size;from=\"8.0\";rule=\"reformatted\"";
    assert_eq!(told(&got), both);
    assert_eq!(told(&paged.get(3, 4).await), "");
}

#[tokio::test(start_paused = true)]
async fn a_page_past_a_short_first_block_costs_two_calls() {
    for (page, size) in [(3, 2), (2, 5), (9, 1), (2, 8)] {
        let paged = Paged::new(Listing::new(3));
        for _ in 0..2 {
            assert_eq!(paged.get(page, size).await.text(), "[]", "page {page} of {size}");
        }
        assert_eq!(
            paged.world.calls(),
            2,
            "page {page} of {size}: the block, and the next to tell that it is the last"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_does_not_tell_what_lies_past_an_end() {
    let paged = Paged::new(Listing { past_end: PastEnd::LastPage, ..Listing::new(0) });
    assert_eq!(paged.get(4, 4).await.text(), "[]");
    paged.change(|list| list.arrive(13));
    assert_eq!(paged.get(8, 3).await.text(), paged.direct_text(8, 3));
}

#[tokio::test(start_paused = true)]
async fn a_belief_is_not_built_on_an_older_answer() {
    let paged = Paged::new(Listing::new(1));
    assert_eq!(ids(&paged.get(1, 26).await), [1]);
    paged.change(|list| list.append(30));
    // Blocks show more than the answer that is held; it is older, and no sign of a limit.
    paged.get(1, 10).await;
    paged.get(1, 26).await;
    pass(s(31)).await;
    assert_eq!(ids(&paged.get(1, 26).await).len(), 26);
}

#[tokio::test(start_paused = true)]
async fn a_limit_above_a_block_is_learned_from_two_signs() {
    let paged = Paged::new(Listing { oversize: Oversize::Clamp(12), ..Listing::new(64) });
    let limits = || paged.world.metric("tollgate_pages_beliefs_total", &["belief=\"capped\""]);
    for signs in 0..2 {
        for page in 1..=2 {
            paged.get(page, 10).await;
        }
        pass(s(1)).await;
        assert_eq!(ids(&paged.get(1, 18).await).len(), 12, "as the upstream has it");
        assert_eq!(limits(), f64::from(signs));
        pass(s(31)).await;
    }
    paged.get(1, 10).await;
    let got = paged.get(2, 18).await;
    assert_eq!((ids(&got).len(), ids(&got)[0]), (12, 52));
    assert_eq!(got.header("tollgate-understood"), Some("size;from=\"18\";rule=\"capped\""));
}

#[tokio::test(start_paused = true)]
async fn links_are_made_where_the_upstream_would_make_them() {
    for (linked, count, expected) in [
        // All of it stands in one block: an upstream may leave the block's `Link` out, and not the window's.
        (true, 8, true),
        (false, 8, true),
        (true, 60, true),
        (false, 60, false),
    ] {
        let paged = Paged::new(Listing::new(count));
        let list = paged.list.clone();
        paged.world.upstream.plays(move |heard| {
            let reply = list.lock().unwrap().answer(&heard.target);
            let leads = linked && count > 10;
            if leads { reply.with("link", "</v1/r?page=2>; rel=\"next\"") } else { reply }
        });
        paged.get(2, 10).await;
        let case = format!("{linked} {count}");
        let got = paged.get(1, 3).await;
        let link = got.header("link").unwrap_or_default();
        assert_eq!(link.contains("page=2&size=3&tollgate_walk="), expected, "{case}: {link}");
        // Where a list is one page, nothing leads anywhere.
        let got = paged.world.get("/r?page=1&size=10&q=short").send().await;
        assert_eq!(got.header("link").is_some(), count == 60 && expected, "{case}: {:?}", got.header("link"));
    }
}

// ---- envelopes whose members come and go -------------------------------------------------------------------------

/// When the upstream leaves a member of its envelopes out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaves {
    /// `next`, `prev` and `more` where they lead nowhere.
    OutWhatLeadsNowhere,
    /// `total` on every page but the first.
    TotalOut,
    /// `prev`, always.
    PrevOut,
}

const ENVELOPES: &str = "[routes.params]\n\
    page = { type = \"integer\", default = 1, min = 1 }\n\
    size = { type = \"integer\", default = 5, min = 1 }\n\
    q = \"string\"\n\
    [routes.pages]\npage = \"page\"\nsize = \"size\"\nblock = 10\nid = \"/id\"\nitems = \"/data\"\nlinks = \"page\"\n\
    members = { total = \"/meta/total\", more = \"/meta/more\", next = \"/next\", prev = \"/prev\", \
    constant = [\"/kind\"] }\n";

fn enveloped(list: &Listing, leaves: Leaves, target: &str) -> serde_json::Value {
    let plain = list.answer(target);
    let body: Vec<u8> = plain.pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
    let number = |name: &str| -> u64 {
        let query = target.split_once('?').unwrap().1;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap().parse().unwrap()
    };
    let (page, size, total) = (number("page"), number("size"), list.items.len() as u64);
    let more = page * size < total;
    let nowhere = leaves == Leaves::OutWhatLeadsNowhere;
    let mut answer = serde_json::json!({ "kind": 1.50, "meta": {}, "data": serde_json::Value::Null });
    answer["data"] = serde_json::from_slice(&body).unwrap();
    if leaves != Leaves::TotalOut || page == 1 {
        answer["meta"]["total"] = total.into();
    }
    if more || !nowhere {
        answer["meta"]["more"] = more.into();
        answer["next"] = if more { (page + 1).into() } else { serde_json::Value::Null };
    }
    if leaves != Leaves::PrevOut && (page > 1 || !nowhere) {
        answer["prev"] = if page > 1 { (page - 1).into() } else { serde_json::Value::Null };
    }
    answer
}

#[tokio::test(start_paused = true)]
async fn members_that_are_absent_are_not_invented() {
    for leaves in [Leaves::OutWhatLeadsNowhere, Leaves::TotalOut, Leaves::PrevOut] {
        for count in [3, 10, 24, 40] {
            let paged = Paged::of(Listing::new(count), "ttl = \"30s\"", ENVELOPES);
            let list = paged.list.clone();
            paged.world.upstream.plays(move |heard| {
                reply(200, enveloped(&list.lock().unwrap(), leaves, &heard.target).to_string())
            });
            let ask = async |page: u64, size: u64, case: &str| {
                let got = paged.get(page, size).await;
                let mut made: serde_json::Value = serde_json::from_str(got.text()).unwrap();
                let target = format!("/r?page={page}&size={size}");
                let mut direct = enveloped(&paged.list.lock().unwrap(), leaves, &target);
                if leaves == Leaves::TotalOut {
                    // It may be told where the upstream is silent, if it is right.
                    assert!(
                        made["meta"]["total"].as_u64().is_none_or(|total| total == count),
                        "{case}: {made}"
                    );
                    direct["meta"]["total"] = 0.into();
                    made["meta"]["total"] = 0.into();
                }
                assert_eq!(made, direct, "{case}");
            };
            let windows = [(1, 3), (2, 3), (1, 10), (2, 7), (1, 5), (2, 10), (3, 8), (4, 10), (5, 5), (1, 2)];
            for round in 0..2 {
                let before = paged.world.calls();
                for (page, size) in windows.into_iter().filter(|(page, size)| (page - 1) * size < count) {
                    ask(page, size, &format!("{leaves:?} {count} items, page {page} of {size}, {round}"))
                        .await;
                }
                let calls = paged.world.calls() - before;
                assert!(round == 0 || calls == 0, "{leaves:?} {count}: {calls} more calls");
            }
            // Once it is known what the upstream gives, it is forwarded nothing.
            let forwarded = paged.world.metric("tollgate_pages_forwarded_total", &[]);
            assert!(forwarded <= 3.0, "{leaves:?} {count}: {forwarded}");
        }
    }
}
