use super::*;

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn to(text: &str) -> PathKey {
    PathKey::new(text.parse().expect("an address"), true)
}

fn paths() -> Paths {
    Paths::new(PathLimits::default())
}

#[test]
fn what_costs_something_is_avoided_then_tried_by_one_with_a_pause_that_doubles() {
    let mut paths = paths();
    let key = to("192.0.2.1:80");
    assert_eq!(paths.advice(at(0), key), Advice::Offer);
    paths.learn(at(0), key, Finding::SynDropped);
    assert_eq!(paths.advice(at(59), key), Advice::Avoid(Finding::SynDropped));
    assert_eq!(paths.advice(at(60), key), Advice::TryAgain);
    assert_eq!(paths.advice(at(60), key), Advice::Avoid(Finding::SynDropped), "one is enough");
    paths.learn(at(61), key, Finding::SynDropped);
    assert_eq!(paths.advice(at(180), key), Advice::Avoid(Finding::SynDropped));
    assert_eq!(paths.advice(at(181), key), Advice::TryAgain);
    let mut now = 181;
    for _ in 0..10 {
        paths.learn(at(now), key, Finding::SynDropped);
        now += 3600;
    }
    assert_eq!(paths.info(at(now - 3600), key).and_then(|i| i.avoided_seconds), Some(3600), "it ends somewhere");
}

#[test]
fn success_forgives_and_the_next_failure_starts_from_the_shortest_pause() {
    let mut paths = paths();
    let key = to("192.0.2.1:80");
    for now in [0, 100, 300] {
        paths.learn(at(now), key, Finding::SynDropped);
    }
    paths.learn(at(400), key, Finding::Encrypted);
    assert_eq!(paths.advice(at(400), key), Advice::Offer);
    paths.learn(at(500), key, Finding::SynDropped);
    let info = paths.info(at(500), key).expect("known");
    assert_eq!((info.avoided_seconds, info.times, info.encrypted_seconds), (Some(60), 1, Some(100)));
}

#[test]
fn what_costs_nothing_is_not_avoided() {
    for finding in [Finding::NoEno, Finding::Echoed, Finding::StrippedBack, Finding::AckWithoutEno] {
        let mut paths = paths();
        paths.learn(at(0), to("192.0.2.1:80"), finding);
        assert_eq!(paths.advice(at(1), to("192.0.2.1:80")), Advice::Offer, "{finding}");
    }
}

/// A connection that began at `began` has suffered this by `now`.
fn suffer(paths: &mut Paths, began: u64, now: u64, finding: Finding) -> Option<u64> {
    let key = to("192.0.2.1:80");
    paths.doubt(at(now), key, &Doubt { finding, began: at(began), session: false });
    paths.info(at(now), key).and_then(|info| info.avoided_seconds)
}

#[test]
fn one_unfinished_key_exchange_proves_nothing_and_two_do_on_a_path_that_never_worked() {
    let mut paths = paths();
    assert_eq!(suffer(&mut paths, 0, 0, Finding::Unfinished), None);
    assert_eq!(suffer(&mut paths, 1, 2, Finding::Unfinished), None, "within a minute it is the same event");
    assert_eq!(suffer(&mut paths, 100, 101, Finding::Unfinished), Some(60));
    assert_eq!(paths.advice(at(101), to("192.0.2.1:80")), Advice::Avoid(Finding::NonSynStripped));
    // It goes on from there when the pause is over.
    assert_eq!(paths.advice(at(161), to("192.0.2.1:80")), Advice::TryAgain);
    assert_eq!(suffer(&mut paths, 161, 162, Finding::Unfinished), Some(120));
}

#[test]
fn what_connections_suffer_at_the_same_time_is_one_event() {
    let mut paths = paths();
    for n in 0..12 {
        assert_eq!(suffer(&mut paths, n, 20 + n, Finding::SynDropped), Some(60 - n));
    }
    // The last of them is noticed long after: its kernel waits longer and longer between SYNs.
    assert_eq!(suffer(&mut paths, 19, 79, Finding::SynDropped), Some(1));
    assert_eq!(suffer(&mut paths, 19, 81, Finding::SynDropped), None, "no second event");
    // That one is tried again, and fails, is.
    assert_eq!(paths.advice(at(90), to("192.0.2.1:80")), Advice::TryAgain);
    assert_eq!(suffer(&mut paths, 90, 93, Finding::SynDropped), Some(120));
}

#[test]
fn a_path_on_which_a_peer_has_shown_its_keys_needs_many_events_to_be_doubted_and_none_between_that_worked() {
    let key = to("192.0.2.1:80");
    for finding in [Finding::SynDropped, Finding::NonSynStripped, Finding::Unfinished] {
        for session in [false, true] {
            let mut paths = paths();
            if !session {
                paths.learn(at(0), key, Finding::Encrypted);
            }
            let mut suffer = |now: u64| {
                paths.doubt(at(now), key, &Doubt { finding, began: at(now), session });
                let avoided = paths.info(at(now), key).is_some_and(|info| info.avoided_seconds.is_some());
                if now == 300 && !session {
                    paths.learn(at(301), key, Finding::Encrypted);
                }
                avoided
            };
            let events = [100, 200, 300, 400, 500, 600, 700];
            let avoided: Vec<u64> = events.into_iter().filter(|now| suffer(*now)).collect();
            assert_eq!(avoided.first(), Some(if session { &400 } else { &700 }), "{finding} {session}");
        }
    }
}

#[test]
fn nothing_is_avoided_because_of_what_another_host_did_not_finish() {
    let mut paths = paths();
    let from = PathKey::new("192.0.2.1:5".parse().expect("an address"), false);
    for n in 0..100 {
        paths.learn(at(n * 1000), from, Finding::NonSynStripped);
    }
    assert_eq!(paths.info(at(99_000), from).and_then(|info| info.avoided_seconds), None);
    assert_eq!(paths.advice(at(99_000), from), Advice::Offer);
}

#[test]
fn where_it_worked_before_one_connection_at_a_time_goes_without_and_not_at_once() {
    let mut paths = paths();
    let (key, wait) = (to("192.0.2.1:80"), Duration::from_secs);
    assert!(paths.may_go_without(at(0), key, false, wait(3)), "nothing speaks for this path");
    assert!(!paths.may_go_without(at(0), key, true, wait(14)) && paths.may_go_without(at(0), key, true, wait(15)));
    paths.learn(at(0), key, Finding::Encrypted);
    assert!(!paths.may_go_without(at(10), key, false, wait(10)));
    assert!(paths.may_go_without(at(20), key, false, wait(20)));
    assert!(!paths.may_go_without(at(21), key, false, wait(20)), "one is enough");
    assert!(paths.may_go_without(at(80), key, false, wait(30)));
}

#[test]
fn a_connection_does_not_blur_what_a_probe_has_found() {
    let mut paths = paths();
    let key = to("192.0.2.1:80");
    paths.learn(at(0), key, Finding::StrippedBack);
    paths.learn(at(5), key, Finding::NoEno);
    let info = paths.info(at(6), key).expect("known");
    assert_eq!((info.finding, info.seen_seconds), (Finding::StrippedBack, 1));
    paths.learn(at(7), key, Finding::Encrypted);
    paths.learn(at(8), key, Finding::NoEno);
    assert_eq!(paths.info(at(8), key).map(|i| i.finding), Some(Finding::NoEno));
}

#[test]
fn ports_and_directions_are_paths_of_their_own_and_mapped_addresses_are_not() {
    let mut paths = paths();
    paths.learn(at(0), to("192.0.2.1:80"), Finding::SynDropped);
    assert_eq!(paths.advice(at(1), to("192.0.2.1:443")), Advice::Offer);
    let from = PathKey::new("192.0.2.1:80".parse().expect("an address"), false);
    assert_eq!(paths.advice(at(1), from), Advice::Offer);
    assert_eq!(paths.advice(at(1), to("[::ffff:192.0.2.1]:80")), Advice::Avoid(Finding::SynDropped));
}

#[test]
fn memory_is_bounded_and_what_costs_nothing_goes_first() {
    let mut paths = Paths::new(PathLimits { max: 3, ..PathLimits::default() });
    paths.learn(at(0), to("192.0.2.1:80"), Finding::SynDropped);
    paths.learn(at(0), to("192.0.2.9:80"), Finding::Encrypted);
    for n in 0..100 {
        paths.learn(at(n + 1), to(&format!("198.51.100.{n}:80")), Finding::NoEno);
        assert!(paths.paths.len() <= 3 && paths.by_rank.len() == paths.paths.len());
    }
    assert!(paths.info(at(200), to("192.0.2.1:80")).is_some());
    assert!(paths.info(at(200), to("192.0.2.9:80")).is_some(), "nor what was proven");
    assert!(paths.info(at(200), to("198.51.100.99:80")).is_some());
    assert!(paths.info(at(200), to("198.51.100.98:80")).is_none());
    let mut none = Paths::new(PathLimits { max: 0, ..PathLimits::default() });
    none.learn(at(0), to("192.0.2.1:80"), Finding::SynDropped);
    assert_eq!(none.advice(at(1), to("192.0.2.1:80")), Advice::Offer);
}

#[test]
fn what_was_not_used_expires() {
    let mut paths = paths();
    let day = 24 * 3600;
    paths.learn(at(0), to("192.0.2.1:80"), Finding::SynDropped);
    paths.learn(at(10), to("192.0.2.2:80"), Finding::NoEno);
    assert_eq!(paths.poll_timeout(), Some(at(day)));
    paths.expire(at(day));
    assert_eq!(paths.list(at(day)).len(), 1);
    assert_eq!(paths.poll_timeout(), Some(at(day + 10)));
    paths.expire(at(day + 10));
    assert_eq!((paths.list(at(day + 10)).len(), paths.poll_timeout()), (0, None));
    assert!(paths.by_rank.is_empty());
}

#[test]
fn paths_can_be_forgotten_all_or_by_host_or_by_port() {
    let mut paths = paths();
    let fill = |paths: &mut Paths| {
        for remote in ["192.0.2.1:80", "192.0.2.1:443", "[2001:db8::1]:80"] {
            paths.learn(at(0), to(remote), Finding::SynDropped);
        }
        paths.learn(at(0), PathKey::new("192.0.2.1:5".parse().expect("an address"), false), Finding::NonSynStripped);
    };
    let host = "192.0.2.1".parse().ok();
    fill(&mut paths);
    assert_eq!(paths.forget(host, Some(80)), 1);
    assert_eq!(paths.advice(at(1), to("192.0.2.1:80")), Advice::Offer);
    assert_eq!(paths.forget(host, None), 2);
    assert_eq!(paths.forget(None, None), 1);
    assert!(paths.by_rank.is_empty());
}
