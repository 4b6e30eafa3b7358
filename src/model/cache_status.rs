//! How the cache took part in an answer, and why: the words of `Cache-Status` (RFC 9211) and of the metrics.

use std::time::Duration;

/// How the cache took part, in the words of RFC 9211.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// Answered from memory without a call, with this many seconds of freshness left; negative: stale, for the reason
    /// given.
    Hit {
        /// Seconds left.
        ttl: i64,
        /// Why it is stale.
        stale: Option<Stale>,
    },
    /// Cut from blocks in memory, with this many seconds of freshness left.
    Sliced {
        /// Seconds left; negative where a walk reads what was fresh when it began.
        ttl: i64,
    },
    /// Forwarded.
    Forwarded {
        /// Why.
        why: Why,
        /// What the upstream said.
        status: u16,
        /// Whether the answer was kept.
        stored: bool,
        /// Whether somebody else's call served it.
        collapsed: bool,
    },
    /// Forwarded in vain, and answered from memory with something stale.
    Fallback {
        /// Why it was forwarded.
        why: Why,
        /// What the upstream said, if it said anything.
        status: Option<u16>,
        /// Seconds left: less than none.
        ttl: i64,
        /// What went wrong.
        stale: Stale,
    },
    /// The gate's own answer: no cache took part.
    Own,
}

/// Why a stale answer was given (`detail` of a stale hit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// A refresh is under way.
    Revalidating,
    /// The upstream answered with an error.
    UpstreamError,
    /// The upstream could not be reached, or did not answer.
    Unreachable,
    /// The breaker is open.
    Breaker,
    /// The quota is spent.
    Quota,
    /// The account rests.
    Paused,
}

/// Why a request was forwarded (`fwd` of RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The route does not cache, or the request cannot be answered from a cache.
    Bypass,
    /// The method.
    Method,
    /// Nothing held for this question.
    UriMiss,
    /// Something held, but for other fields.
    VaryMiss,
    /// A part held, but not all that was asked for.
    Partial,
    /// Something held, but too old.
    Stale,
    /// Something held, but the request's own words do not let it serve: it wants a newer one, or says who asks.
    Request,
}

impl Stale {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Revalidating,
        Self::UpstreamError,
        Self::Unreachable,
        Self::Breaker,
        Self::Quota,
        Self::Paused,
    ];

    /// The word in `Cache-Status` and in the metric's `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revalidating => "revalidating",
            Self::UpstreamError => "upstream-error",
            Self::Unreachable => "unreachable",
            Self::Breaker => "breaker",
            Self::Quota => "quota",
            Self::Paused => "paused",
        }
    }
}

impl Why {
    /// The word in `Cache-Status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

impl CacheStatus {
    /// Fresh for `left`.
    pub fn fresh(left: Duration) -> Self {
        Self::Hit { ttl: seconds(left), stale: None }
    }

    /// Given out although it was over by `over`, for a reason unless its client asked for just that.
    pub fn over(over: Duration, stale: Option<Stale>) -> Self {
        Self::Hit { ttl: seconds_over(over), stale }
    }

    /// The same, after a call that was made in vain.
    pub fn fallback(why: Why, status: Option<u16>, over: Duration, stale: Stale) -> Self {
        Self::Fallback { why, status, ttl: seconds_over(over), stale }
    }

    /// Cut from blocks that are fresh for `left`.
    pub fn sliced(left: Duration) -> Self {
        Self::Sliced { ttl: seconds(left) }
    }

    /// Cut from blocks that are over by `over`, which its client accepts.
    pub fn sliced_over(over: Duration) -> Self {
        Self::Sliced { ttl: seconds_over(over) }
    }

    /// Whether the answer is one that was held before.
    pub const fn is_from_memory(self) -> bool {
        matches!(self, Self::Hit { .. } | Self::Sliced { .. } | Self::Fallback { .. })
    }

    /// Why a stale answer was given, if one was.
    pub const fn stale(self) -> Option<Stale> {
        match self {
            Self::Hit { stale, .. } => stale,
            Self::Fallback { stale, .. } => Some(stale),
            _ => None,
        }
    }

    /// The metric's `result`.
    pub const fn result(self) -> &'static str {
        match self {
            Self::Hit { stale: None, .. } => "hit",
            Self::Hit { stale: Some(_), .. } | Self::Fallback { .. } => "stale",
            Self::Sliced { .. } => "sliced",
            Self::Forwarded { collapsed: true, .. } => "collapsed",
            Self::Forwarded { why: Why::Bypass | Why::Method, .. } | Self::Own => "bypass",
            Self::Forwarded { status: 304, stored: true, .. }
            | Self::Forwarded { why: Why::Stale, status: 304, .. } => "revalidated",
            Self::Forwarded { .. } => "miss",
        }
    }
}

impl std::fmt::Display for CacheStatus {
    /// The field's value without the cache's name: `hit; ttl=12`, `fwd=uri-miss; fwd-status=200; stored`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Own => Ok(()),
            Self::Hit { ttl, stale } => {
                write!(f, "hit; ttl={ttl}")?;
                stale.map_or(Ok(()), |reason| write!(f, "; detail={}", reason.as_str()))
            }
            Self::Sliced { ttl } => write!(f, "hit; ttl={ttl}; detail=sliced"),
            Self::Fallback { why, status, ttl, stale } => {
                write!(f, "fwd={}", why.as_str())?;
                status.map_or(Ok(()), |status| write!(f, "; fwd-status={status}"))?;
                write!(f, "; ttl={ttl}; detail={}", stale.as_str())
            }
            Self::Forwarded { why, status, stored, collapsed } => {
                write!(f, "fwd={}; fwd-status={status}", why.as_str())?;
                if stored {
                    f.write_str("; stored")?;
                }
                if collapsed { f.write_str("; collapsed") } else { Ok(()) }
            }
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds by which a lifetime is over, begun ones counted: what is stale never shows `ttl=0`.
fn seconds_over(duration: Duration) -> i64 {
    -seconds(duration + Duration::from_nanos(999_999_999)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_says_what_happened() {
        let forwarded =
            |why, status, stored, collapsed| CacheStatus::Forwarded { why, status, stored, collapsed };
        let second = Duration::from_secs(1);
        for (cache, words, result) in [
            (CacheStatus::fresh(second * 12), "hit; ttl=12", "hit"),
            (CacheStatus::over(Duration::ZERO, None), "hit; ttl=-1", "hit"),
            (
                CacheStatus::over(second, Some(Stale::Revalidating)),
                "hit; ttl=-1; detail=revalidating",
                "stale",
            ),
            (
                CacheStatus::fallback(Why::Stale, Some(503), second, Stale::UpstreamError),
                "fwd=stale; fwd-status=503; ttl=-1; detail=upstream-error",
                "stale",
            ),
            (
                CacheStatus::fallback(Why::Request, None, second * 2, Stale::Unreachable),
                "fwd=request; ttl=-2; detail=unreachable",
                "stale",
            ),
            (forwarded(Why::UriMiss, 200, true, false), "fwd=uri-miss; fwd-status=200; stored", "miss"),
            (forwarded(Why::VaryMiss, 200, false, false), "fwd=vary-miss; fwd-status=200", "miss"),
            (forwarded(Why::Partial, 206, true, false), "fwd=partial; fwd-status=206; stored", "miss"),
            (forwarded(Why::Request, 200, true, false), "fwd=request; fwd-status=200; stored", "miss"),
            (forwarded(Why::Stale, 304, true, false), "fwd=stale; fwd-status=304; stored", "revalidated"),
            (forwarded(Why::Stale, 304, false, false), "fwd=stale; fwd-status=304", "revalidated"),
            (
                forwarded(Why::Stale, 304, true, true),
                "fwd=stale; fwd-status=304; stored; collapsed",
                "collapsed",
            ),
            (forwarded(Why::Method, 200, false, false), "fwd=method; fwd-status=200", "bypass"),
            (forwarded(Why::Bypass, 304, false, false), "fwd=bypass; fwd-status=304", "bypass"),
            (CacheStatus::Own, "", "bypass"),
        ] {
            assert_eq!((cache.to_string().as_str(), cache.result()), (words, result));
        }
    }
}
