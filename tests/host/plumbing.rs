//! The host plumbing against a real kernel, in network namespaces of its own, with a loop that passes every packet
//! on unchanged in the engine's place.

use std::fs;

use crate::lab::{Lab, assert_same};

const BOTH: &str = "10.9.0.2:7000 [fd09::2]:7000";

#[test]
fn tcp_of_both_families_goes_through_both_devices_at_both_hosts() {
    let Some(lab) = Lab::pair() else { return };
    let (_a, _b) = (lab.up("a", "10.9.0.0/24 fd09::/64"), lab.up("b", "local:7000"));
    let _server = lab.serve("b");
    assert_eq!(lab.fetch("a", BOTH), "ok,ok");
    for (host, interface) in [("a", "tun0"), ("a", "tun0-w"), ("b", "tun0"), ("b", "tun0-w")] {
        assert!(lab.packets(host, interface) > 20, "{host} {interface}");
    }
    // Addresses of the host's own stay on loopback, whatever is selected.
    let before = lab.packets("b", "tun0");
    assert_eq!(lab.fetch("b", BOTH), "ok,ok");
    assert!(lab.packets("b", "tun0") < before + 20);
}

#[test]
fn down_leaves_everything_as_it_was() {
    let Some(lab) = Lab::pair() else { return };
    lab.sysctl("a", "net.ipv4.conf.all.rp_filter=1");
    lab.nft("a", "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; counter; }; }");
    fs::create_dir_all(lab.state("a")).expect("mkdir");
    let before = lab.snapshot("a");
    let mut daemon =
        lab.up("a", "0.0.0.0/0 ::/0 10.9.0.0/24:80-90 :443 local:22 192.0.2.0/24 [2001:db8:8000::/33]:5432");
    assert_ne!(lab.snapshot("a")["nftables"], before["nftables"]);
    assert_eq!(daemon.tell("down"), "down");
    daemon.child.wait().expect("wait");
    // The directory for records goes with the last one.
    fs::create_dir_all(lab.state("a")).expect("mkdir");
    assert_same(&before, &lab.snapshot("a"));
}

/// A firewall that drops what connection tracking finds invalid, and everything that is not allowed.
const STATEFUL: &str = "table inet filter {
    chain input { type filter hook input priority 0; policy drop;
        iif lo accept; ct state invalid counter drop; ct state established,related accept;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept; tcp dport 7000 accept; }
    chain forward { type filter hook forward priority 0; policy drop; ct state invalid counter drop; }
    chain output { type filter hook output priority 0; ct state invalid counter drop; }
}";

#[test]
fn stateful_firewalls_with_policy_drop_at_both_ends() {
    let Some(lab) = Lab::pair() else { return };
    lab.nft("a", STATEFUL);
    lab.nft("b", STATEFUL);
    let (_a, _b) = (lab.up("a", "10.9.0.2 fd09::2"), lab.up("b", "local:7000"));
    let _server = lab.serve("b");
    assert_eq!(lab.fetch("a", BOTH), "ok,ok");
    for host in ["a", "b"] {
        let rules = lab.exec(host, "nft list table inet filter");
        assert!(rules.lines().filter(|l| l.contains("invalid")).all(|l| l.contains("packets 0 ")), "{rules}");
    }
}

#[test]
fn masquerading_on_the_way_out() {
    let Some(lab) = Lab::pair() else { return };
    let _b = lab.up("b", "local:7000");
    let _server = lab.serve("b");
    // Also where the rule does not say out of which interface, and so meets the plain leg as well.
    for which in ["oifname eth0 masquerade", "masquerade"] {
        let chain = format!("chain post {{ type nat hook postrouting priority srcnat; {which}; }};");
        lab.nft("a", &format!("table inet nat {{ {chain} }}"));
        let mut a = lab.up("a", "10.9.0.0/24 fd09::/64");
        assert_eq!(lab.fetch("a", BOTH), "ok,ok", "{which}");
        assert_eq!(a.tell("down"), "down");
        a.child.wait().expect("wait");
        lab.nft("a", "delete table inet nat");
    }
}

#[test]
fn strict_reverse_path_filter_with_and_without_marks_in_it() {
    let Some(lab) = Lab::pair() else { return };
    for (setting, value) in [("rp_filter", 1), ("rp_filter", 2), ("src_valid_mark", 1)] {
        lab.sysctl("a", &format!("net.ipv4.conf.all.rp_filter={}", value));
        lab.sysctl("a", &format!("net.ipv4.conf.all.{setting}={value}"));
        fs::create_dir_all(lab.state("a")).expect("mkdir");
        let before = lab.snapshot("a");
        let (mut a, _b) = (lab.up("a", "10.9.0.0/24 fd09::/64"), lab.up("b", "local:7000"));
        let _server = lab.serve("b");
        assert_eq!(lab.fetch("a", BOTH), "ok,ok", "{setting} = {value}");
        // What is in force at the interface has not become weaker than loose.
        let in_force = lab.exec("a", "sysctl -n net.ipv4.conf.eth0.rp_filter");
        assert_ne!(in_force.trim(), "0");
        assert_eq!(a.tell("down"), "down");
        a.child.wait().expect("wait");
        fs::create_dir_all(lab.state("a")).expect("mkdir");
        assert_same(&before, &lab.snapshot("a"));
    }
}

#[test]
fn a_host_with_two_links_keeps_choosing_its_source_addresses() {
    let Some(lab) = Lab::pair() else { return };
    lab.link(("a", "eth1", "10.8.0.1/24", "fd08::1/64"), ("b", "eth1", "10.8.0.2/24", "fd08::2/64"));
    let (_a, _b) = (lab.up("a", "0.0.0.0/0 ::/0"), lab.up("b", "0.0.0.0/0 ::/0"));
    let _server = lab.serve("b");
    assert_eq!(lab.fetch("a", "10.9.0.2:7000 10.8.0.2:7000 [fd09::2]:7000 [fd08::2]:7000"), "ok,ok,ok,ok");
    for (host, interface) in
        [("a", "eth0"), ("a", "eth1"), ("b", "eth0"), ("b", "eth1"), ("a", "tun0-w"), ("b", "tun0-w")]
    {
        assert!(lab.packets(host, interface) > 40, "{host} {interface}");
    }
}

#[test]
fn what_is_not_selected_does_not_pass_the_devices() {
    let Some(lab) = Lab::pair() else { return };
    let (mut a, _b) = (lab.up("a", "10.9.0.2:22 fd09::/64"), lab.up("b", "local:22"));
    let _server = lab.serve("b");
    assert_eq!(lab.fetch("a", "10.9.0.2:7000"), "ok");
    assert!(lab.packets("a", "tun0") < 5);
    // Selected at run time, and taken out again.
    assert_eq!(a.tell("select 10.9.0.2:7000-7001 fd09::/64"), "updated");
    assert_eq!(lab.fetch("a", "10.9.0.2:7000"), "ok");
    let selected = lab.packets("a", "tun0");
    assert!(selected > 20);
    assert_eq!(a.tell("select 192.0.2.0/24"), "updated");
    assert_eq!(lab.fetch("a", "10.9.0.2:7000"), "ok");
    assert!(lab.packets("a", "tun0") < selected + 20);
}

#[test]
fn a_kept_connection_stays_diverted_when_nothing_is_selected() {
    let Some(lab) = Lab::pair() else { return };
    let mut a = lab.up("a", "10.9.0.0/24 fd09::/64");
    let _server = lab.serve("b");
    let one_port = lab.state.path().join("one-port.conf");
    fs::write(&one_port, "net.ipv4.ip_local_port_range = 45000 45000\n").expect("write");
    lab.exec("a", &format!("sysctl -q -p {}", one_port.display()));
    for (local, remote) in [("10.9.0.1:45000", "10.9.0.2:7000"), ("[fd09::1]:45000", "[fd09::2]:7000")] {
        assert_eq!(a.tell(&format!("keep {local} {remote}")), "updated");
        let before = lab.packets("a", "tun0");
        assert_eq!(lab.fetch("a", remote), "ok");
        assert!(lab.packets("a", "tun0") > before + 20, "{remote}");
    }
}

/// `lan` - `gw` - `wan`: the gateway masquerades, and drops what it does not know.
#[test]
fn a_gateway_diverts_for_the_hosts_behind_it_and_masquerades() {
    let Some(lab) = Lab::new(&["lan", "gw", "wan"]) else { return };
    lab.link(("lan", "eth0", "10.5.0.2/24", "fd05::2/64"), ("gw", "in0", "10.5.0.1/24", "fd05::1/64"));
    lab.link(("gw", "out0", "10.9.0.1/24", "fd09::1/64"), ("wan", "eth0", "10.9.0.2/24", "fd09::2/64"));
    lab.ip("lan", "route add default via 10.5.0.1");
    lab.ip("lan", "-6 route add default via fd05::1");
    lab.sysctl("gw", "net.ipv4.ip_forward=1");
    lab.sysctl("gw", "net.ipv6.conf.all.forwarding=1");
    lab.nft(
        "gw",
        "table inet fw {
            chain forward { type filter hook forward priority 0; policy drop;
                ct state established,related accept; ct state invalid counter drop; iifname in0 oifname out0 accept; }
            chain post { type nat hook postrouting priority srcnat; oifname out0 masquerade; }; }",
    );
    fs::create_dir_all(lab.state("gw")).expect("mkdir");
    let before = lab.snapshot("gw");
    let (mut gateway, _wan) = (lab.up("gw", "gateway=in0 0.0.0.0/0 ::/0"), lab.up("wan", "local:7000"));
    let (_server, _inner) = (lab.serve("wan"), lab.serve("gw"));
    assert_eq!(lab.fetch("lan", BOTH), "ok,ok");
    for (host, interface) in [("gw", "tun0"), ("gw", "tun0-w"), ("wan", "tun0"), ("wan", "tun0-w")] {
        assert!(lab.packets(host, interface) > 20, "{host} {interface}");
    }
    // The gateway's own services are plain for the inside; its own connections are diverted too.
    let diverted = lab.packets("gw", "tun0");
    assert_eq!(lab.fetch("lan", "10.5.0.1:7000 [fd05::1]:7000"), "ok,ok");
    // (An acknowledgement of the connections before may still be on its way.)
    assert!(lab.packets("gw", "tun0") < diverted + 20);
    assert_eq!(lab.fetch("gw", BOTH), "ok,ok");
    assert!(lab.packets("gw", "tun0") > diverted + 20);
    assert_eq!(gateway.tell("down"), "down");
    gateway.child.wait().expect("wait");
    fs::create_dir_all(lab.state("gw")).expect("mkdir");
    assert_same(&before, &lab.snapshot("gw"));
}

#[test]
fn forwarding_for_ourselves_makes_no_router() {
    let Some(lab) = Lab::new(&["left", "host", "right"]) else { return };
    lab.link(("left", "eth0", "10.5.0.2/24", "fd05::2/64"), ("host", "eth0", "10.5.0.1/24", "fd05::1/64"));
    lab.link(("host", "eth1", "10.9.0.1/24", "fd09::1/64"), ("right", "eth0", "10.9.0.2/24", "fd09::2/64"));
    for (host, v4, v6) in [("left", "10.5.0.1", "fd05::1"), ("right", "10.9.0.1", "fd09::1")] {
        lab.ip(host, &format!("route add default via {v4}"));
        lab.ip(host, &format!("-6 route add default via {v6}"));
    }
    let _host = lab.up("host", "0.0.0.0/0 ::/0");
    let (_server, _own) = (lab.serve("right"), lab.serve("host"));
    assert_eq!(lab.fetch("left", BOTH), "timed out,timed out");
    assert_eq!(lab.fetch("left", "10.5.0.1:7000 [fd05::1]:7000"), "ok,ok");
    assert_eq!(lab.fetch("host", BOTH), "ok,ok");
}

#[test]
fn killed_it_fails_closed_until_up_or_down() {
    let Some(lab) = Lab::pair() else { return };
    let _server = lab.serve("b");
    fs::create_dir_all(lab.state("a")).expect("mkdir");
    let before = lab.snapshot("a");
    let first = lab.up("a", "10.9.0.0/24 fd09::/64");
    let mut held = lab.spawn("a", "hold 10.9.0.2:7000");
    assert_eq!(held.line(), "up");
    first.kill();
    lab.nft("b", "table inet count { chain in { type filter hook input priority 0; meta l4proto tcp counter; }; }");
    assert!(!lab.fetch("a", BOTH).contains("ok"));
    assert!(
        lab.exec("b", "nft list table inet count").contains("packets 0 "),
        "a packet of a selected connection got out"
    );
    // The next one takes over.
    let mut second = lab.spawn("a", &format!("daemon {} 10.9.0.0/24 fd09::/64", lab.state("a")));
    assert_eq!(second.line(), "up recovered=true");
    assert_eq!(lab.fetch("a", BOTH), "ok,ok");
    second.kill();
    // Or the host is put back.
    let mut down = lab.spawn("a", &format!("down {}", lab.state("a")));
    assert_eq!(down.line(), "Ok(true)");
    // Its connections do not go on without it.
    assert_eq!(held.line(), "connection aborted");
    fs::create_dir_all(lab.state("a")).expect("mkdir");
    assert_same(&before, &lab.snapshot("a"));
    assert_eq!(lab.fetch("a", BOTH), "ok,ok");
    assert_eq!(lab.spawn("a", &format!("down {}", lab.state("a"))).line(), "Ok(false)");
}

#[test]
fn what_somebody_else_has_changed_since_is_left_alone() {
    let Some(lab) = Lab::pair() else { return };
    let mut daemon = lab.up("a", "10.9.0.0/24");
    lab.sysctl("a", "net.ipv4.tcp_early_demux=1");
    lab.ip("a", "rule add pref 77 fwmark 5 lookup main");
    assert_eq!(daemon.tell("down"), "down");
    assert_eq!(lab.exec("a", "sysctl -n net.ipv4.tcp_early_demux").trim(), "1");
    assert!(lab.ip("a", "rule").contains("77:"));
}

#[test]
fn an_interface_that_comes_later_is_taken_in() {
    let Some(lab) = Lab::pair() else { return };
    let (mut a, mut b) = (lab.up("a", "0.0.0.0/0 ::/0"), lab.up("b", "0.0.0.0/0 ::/0"));
    lab.link(("a", "eth1", "10.8.0.1/24", "fd08::1/64"), ("b", "eth1", "10.8.0.2/24", "fd08::2/64"));
    assert_eq!(a.tell("refresh"), "Ok(())");
    assert_eq!(b.tell("refresh"), "Ok(())");
    let _server = lab.serve("b");
    assert_eq!(lab.fetch("a", "10.8.0.2:7000 [fd08::2]:7000"), "ok,ok");
    assert!(lab.packets("a", "tun0-w") > 20);
    lab.ip("a", "link set eth1 mtu 9000");
    assert_eq!(a.tell("refresh"), "Ok(())");
    assert_eq!(lab.exec("a", "cat /sys/class/net/tun0-w/mtu").trim(), "9000");
}

#[test]
fn errors_are_one_line_and_leave_nothing_changed() {
    let Some(lab) = Lab::new(&["a"]) else { return };
    lab.ip("a", "tuntap add tun0 mode tun");
    let before = lab.snapshot_without_state("a");
    let said = lab.spawn("a", &format!("daemon {} 10.0.0.0/8", lab.state("a"))).line();
    assert_eq!(said, "error: an interface named `tun0` already exists; choose another name with --tun, or remove it");
    lab.ip("a", "link del tun0");
    lab.ip("a", "tuntap add tun0-w mode tun");
    let said = lab.spawn("a", &format!("daemon {} 10.0.0.0/8", lab.state("a"))).line();
    assert!(said.contains("`tun0-w` already exists"), "{said}");
    lab.ip("a", "link del tun0-w");
    let said = lab.spawn("a", &format!("daemon {} gateway=eth7 10.0.0.0/8", lab.state("a"))).line();
    assert_eq!(said, "error: this host has no interface `eth7` (given with --gateway)");
    lab.ip("a", "tuntap add tun0 mode tun");
    assert_same(&before, &lab.snapshot_without_state("a"));
    lab.ip("a", "link del tun0");

    let _running = lab.up("a", "10.0.0.0/8");
    let said = lab.spawn("a", &format!("daemon {} 10.0.0.0/8", lab.state("a"))).line();
    assert!(said.starts_with("error: instance `tun0` is already running"), "{said}");
}

/// `a` - `r` - `s` - `b`, with a smaller MTU between the routers; `a` masquerades its own connections for good measure.
#[test]
fn errors_of_routers_about_selected_connections_arrive() {
    let Some(lab) = Lab::new(&["a", "r", "s", "b"]) else { return };
    lab.link(("a", "eth0", "10.5.0.2/24", "fd05::2/64"), ("r", "left", "10.5.0.1/24", "fd05::1/64"));
    lab.link(("r", "right", "10.6.0.1/24", "fd06::1/64"), ("s", "left", "10.6.0.2/24", "fd06::2/64"));
    lab.link(("s", "right", "10.9.0.1/24", "fd09::1/64"), ("b", "eth0", "10.9.0.2/24", "fd09::2/64"));
    let gateways = [("a", "10.5.0.1", "fd05::1"), ("r", "10.6.0.2", "fd06::2"), ("s", "10.6.0.1", "fd06::1")];
    for (host, v4, v6) in gateways.into_iter().chain([("b", "10.9.0.1", "fd09::1")]) {
        lab.ip(host, &format!("route add default via {v4}"));
        lab.ip(host, &format!("-6 route add default via {v6}"));
    }
    for router in ["r", "s"] {
        lab.sysctl(router, "net.ipv4.ip_forward=1");
        lab.sysctl(router, "net.ipv6.conf.all.forwarding=1");
    }
    lab.ip("r", "link set right mtu 1300");
    lab.ip("s", "link set left mtu 1300");
    lab.nft(
        "a",
        "table inet nat { chain post { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }; }",
    );
    lab.nft("b", "table inet fw { chain in { type filter hook input priority 0; tcp dport 7001 reject; }; }");
    let (_a, _b) = (lab.up("a", "10.9.0.2:7000-7001 [fd09::/64]:7000-7001"), lab.up("b", "local:7000-7001"));
    let _server = lab.serve("b");
    assert_eq!(lab.fetch("a", BOTH), "ok,ok");
    let learned = lab.ip("a", "route get 10.9.0.2") + &lab.ip("a", "-6 route get fd09::2");
    assert_eq!(learned.matches("mtu 1300").count(), 2, "{learned}");
    // A refusal by ICMP, made behind the devices at one end, goes through them (it quotes what they let in), and is
    // understood behind those at the other.
    let before = lab.quiet("b", "tun0");
    let said = lab.fetch("a", "10.9.0.2:7001 [fd09::2]:7001");
    assert_eq!(said, "connection refused,connection refused");
    assert!(lab.packets("b", "tun0") >= before + 2);
}

#[test]
fn routes_into_the_plain_device_are_seen() {
    let Some(lab) = Lab::pair() else { return };
    let mut watch = lab.spawn("a", &format!("watch {}", lab.state("a")));
    assert_eq!(watch.line(), "up");
    lab.ip("a", "route add 192.0.2.0/24 dev tun0 table 8547");
    assert_eq!(watch.line(), "prefixes [192.0.2.0/24]");
    lab.ip("a", "-6 route add 2001:db8::/32 dev tun0 table 8547");
    assert_eq!(watch.line(), "prefixes [192.0.2.0/24, 2001:db8::/32]");
    lab.ip("a", "route replace 192.0.2.0/24 dev eth0 table 8547");
    assert_eq!(watch.line(), "prefixes [2001:db8::/32]");
    lab.ip("a", "-6 route del 2001:db8::/32 dev tun0 table 8547");
    assert_eq!(watch.line(), "prefixes []");
    lab.ip("a", "link set eth0 mtu 1400");
    assert_eq!(watch.line(), "host");
}

#[test]
fn doctor_finds_what_is_wrong() {
    let Some(lab) = Lab::pair() else { return };
    let ask = || lab.spawn("a", &format!("doctor {}", lab.state("a"))).line();
    assert_eq!(ask(), "[]");
    let daemon = lab.up("a", "10.9.0.0/24");
    assert_eq!(ask(), "[]");
    lab.sysctl("a", "net.ipv4.tcp_early_demux=1");
    assert_eq!(ask(), "[sysctl net/ipv4/tcp_early_demux is 1, must be 0]");
    lab.sysctl("a", "net.ipv4.tcp_early_demux=0");
    lab.ip("a", "rule add pref 0 lookup local");
    assert!(ask().contains("the local table's rule precedes"));
    lab.ip("a", "rule del pref 0");
    lab.ip("a", "link set eth0 mtu 9000");
    assert!(ask().contains("eth0 has MTU 9000"));
    lab.ip("a", "link set eth0 mtu 1500");
    daemon.kill();
    assert!(ask().contains("instance tun0 has died"));
}

#[test]
fn several_queues() {
    let Some(lab) = Lab::pair() else { return };
    let mut daemon = lab.up("a", "queues=2 10.9.0.0/24");
    let queues = lab.exec("a", "ls /sys/class/net/tun0/queues");
    assert_eq!(queues.matches("tx-").count(), 2, "{queues}");
    assert_eq!(daemon.tell("down"), "down");
}
