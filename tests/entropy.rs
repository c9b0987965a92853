//! No ENO before the random source is ready (ENO-18).

use std::net::SocketAddr;

use enotun::crypto::provider;
use enotun::engine::{Config, Engine, Env, RandomFor, Side};
use enotun::selector::{PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::build::{IpFields, TcpFields, headers};
use enotun::wire::{Flags, Offload, Outgoing, P, Packet};

/// Surroundings that keep what goes to the wire.
struct Recorder {
    ready: bool,
    wire: Vec<Vec<u8>>,
}

impl Env for Recorder {
    fn emit(&mut self, side: Side, packet: &Outgoing<'_>) {
        self.forward(side, packet.offload, &packet.to_vec());
    }
    fn forward(&mut self, side: Side, _: Offload, bytes: &[u8]) {
        if side == Side::Wire {
            self.wire.push(bytes.to_vec());
        }
    }
    fn random(&mut self, _: &RandomFor<'_>, out: &mut [u8]) {
        assert!(self.ready, "randomness was asked for before it was ready");
        out.fill(7);
    }
    fn random_is_ready(&self) -> bool {
        self.ready
    }
}

/// What a local kernel's SYN becomes on the wire.
fn syn_on_the_wire(ready: bool) -> Vec<u8> {
    let src: SocketAddr = "10.0.0.1:1000".parse().expect("an address");
    let dst: SocketAddr = "10.0.0.2:80".parse().expect("an address");
    let ip = IpFields { traffic_class: 0, ttl: 64, flow_label: 0, id: 0, dont_fragment: true };
    let tcp = TcpFields { seq: 1, ack: 0, flags: Flags::SYN, window: 1000, urgent: 0, options: &[2, 4, 5, 0xb4] };
    let (header, tcp_at) = headers(src, dst, &ip, &tcp, 0).expect("a short packet");
    let mut bytes = header.as_slice().to_vec();
    let offload = Offload::partial(tcp_at, bytes.len(), false, None);
    let mut engine = Engine::new(Config::default(), provider());
    let rule: Rule = serde_json::from_value(serde_json::json!({ "selector": "10.0.0.0/24" })).expect("a rule");
    engine.set_policy(PolicyTable::new([rule]));
    let mut env = Recorder { ready, wire: Vec::new() };
    engine.handle_packet(Instant::ZERO, Side::Plain, offload, &mut bytes, &mut env);
    assert_eq!(env.wire.len(), 1);
    let syn = env.wire.remove(0);
    Packet::<P>::parse(&syn).expect("a SYN").options(&syn).to_vec()
}

#[test]
fn eno_18_without_a_seeded_random_source_no_option_is_sent() {
    assert!(!tcpcrypt::eno::option::has_eno(&syn_on_the_wire(false)));
    assert!(tcpcrypt::eno::option::has_eno(&syn_on_the_wire(true)), "the test must be able to fail");
}
