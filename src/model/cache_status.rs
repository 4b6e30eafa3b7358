//! How the cache took part in an answer, and why: the words of `Cache-Status` (RFC 9211) and of the metrics.

/// How the cache took part, in the words of RFC 9211.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// Answered from memory with this many seconds of freshness left; negative: stale, for the reason given.
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
    /// Something held, but too old.
    Stale,
    /// The client asked for a fresh one.
    Request,
    /// Some of it held, the rest not.
    Partial,
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
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Partial => "partial",
        }
    }
}

impl CacheStatus {
    /// The metric's `result`.
    pub const fn result(self) -> &'static str {
        match self {
            Self::Hit { stale: None, .. } => "hit",
            Self::Hit { stale: Some(_), .. } => "stale",
            Self::Sliced { .. } => "sliced",
            Self::Forwarded { collapsed: true, .. } => "collapsed",
            Self::Forwarded { status: 304, stored: true, .. } => "revalidated",
            Self::Forwarded { why: Why::Bypass | Why::Method, .. } | Self::Own => "bypass",
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
