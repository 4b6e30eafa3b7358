//! What eight services ask, and when: written down before anybody is asked, so that every gate is asked the same.

use std::time::Duration;

use tollgate::demo::conversations::Contact;
use tollgate::demo::dice::{Dice, Zipf};
use tollgate::demo::spelling::{Filter, Numbers, Phones, Question, Spelling};

/// A service inside the company.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) spelling: Spelling,
    /// The page sizes it asks for.
    sizes: &'static [usize],
    /// How many pages it reads of one list, at most.
    walk: usize,
    /// How often, of a hundred, it asks for everything and not for one contact.
    everything: u64,
    /// How long it pauses between two readings, in the mean, in milliseconds.
    think: u64,
    /// Whether it sends the token of a walk along.
    pub(crate) carries: bool,
}

/// One reading: a page, or a walk from the first page on.
#[derive(Clone)]
pub(crate) struct Session {
    /// When it begins.
    pub(crate) at: Duration,
    /// Whose messages.
    pub(crate) filter: Option<Filter>,
    pub(crate) size: usize,
    /// How many pages, at most.
    pub(crate) pages: usize,
    /// What its spelling depends on.
    pub(crate) seed: u64,
}

/// From one page of a walk to the next.
pub(crate) const STEP: Duration = Duration::from_millis(120);

/// The eight, with the sizes 10, 20, 25, 50 and 100 between them.
pub(crate) fn services() -> [Service; 8] {
    let plain = Spelling::plain();
    let service = |spelling, sizes, walk, everything, think| Service {
        spelling,
        sizes,
        walk,
        everything,
        think,
        carries: false,
    };
    [
        service(plain, &[50], 1, 10, 150),
        service(
            Spelling { phones: Phones::Spaced, leaves_defaults_out: true, ..plain },
            &[20, 50],
            1,
            10,
            80,
        ),
        Service {
            carries: true,
            ..service(Spelling { phones: Phones::Zeroes, ..plain }, &[100], 20, 50, 300)
        },
        service(
            Spelling { numbers: Numbers::Decimal, phones: Phones::RawPlus, junk: true, ..plain },
            &[10, 20],
            1,
            40,
            60,
        ),
        service(
            Spelling { phones: Phones::Bare, numbers: Numbers::Sloppy, reversed: true, ..plain },
            &[25, 50],
            8,
            30,
            200,
        ),
        service(Spelling { reversed: true, ..plain }, &[10, 25], 3, 20, 60),
        service(Spelling { phones: Phones::Zeroes, junk: true, ..plain }, &[50, 100], 30, 70, 300),
        Service {
            carries: true,
            ..service(Spelling { numbers: Numbers::Decimal, reversed: true, ..plain }, &[20, 25], 25, 60, 200)
        },
    ]
}

impl Service {
    /// What it reads within `length`.
    pub(crate) fn sessions(&self, contacts: &[Contact], length: Duration, dice: &mut Dice) -> Vec<Session> {
        let popularity = Zipf::new(contacts.len());
        let mut sessions = Vec::new();
        let mut at = Duration::from_millis(dice.below(self.think));
        while at < length {
            let size = *dice.one_of(self.sizes);
            let everything = dice.chance(self.everything);
            let contact = contacts.get(popularity.draw(dice)).filter(|_| !everything);
            let filter = contact.and_then(|contact| Filter::about(contact, dice));
            let pages = if self.walk == 1 { 1 } else { 2 + dice.position(self.walk - 1) };
            sessions.push(Session { at, filter, size, pages, seed: dice.roll() });
            let thinking = Duration::from_millis(self.think / 2 + dice.below(self.think));
            at += thinking + STEP * u32::try_from(pages).unwrap();
        }
        sessions
    }
}

impl Session {
    /// The query of a page, as this service writes it.
    pub(crate) fn query(&self, service: &Service, page: usize) -> String {
        let question = Question { filter: self.filter.clone(), page, size: self.size };
        service.spelling.spell(&question, &mut Dice::new(self.seed + page as u64))
    }

    /// The question without its window, as everybody means it.
    pub(crate) fn collection(&self) -> String {
        let question = Question { filter: self.filter.clone(), page: 1, size: 1 };
        Spelling::plain().spell(&question, &mut Dice::new(0))
    }
}
