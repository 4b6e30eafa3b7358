//! Who is next of those who wait for an account, as a state machine without a clock.
//!
//! Interactive calls go before batch, batch before refreshes; a waiting lower class gets every tenth grant, so that
//! nobody starves. Within a class payers share by weight: start-time fair queueing (Goyal, Vin, Cheng 1996), where each
//! grant moves its payer's tag on by one over its weight and the smallest tag is next. Whoever does not wait lends its
//! share to the others and saves nothing up. Within a payer, first come, first served. Joining, leaving and serving cost
//! the logarithm of how many wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::urgency::Class;

/// A waiting lower class gets one of so many grants.
pub const TENTH: usize = 10;
/// What one grant costs a payer of weight 1: far above the largest weight, so that rounding does not show.
const UNIT: u64 = 1 << 24;

/// Whose share a call is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Payer(pub u32);

/// When somebody came, among all who did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    class: Class,
    payer: Payer,
    number: Number,
}

/// A payer as another sees it: see [`Line::rivals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// Who.
    pub payer: Payer,
    /// How many of its calls wait.
    pub waiting: usize,
    /// How many are served before the other's at most.
    pub most: usize,
}

/// Those who wait, each with a `T`.
#[derive(Debug)]
pub struct Line<T> {
    queues: [Queue<T>; Class::ALL.len()],
    /// How many grants went to others since each lower class, waiting, had its last.
    passed_over: [usize; Class::ALL.len()],
    next_number: u64,
}

#[derive(Debug)]
struct Queue<T> {
    shares: HashMap<Payer, Share<T>>,
    /// Payers who wait, by the tag of their first.
    order: BTreeSet<(u64, Payer)>,
    /// The tag of whoever was served last.
    time: u64,
    waiting: usize,
    /// The weights of all who wait, each payer once.
    weights: u64,
}

#[derive(Debug)]
struct Share<T> {
    weight: u64,
    /// The tag of the first who waits, or of the next who comes.
    tag: u64,
    waiting: BTreeMap<Number, T>,
}

impl Ticket {
    /// The class it waits in.
    pub const fn class(self) -> Class {
        self.class
    }

    /// The number it was given to.
    pub const fn number(self) -> Number {
        self.number
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { queues: Default::default(), passed_over: [0; Class::ALL.len()], next_number: 0 }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { shares: HashMap::new(), order: BTreeSet::new(), time: 0, waiting: 0, weights: 0 }
    }
}

impl<T> Line<T> {
    /// How many wait in `class`.
    pub fn waiting(&self, class: Class) -> usize {
        self.queues[class.place()].waiting
    }

    /// How many wait in all.
    pub fn len(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting).sum()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of whoever comes now: lower ones of the same class and payer are served first.
    pub fn draw(&mut self) -> Number {
        self.next_number += 1;
        Number(self.next_number)
    }

    /// One more waits, behind lower numbers of the same class and payer. `weight` is at least 1.
    pub fn join(&mut self, class: Class, payer: Payer, weight: u32, number: Number, who: T) -> Ticket {
        self.queues[class.place()].join(payer, weight, number, who);
        Ticket { class, payer, number }
    }

    /// Gives a place up; what waited there, if it was still held.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let left = self.queues[ticket.class.place()].leave(ticket.payer, ticket.number)?;
        self.settle(ticket.class);
        Some(left)
    }

    /// Moves a place to another class, keeping its turn among its payer's: what it is called from now on.
    pub fn promote(&mut self, ticket: Ticket, class: Class) -> Ticket {
        let from = &mut self.queues[ticket.class.place()];
        let weight = from.shares.get(&ticket.payer).map_or(1, |share| share.weight);
        let Some(who) = from.leave(ticket.payer, ticket.number) else { return ticket };
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        self.queues[class.place()].join(ticket.payer, weight, ticket.number, who);
        self.settle(ticket.class);
        Ticket { class, ..ticket }
    }

    /// Which class is next, of those that are `admitted`, by place.
    pub fn next(&self, admitted: [bool; Class::ALL.len()]) -> Option<Class> {
        let may = |class: &Class| admitted[class.place()] && self.waiting(*class) > 0;
        let due = |class: &Class| self.passed_over[class.place()] >= TENTH - 1;
        let longest = Class::ALL.into_iter().filter(|class| may(class) && due(class));
        longest
            .max_by_key(|class| self.passed_over[class.place()])
            .or_else(|| Class::ALL.into_iter().find(may))
    }

    /// Who is next of `class`.
    pub fn first(&self, class: Class) -> Option<&T> {
        let queue = &self.queues[class.place()];
        let (_, payer) = queue.order.first()?;
        queue.shares.get(payer)?.waiting.first_key_value().map(|(_, who)| who)
    }

    /// Takes the next of the admitted classes out of the line.
    pub fn serve(&mut self, admitted: [bool; Class::ALL.len()]) -> Option<T> {
        let class = self.next(admitted)?;
        let served = self.queues[class.place()].serve()?;
        for other in Class::ALL.into_iter().skip(1).filter(|other| *other != class) {
            if self.waiting(other) > 0 {
                self.passed_over[other.place()] += 1;
            }
        }
        self.passed_over[class.place()] = 0;
        self.settle(class);
        Some(served)
    }

    /// Everybody, in no order; nobody waits afterwards.
    pub fn drain(&mut self) -> Vec<T> {
        let queues = std::mem::take(self).queues;
        queues
            .into_iter()
            .flat_map(|queue| queue.shares.into_values().flat_map(|share| share.waiting.into_values()))
            .collect()
    }

    /// How many would be served before one more of `class` and `payer` with this number, if nobody else came. Costs a step for
    /// each payer who waits in the class.
    pub fn ahead_of(&self, class: Class, (payer, weight): (Payer, u32), number: Number) -> usize {
        let better =
            Class::ALL.iter().filter(|other| **other < class).map(|other| self.waiting(*other)).sum();
        self.among_classes(class, self.queues[class.place()].ahead_of((payer, weight), number), better)
    }

    /// How many of all classes are served before one more of `class` that `own` of its class go before, where `better` of
    /// better classes want to.
    pub fn among_classes(&self, class: Class, own: usize, better: usize) -> usize {
        let ahead = own.saturating_add(better.min((TENTH - 1) * (own + 1)));
        let lower = Class::ALL.iter().filter(|other| **other > class && self.waiting(**other) > 0).count();
        ahead + lower * (ahead / (TENTH - 1))
    }

    /// How many calls of `payer` wait in `class` with lower numbers than `number`.
    pub fn lower(&self, class: Class, payer: Payer, number: Number) -> usize {
        self.queues[class.place()].lower(payer, number)
    }

    /// Of each other payer who waits in `class` and of `more`, each with its weight, how many of its calls wait, and how many are
    /// served before one of `payer` that `own` of its own go before, if that other always wants something.
    pub fn rivals(
        &self,
        class: Class,
        (payer, weight): (Payer, u32),
        own: usize,
        more: impl Iterator<Item = (Payer, u32)>,
    ) -> Vec<Rival> {
        self.queues[class.place()].rivals((payer, weight), own, more).collect()
    }

    /// How many would be served before the last of `class` and those better, if nobody else came.
    pub fn whole(&self, class: Class) -> usize {
        Class::ALL.iter().filter(|other| **other <= class).map(|other| self.waiting(*other)).sum()
    }

    /// Whether `payer` has less than its share of those who wait in `class`.
    pub fn is_below_share(&self, class: Class, payer: Payer, weight: u32) -> bool {
        let queue = &self.queues[class.place()];
        let own = queue.shares.get(&payer).map_or(0, |share| share.waiting.len());
        let held = queue.shares.get(&payer).filter(|_| own > 0).map_or(0, |share| share.weight);
        let others = queue.weights.saturating_sub(held);
        (own as u64).saturating_mul(others + u64::from(weight))
            < (queue.waiting as u64).saturating_mul(weight.into())
    }

    /// A class in which nobody waits is passed over by nobody.
    fn settle(&mut self, class: Class) {
        if self.waiting(class) == 0 {
            self.passed_over[class.place()] = 0;
        }
    }
}

impl<T> Queue<T> {
    fn join(&mut self, payer: Payer, weight: u32, number: Number, who: T) {
        let new = || Share { weight: 1, tag: 0, waiting: BTreeMap::new() };
        let share = self.shares.entry(payer).or_insert_with(new);
        if !share.waiting.is_empty() {
            self.weights -= share.weight;
        }
        share.weight = u64::from(weight.max(1));
        self.weights += share.weight;
        if share.waiting.is_empty() {
            // Whoever was away catches nothing up.
            share.tag = share.tag.max(self.time);
            self.order.insert((share.tag, payer));
        }
        share.waiting.insert(number, who);
        self.waiting += 1;
    }

    fn leave(&mut self, payer: Payer, number: Number) -> Option<T> {
        let share = self.shares.get_mut(&payer)?;
        let left = share.waiting.remove(&number)?;
        if share.waiting.is_empty() {
            self.order.remove(&(share.tag, payer));
            self.weights -= share.weight;
        }
        self.waiting -= 1;
        self.forget();
        Some(left)
    }

    fn serve(&mut self) -> Option<T> {
        let (tag, payer) = self.order.pop_first()?;
        let share = self.shares.get_mut(&payer)?;
        let (_, served) = share.waiting.pop_first()?;
        self.time = tag;
        share.tag = tag + UNIT / share.weight;
        if share.waiting.is_empty() {
            self.weights -= share.weight;
        } else {
            self.order.insert((share.tag, payer));
        }
        self.waiting -= 1;
        self.forget();
        Some(served)
    }

    /// With nobody waiting there is nothing to be fair about: everybody begins anew.
    fn forget(&mut self) {
        if self.waiting == 0 {
            self.shares.clear();
            self.time = 0;
        }
    }

    fn waits(&self, payer: Payer) -> usize {
        self.shares.get(&payer).map_or(0, |share| share.waiting.len())
    }

    fn lower(&self, payer: Payer, number: Number) -> usize {
        self.shares.get(&payer).map_or(0, |share| share.waiting.range(..number).count())
    }

    fn ahead_of(&self, (payer, weight): (Payer, u32), number: Number) -> usize {
        let own = self.lower(payer, number);
        let rivals = self.rivals((payer, weight), own, std::iter::empty());
        own + rivals.map(|rival| rival.waiting.min(rival.most)).sum::<usize>()
    }

    fn rivals(
        &self,
        (payer, weight): (Payer, u32),
        own: usize,
        more: impl Iterator<Item = (Payer, u32)>,
    ) -> impl Iterator<Item = Rival> {
        let start =
            move |payer: Payer| self.shares.get(&payer).map_or(self.time, |share| share.tag.max(self.time));
        let tag = start(payer) + own as u64 * (UNIT / u64::from(weight.max(1)));
        let here = self.order.iter().filter_map(|(_, other)| Some((*other, self.shares.get(other)?.weight)));
        let away =
            more.filter(|(other, _)| self.waits(*other) == 0).map(|(other, weight)| (other, weight.into()));
        here.chain(away).filter(move |(other, _)| *other != payer).map(move |(payer, weight)| {
            let turns =
                tag.checked_sub(start(payer)).map_or(0, |lead| lead.saturating_mul(weight) / UNIT + 1);
            let most = usize::try_from(turns).unwrap_or(usize::MAX);
            Rival { payer, waiting: self.waits(payer), most }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn joins<T>(line: &mut Line<T>, class: Class, payer: Payer, weight: u32, who: T) -> Ticket {
        let number = line.draw();
        line.join(class, payer, weight, number, who)
    }

    const EVERYBODY: [bool; 3] = [true; 3];

    #[test]
    fn a_waiting_lower_class_gets_every_tenth_grant() {
        let mut line = Line::default();
        for class in Class::ALL {
            for _ in 0..100 {
                joins(&mut line, class, Payer(0), 1, class);
            }
        }
        let mut counts = [0; 3];
        for _ in 0..101 {
            counts[line.serve(EVERYBODY).expect("somebody waits").place()] += 1;
        }
        assert_eq!(counts, [81, 10, 10]);
        // What a class is not admitted to, the others have.
        assert_eq!(line.serve([false, true, true]), Some(Class::Batch));
        assert_eq!(line.serve([false, false, true]), Some(Class::Refresh));
        assert_eq!(line.serve([false; 3]), None);
    }

    #[test]
    fn a_promoted_call_keeps_its_turn_among_its_payers() {
        let mut line = Line::default();
        let early = joins(&mut line, Class::Refresh, Payer(1), 1, "early");
        joins(&mut line, Class::Interactive, Payer(1), 1, "late");
        let early = line.promote(early, Class::Interactive);
        assert_eq!((line.waiting(Class::Refresh), line.waiting(Class::Interactive)), (0, 2));
        assert_eq!(line.serve(EVERYBODY), Some("early"));
        assert_eq!(line.leave(early), None, "it was served");
        assert_eq!(line.serve(EVERYBODY), Some("late"));
        assert!(line.is_empty());
    }

    proptest! {
        /// Under backlog each payer gets its share by weight, to one grant; and its calls in the order they came.
        #[test]
        fn payers_share_by_weight_and_are_served_in_order(weights in prop::collection::vec(1u32..20, 1..8)) {
            let mut line = Line::default();
            let total: u32 = weights.iter().sum();
            let rounds = 20;
            for n in 0..rounds * 20 {
                for (payer, weight) in (0..).zip(&weights) {
                    joins(&mut line, Class::Batch, Payer(payer), *weight, (payer, n));
                }
            }
            let mut served: HashMap<u32, Vec<u32>> = HashMap::new();
            for _ in 0..total * rounds {
                let (payer, n) = line.serve(EVERYBODY).expect("a backlog");
                served.entry(payer).or_default().push(n);
            }
            for (payer, weight) in (0..).zip(&weights) {
                let served = &served[&payer];
                prop_assert!(served.iter().copied().eq(0..u32::try_from(served.len()).expect("few")));
                let due = i64::from(weight * rounds);
                prop_assert!((served.len() as i64 - due).abs() <= 1, "{} of {due}", served.len());
            }
        }

        /// Whatever joins, leaves and is served: nobody is lost, nobody is served twice, and somebody is served while
        /// anybody waits.
        #[test]
        fn nobody_is_lost_and_nobody_idles(
            steps in prop::collection::vec((0u8..4, 0usize..3, 0u32..4, 1u32..5, any::<prop::sample::Index>()), 0..200),
        ) {
            let mut line = Line::default();
            let mut waiting: Vec<(u32, Ticket)> = Vec::new();
            for (n, (what, class, payer, weight, which)) in (0u32..).zip(steps) {
                match what {
                    0 | 1 => waiting.push((n, joins(&mut line, Class::ALL[class], Payer(payer), weight, n))),
                    2 if !waiting.is_empty() => {
                        let (held, ticket) = waiting.swap_remove(which.index(waiting.len()));
                        prop_assert_eq!(line.leave(ticket), Some(held));
                    }
                    _ => match line.serve(EVERYBODY) {
                        Some(served) => waiting.retain(|(held, _)| *held != served),
                        None => prop_assert!(waiting.is_empty()),
                    },
                }
                prop_assert_eq!(line.len(), waiting.len());
                prop_assert!(line.is_empty() == line.queues.iter().all(|queue| queue.weights == 0));
            }
        }

        /// What a newcomer is told stands ahead of it, is what is served before it, give or take one turn of each payer.
        #[test]
        fn how_many_stand_ahead_is_true(
            crowd in prop::collection::vec((0usize..3, 0u32..5), 0..60), class in 0usize..3, served_before in 0usize..20,
        ) {
            let weights = [1, 2, 3, 5, 1];
            let mut line = Line::default();
            for (class, payer) in crowd {
                joins(&mut line, Class::ALL[class], Payer(payer), weights[payer as usize], false);
            }
            for _ in 0..served_before {
                line.serve(EVERYBODY);
            }
            let number = line.draw();
            let told = line.ahead_of(Class::ALL[class], (Payer(4), 1), number);
            joins(&mut line, Class::ALL[class], Payer(4), 1, true);
            let mut ahead = 0;
            while !line.serve(EVERYBODY).expect("it waits") {
                ahead += 1;
            }
            prop_assert!(told.abs_diff(ahead) <= 5 + ahead / 4, "told {told}, it was {ahead}");
        }
    }
}
