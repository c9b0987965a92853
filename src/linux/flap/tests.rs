use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An interface that is up and has an address, and the time.
fn flaps() -> (FlapDetector, Instant) {
    let (mut flaps, now) = (FlapDetector::default(), Instant::now());
    flaps.link(2, "eth0", true, now);
    flaps.address(2, ip("10.0.0.1"), now);
    assert!(!flaps.take());
    (flaps, now)
}

fn at(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn tc_14_a_link_that_comes_back_with_another_address_is_a_sign() {
    // The lease of the old network goes before the new one comes, or after it, or never.
    for order in 0..3 {
        let (mut flaps, now) = flaps();
        flaps.link(2, "eth0", false, now);
        if order == 0 {
            flaps.address_gone(2, ip("10.0.0.1"));
        }
        flaps.link(2, "eth0", true, at(now, 5));
        assert!(!flaps.take(), "it has no address yet, or the old one");
        flaps.address(2, ip("10.0.9.1"), at(now, 9));
        if order == 1 {
            flaps.address_gone(2, ip("10.0.0.1"));
        }
        assert!(flaps.take(), "{order}");
        flaps.address(2, ip("fd00::9"), at(now, 10));
        assert!(!flaps.take(), "once");
    }
}

#[test]
fn an_address_given_while_the_link_is_down_counts_when_it_is_back() {
    let (mut flaps, now) = flaps();
    flaps.link(2, "eth0", false, now);
    flaps.address_gone(2, ip("10.0.0.1"));
    flaps.address(2, ip("10.0.9.1"), now);
    assert!(!flaps.take());
    flaps.link(2, "eth0", true, at(now, 1000));
    assert!(flaps.take());
}

#[test]
fn an_interface_made_again_under_its_name_counts() {
    let (mut flaps, now) = flaps();
    flaps.link_gone(2);
    flaps.link(7, "eth0", false, at(now, 1));
    flaps.link(7, "eth0", true, at(now, 1));
    flaps.address(7, ip("10.0.9.1"), at(now, 2));
    assert!(flaps.take());
}

#[test]
fn a_second_loss_before_it_is_settled_changes_nothing() {
    let (mut flaps, now) = flaps();
    flaps.link(2, "eth0", false, now);
    flaps.address_gone(2, ip("10.0.0.1"));
    flaps.link(2, "eth0", true, at(now, 1));
    flaps.link(2, "eth0", false, at(now, 2));
    flaps.link(2, "eth0", true, at(now, 3));
    flaps.address(2, ip("10.0.9.1"), at(now, 4));
    assert!(flaps.take());
}

#[test]
fn what_happens_every_day_is_no_sign() {
    let (mut flaps, now) = flaps();
    // A renewed lease, and other addresses on a link that stays.
    flaps.address(2, ip("10.0.0.1"), now);
    flaps.address(2, ip("10.0.0.2"), now);
    flaps.address_gone(2, ip("10.0.0.1"));
    flaps.address(2, ip("10.0.0.1"), now);
    // A cable out and in, with the same addresses after.
    flaps.link(2, "eth0", false, now);
    flaps.link(2, "eth0", true, at(now, 3));
    flaps.address_gone(2, ip("10.0.0.1"));
    flaps.address(2, ip("10.0.0.1"), at(now, 4));
    // Long after that another address.
    flaps.address(2, ip("10.0.0.3"), at(now, 64));
    flaps.address(2, ip("10.0.0.4"), at(now, 65));
    // New interfaces, also such as come and go.
    flaps.link(3, "veth1", true, now);
    flaps.address(3, ip("172.17.0.1"), now);
    flaps.link(4, "veth2", true, now);
    flaps.link_gone(4);
    flaps.link(5, "veth2", true, now);
    flaps.address(5, ip("172.17.0.2"), now);
    flaps.address(99, ip("172.17.0.3"), now);
    flaps.link_gone(99);
    assert!(!flaps.take());
    assert_eq!(flaps.links.len(), 3, "{flaps:?}");
}

#[test]
fn a_renamed_interface_is_the_same() {
    let (mut flaps, now) = flaps();
    flaps.link(2, "lan", true, now);
    flaps.link(2, "lan", false, now);
    flaps.link(2, "lan", true, now);
    flaps.address(2, ip("10.0.9.1"), now);
    assert!(flaps.take());
}
