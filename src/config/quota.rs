//! Windows of quotas and budgets, and `[state]`: what may be spent, and where it is written down.

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::mistakes::{Wrong, nearest};
use super::plan::{BudgetRule, QuotaRule, State};
use super::reader::{Item, Table};
use super::values::{self, DURATION, SECONDS_PER_DAY, quoted};
use crate::rules::calendar::{Resets, Unit};
use crate::rules::ledger::Per;
use crate::rules::window::{Counted, WindowRule};

/// Each call holds its slot for the length of a sliding window: the number is also a bound of memory.
const MOST_REQUESTS: u32 = 10_000_000;
/// How much longer a slot is held where the sending counts: more than a wire usually holds a call up.
const MARGIN: Duration = Duration::from_millis(100);

/// `[state]`
pub(super) fn state(mut table: Table<'_>) -> State {
    let dir = table.take("dir", |item| {
        let expected = "a directory such as \"/var/lib/tollgate\"";
        let dir = item.text(expected)?;
        if dir.is_empty() { Err(Wrong::new("is empty", expected)) } else { Ok(dir.into()) }
    });
    let state = State { dir, instances: table.or("instances", 1, values::count(1..=1_000)) };
    table.finish();
    state
}

/// `quota`: windows, or `"none"`, which is none.
pub(super) fn quota(item: &Item<'_>, expected: &str) -> Result<Vec<QuotaRule>, Wrong> {
    if !item.is_list() {
        let text = item.text(expected)?;
        let near = nearest(text, ["none"]);
        let wrong = || Wrong::new(format!("{} is no quota", quoted(text)), expected).near(near);
        return if text == "none" { Ok(Vec::new()) } else { Err(wrong()) };
    }
    let windows = item.list(expected, window)?;
    let same = |rule: &QuotaRule| {
        windows.iter().filter(|other| other.per.to_string() == rule.per.to_string()).count() > 1
    };
    if let Some(rule) = windows.iter().find(|rule| same(rule)) {
        let what = format!("has two windows of {}", rule.per);
        return Err(Wrong::new(what, "one window of each length: the smaller one admits less anyway"));
    }
    if windows.is_empty() { Err(Wrong::new("is an empty list", expected)) } else { Ok(windows) }
}

/// `{ requests, per, resets, reserve, count_until, margin, shadow }`
fn window(item: &Item<'_>) -> Result<QuotaRule, Wrong> {
    let expected = "a window such as { requests = 10, per = \"1s\" }";
    let mut table = item.table(expected)?;
    let requests = table.must("requests", expected, values::count(1..=MOST_REQUESTS));
    let per_item = table.item("per");
    if per_item.is_none() {
        table.missing("per", expected);
    }
    let unit = per_item.as_ref().and_then(unit);
    let resets_item = table.item("resets");
    let per = match unit {
        Some(unit) => {
            let reset = resets_item.as_ref().map_or_else(|| Some(midnight()), |item| item.read(resets));
            reset.map(|(at, zone)| Per::Calendar(Resets { unit, at, zone }))
        }
        None => {
            if let Some(item) = &resets_item {
                item.tell(Wrong::new("is for calendar periods", "per = \"day\" or \"month\" beside it"));
            }
            per_item.and_then(|item| item.read(values::some_time)).map(Per::Sliding)
        }
    };
    let words = [("answer", false), ("sent", true)];
    let sent = table.or("count_until", false, values::word(&words));
    let margin_item = table.item("margin");
    if let Some(item) = margin_item.as_ref().filter(|_| !sent) {
        item.tell(Wrong::new(
            "is for slots that are held from the sending",
            "count_until = \"sent\" beside it",
        ));
    }
    let margin = margin_item.and_then(|item| item.read(values::duration)).unwrap_or(MARGIN);
    let reserve = table.or("reserve", 0, percent);
    let shadow = table.or("shadow", false, Item::boolean);
    table.finish();
    let (Some(requests), Some(per)) = (requests, per) else { return Err(Wrong::Told) };
    let counted = if sent { Counted::Sent(margin) } else { Counted::Answer };
    Ok(QuotaRule { requests, per, counted, reserve, shadow })
}

fn unit(item: &Item<'_>) -> Option<Unit> {
    let words = [("day", Unit::Day), ("month", Unit::Month)];
    let word = item.text(DURATION).ok()?;
    words.iter().find(|(held, _)| *held == word).map(|(_, unit)| *unit)
}

fn midnight() -> (Time, TimeZone) {
    (Time::midnight(), TimeZone::UTC)
}

/// `"00:00 Europe/Paris"`
fn resets(item: &Item<'_>) -> Result<(Time, TimeZone), Wrong> {
    let expected = "a time of day and its zone, such as \"00:00 Europe/Paris\" or \"00:00 UTC\"";
    let text = item.text(expected)?;
    let wrong = |what: String| Wrong::new(what, expected);
    let (time, zone) =
        text.split_once(' ').ok_or_else(|| wrong(format!("{} names no zone", quoted(text))))?;
    let is_time = time.len() >= 5 && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let at = time.parse().ok().filter(|_| is_time);
    let at = at.ok_or_else(|| wrong(format!("{} is no time of day", quoted(time))))?;
    let zone = TimeZone::get(zone.trim()).map_err(|_| wrong(format!("{} is no time zone", quoted(zone))))?;
    Ok((at, zone))
}

/// `"10%"`
fn percent(item: &Item<'_>) -> Result<u32, Wrong> {
    let expected = "a share such as \"10%\", at most \"90%\"";
    let text = item.text(expected)?;
    let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
    percent
        .filter(|percent| *percent <= 90)
        .ok_or_else(|| Wrong::new(format!("{} is no share", quoted(text)), expected))
}

/// `{ requests, per }` of a client, whose day is 24 hours long, and whose month 31 days: longer than any.
pub(super) fn budget(item: &Item<'_>) -> Result<BudgetRule, Wrong> {
    let expected = "a window such as { requests = 5000, per = \"day\" }";
    let mut table = item.table(expected)?;
    let requests = table.must("requests", expected, values::count(1..=MOST_REQUESTS));
    let per = table.must("per", expected, |item| match unit(item) {
        Some(Unit::Day) => Ok(Duration::from_secs(SECONDS_PER_DAY)),
        Some(Unit::Month) => Ok(Duration::from_secs(31 * SECONDS_PER_DAY)),
        None => values::some_time(item),
    });
    let shadow = table.or("shadow", false, Item::boolean);
    table.finish();
    let (Some(requests), Some(per)) = (requests, per) else { return Err(Wrong::Told) };
    Ok(BudgetRule { window: WindowRule::new(requests, per), shadow })
}

/// Notes what cannot be promised: a calendar window without a place to write it down, a window of which each gate would
/// have nothing.
pub(super) fn check(root: &Table<'_>, state: &State, accounts: &[super::plan::Account]) {
    for account in accounts {
        for rule in &account.quota {
            let key = format!("the quota of account `{}`", account.name);
            if rule.share(state.instances) == 0 {
                let what = format!("is less than one call for each of {} instances", state.instances);
                root.notes.tell(&(0..0), &key, Wrong::new(what, "a quota that can be divided"));
            }
            if matches!(rule.per, Per::Calendar(_)) && !rule.shadow && state.dir.is_none() {
                let what = format!("is counted by the {} and would be forgotten by a restart", rule.per);
                root.notes.tell(
                    &(0..0),
                    &key,
                    Wrong::new(what, "[state] dir, a directory to write it down in"),
                );
            }
        }
    }
}
