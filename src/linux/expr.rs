//! The parts of nftables rules that ours use: as values, as JSON for libnftables, as text for people. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::selector::PortRange;

/// A member of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Network and ports.
    NetPorts(IpNet, PortRange),
    /// Ports.
    Ports(PortRange),
    /// Remote address, remote port, local port.
    Flow(IpAddr, u16, u16),
    /// Remote ports and local ports.
    PortPair(PortRange, PortRange),
    /// Interface name.
    Name(String),
}

impl Element {
    pub(super) fn json(&self) -> Value {
        let ports = |ports: &PortRange| match ports.first == ports.last {
            true => json!(ports.first),
            false => json!({"range": [ports.first, ports.last]}),
        };
        match self {
            Self::NetPorts(net, range) => {
                let net = json!({"prefix": {"addr": net.network().to_string(), "len": net.prefix_len()}});
                json!({"concat": [net, ports(range)]})
            }
            Self::Ports(range) => ports(range),
            Self::Flow(remote, remote_port, local_port) => {
                json!({"concat": [remote.to_string(), remote_port, local_port]})
            }
            Self::PortPair(remote, local) => json!({"concat": [ports(remote), ports(local)]}),
            Self::Name(name) => json!(name),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetPorts(net, ports) => write!(f, "{net} . {ports}"),
            Self::Ports(ports) => write!(f, "{ports}"),
            Self::Flow(remote, remote_port, local_port) => write!(f, "{remote} . {remote_port} . {local_port}"),
            Self::PortPair(remote, local) => write!(f, "{remote} . {local}"),
            Self::Name(name) => write!(f, "\"{name}\""),
        }
    }
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) types: &'static [&'static str],
    pub(super) interval: bool,
    pub(super) elements: Vec<Element>,
}

/// The left side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Meta(&'static str),
    Field(&'static str, &'static str),
    Concat(Vec<(&'static str, &'static str)>),
    /// The type of the destination address according to routing.
    DestinationType,
    /// The interface to which routing would send the destination.
    DestinationInterface,
    /// Bits after the IP header: offset and length.
    Bits(u16, u16),
    /// Our bits of the mark.
    MarkBits(u32),
    /// The state of connection tracking.
    TrackStatus,
}

/// The right side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Word(String),
    Set(&'static str),
    OneOf(Vec<String>),
    Number(u128),
    Range(u16, u16),
    Prefix(IpNet),
}

/// One part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Is(Left, Right),
    IsNot(Left, Right),
    /// Sets our bits of the mark; the others stay.
    Mark {
        mask: u32,
        value: u32,
    },
    Zone(u16),
    Jump(&'static str),
    Goto(&'static str),
    Return,
    Accept,
    Drop,
    /// With a RST.
    Reject,
}

impl Left {
    pub(super) fn json(&self) -> Value {
        let field = |(protocol, field): &(&str, &str)| json!({"payload": {"protocol": protocol, "field": field}});
        match self {
            Self::Meta(key) => json!({"meta": {"key": key}}),
            Self::Field(protocol, name) => field(&(protocol, name)),
            Self::Concat(fields) => json!({"concat": fields.iter().map(field).collect::<Vec<_>>()}),
            Self::DestinationType => json!({"fib": {"result": "type", "flags": ["daddr"]}}),
            Self::DestinationInterface => json!({"fib": {"result": "oifname", "flags": ["daddr"]}}),
            Self::Bits(offset, len) => json!({"payload": {"base": "th", "offset": offset, "len": len}}),
            Self::MarkBits(mask) => json!({"&": [{"meta": {"key": "mark"}}, mask]}),
            Self::TrackStatus => json!({"ct": {"key": "status"}}),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta(key @ ("iif" | "iifname" | "oifname")) => f.write_str(key),
            Self::Meta(key) => write!(f, "meta {key}"),
            Self::Field(protocol, field) => write!(f, "{protocol} {field}"),
            Self::Concat(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(protocol, field)| format!("{protocol} {field}")).collect();
                f.write_str(&fields.join(" . "))
            }
            Self::DestinationType => f.write_str("fib daddr type"),
            Self::DestinationInterface => f.write_str("fib daddr oifname"),
            Self::Bits(offset, len) => write!(f, "@th,{offset},{len}"),
            Self::MarkBits(mask) => write!(f, "meta mark & {mask:#x}"),
            Self::TrackStatus => f.write_str("ct status"),
        }
    }
}

impl Right {
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Word(word) => json!(word),
            Self::Set(name) => json!(format!("@{name}")),
            Self::OneOf(words) => json!({"set": words}),
            // The numbers of nft's JSON are signed 64-bit.
            Self::Number(number) => i64::try_from(*number).map_or_else(|_| json!(format!("{number:#x}")), Value::from),
            Self::Range(first, last) => json!({"range": [first, last]}),
            Self::Prefix(net) => json!({"prefix": {"addr": net.network().to_string(), "len": net.prefix_len()}}),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word}"),
            Self::Set(name) => write!(f, "@{name}"),
            Self::OneOf(words) => write!(f, "{{ {} }}", words.join(", ")),
            Self::Number(number) => write!(f, "{number:#x}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::Prefix(net) => write!(f, "{net}"),
        }
    }
}

impl Part {
    pub(super) fn json(&self) -> Value {
        let matches = |op: &str, left: &Left, right: &Right| json!({"match": {"op": op, "left": left.json(), "right": right.json()}});
        match self {
            // One bit of several.
            Self::Is(left @ Left::TrackStatus, right) => matches("in", left, right),
            Self::Is(left, right) => matches("==", left, right),
            Self::IsNot(left, right) => matches("!=", left, right),
            Self::Mark { mask, value } => {
                let kept = json!({"&": [{"meta": {"key": "mark"}}, !mask]});
                json!({"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [kept, value]}}})
            }
            Self::Zone(zone) => json!({"mangle": {"key": {"ct": {"key": "zone"}}, "value": zone}}),
            Self::Jump(chain) => json!({"jump": {"target": chain}}),
            Self::Goto(chain) => json!({"goto": {"target": chain}}),
            Self::Return => json!({"return": null}),
            Self::Accept => json!({"accept": null}),
            Self::Drop => json!({"drop": null}),
            Self::Reject => json!({"reject": {"type": "tcp reset"}}),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(left, right) => write!(f, "{left} {right}"),
            Self::IsNot(left, right) => write!(f, "{left} != {right}"),
            Self::Mark { mask, value } => write!(f, "meta mark set meta mark & {:#x} | {value:#x}", !mask),
            Self::Zone(zone) => write!(f, "ct zone set {zone}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str("reject with tcp reset"),
        }
    }
}

impl Set {
    pub(super) fn declaration(&self, table: &str) -> Value {
        let kind = match self.types {
            [one] => json!(one),
            several => json!(several),
        };
        let mut set = json!({"family": "inet", "table": table, "name": self.name, "type": kind});
        if let (true, Some(set)) = (self.interval, set.as_object_mut()) {
            set.insert("flags".to_owned(), json!(["interval"]));
        }
        json!({"add": {"set": set}})
    }

    /// The command that fills the set, if there are any elements.
    pub(super) fn contents(&self, table: &str) -> Option<Value> {
        let elements: Vec<Value> = self.elements.iter().map(Element::json).collect();
        let element = json!({"family": "inet", "table": table, "name": self.name, "elem": elements});
        (!elements.is_empty()).then(|| json!({"add": {"element": element}}))
    }
}

/// The hook of a base chain: type, hook, priority.
pub(super) type Hook = (&'static str, &'static str, i32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Vec<Part>>,
}
