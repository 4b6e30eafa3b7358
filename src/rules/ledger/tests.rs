//! The ledger's laws.

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::rules::calendar::MARGIN;
use crate::rules::window::Counted;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// `millis` after the clock began, on a day that began with it.
fn at(millis: u64) -> Now {
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 20_000) + ms(millis);
    Now { at: Moment::ORIGIN + ms(millis), date }
}

fn day(requests: u32) -> QuotaRule {
    let at = "00:00".parse().expect("is a time");
    let resets = Resets { unit: Unit::Day, at, zone: TimeZone::UTC };
    QuotaRule { per: Per::Calendar(resets), ..QuotaRule::sliding(requests, Duration::ZERO) }
}

fn spend(ledger: &mut Ledger, now: Now, calls: usize) {
    for _ in 0..calls {
        assert!(ledger.admits(now, Class::Interactive));
        ledger.begin(now);
        ledger.end(now);
    }
}

fn left(ledger: &mut Ledger, now: Now) -> Vec<u32> {
    ledger.remaining(now).collect()
}

#[test]
fn a_reserve_is_for_interactive_calls() {
    let rule = QuotaRule { reserve: 30, ..QuotaRule::sliding(10, ms(1000)) };
    let mut ledger = Ledger::new(&[rule], 1, at(0));
    spend(&mut ledger, at(0), 7);
    assert!(ledger.admits(at(1), Class::Interactive) && !ledger.admits(at(1), Class::Batch));
    assert_eq!(ledger.next_free(at(1), 0, Class::Batch).0, at(1000).at);
    assert!(ledger.admits(at(1000), Class::Refresh));
}

#[test]
fn several_gates_divide_what_there_is() {
    let mut ledger = Ledger::new(&[QuotaRule::sliding(10, ms(1000)), day(7)], 3, at(0));
    assert_eq!((left(&mut ledger, at(0)), ledger.gap()), (vec![3, 2], Duration::from_secs(1) / 3));
}

#[test]
fn a_window_that_nobody_waits_for_sets_no_pace() {
    let mut ledger = Ledger::new(&[QuotaRule::sliding(10, ms(10_000))], 1, at(0));
    spend(&mut ledger, at(0), 1);
    assert!(!ledger.is_due(at(1)) && ledger.next_free(at(1), 2, Class::Batch).0 == at(3000).at);
    ledger.nobody_waits_beyond(ms(2000));
    assert!(ledger.is_due(at(1)) && ledger.next_free(at(1), 2, Class::Batch).0 == at(1).at);
    spend(&mut ledger, at(1), 9);
    assert!(!ledger.admits(at(1), Class::Interactive), "it refuses all the same");
    assert_eq!(ledger.next_free(at(1), 0, Class::Batch).0, at(10_000).at);
}

#[test]
fn a_window_in_the_shadow_counts_and_does_not_refuse() {
    let rule = QuotaRule { shadow: true, ..QuotaRule::sliding(2, ms(1000)) };
    let mut ledger = Ledger::new(&[rule], 1, at(0));
    let over: Vec<usize> = (0..4)
        .map(|_| {
            assert!(ledger.admits(at(0), Class::Batch));
            ledger.begin(at(0))
        })
        .collect();
    assert_eq!((over, ledger.gap()), (vec![0, 0, 1, 1], Duration::ZERO));
}

#[test]
fn what_the_upstream_says_only_lowers() {
    let mut ledger = Ledger::new(&[QuotaRule::sliding(10, ms(1000)), day(100)], 1, at(0));
    let word = |limit, remaining, reset: u64, window: u64| Word {
        limit,
        remaining,
        reset: (reset > 0).then(|| ms(reset)),
        window: (window > 0).then(|| ms(window)),
    };
    ledger.hear(at(0), word(Some(10), 4, 500, 0), ms(60_000));
    assert_eq!(left(&mut ledger, at(0)), [4, 100]);
    ledger.hear(at(0), word(Some(10), 9, 500, 0), ms(60_000));
    assert_eq!(left(&mut ledger, at(499)), [4, 100], "never more");
    assert_eq!(left(&mut ledger, at(500)), [10, 100]);
    ledger.hear(at(500), word(None, 30, 0, 86_400_000), ms(60_000));
    assert_eq!(left(&mut ledger, at(500)), [10, 30]);
    // A window nobody declared: until its reset, but not for ever.
    ledger.hear(at(500), word(Some(60), 1, 9_000_000, 0), ms(60_000));
    assert!(ledger.admits(at(500), Class::Batch), "not before it is used up");
    ledger.hear(at(500), word(Some(60), 0, 9_000_000, 0), ms(60_000));
    assert!(!ledger.admits(at(60_499), Class::Interactive) && ledger.admits(at(60_500), Class::Interactive));
}

#[test]
fn leases_come_before_calls() {
    let mut ledger = Ledger::new(&[day(5000)], 1, at(0));
    ledger.keep(0);
    assert_eq!(ledger.leases_due().collect::<Vec<_>>(), [(0, 5)]);
    ledger.lease(0, 5);
    spend(&mut ledger, at(0), 4);
    assert_eq!(ledger.unspent().collect::<Vec<_>>(), [(0, 1)]);
    ledger.begin(at(0));
    assert_eq!(ledger.leases_due().count(), 1);
    ledger.give_back(at(0).at);
    assert_eq!(ledger.leases_due().count(), 0);
}

#[test]
fn what_was_spent_before_a_restart_counts() {
    let hour = 3_600_000;
    let mut ledger = Ledger::new(&[day(100), QuotaRule::sliding(50, ms(2 * hour))], 1, at(10 * hour));
    for (place, calls, ago) in [(0, 10, 11), (0, 20, 9), (1, 5, 3), (1, 7, 1)] {
        ledger.restore(at(10 * hour), place, calls, at(10 * hour).date - ms(ago * hour));
    }
    assert_eq!(left(&mut ledger, at(10 * hour)), [80, 43]);
    assert_eq!(left(&mut ledger, at(11 * hour)), [80, 50]);
    ledger.restore(at(11 * hour), 0, 5, at(20 * hour).date);
    assert_eq!(left(&mut ledger, at(11 * hour)), [75, 50], "the clock went back");
    ledger.correct(at(11 * hour), 0, 12);
    ledger.correct(at(11 * hour), 1, 49);
    assert_eq!(left(&mut ledger, at(11 * hour)), [88, 1]);
}

proptest! {
    /// The window law over two sliding windows and a day, whatever is asked, and however long answers take.
    #[test]
    fn no_interval_holds_more_than_any_window_admits(
        sent in any::<bool>(),
        steps in prop::collection::vec((0u64..300, 0u64..400, 0u64..=100), 1..150),
    ) {
        let counted = if sent { Counted::Sent(ms(400)) } else { Counted::Answer };
        let rules = [(3, 1_000), (7, 5_000)].map(|(n, per)| QuotaRule { counted, ..QuotaRule::sliding(n, ms(per)) });
        let begin = 86_400_000 - 9_000;
        let mut ledger = Ledger::new(&[&rules[..], &[day(11)]].concat(), 1, at(begin));
        let (mut now, mut answers, mut calls) = (begin, Vec::<u64>::new(), Vec::<u64>::new());
        for (pause, latency, percent) in steps {
            now += pause;
            answers.sort_unstable();
            while answers.first().is_some_and(|at| *at <= now) {
                ledger.end(at(answers.remove(0)));
            }
            if ledger.admits(at(now), Class::Interactive) {
                ledger.begin(at(now));
                answers.push(now + latency);
                calls.push(now + latency * percent / 100);
            }
        }
        calls.sort_unstable();
        for (requests, per) in [(3, 1_000), (7, 5_000)] {
            for run in calls.windows(requests + 1) {
                prop_assert!(run[requests] - run[0] >= per, "{run:?}");
            }
        }
        // Whichever moment near midnight the upstream takes for it.
        let margin = u64::try_from(MARGIN.as_millis()).expect("short");
        for midnight in [86_400_000 - margin, 86_400_000, 86_400_000 + margin] {
            let before = calls.iter().filter(|call| **call < midnight).count();
            prop_assert!(before <= 11 && calls.len() - before <= 11, "{before} of {}", calls.len());
        }
    }

    /// While anyone waits, grants are apart on average and never closer than half a gap; and the pace loses nothing to
    /// timers that are late.
    #[test]
    fn grants_are_paced_and_nothing_is_lost(late in prop::collection::vec(0u64..40, 20..60)) {
        let mut ledger = Ledger::new(&[QuotaRule::sliding(10, ms(1000))], 1, at(0));
        let mut granted = Vec::new();
        for late in &late {
            let (due, _) = ledger.next_free(granted.last().copied().unwrap_or(at(0)), 0, Class::Batch);
            let now = at(u64::try_from(due.since(Moment::ORIGIN).as_millis()).expect("short") + late);
            prop_assert!(ledger.is_due(now) && ledger.admits(now, Class::Batch), "it says when it admits");
            ledger.begin(now);
            ledger.end(now);
            granted.push(now);
        }
        for pair in granted.windows(2) {
            prop_assert!(pair[1].at.since(pair[0].at) >= ms(50), "{granted:?}");
        }
        let took = granted.last().expect("some").at.since(granted[0].at);
        let least = ms(100) * u32::try_from(late.len() - 1).expect("few");
        prop_assert!(took <= least + least / 10 + ms(40), "{took:?} for {least:?}");
    }
}

#[test]
fn changed_windows_inherit_what_was_written_down() {
    let mut old = Ledger::new(&[QuotaRule::sliding(10, ms(1000)), day(50)], 1, at(0));
    old.keep(1);
    old.lease(1, 5);
    spend(&mut old, at(0), 3);
    old.begin(at(400));
    let rules = [day(20), QuotaRule::sliding(4, ms(1000)), QuotaRule::sliding(5, ms(500))];
    let mut new = Ledger::new(&rules, 1, at(600));
    assert!(old.is_of(&[QuotaRule::sliding(10, ms(1000)), day(50)], 1) && !old.is_of(&rules, 1));
    assert_eq!(new.inherit(&old, at(600)), [0, 1]);
    assert_eq!(left(&mut new, at(600)), [16, 0, 4], "one is under way, and of three half a second is over");
    assert_eq!(new.unspent().collect::<Vec<_>>(), [(0, 1)]);
    new.end(at(700));
    assert_eq!(left(&mut new, at(1000)), [16, 3, 4]);
    assert_eq!(left(&mut new, at(1700)), [16, 4, 5]);
}

proptest! {
    /// Whenever an operator changes a window for one no longer than it: no call is sent while an interval of the new length
    /// that ends with it already holds as many as the new window admits.
    #[test]
    fn a_changed_window_forgets_no_call(
        (requests, per, margin) in (1u32..6, 20u64..60, prop::option::of(0u64..9)),
        (after, shorter, after_margin) in (1u32..6, 0u64..20, prop::option::of(0u64..9)),
        steps in prop::collection::vec((0u64..15, 0u64..30, 0u64..=100), 1..100), change in 0usize..100,
    ) {
        let counted = |margin: Option<u64>| margin.map_or(Counted::Answer, |margin| Counted::Sent(ms(margin)));
        let before = QuotaRule { counted: counted(margin), ..QuotaRule::sliding(requests, ms(per)) };
        let after = QuotaRule { counted: counted(after_margin), ..QuotaRule::sliding(after, ms(per - shorter)) };
        let mut ledger = Ledger::new(std::slice::from_ref(&before), 1, at(0));
        let (mut now, mut answers, mut sent) = (0, Vec::new(), Vec::new());
        for (step, (pause, latency, percent)) in steps.into_iter().enumerate() {
            now += pause;
            answers.sort_unstable();
            while answers.first().is_some_and(|answer| *answer <= now) {
                ledger.end(at(answers.remove(0)));
            }
            if step == change {
                let mut new = Ledger::new(std::slice::from_ref(&after), 1, at(now));
                new.inherit(&ledger, at(now));
                ledger = new;
            }
            if ledger.admits(at(now), Class::Interactive) {
                // Where a window counts from the sending, so does the upstream.
                let by_answer = [&before, &after].iter().all(|rule| rule.counted == Counted::Answer);
                let counts = now + if by_answer { latency * percent / 100 } else { 0 };
                if step >= change {
                    let near = sent.iter().filter(|other| **other <= counts && counts < **other + per - shorter);
                    prop_assert!(near.count() < after.requests as usize);
                }
                ledger.begin(at(now));
                answers.push(now + latency);
                sent.push(counts);
            }
        }
    }
}
