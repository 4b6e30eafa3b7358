//! How often a client may ask (GCRA by governor: one cell a declared client, one a peer address for everybody else),
//! and how many upstream calls it may cause.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use prometheus::IntCounter;

use super::clock::Clock;
use crate::model::moment::Moment;
use crate::rules::window::{Window, WindowRule};

/// `{ requests, per, burst }`: on average `requests` in `per`, at most `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many.
    pub requests: u32,
    /// In how long.
    pub per: Duration,
    /// How many at once.
    pub burst: u32,
    /// Whether it only counts what it would refuse.
    pub shadow: bool,
}

/// What a client may cause: a window of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetRule {
    /// The window.
    pub window: WindowRule,
    /// Whether it only counts what it would refuse.
    pub shadow: bool,
}

/// What a limit in the shadow does in place of refusing.
#[derive(Debug)]
struct Shadow(Option<IntCounter>);

impl Shadow {
    /// The refusal, or nothing of it but a count.
    fn of<E>(&self, result: Result<(), E>) -> Result<(), E> {
        match (&self.0, &result) {
            (Some(counter), Err(_)) => {
                counter.inc();
                Ok(())
            }
            _ => result,
        }
    }
}

impl RateLimit {
    fn to_quota(self) -> Quota {
        let requests = NonZeroU32::new(self.requests).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(self.burst).unwrap_or(NonZeroU32::MIN);
        // A period shorter than a nanosecond a request does not exist; the shortest one does.
        let each = (self.per / requests.get()).max(Duration::from_nanos(1));
        Quota::with_period(each).unwrap_or(Quota::per_second(requests)).allow_burst(burst)
    }
}

thread_local! {
    /// The moment that is asked about, in nanoseconds.
    static ASKED_AT: Cell<u64> = const { Cell::new(0) };
    /// How many addresses were asked about by this thread.
    static CHECKS: Cell<u64> = const { Cell::new(0) };
}

/// governor's clock: the moment that is asked about, which is the request's. Reading a clock takes as long as the check.
#[derive(Debug, Clone)]
struct AskedAt;

impl AskedAt {
    fn set(at: Moment) {
        ASKED_AT.set(at.as_nanos());
    }
}

impl governor::clock::Clock for AskedAt {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        ASKED_AT.get().into()
    }
}

/// The limit of one declared client.
#[derive(Debug)]
pub struct ClientLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, AskedAt, NoOpMiddleware<Nanos>>,
    shadow: Shadow,
}

impl ClientLimit {
    /// A limit nothing was spent of.
    pub fn new(limit: RateLimit, counter: IntCounter) -> Self {
        Self {
            limiter: RateLimiter::direct_with_clock(limit.to_quota(), AskedAt),
            shadow: Shadow(limit.shadow.then_some(counter)),
        }
    }

    /// Counts one request, which came `at`.
    ///
    /// # Errors
    /// How long until the next one would pass.
    pub fn check(&self, at: Moment) -> Result<(), Duration> {
        AskedAt::set(at);
        let checked = self.limiter.check();
        self.shadow.of(checked.map_err(|not_until| not_until.wait_time_from(AskedAt.now())))
    }
}

/// The limit of every peer address that is no declared client. Addresses that have been quiet are forgotten; while
/// about [`MOST_ADDRESSES`] or more are remembered, all share one cell.
#[derive(Debug)]
pub struct AddressLimit {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, AskedAt, NoOpMiddleware<Nanos>>,
    swept: AtomicU64,
    /// As many addresses as may be were remembered when it was last looked.
    crowded: AtomicBool,
    shadow: Shadow,
}

/// The most addresses remembered at once, give or take `LOOK_EVERY` for each worker.
pub const MOST_ADDRESSES: usize = 100_000;
/// How often quiet addresses are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// At every how manieth check of a thread it is looked how many addresses there are, and whether to sweep: counting them
/// takes a lock for every part of the table, which costs more than the check itself.
const LOOK_EVERY: u64 = 64;

impl AddressLimit {
    /// A limit nothing was spent of.
    pub fn new(limit: RateLimit, counter: IntCounter) -> Self {
        Self {
            limiter: RateLimiter::new(limit.to_quota(), DashMapStateStore::default(), AskedAt),
            swept: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
            shadow: Shadow(limit.shadow.then_some(counter)),
        }
    }

    /// Counts one request of `peer`, which came `at`.
    ///
    /// # Errors
    /// How long until the next one would pass.
    pub fn check(&self, peer: IpAddr, at: Moment) -> Result<(), Duration> {
        AskedAt::set(at);
        if CHECKS.replace(CHECKS.get().wrapping_add(1)).is_multiple_of(LOOK_EVERY) {
            self.sweep(at);
            self.crowded.store(self.limiter.len() >= MOST_ADDRESSES, Ordering::Relaxed);
        }
        let mut key = network_of(peer);
        if self.crowded.load(Ordering::Relaxed) {
            key = Ipv6Addr::UNSPECIFIED.into();
        }
        let checked = self.limiter.check_key(&key);
        self.shadow.of(checked.map_err(|not_until| not_until.wait_time_from(AskedAt.now())))
    }

    fn sweep(&self, now: Moment) {
        let swept = self.swept.load(Ordering::Relaxed);
        let due = now.since(Moment::from_nanos(swept)) >= SWEEP_EVERY;
        if due
            && self
                .swept
                .compare_exchange(swept, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}

/// How many upstream calls one client may cause.
#[derive(Debug)]
pub struct Budget {
    window: Mutex<Window>,
    clock: Clock,
    shadow: Shadow,
}

impl Budget {
    /// A budget nothing was spent of.
    pub fn new(rule: BudgetRule, clock: &Clock, counter: IntCounter) -> Self {
        let shadow = Shadow(rule.shadow.then_some(counter));
        Self { window: Mutex::new(Window::new(rule.window)), clock: clock.clone(), shadow }
    }

    /// Counts one call, which [`Budget::settle`] must follow.
    ///
    /// # Errors
    /// How long until the next one would pass, and the rule.
    pub fn spend(&self) -> Result<(), (Duration, WindowRule)> {
        let now = self.clock.now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let free = window.remaining(now) > 0;
        let wait = (window.next_free(now, 0).since(now), window.rule());
        self.shadow.of(if free { Ok(()) } else { Err(wait) })?;
        window.begin(now);
        Ok(())
    }

    /// The call that was counted has ended; it counts from now on for one period, unless it was never `sent`.
    pub fn settle(&self, sent: bool) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if sent { window.end(now) } else { window.give_back(now) }
    }
}

/// Who is limited together: an IPv4 address, or the /64 that one IPv6 subscriber holds.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: RateLimit = RateLimit { requests: 10, per: Duration::from_secs(1), burst: 2, shadow: false };

    fn counter() -> IntCounter {
        IntCounter::new("c", "c").expect("is a name")
    }

    #[test]
    fn a_burst_passes_then_the_average_counts() {
        let (limit, now) = (ClientLimit::new(TWO, counter()), Clock::system().now());
        assert_eq!((limit.check(now), limit.check(now)), (Ok(()), Ok(())));
        let wait = limit.check(now).expect_err("the burst is spent");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(limit.check(now + wait), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_in_the_shadow_counts_and_refuses_nobody() {
        let (clock, counted) = (Clock::system(), counter());
        let limit = ClientLimit::new(RateLimit { shadow: true, ..TWO }, counted.clone());
        let window = WindowRule::new(1, Duration::from_secs(9));
        let budget = Budget::new(BudgetRule { window, shadow: true }, &clock, counted.clone());
        for _ in 0..5 {
            assert_eq!((limit.check(clock.now()), budget.spend()), (Ok(()), Ok(())));
        }
        assert_eq!(counted.get(), 3 + 4);
    }

    #[test]
    fn addresses_are_limited_apart_and_forgotten_when_quiet() {
        let limit = AddressLimit::new(TWO, counter());
        let now = Clock::system().now();
        let check = |peer: &str, at| limit.check(peer.parse().expect("is an address"), at);
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            assert!(check(address, now).is_ok() && check(address, now).is_ok());
            assert!(check(address, now).is_err());
        }
        // One subscriber's /64, and the mapped form of an address seen before.
        assert!(check("2001:db8::2", now).is_err());
        assert!(check("::ffff:192.0.2.1", now).is_err());
        for _ in 0..LOOK_EVERY {
            let _ = check("192.0.2.9", now + SWEEP_EVERY);
        }
        assert_eq!(limit.limiter.len(), 1);
    }
}
