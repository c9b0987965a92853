//! A client and a server, each a host with its engine; the kernels and the network between them are the script.

use std::net::SocketAddr;

use enotun::engine::{Config, FlowInfo, FlowState};

use super::host::{Host, Sent};
use super::packet::{ACK, SYN, Seg};

/// Initial sequence numbers of the client and the server.
pub const A_ISN: u32 = 1000;
pub const B_ISN: u32 = 0xffff_fff0;
/// The window of both kernels, without scale.
pub const WINDOW: u16 = 60_000;

pub fn a_addr() -> SocketAddr {
    "10.0.0.1:40000".parse().expect("an address")
}

pub fn b_addr() -> SocketAddr {
    "10.0.0.2:80".parse().expect("an address")
}

/// Whether a connection has keys, be it that the peer has shown that it has them too or not.
pub fn has_keys(flow: Option<FlowInfo>) -> bool {
    let with_keys = [FlowState::Encrypted, FlowState::Negotiating];
    flow.is_some_and(|flow| with_keys.contains(&flow.state) && flow.session_id.is_some())
}

/// Has the client rekey, which the server answers: from there on each has seen a frame of the other's.
pub fn confirm(a: &mut Host, b: &mut Host, client: SocketAddr, path: impl Fn(&Seg) -> Seg) {
    let mut to_b = a.rekey(client, b_addr()).wire;
    while !to_b.is_empty() {
        let to_a: Vec<Seg> = to_b.drain(..).flat_map(|seg| b.wire(&path(&seg)).wire).collect();
        to_b.extend(to_a.iter().flat_map(|seg| a.wire(&path(seg)).wire));
    }
}

/// A client and a server, each with its engine; the kernels are the script.
pub struct Pair {
    pub a: Host,
    pub b: Host,
    /// Sequence number of the next byte of each kernel (P), after the SYN.
    pub a_next: u32,
    pub b_next: u32,
}

pub fn syn_options(scale: u8) -> Vec<u8> {
    // MSS 1460, SACK permitted, NOP, window scale.
    vec![2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, scale]
}

impl Pair {
    pub fn new() -> Self {
        Self {
            a: Host::new(Config::default()),
            b: Host::new(Config::default()),
            a_next: A_ISN.wrapping_add(1),
            b_next: B_ISN.wrapping_add(1),
        }
    }

    /// A segment of the client's kernel without data.
    pub fn from_a(&self) -> Seg {
        let mut seg = Seg::new(a_addr(), b_addr());
        (seg.seq, seg.ack, seg.win) = (self.a_next, self.b_next, WINDOW);
        seg
    }

    /// A segment of the server's kernel without data.
    pub fn from_b(&self) -> Seg {
        let mut seg = Seg::new(b_addr(), a_addr());
        (seg.seq, seg.ack, seg.win) = (self.b_next, self.a_next, WINDOW);
        seg
    }

    /// The client's kernel writes.
    pub fn a_writes(&mut self, data: &[u8]) -> Sent {
        let mut seg = self.from_a();
        seg.payload = data.to_vec();
        self.a_next = self.a_next.wrapping_add(data.len() as u32);
        self.a.kernel(&seg)
    }

    pub fn syn() -> Seg {
        let mut syn = Seg::new(a_addr(), b_addr());
        (syn.seq, syn.flags, syn.win, syn.options) = (A_ISN, SYN, WINDOW, syn_options(0));
        syn
    }

    pub fn syn_ack() -> Seg {
        let mut syn_ack = Seg::new(b_addr(), a_addr());
        (syn_ack.seq, syn_ack.ack) = (B_ISN, A_ISN.wrapping_add(1));
        (syn_ack.flags, syn_ack.win, syn_ack.options) = (SYN | ACK, WINDOW, syn_options(0));
        syn_ack
    }

    /// SYN and SYN-ACK have passed; returns what the client's engine makes of its kernel's first acknowledgement.
    pub fn until_ack(&mut self) -> Sent {
        let mut sent = self.a.kernel(&Self::syn());
        sent = self.b.wire(&sent.wire.remove(0));
        assert_eq!(sent.plain.len(), 1, "the SYN for the server's kernel");
        sent = self.b.kernel(&Self::syn_ack());
        sent = self.a.wire(&sent.wire.remove(0));
        assert_eq!(sent.plain.len(), 1, "the SYN-ACK for the client's kernel");
        self.a.kernel(&self.from_a())
    }

    /// An encrypted connection on which all is acknowledged.
    pub fn connected() -> Self {
        Self::connected_with(Config::default())
    }

    /// The same with `config` at the client.
    pub fn connected_with(config: Config) -> Self {
        let mut pair = Self::new();
        pair.a = Host::new(config);
        pair.connect();
        pair
    }

    /// Opens an encrypted connection on which all is acknowledged.
    pub fn connect(&mut self) {
        let sent = self.until_ack();
        let mut to_a = Vec::new();
        for seg in sent.wire {
            to_a.extend(self.b.wire(&seg).wire);
        }
        for seg in to_a {
            for seg in self.a.wire(&seg).wire {
                self.b.wire(&seg);
            }
        }
        let sent = self.a.kernel(&self.from_a());
        for seg in sent.wire {
            self.b.wire(&seg);
        }
        assert!(self.have_keys());
    }

    /// Whether both ends have made the same keys.
    pub fn have_keys(&self) -> bool {
        let [a, b] = [self.flow_a(), self.flow_b()].map(|flow| flow.and_then(|flow| flow.session_id));
        a.is_some() && a == b
    }

    pub fn flow_a(&self) -> Option<FlowInfo> {
        self.a.engine.flow(a_addr(), b_addr())
    }

    pub fn flow_b(&self) -> Option<FlowInfo> {
        self.b.engine.flow(b_addr(), a_addr())
    }
}
