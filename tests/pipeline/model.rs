//! Pages against a model: random sequences of asks, arrivals, appends, edits, deletions, failures, purges and time, before
//! a list that remembers every state it was in. Whatever is answered must have been so, lately enough.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use proptest::prelude::*;

use crate::pages::{Listing, Oversize, PAGED, PastEnd};
use crate::world::{Act, Config, Got, World, reply, s};

/// How long answers are fresh, and how long they may stand in for failures.
const CACHE: &str = "ttl = \"30s\"\nstale_if_error = \"20s\"";
const FRESH: Duration = s(30);
const STALE: Duration = s(20);

/// The same route without pages.
const WHOLE: &str = "[routes.params]\n\
    page = { type = \"integer\", default = 1, min = 1 }\n\
    size = { type = \"integer\", default = 5, min = 1 }\nq = \"string\"\n";

#[derive(Debug, Clone)]
enum Op {
    Ask {
        page: u64,
        size: u64,
        head: bool,
    },
    /// The next page of one of several walks; in pages of `size` items, if it is the first of one that carries its token.
    Step {
        who: usize,
        size: u64,
    },
    Arrive(u64),
    Append(u64),
    Edit(usize),
    Delete(usize),
    /// An item goes to the head.
    Raise(usize),
    Pass(u64),
    /// The upstream fails, or does so no longer.
    Fail(bool),
    Purge,
}

/// What may happen to a list in one run: a state of the whole can only be told from blocks if items arrive at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Arrivals,
    Appends,
    Anything,
}

fn op(kind: Kind) -> impl Strategy<Value = Op> {
    let change = match kind {
        Kind::Arrivals => {
            prop_oneof![3 => (1u64..14).prop_map(Op::Arrive), 1 => any::<usize>().prop_map(Op::Edit)].boxed()
        }
        Kind::Appends => {
            prop_oneof![3 => (1u64..14).prop_map(Op::Append), 1 => any::<usize>().prop_map(Op::Edit)].boxed()
        }
        Kind::Anything => prop_oneof![
            (1u64..14).prop_map(Op::Arrive),
            (1u64..5).prop_map(Op::Append),
            any::<usize>().prop_map(Op::Edit),
            any::<usize>().prop_map(Op::Delete),
            any::<usize>().prop_map(Op::Raise),
        ]
        .boxed(),
    };
    prop_oneof![
        8 => (1u64..9, 1u64..26, prop::bool::weighted(0.1))
            .prop_map(|(page, size, head)| Op::Ask { page, size: if size == GUESSED { 1 } else { size }, head }),
        8 => (0..WALKERS, 1u64..30).prop_map(|(who, size)| Op::Step { who, size }),
        4 => change,
        4 => (1u64..20).prop_map(Op::Pass),
        1 => any::<bool>().prop_map(Op::Fail),
        1 => Just(Op::Purge),
    ]
}

fn habits() -> impl Strategy<Value = (PastEnd, Oversize)> {
    let past_end = prop_oneof![
        Just(PastEnd::Empty),
        Just(PastEnd::LastPage),
        Just(PastEnd::Status(404)),
        Just(PastEnd::Status(400))
    ];
    let oversize = prop_oneof![
        3 => Just(Oversize::Unlimited),
        1 => (3u64..12).prop_map(Oversize::Clamp),
        1 => (3u64..12).prop_map(Oversize::Refuse)
    ];
    (past_end, oversize)
}

/// A list, every state it was in with the moment it began, and whether it answers.
struct Stage {
    world: World,
    list: Arc<Mutex<Listing>>,
    states: Vec<(Duration, Listing)>,
    failing: Arc<Mutex<bool>>,
    /// When it last failed.
    failed: Option<Duration>,
}

impl Stage {
    fn new(list: Listing, more: &'static str) -> Self {
        let world = World::new(&Config { cache: CACHE, more, ..Config::default() });
        let (list, failing) = (Arc::new(Mutex::new(list)), Arc::new(Mutex::new(false)));
        let (played, fails) = (list.clone(), failing.clone());
        world.upstream.plays(move |heard| match *fails.lock().unwrap() {
            true => Act::from(reply(500, "{}")),
            false => played.lock().unwrap().answer(&heard.target).into(),
        });
        let states = vec![(Duration::ZERO, list.lock().unwrap().clone())];
        Self { world, list, states, failing, failed: None }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.world.now().as_nanos())
    }

    fn change(&mut self, act: impl FnOnce(&mut Listing)) {
        let mut list = self.list.lock().unwrap();
        act(&mut list);
        self.states.push((Duration::from_nanos(self.world.now().as_nanos()), list.clone()));
    }

    /// Every state the list was in at some moment of the last `age`.
    fn lately(&self, age: Duration) -> impl Iterator<Item = &Listing> {
        let since = self.now().saturating_sub(age);
        let ends = self.states.iter().skip(1).map(|(began, _)| *began).chain([Duration::MAX]);
        self.states.iter().zip(ends).filter(move |(_, ended)| *ended >= since).map(|((_, list), _)| list)
    }

    /// How old an answer may be now.
    fn allowed(&self) -> Duration {
        // A refresh that failed speaks for a second.
        let failed = self.failed.is_some_and(|at| self.now().saturating_sub(at) <= s(1));
        if *self.failing.lock().unwrap() || failed { FRESH + STALE } else { FRESH }
    }
}

fn items(got: &Got) -> Vec<(u64, u64)> {
    let items: Vec<serde_json::Value> = serde_json::from_str(got.text()).unwrap();
    items.iter().map(|item| (item["id"].as_u64().unwrap(), item["v"].as_u64().unwrap())).collect()
}

fn ids(items: &[(u64, u64)]) -> Vec<u64> {
    items.iter().map(|(id, _)| *id).collect()
}

/// How many walks are under way at once. The first does not carry its token, and nobody else asks for pages of its size:
/// the others do.
const WALKERS: usize = 4;
const GUESSED: u64 = 9;

/// A walk.
#[derive(Default, Clone)]
struct Walker {
    size: u64,
    page: u64,
    token: Option<String>,
    read: Vec<u64>,
    /// How old its oldest state may be.
    began: Duration,
}

async fn play(
    kind: Kind,
    (past_end, oversize): (PastEnd, Oversize),
    count: u64,
    ops: &[Op],
    more: &'static str,
) -> Result<(), TestCaseError> {
    let mut stage = Stage::new(Listing { past_end, oversize, ..Listing::new(count) }, more);
    let mut walkers = vec![Walker::default(); WALKERS];
    let paged = more == PAGED;
    let (mut arrived, most) = match oversize {
        Oversize::Unlimited => (0, 19),
        Oversize::Clamp(most) => (0, 2 * most.min(10) - 1),
        // Blocks have as many items as some client was given.
        Oversize::Refuse(_) => (0, 1),
    };
    for (n, op) in ops.iter().enumerate() {
        match op.clone() {
            Op::Ask { page, size, head } => {
                let method = if head { Method::HEAD } else { Method::GET };
                let got = stage.world.ask(method, &format!("/r?page={page}&size={size}")).send().await;
                if *stage.failing.lock().unwrap() {
                    stage.failed = Some(stage.now());
                }
                if head {
                    continue;
                }
                check(&stage, kind, &got, (page, size), &format!("op {n}: page {page} of {size}"))?;
            }
            Op::Step { who, size } if paged => {
                let walker = &mut walkers[who];
                walker.page += 1;
                let page = walker.page;
                if page == 1 {
                    walker.size = match (who, size) {
                        (0, _) => GUESSED,
                        (_, GUESSED) => 1,
                        (_, size) => size,
                    };
                }
                let walked = walker.size;
                let mut ask = stage.world.get(&format!("/r?page={page}&size={walked}"));
                if let Some(token) = walker.token.as_ref().filter(|_| who > 0) {
                    ask = ask.with("tollgate-walk", token);
                }
                let got = ask.send().await;
                let now = Duration::from_nanos(stage.world.now().as_nanos());
                if page == 1 {
                    walker.began = now;
                }
                let token = got.header("tollgate-walk").map(|value| value[..40].to_owned());
                let small = match oversize {
                    Oversize::Clamp(most) | Oversize::Refuse(most) => most < walked,
                    Oversize::Unlimited => false,
                };
                // Without its token a walk is gone on with as long as it is said to be.
                let standing = got.header("tollgate-walk").map_or("", |value| &value[47..]);
                let goes_on = page == 1 || standing == if who == 0 { "guessed" } else { "pinned" };
                if got.status != 200 || token.is_none() || small || !goes_on {
                    *walker = Walker::default();
                    continue;
                }
                let page_ids = ids(&items(&got));
                let whole = page_ids.len() as u64 == walked;
                walker.read.extend(page_ids);
                walker.token = token;
                if kind == Kind::Anything {
                    prop_assert!(walker.read.len() < 10_000);
                } else {
                    let age = now - walker.began + FRESH + STALE;
                    let is_of = |list: &Listing| {
                        let all: Vec<u64> = list.items.iter().map(|(id, _)| *id).collect();
                        // Past the end some say the last page once more.
                        let once_more = past_end == PastEnd::LastPage && walker.read.len() > all.len();
                        once_more
                            || if whole || kind == Kind::Appends {
                                all.starts_with(&walker.read) || walker.read.is_empty()
                            } else {
                                all == walker.read
                            }
                    };
                    prop_assert!(
                        stage.lately(age).any(is_of),
                        "op {}: page {} of {} of walk {}: {:?}, token {:?}",
                        n,
                        page,
                        walked,
                        who,
                        walker.read,
                        walker.token
                    );
                }
                if !whole {
                    *walker = Walker::default();
                }
            }
            Op::Step { .. } => {}
            // As many as were known, and a block more, would leave no sign between two blocks.
            Op::Arrive(count) if kind == Kind::Arrivals && arrived + count > most => {}
            Op::Arrive(count) => {
                arrived += count;
                stage.change(|list| list.arrive(count));
            }
            Op::Append(count) => stage.change(|list| list.append(count)),
            Op::Edit(at) => stage.change(|list| {
                let len = list.items.len();
                if len > 0 {
                    list.items[at % len].1 += 1;
                }
            }),
            Op::Delete(at) => stage.change(|list| {
                let len = list.items.len();
                if len > 0 {
                    list.items.remove(at % len);
                }
            }),
            Op::Raise(at) => stage.change(|list| {
                let len = list.items.len();
                if len > 0 {
                    let item = list.items.remove(at % len);
                    list.items.insert(0, item);
                }
            }),
            Op::Pass(seconds) => tokio::time::sleep(s(seconds)).await,
            Op::Fail(fails) => {
                *stage.failing.lock().unwrap() = fails;
                stage.failed = Some(stage.now());
            }
            Op::Purge => {
                stage.world.lasting.store.clear(stage.world.now());
                walkers.fill(Walker::default());
            }
        }
    }
    stage.world.quiet().await;
    Ok(())
}

/// Whether an answer was so, lately enough.
fn check(
    stage: &Stage,
    kind: Kind,
    got: &Got,
    (page, size): (u64, u64),
    what: &str,
) -> Result<(), TestCaseError> {
    // A walk reads what was fresh when it began.
    let walks = got.header("tollgate-walk").is_some_and(|value| value.ends_with("guessed"));
    let allowed = stage.allowed() + if walks { s(300) } else { Duration::ZERO };
    if got.status == 500 {
        prop_assert!(allowed > FRESH, "{}: an error that nobody gave", what);
        return Ok(());
    }
    let direct = |list: &Listing| list.answer(&format!("/r?page={page}&size={size}"));
    if got.status != 200 {
        // An item that went up from where nobody looked passes for one that arrived.
        let said =
            kind == Kind::Anything || stage.lately(allowed).any(|list| direct(list).status == got.status);
        prop_assert!(said, "{}: {} was never said", what, got.status);
        return Ok(());
    }
    let answered = items(got);
    let age = got.header("age").map_or(Duration::ZERO, |age| s(age.parse().unwrap()));
    prop_assert!(age <= allowed, "{}: {:?} is too old", what, age);
    for item in &answered {
        let was = stage.lately(age + s(1)).any(|list| list.items.contains(item));
        prop_assert!(was, "{}: {:?} is older than {:?}", what, item, age);
    }
    if kind != Kind::Anything {
        let expected = |list: &Listing| {
            let reply = direct(list);
            (reply.status == 200).then(|| {
                let body: Vec<u8> =
                    reply.pieces.iter().flat_map(|piece| piece.clone().unwrap().to_vec()).collect();
                let items: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
                items.iter().map(|item| item["id"].as_u64().unwrap()).collect::<Vec<_>>()
            })
        };
        let found = stage.lately(allowed).any(|list| expected(list) == Some(ids(&answered)));
        prop_assert!(found, "{}: {:?} ({:?}) was no state of the list", what, ids(&answered), got.cache());
    }
    Ok(())
}

fn run(kind: Kind, habits: (PastEnd, Oversize), count: u64, ops: &[Op]) -> Result<(), TestCaseError> {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime().block_on(play(kind, habits, count, ops, PAGED))?;
    runtime().block_on(play(kind, habits, count, ops, WHOLE))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn under_arrivals_every_answer_and_every_walk_is_a_state_of_the_list(
        habits in habits(), count in 0u64..70, ops in prop::collection::vec(op(Kind::Arrivals), 1..50),
    ) {
        run(Kind::Arrivals, habits, count, &ops)?;
    }

    #[test]
    fn under_appends_every_answer_is_a_state_of_the_list(
        habits in habits(), count in 0u64..70, ops in prop::collection::vec(op(Kind::Appends), 1..50),
    ) {
        run(Kind::Appends, habits, count, &ops)?;
    }

    #[test]
    fn whatever_happens_nothing_is_invented_and_ages_are_honest(
        habits in habits(), count in 0u64..70, ops in prop::collection::vec(op(Kind::Anything), 1..50),
    ) {
        run(Kind::Anything, habits, count, &ops)?;
    }
}

/// A step of a walk in pages of seven that carries its token.
const STEP: Op = Op::Step { who: 1, size: 7 };

#[test]
fn a_window_that_was_kept_since_before_items_arrived_follows_nothing_that_came_after() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let ops = [ask(4, 7), ask(1, 1), STEP, Op::Arrive(1), STEP, STEP];
    let habits = (PastEnd::Empty, Oversize::Refuse(7));
    run(Kind::Arrivals, habits, 35, &ops).unwrap();
}

#[test]
fn past_the_end_of_an_empty_list_no_habit_shows() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let ops = [ask(3, 5), Op::Arrive(10), Op::Arrive(5), ask(1, 1), ask(5, 6)];
    run(Kind::Arrivals, (PastEnd::LastPage, Oversize::Unlimited), 0, &ops).unwrap();
}

#[test]
fn the_last_page_once_more_is_no_larger_than_the_upstream_gives() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let ops = [ask(1, 1), Op::Arrive(9), Op::Purge, STEP, Op::Arrive(1), ask(3, 9)];
    run(Kind::Arrivals, (PastEnd::LastPage, Oversize::Clamp(8)), 0, &ops).unwrap();
}

#[test]
fn a_block_of_new_items_is_not_taken_for_the_last_page_once_more() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let ops = [Op::Arrive(6), STEP, STEP, STEP, Op::Arrive(10), ask(4, 7)];
    run(Kind::Arrivals, (PastEnd::Status(404), Oversize::Unlimited), 15, &ops).unwrap();
}

#[test]
fn what_was_past_the_end_is_a_page_of_its_own_once_the_list_has_grown() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let first = |who, size| Op::Step { who, size };
    let ops = [
        first(1, 16),
        first(0, 1),
        Op::Pass(9),
        ask(2, 6),
        Op::Pass(19),
        Op::Arrive(1),
        Op::Pass(2),
        ask(2, 16),
    ];
    run(Kind::Arrivals, (PastEnd::LastPage, Oversize::Unlimited), 16, &ops).unwrap();
}

#[test]
fn a_window_that_the_upstream_may_cut_is_not_put_together_from_two_answers() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let ops = [Op::Step { who: 1, size: 1 }, Op::Arrive(1), ask(1, 7)];
    run(Kind::Arrivals, (PastEnd::Empty, Oversize::Clamp(6)), 7, &ops).unwrap();
}

#[test]
fn a_block_of_arrivals_is_not_taken_for_the_last_page_by_who_has_seen_that_once() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let step = Op::Step { who: 0, size: 1 };
    let begun =
        [ask(1, 1), Op::Arrive(1), Op::Arrive(1), step.clone(), Op::Arrive(4), Op::Pass(32), ask(1, 1)];
    let walked = [Op::Arrive(10), Op::Pass(19), step.clone(), step];
    run(Kind::Arrivals, (PastEnd::LastPage, Oversize::Unlimited), 5, &[&begun[..], &walked].concat())
        .unwrap();
}

#[test]
fn what_was_empty_before_the_items_before_it_came_is_no_end() {
    let ask = |page, size| Op::Ask { page, size, head: false };
    let ops = [ask(1, 1), ask(8, 10), Op::Append(16), ask(1, 12), Op::Append(8), ask(6, 12)];
    run(Kind::Appends, (PastEnd::Empty, Oversize::Unlimited), 47, &ops).unwrap();
}

#[test]
fn past_the_end_of_an_older_list_is_past_the_end_of_the_newest() {
    let step = |who, size| Op::Step { who, size };
    let ask = Op::Ask { page: 2, size: 13, head: false };
    let ops = [step(0, 1), Op::Arrive(9), step(3, 7), step(3, 1), Op::Arrive(5), step(1, 13), ask];
    run(Kind::Arrivals, (PastEnd::Status(404), Oversize::Unlimited), 13, &ops).unwrap();
}
