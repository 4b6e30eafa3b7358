//! What is believed of an upstream's habits: how many items it gives at once, and what it says past a list's end. Learned
//! from its answers, and dropped when they contradict it; nothing here is assumed.

use std::time::Duration;

use crate::model::moment::Moment;
use crate::rules::slices::Seen;

/// How long it is believed that an upstream gives fewer items than it was asked for, or refuses to: then it is asked
/// once more, since a larger limit would show in no other way.
pub const BELIEVED_FOR: Duration = Duration::from_secs(60 * 60);

/// What one route's upstream is believed to do.
#[derive(Debug, Clone)]
pub struct Beliefs {
    /// How many items a block has, as configured.
    block: u64,
    /// The longest answer there was: whatever is shorter was not cut short by the upstream.
    longest: u64,
    /// An answer of `block` items was given, or of fewer to the question for them.
    answered: bool,
    limit: Option<Limit>,
    /// So many items were given at this moment where more had been seen.
    short: Option<(u64, Moment)>,
    past_end: Option<PastEnd>,
    /// Whether answers that stand before or behind others say so by a `Link`.
    links: Option<bool>,
    /// Which members its envelopes have, and when.
    members: Seen,
}

/// How many items the upstream gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    size: u64,
    since: Moment,
    refuses: bool,
}

/// What a page past the end answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastEnd {
    /// An empty list.
    Empty,
    /// The last page once more.
    Again,
    /// An error.
    Refused,
}

/// What can be learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// It gives no more than this, whatever is asked.
    Capped(u64),
    /// It refuses to give more than this.
    Refuses(u64),
    /// What lies past the end.
    PastEnd(PastEnd),
}

impl Belief {
    /// Every word of [`Belief::as_str`].
    pub const ALL: [&'static str; 5] =
        ["capped", "refuses", "past_end_empty", "past_end_again", "past_end_refused"];

    /// Its word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capped(_) => "capped",
            Self::Refuses(_) => "refuses",
            Self::PastEnd(PastEnd::Empty) => "past_end_empty",
            Self::PastEnd(PastEnd::Again) => "past_end_again",
            Self::PastEnd(PastEnd::Refused) => "past_end_refused",
        }
    }
}

impl Beliefs {
    /// Nothing yet, of an upstream that is asked for `block` items.
    pub fn new(block: u64) -> Self {
        Self {
            block: block.max(1),
            longest: 0,
            answered: false,
            limit: None,
            short: None,
            past_end: None,
            links: None,
            members: Seen::default(),
        }
    }

    /// What was learned, for operators.
    pub fn learned(&self, now: Moment) -> Vec<(&'static str, String)> {
        let limit = self.limit(now).map(|limit| {
            let beyond = if limit.refuses { "refuses more" } else { "cuts what asks for more" };
            ("items_at_once", format!("{}, {beyond}", limit.size))
        });
        let past_end = self.past_end.map(|habit| {
            let lies = match habit {
                PastEnd::Empty => "an empty list",
                PastEnd::Again => "the last page again",
                PastEnd::Refused => "an error",
            };
            ("past_the_end", lies.to_owned())
        });
        let links =
            self.links.map(|links| ("link", if links { "is given" } else { "is not given" }.to_owned()));
        limit.into_iter().chain(past_end).chain(links).collect()
    }

    /// How many items a block has. `None` while it is not known how many the upstream gives.
    pub fn size(&self, now: Moment) -> Option<u64> {
        Some(self.limit(now).map_or(self.block, |limit| limit.size)).filter(|size| *size > 0)
    }

    /// What a client that asks for `size` items gets of them at once.
    pub fn cut(&self, size: u64, now: Moment) -> u64 {
        self.limit(now).filter(|limit| !limit.refuses).map_or(size, |limit| size.min(limit.size))
    }

    /// Whether the upstream is known to give `size` items at once, or to cut or refuse them as its blocks are. What it makes
    /// of larger sizes than it was seen to give is its own affair.
    pub fn is_known(&self, size: u64, now: Moment) -> bool {
        match self.limit(now) {
            Some(limit) => !limit.refuses || size <= limit.size,
            None => size <= self.block.max(self.longest),
        }
    }

    /// Whether an answer of `len` items ends its list, where so many were `asked` for.
    pub fn ends(&self, len: u64, asked: u64) -> bool {
        len < asked && len < self.longest
    }

    /// Whether it is known to give as many items at once.
    pub fn gives(&self, size: u64) -> bool {
        self.longest >= size
    }

    /// What lies past the end, if that was seen.
    pub fn past_end(&self) -> Option<PastEnd> {
        self.past_end
    }

    /// Whether the upstream ever answered a question for a block of this size.
    pub fn has_answered(&self) -> bool {
        self.answered
    }

    /// An answer had `len` items.
    pub fn saw(&mut self, len: u64) {
        self.longest = self.longest.max(len);
        self.answered = true;
    }

    /// An answer had a `Link` or had none; `leads`: there was something to lead to. Many upstreams leave it out where all
    /// of a list stands on one page.
    pub fn saw_link(&mut self, linked: bool, leads: bool) {
        if linked || (leads && self.links.is_none()) {
            self.links = Some(linked);
        }
    }

    /// These members were in an answer, and those were not.
    pub fn saw_members(&mut self, seen: &Seen) {
        self.members = self.members.and(seen);
    }

    /// What was seen of the members of its envelopes.
    pub fn members(&self) -> Seen {
        self.members
    }

    /// Whether the upstream may give a `Link` to what stands before or behind others.
    pub fn links(&self) -> bool {
        self.links != Some(false)
    }

    /// A client's own question for `size` items had an answer of `len`: contradicts a limit below it. Whether it did.
    pub fn saw_own(&mut self, size: u64, len: u64, now: Moment) -> bool {
        self.longest = self.longest.max(len);
        let Some(limit) = self.limit(now) else { return false };
        let contradicted = len > limit.size;
        if contradicted {
            // It refuses no longer what it refused, or does so further up.
            self.limit = (limit.refuses && size < self.block).then_some(Limit { size, ..limit });
            self.answered = limit.refuses;
        }
        contradicted
    }

    /// Since when a block has to have been asked for to say something new of an upstream that gave `len` items.
    pub fn short_since(&self, len: u64) -> Moment {
        self.short.filter(|(short, _)| *short == len).map_or(Moment::ORIGIN, |(_, at)| at)
    }

    /// A client's own question, sent at `asked`, had an answer of `len` items, of which blocks that were asked for before,
    /// and since [`Beliefs::short_since`], show `shown`. If those are more, the upstream gives no more at once, or the
    /// list had shrunk; if it is so once more, with blocks that came meanwhile, it is the former.
    pub fn came_short(&mut self, len: u64, asked: Moment, shown: u64, now: Moment) -> Option<Belief> {
        if shown <= len {
            return None;
        }
        let again = self.short_since(len) > Moment::ORIGIN;
        self.short = (!again).then_some((len, asked));
        again.then(|| self.capped(len, now))
    }

    /// The upstream gives no more than `len` at once.
    pub fn capped(&mut self, len: u64, now: Moment) -> Belief {
        self.limit = Some(Limit { size: len, since: now, refuses: false });
        self.longest = len;
        Belief::Capped(len)
    }

    /// The upstream refuses a block's size, and has answered a question for `accepted` items.
    pub fn refused(&mut self, accepted: u64, now: Moment) -> Option<Belief> {
        let accepted = accepted.min(self.block.saturating_sub(1));
        let known = self.limit(now).filter(|limit| limit.refuses).map_or(0, |limit| limit.size);
        (accepted > known).then(|| {
            self.limit = Some(Limit { size: accepted, since: now, refuses: true });
            Belief::Refuses(accepted)
        })
    }

    /// This lies past the end. Whether that is new.
    pub fn ends_with(&mut self, habit: PastEnd) -> Option<Belief> {
        (self.past_end != Some(habit)).then(|| {
            self.past_end = Some(habit);
            Belief::PastEnd(habit)
        })
    }

    fn limit(&self, now: Moment) -> Option<Limit> {
        self.limit.filter(|limit| now.since(limit.since) < BELIEVED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_nanos(5);

    #[test]
    fn what_is_shorter_than_the_longest_was_not_cut() {
        let mut beliefs = Beliefs::new(100);
        assert!(!beliefs.ends(30, 100), "it may give no more than 30");
        beliefs.saw(30);
        assert!(beliefs.ends(29, 100) && !beliefs.ends(30, 100) && !beliefs.ends(31, 100));
        beliefs.saw(100);
        assert!(beliefs.ends(99, 100) && !beliefs.ends(100, 100));
    }

    #[test]
    fn a_limit_is_believed_until_it_is_contradicted_or_old() {
        let mut beliefs = Beliefs::new(100);
        assert_eq!((beliefs.size(NOW), beliefs.cut(1000, NOW)), (Some(100), 1000));
        assert!(beliefs.is_known(100, NOW) && !beliefs.is_known(101, NOW));
        beliefs.capped(50, NOW);
        assert_eq!((beliefs.size(NOW), beliefs.cut(80, NOW), beliefs.cut(20, NOW)), (Some(50), 50, 20));
        assert_eq!(beliefs.learned(NOW), [("items_at_once", "50, cuts what asks for more".to_owned())]);
        assert!(!beliefs.saw_own(200, 50, NOW) && beliefs.saw_own(200, 60, NOW));
        assert_eq!(beliefs.size(NOW), Some(100));
        beliefs.capped(50, NOW);
        assert_eq!(beliefs.size(NOW + BELIEVED_FOR), Some(100));
    }

    #[test]
    fn an_answer_that_is_shorter_than_what_was_seen_is_one_of_two_signs() {
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let mut beliefs = Beliefs::new(100);
        assert_eq!(beliefs.came_short(120, at(5), 100, at(5)), None);
        assert_eq!((beliefs.came_short(120, at(20), 150, at(20)), beliefs.short_since(120)), (None, at(20)));
        assert_eq!(beliefs.came_short(120, at(30), 0, at(30)), None, "it may have shrunk");
        assert_eq!((beliefs.short_since(110), beliefs.short_since(120)), (Moment::ORIGIN, at(20)));
        assert_eq!(beliefs.came_short(120, at(60), 150, at(60)), Some(Belief::Capped(120)));
    }

    #[test]
    fn links_are_left_out_only_of_upstreams_that_have_none() {
        let mut beliefs = Beliefs::new(100);
        beliefs.saw_link(false, false);
        assert!(beliefs.links(), "all of that list may have stood on one page");
        beliefs.saw_link(false, true);
        assert!(!beliefs.links());
        beliefs.saw_link(true, true);
        beliefs.saw_link(false, true);
        assert!(beliefs.links());
    }

    #[test]
    fn a_size_that_is_refused_is_asked_for_as_far_as_clients_were_answered() {
        let mut beliefs = Beliefs::new(100);
        assert_eq!(beliefs.refused(20, NOW), Some(Belief::Refuses(20)));
        assert_eq!(beliefs.refused(10, NOW), None);
        assert_eq!((beliefs.size(NOW), beliefs.cut(50, NOW)), (Some(20), 50), "refused, not cut");
        assert!(!beliefs.is_known(21, NOW) && beliefs.is_known(20, NOW));
        assert!(beliefs.saw_own(50, 50, NOW));
        assert_eq!(beliefs.size(NOW), Some(50));
    }
}
