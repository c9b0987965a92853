//! ICMP errors quote packets: those about selected connections go through the engine, which translates the quote.

use std::net::IpAddr;

use ipnet::IpNet;

use super::divert::Divert;
use super::expr::{Chain, Left, Part, Right};
use super::netlink::Family;
use crate::selector::PortRange;

/// The chains for ICMP errors about TCP. The quoted packet cannot be looked up in a set (its fields have no type), so
/// there is one rule per selector; only those errors traverse them.
pub(super) fn quoting(divert: &Divert) -> Vec<Chain> {
    let chain = |name, rules| Chain { name, hook: None, rules };
    vec![
        chain("icmp_in", quoted(divert, Family::V4, Quote::ToRemote, "in_now")),
        chain("icmp6_in", quoted(divert, Family::V6, Quote::ToRemote, "in_now")),
        chain("icmp_own", quoted(divert, Family::V4, Quote::ToRemote, "own_now")),
        chain("icmp6_own", quoted(divert, Family::V6, Quote::ToRemote, "own_now")),
        chain("icmp_out", quoted(divert, Family::V4, Quote::FromRemote, "out_now")),
        chain("icmp6_out", quoted(divert, Family::V6, Quote::FromRemote, "out_now")),
    ]
}

/// Selectors from which on it is not worth a rule for each, whether an ICMP error is about a selected connection.
const MANY: usize = 256;

/// The direction of a quoted packet.
#[derive(Clone, Copy)]
enum Quote {
    ToRemote,
    FromRemote,
}

/// One rule per selector, matching the remote address and the ports of a quoted packet.
fn quoted(divert: &Divert, family: Family, quote: Quote, target: &'static str) -> Vec<Vec<Part>> {
    // Where the remote address, the remote and the local port are, in bits from the start of the ICMP header (IPv4
    // without options).
    let (source, ports, width) = match family {
        Family::V4 => (160, 224, 32),
        Family::V6 => (128, 384, 128),
    };
    let (address, remote_port, local_port) = match quote {
        Quote::FromRemote => (source, ports, ports + 16),
        Quote::ToRemote => (source + width, ports + 16, ports),
    };
    let port_is = |offset: u16, range: PortRange| match range {
        PortRange::ALL => None,
        PortRange { first, last } if first == last => {
            Some(Part::Is(Left::Bits(offset, 16), Right::Number(first.into())))
        }
        PortRange { first, last } => Some(Part::Is(Left::Bits(offset, 16), Right::Range(first, last))),
    };
    let address_is = |net: IpNet| {
        let bits: u128 = match net.network() {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let length = u16::from(net.prefix_len());
        // The first `length` bits of the address, as a number.
        let prefix = bits.checked_shr(u32::from(width - length)).unwrap_or(0);
        (length > 0).then_some(Part::Is(Left::Bits(address, length), Right::Number(prefix)))
    };
    let v6 = family == Family::V6;
    let mut rules: Vec<Vec<Part>> = Vec::new();
    if divert.remote.len() + divert.kept.len() + divert.local.len() > MANY {
        // All of them then: the engine passes on what it does not know. But not those from this host to itself.
        return if target == "own_now" { rules } else { vec![vec![Part::Goto(target)]] };
    }
    for (net, range) in divert.remote.iter().filter(|(net, _)| net.addr().is_ipv6() == v6) {
        rules.push(address_is(*net).into_iter().chain(port_is(remote_port, *range)).collect());
    }
    for (remote, port, own_port) in divert.kept_of(v6) {
        let one = |port| PortRange { first: port, last: port };
        let matches = address_is(remote.into()).into_iter().chain(port_is(remote_port, one(port)));
        rules.push(matches.chain(port_is(local_port, one(own_port))).collect());
    }
    rules.extend(divert.local.iter().map(|range| port_is(local_port, *range).into_iter().collect()));
    for rule in &mut rules {
        rule.push(Part::Goto(target));
    }
    rules
}
