//! `POST /accounts/NAME/pause?for=10m`, `/resume`, `/ledger?window=day&spent=N`: what operators do to an account by hand.

use std::time::Duration;

use crate::config;
use crate::lasting::Lasting;
use crate::state::hand::Done;

/// The longest an account can be closed by hand.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

const USAGE: &str = "say what to do: /accounts/NAME/pause?for=10m, /accounts/NAME/resume or /accounts/NAME/ledger?window=day&spent=N";

/// Does what `path` after `/accounts/` and the query say; what was done, as JSON.
///
/// # Errors
/// What is wrong with them.
pub fn act(lasting: &Lasting, path: &str, query: &str) -> Result<String, String> {
    let (name, verb) = path.rsplit_once('/').ok_or(USAGE)?;
    let (upstream, account) =
        lasting.account_called(name).ok_or_else(|| format!("no account is called {name}"))?;
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let done = match verb {
        "pause" => {
            let time = value("for").and_then(config::time).filter(|time| !time.is_zero() && *time <= LONGEST);
            let time = time.ok_or("say for how long: /pause?for=10m, at most 31d")?;
            tracing::warn!(account = name, ?time, "an operator closed an account");
            account.close_by_hand(time)
        }
        "resume" => {
            tracing::warn!(account = name, "an operator opened an account");
            lasting.reset_standing(&upstream);
            account.open_by_hand()
        }
        "ledger" => {
            let (window, spent) = value("window").zip(value("spent")).ok_or(USAGE)?;
            let spent: u32 = spent.parse().map_err(|_| format!("{spent} is no number of calls"))?;
            let done = account.correct_by_hand(window, spent).ok_or_else(|| {
                format!("account {name} has no such window; it has {}", account.windows().join(", "))
            })?;
            tracing::warn!(account = name, window, spent, "an operator corrected a ledger");
            done
        }
        _ => return Err(USAGE.into()),
    };
    Ok(format!("{{\"done\":true,\"kept_over_restarts\":{}}}\n", done == Done::Kept))
}
