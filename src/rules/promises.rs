//! Who was told to come back, and when: so that a `Retry-After` that is obeyed succeeds although others were told to come
//! back too.
//!
//! A promise holds no slot: a slot that is free goes to whoever is there. It only counts when others are told how long
//! they would wait. Who is told so has those before it of its own payer, each of them a turn of its share; and of each
//! other payer as much as that one is expected to want until then, at most its own share: those of its calls that wait or
//! were told to come back, and as many more as it lately was granted in such a time. So a payer who asks again and again
//! without waiting piles up promises that keep nobody else from its share.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::fairness::{Line, Number, Payer, Rival};
use crate::model::moment::Moment;
use crate::model::urgency::Class;

/// How long after its moment a promise is still expected to be taken up.
pub const GRACE: Duration = Duration::from_secs(1);
/// What a payer lately was granted is remembered for about so many grants of the account.
const LATELY: f64 = 100.0;
/// In the time of fewer grants nothing is learnt of how many a payer has.
const FEW: f64 = 10.0;
/// Whoever wants something now is expected to want as much again after so many grants.
const AGAIN: f64 = 25.0;
/// How much more than it lately had a payer may want.
const SURPLUS: f64 = 1.25;
/// How often an estimate is made truer.
const ROUNDS: usize = 16;

/// One of them: when to come back, with which question, and whose number is kept for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promise {
    /// When.
    pub at: Moment,
    /// What is asked again: tells those who come back from others of the same payer.
    pub question: u64,
    /// Its number.
    pub number: Number,
}

/// The promises not taken up yet, and who wanted how much lately.
#[derive(Debug, Default)]
pub struct Promises {
    expected: HashMap<(Class, Payer), Expected, RandomState>,
    count: usize,
}

/// What is expected of a payer in a class.
#[derive(Debug)]
struct Expected {
    weight: u32,
    told: VecDeque<Promise>,
    /// How many of the account's grants it had lately, by `at`, and since when they are counted.
    lately: f64,
    at: Moment,
    since: Moment,
}

impl Expected {
    fn new(weight: u32, at: Moment) -> Self {
        Self { weight, told: VecDeque::new(), lately: 0.0, at, since: at }
    }

    /// What is left of what it had lately, where grants are `gap` apart.
    fn left(&self, now: Moment, gap: Duration) -> f64 {
        self.lately * (-grants(now.since(self.at), gap) / LATELY).exp()
    }

    /// How many grants it has in the time of one.
    fn rate(&self, now: Moment, gap: Duration) -> f64 {
        let counted = grants(now.since(self.since), gap).max(FEW);
        (self.left(now, gap) / LATELY / (1.0 - (-counted / LATELY).exp())).min(1.0)
    }
}

/// What somebody is expected to want: calls that are known, and so many more in the time of each grant.
#[derive(Debug, Clone, Copy)]
struct Wish {
    known: usize,
    rate: f64,
}

impl Wish {
    /// Who has so many known calls now and lately was granted so many in the time of one.
    fn new(known: usize, rate: f64) -> Self {
        Self { known, rate: rate.max(known as f64 / AGAIN) * SURPLUS }
    }

    /// How many grants it wants in the time of so many.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    fn within(self, bound: usize) -> usize {
        self.known.saturating_add((self.rate * bound as f64) as usize)
    }
}

/// How many grants `time` is long.
fn grants(time: Duration, gap: Duration) -> f64 {
    time.as_secs_f64() / gap.as_secs_f64().max(1e-9)
}

impl Promises {
    /// How many are served before a call of `payer` with this number, which comes back when they have been.
    pub fn ahead_of<T>(
        &mut self,
        line: &Line<T>,
        class: Class,
        (payer, weight, number): (Payer, u32, Number),
        (now, gap): (Moment, Duration),
    ) -> usize {
        self.forget(now, gap);
        let told = |payer: Payer| self.expected.get(&(class, payer)).map_or(0, |held| held.told.len());
        let others = self.expected.iter().filter(|((held, _), _)| *held == class);
        let others = others.map(|((_, other), held)| (*other, held.weight));
        let lower = |held: &Expected| held.told.iter().filter(|promise| promise.number < number).count();
        let own = line.lower(class, payer, number) + self.expected.get(&(class, payer)).map_or(0, lower);
        let rivals: Vec<(usize, Wish)> = line
            .rivals(class, (payer, weight), own, others)
            .into_iter()
            .map(|Rival { payer, waiting, most }| {
                let rate = self.expected.get(&(class, payer)).map_or(0.0, |held| held.rate(now, gap));
                (most, Wish::new(waiting + told(payer), rate))
            })
            .collect();
        let better = self.better(line, class, (now, gap));
        let ahead = |bound: usize| {
            let of_class =
                own + rivals.iter().map(|(most, wish)| wish.within(bound).min(*most)).sum::<usize>();
            line.among_classes(class, of_class, better.within(bound))
        };
        // Each is a truer upper bound.
        (0..ROUNDS).fold(usize::MAX, |bound, _| ahead(bound))
    }

    /// What the classes better than `class` want.
    fn better<T>(&self, line: &Line<T>, class: Class, (now, gap): (Moment, Duration)) -> Wish {
        let waiting = Class::ALL.into_iter().filter(|other| *other < class).map(|other| line.waiting(other));
        let better = || self.expected.iter().filter(|((held, _), _)| *held < class).map(|(_, held)| held);
        let known = waiting.sum::<usize>() + better().map(|held| held.told.len()).sum::<usize>();
        Wish::new(known, better().map(|held| held.rate(now, gap)).sum())
    }

    /// A call of `payer` was granted.
    pub fn served(&mut self, class: Class, (payer, weight): (Payer, u32), now: Moment, gap: Duration) {
        let held = self.expected.entry((class, payer)).or_insert_with(|| Expected::new(weight, now));
        held.lately = held.left(now, gap) + 1.0;
        (held.weight, held.at) = (weight, now);
    }

    /// A call of `payer` was told to come back. Of more than `most` the rest are not kept.
    pub fn make(
        &mut self,
        class: Class,
        (payer, weight): (Payer, u32),
        promise: Promise,
        now: Moment,
        most: usize,
    ) {
        if self.count < most {
            let held = self.expected.entry((class, payer)).or_insert_with(|| Expected::new(weight, now));
            held.weight = weight;
            held.told.insert(held.told.partition_point(|held| *held <= promise), promise);
            self.count += 1;
        }
    }

    /// What a call of `payer` was told that asks this question again; it is taken up.
    pub fn take_up(&mut self, class: Class, payer: Payer, question: u64) -> Option<Promise> {
        let held = self.expected.get_mut(&(class, payer))?;
        let place = held.told.iter().position(|promise| promise.question == question)?;
        self.count -= 1;
        held.told.remove(place)
    }

    /// Forgets promises that nobody came for, and payers who want nothing any more.
    fn forget(&mut self, now: Moment, gap: Duration) {
        let mut left = 0;
        self.expected.retain(|_, held| {
            while held.told.front().is_some_and(|promise| promise.at + GRACE < now) {
                held.told.pop_front();
            }
            left += held.told.len();
            !held.told.is_empty() || held.left(now, gap) > 0.1
        });
        self.count = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(1);
    const CLASS: Class = Class::Interactive;
    const LIGHT: (Payer, u32) = (Payer(1), 1);
    const HEAVY: (Payer, u32) = (Payer(2), 10);

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    /// A line that nobody stands in, and what one more call of `who` is told at second `now`.
    #[derive(Default)]
    struct World {
        line: Line<()>,
        promises: Promises,
    }

    impl World {
        fn ahead(&mut self, (payer, weight): (Payer, u32), class: Class, now: u64) -> usize {
            let number = self.line.draw();
            self.promises.ahead_of(&self.line, class, (payer, weight, number), (at(now), GAP))
        }

        fn tell(&mut self, who: (Payer, u32), second: u64, question: u64) {
            let promise = Promise { at: at(second), question, number: self.line.draw() };
            self.promises.make(CLASS, who, promise, at(0), 40);
        }
    }

    #[test]
    fn a_promise_counts_until_it_is_taken_up_or_missed() {
        let mut world = World::default();
        for second in [3, 1, 2] {
            world.tell(LIGHT, second, second);
        }
        assert_eq!(world.ahead(LIGHT, CLASS, 0), 3);
        assert_eq!(world.ahead(LIGHT, Class::Batch, 0), 3, "a better class goes before");
        let back = world.promises.take_up(CLASS, LIGHT.0, 1).expect("was told");
        assert_eq!((back.at, world.promises.take_up(CLASS, LIGHT.0, 1)), (at(1), None));
        // It keeps its number: of those told before and after it, only those before count.
        let whose = (LIGHT.0, LIGHT.1, back.number);
        assert_eq!(world.promises.ahead_of(&world.line, CLASS, whose, (at(0), GAP)), 1);
        assert_eq!(world.ahead(LIGHT, CLASS, 0), 2);
        assert_eq!(world.ahead(LIGHT, CLASS, 5), 0, "nobody came");
        for question in 0..90 {
            world.tell(LIGHT, 9, question);
        }
        assert_eq!(world.ahead(LIGHT, CLASS, 5), 40, "no more are kept");
    }

    #[test]
    fn a_pile_of_promises_counts_before_another_payer_as_far_as_its_share_goes() {
        let mut world = World::default();
        for question in 0..30 {
            world.tell(LIGHT, 9, question);
        }
        assert_eq!(world.ahead(HEAVY, CLASS, 0), 1);
        world.tell(HEAVY, 9, 0);
        assert_eq!(world.ahead(HEAVY, CLASS, 0), 2, "its own, and still one of the other's");
    }

    #[test]
    fn a_heavy_payer_is_expected_to_want_as_much_as_it_lately_had() {
        let mut world = World::default();
        for question in 0..3 {
            world.tell(LIGHT, 99, question);
        }
        world.tell(HEAVY, 99, 0);
        assert_eq!(world.ahead(LIGHT, CLASS, 0), 4, "nothing is known of it but one call");
        // It is granted nine of ten calls.
        for second in (0..90).filter(|second| second % 10 != 0) {
            world.promises.served(CLASS, HEAVY, at(second), GAP);
        }
        assert_eq!(world.ahead(LIGHT, CLASS, 90), 3 + 31, "three turns of ten, and the first of the fourth");
        // Long ago it says nothing any more.
        assert_eq!(world.ahead(LIGHT, CLASS, 97), 3 + 31);
        world.promises.take_up(CLASS, HEAVY.0, 0);
        let known = Wish::new(0, 0.0);
        assert_eq!(known.within(usize::MAX), 0);
        assert!(Wish::new(1, 0.0).within(200) > 3 && Wish::new(0, 1.0).within(usize::MAX) > usize::MAX / 2);
    }

    #[test]
    fn a_batch_call_waits_for_a_tenth_beside_a_crowd_in_a_hurry() {
        let mut world = World::default();
        for question in 0..30 {
            world.tell(HEAVY, 99, question);
        }
        assert_eq!(world.ahead(LIGHT, Class::Batch, 0), 9);
    }
}
