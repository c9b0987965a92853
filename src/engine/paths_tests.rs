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

#[test]
fn one_unfinished_key_exchange_proves_nothing_and_two_do_unless_one_succeeded_between() {
    let mut paths = paths();
    let key = to("192.0.2.1:80");
    paths.learn(at(0), key, Finding::Unfinished);
    assert_eq!(paths.advice(at(0), key), Advice::Offer);
    paths.learn(at(1), key, Finding::Encrypted);
    paths.learn(at(2), key, Finding::Unfinished);
    assert_eq!(paths.advice(at(2), key), Advice::Offer);
    paths.learn(at(3), key, Finding::Unfinished);
    assert_eq!(paths.advice(at(3), key), Advice::Avoid(Finding::NonSynStripped));
    // It goes on from there when the pause is over.
    assert_eq!(paths.advice(at(63), key), Advice::TryAgain);
    paths.learn(at(65), key, Finding::Unfinished);
    assert_eq!(paths.info(at(65), key).and_then(|i| i.avoided_seconds), Some(120));
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
    for n in 0..100 {
        paths.learn(at(n + 1), to(&format!("198.51.100.{n}:80")), Finding::NoEno);
        assert!(paths.paths.len() <= 3 && paths.by_rank.len() == paths.paths.len());
    }
    assert!(paths.info(at(200), to("192.0.2.1:80")).is_some());
    assert!(paths.info(at(200), to("198.51.100.98:80")).is_some());
    assert!(paths.info(at(200), to("198.51.100.97:80")).is_none());
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
