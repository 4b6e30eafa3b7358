//! What a gate was asked and gave, beside what it needed to ask and what was there to give.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tollgate::demo::asked::Asked;
use tollgate::demo::conversations::{Contact, Conversations};

/// Items the upstream is asked for at once, at best.
const BLOCK: usize = 100;

/// Everything that was ever said, and when.
pub(crate) struct World {
    conversations: Conversations,
    /// When messages arrived; those before the beginning are not in it.
    arrived: HashMap<String, Instant>,
    erased: HashSet<String>,
}

/// The pages of one walk, one after the other.
pub(crate) struct Walk {
    pub(crate) collection: String,
    pub(crate) ids: Vec<String>,
    /// What was said of each page: where it ends in `ids`, its walk, how the cache took part, and its age.
    pub(crate) said: Vec<String>,
    /// Whether the walker sent tokens along.
    pub(crate) carried: bool,
}

/// What one gate was asked and gave.
pub(crate) struct Ledger {
    ttl: Duration,
    /// Until when the best possible gate would know a block.
    known: HashMap<(String, usize), Instant>,
    requests: u64,
    floor: u64,
    pub(crate) failed: u64,
    pub(crate) walks: Vec<Walk>,
    /// For how long a first page lacked the newest message that it lacked.
    pub(crate) late: Duration,
    /// The largest `Age` of a second or later page, in seconds; none where nothing says its age.
    pub(crate) age_in_walks: Option<u64>,
}

/// What walks did.
#[derive(Clone, Default)]
pub(crate) struct Torn {
    pub(crate) walks: u64,
    torn: u64,
    pub(crate) repeated: usize,
    pub(crate) missed: usize,
}

/// A row of the table.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) requests: u64,
    calls: u64,
    floor: u64,
    pub(crate) single: Torn,
    pub(crate) carried: Torn,
    late: Duration,
    age_in_walks: Option<u64>,
    pub(crate) failed: u64,
}

impl World {
    pub(crate) fn new(conversations: Conversations) -> Self {
        Self { conversations, arrived: HashMap::new(), erased: HashSet::new() }
    }

    pub(crate) fn contacts(&self) -> Vec<Contact> {
        self.conversations.contacts().to_vec()
    }

    /// A message arrives.
    pub(crate) fn arrive(&mut self) {
        for id in self.conversations.arrive(1) {
            self.arrived.insert(id, Instant::now());
        }
    }

    /// The id of the message at this place, from now on erased. It stays in the order of things.
    pub(crate) fn erase(&mut self, place: usize) -> String {
        let all = self.conversations.find(&[]);
        let there = all.iter().filter(|message| !self.erased.contains(&message.id));
        let id =
            there.clone().nth(place).or_else(|| there.clone().next()).expect("there are messages").id.clone();
        self.erased.insert(id.clone());
        id
    }

    /// Everything that ever belonged to a collection, newest first.
    fn list(&self, collection: &str) -> Vec<&str> {
        let messages = self.conversations.find(&Asked::read(collection).filters);
        messages.into_iter().map(|message| message.id.as_str()).collect()
    }

    /// For how long there has been a message that is newer than the newest shown.
    pub(crate) fn late(&self, collection: &str, newest: Option<&String>) -> Option<Duration> {
        let list = self.list(collection);
        let unseen = list.iter().take_while(|id| Some(**id) != newest.map(String::as_str));
        let next = unseen.filter(|id| !self.erased.contains(**id)).last()?;
        self.arrived.get(*next).map(Instant::elapsed)
    }
}

impl Ledger {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            known: HashMap::new(),
            requests: 0,
            floor: 0,
            failed: 0,
            walks: Vec::new(),
            late: Duration::ZERO,
            age_in_walks: None,
        }
    }

    /// A window that begins at item `first` is asked for. Windows lie within one block, for all sizes divide it.
    pub(crate) fn touch(&mut self, collection: &str, first: usize, now: Instant) {
        self.requests += 1;
        let known = self.known.entry((collection.to_owned(), first / BLOCK)).or_insert(now);
        if *known <= now {
            *known = now + self.ttl;
            self.floor += 1;
        }
    }

    /// The row of what happened since the last one; what is known stays known.
    pub(crate) fn row(&mut self, calls: u64, world: &World) -> Row {
        let mut row = Row {
            requests: self.requests,
            calls,
            floor: self.floor,
            single: Torn::default(),
            carried: Torn::default(),
            late: self.late,
            age_in_walks: self.age_in_walks,
            failed: self.failed,
        };
        for walk in &self.walks {
            let torn = if walk.carried { &mut row.carried } else { &mut row.single };
            if torn.count(walk, world) && walk.said.iter().any(|said| said.contains("state=")) {
                // A gate that promises walks gets it told in full.
                eprintln!("torn: {}\n  {}", walk.collection, walk.said.join("\n  "));
            }
        }
        *self = Self { known: std::mem::take(&mut self.known), ..Self::new(self.ttl) };
        row
    }
}

impl Torn {
    /// Counts a walk; whether it is torn.
    fn count(&mut self, walk: &Walk, world: &World) -> bool {
        let seen: HashSet<&str> = walk.ids.iter().map(String::as_str).collect();
        let list = world.list(&walk.collection);
        let is_seen = |id: &&str| seen.contains(*id);
        let span = list.iter().position(is_seen).zip(list.iter().rposition(is_seen));
        let between = span.map(|(first, last)| &list[first..=last]).unwrap_or_default();
        let missed = between.iter().filter(|id| !is_seen(id) && !world.erased.contains(**id)).count();
        let repeated = walk.ids.len() - seen.len();
        self.walks += 1;
        self.torn += u64::from(missed + repeated > 0);
        self.repeated += repeated;
        self.missed += missed;
        missed + repeated > 0
    }
}

impl Row {
    pub(crate) fn calls_of_floor(&self) -> f64 {
        self.calls as f64 / self.floor.max(1) as f64
    }

    pub(crate) fn calls_per_request(&self) -> f64 {
        self.calls as f64 / self.requests.max(1) as f64
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = |of: fn(&Torn) -> u64| of(&self.single) + of(&self.carried);
        write!(
            f,
            "{} | {:.0} | {:.2} | {} | {} | {} | {} | {:.1} s | {} | {}",
            self.requests,
            1000.0 * self.calls_per_request(),
            self.calls_of_floor(),
            both(|torn| torn.walks),
            both(|torn| torn.torn),
            both(|torn| torn.repeated as u64),
            both(|torn| torn.missed as u64),
            self.late.as_secs_f64(),
            self.age_in_walks.map_or("not said".into(), |age| format!("{age} s")),
            self.failed,
        )
    }
}
