//! How often a client may ask (GCRA by governor: one cell a declared client, one a peer address for everybody else),
//! and how many upstream calls it may cause.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
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

/// The limit of one declared client.
#[derive(Debug)]
pub struct ClientLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<governor::nanos::Nanos>>,
    clock: Clock,
    shadow: Shadow,
}

impl ClientLimit {
    /// A limit nothing was spent of.
    pub fn new(limit: RateLimit, clock: &Clock, counter: IntCounter) -> Self {
        Self {
            limiter: RateLimiter::direct_with_clock(limit.to_quota(), clock.clone()),
            clock: clock.clone(),
            shadow: Shadow(limit.shadow.then_some(counter)),
        }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// How long until the next one would pass.
    pub fn check(&self) -> Result<(), Duration> {
        let checked = self.limiter.check();
        self.shadow
            .of(checked
                .map_err(|not_until| not_until.wait_time_from(governor::clock::Clock::now(&self.clock))))
    }
}

/// The limit of every peer address that is no declared client. Addresses that have been quiet are forgotten; while
/// about [`MOST_ADDRESSES`] or more are remembered, all share one cell.
#[derive(Debug)]
pub struct AddressLimit {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, Clock, NoOpMiddleware<governor::nanos::Nanos>>,
    clock: Clock,
    swept: AtomicU64,
    checks: AtomicU64,
    /// As many addresses as may be were remembered when it was last looked.
    crowded: AtomicBool,
    shadow: Shadow,
}

/// The most addresses remembered at once, give or take `LOOK_EVERY`.
pub const MOST_ADDRESSES: usize = 100_000;
/// How often quiet addresses are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// At every how manieth check it is looked how many addresses there are, and whether to sweep: counting them takes a
/// lock for every part of the table, which costs more than the check itself.
const LOOK_EVERY: u64 = 64;

impl AddressLimit {
    /// A limit nothing was spent of.
    pub fn new(limit: RateLimit, clock: &Clock, counter: IntCounter) -> Self {
        let limiter = RateLimiter::new(limit.to_quota(), DashMapStateStore::default(), clock.clone());
        Self {
            limiter,
            clock: clock.clone(),
            swept: AtomicU64::new(clock.now().as_nanos()),
            checks: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
            shadow: Shadow(limit.shadow.then_some(counter)),
        }
    }

    /// Counts one request of `peer`.
    ///
    /// # Errors
    /// How long until the next one would pass.
    pub fn check(&self, peer: IpAddr) -> Result<(), Duration> {
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.sweep();
            self.crowded.store(self.limiter.len() >= MOST_ADDRESSES, Ordering::Relaxed);
        }
        let mut key = network_of(peer);
        if self.crowded.load(Ordering::Relaxed) {
            key = Ipv6Addr::UNSPECIFIED.into();
        }
        let checked = self.limiter.check_key(&key);
        self.shadow
            .of(checked
                .map_err(|not_until| not_until.wait_time_from(governor::clock::Clock::now(&self.clock))))
    }

    fn sweep(&self) {
        let (now, swept) = (self.clock.now(), self.swept.load(Ordering::Relaxed));
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

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_the_average_counts() {
        let limit = ClientLimit::new(TWO, &Clock::system(), counter());
        assert_eq!((limit.check(), limit.check()), (Ok(()), Ok(())));
        let wait = limit.check().expect_err("the burst is spent");
        assert_eq!(wait, Duration::from_millis(100));
        tokio::time::advance(wait).await;
        assert_eq!(limit.check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_in_the_shadow_counts_and_refuses_nobody() {
        let (clock, counted) = (Clock::system(), counter());
        let limit = ClientLimit::new(RateLimit { shadow: true, ..TWO }, &clock, counted.clone());
        let window = WindowRule::new(1, Duration::from_secs(9));
        let budget = Budget::new(BudgetRule { window, shadow: true }, &clock, counted.clone());
        for _ in 0..5 {
            assert_eq!((limit.check(), budget.spend()), (Ok(()), Ok(())));
        }
        assert_eq!(counted.get(), 3 + 4);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_limited_apart_and_forgotten_when_quiet() {
        let limit = AddressLimit::new(TWO, &Clock::system(), counter());
        let peer = |text: &str| text.parse::<IpAddr>().expect("is an address");
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            assert!(limit.check(peer(address)).is_ok() && limit.check(peer(address)).is_ok());
            assert!(limit.check(peer(address)).is_err());
        }
        // One subscriber's /64, and the mapped form of an address seen before.
        assert!(limit.check(peer("2001:db8::2")).is_err());
        assert!(limit.check(peer("::ffff:192.0.2.1")).is_err());
        tokio::time::advance(SWEEP_EVERY).await;
        for _ in 0..LOOK_EVERY {
            let _ = limit.check(peer("192.0.2.9"));
        }
        assert_eq!(limit.limiter.len(), 1);
    }
}
