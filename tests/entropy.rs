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

const CLIENT: &str = "10.0.0.1:1000";
const SERVER: &str = "10.0.0.2:80";

/// A SYN or SYN-ACK with these options, and where its checksum is left to do.
fn segment([src, dst]: [&str; 2], seq: u32, ack: u32, flags: Flags, options: &[u8]) -> (Vec<u8>, Offload) {
    let [src, dst] = [src, dst].map(|text| text.parse::<SocketAddr>().expect("an address"));
    let ip = IpFields { traffic_class: 0, ttl: 64, flow_label: 0, id: 0, dont_fragment: true };
    let tcp = TcpFields { seq, ack, flags, window: 1000, urgent: 0, options };
    let (header, tcp_at) = headers(src, dst, &ip, &tcp, 0).expect("a short packet");
    let bytes = header.as_slice().to_vec();
    let offload = Offload::partial(tcp_at, bytes.len(), false, None);
    (bytes, offload)
}

/// A host whose random source is ready or not, and what it sent to the wire.
struct Host {
    engine: Engine,
    env: Recorder,
}

impl Host {
    fn new(ready: bool) -> Self {
        let mut engine = Engine::new(Config::default(), provider());
        let rule: Rule = serde_json::from_value(serde_json::json!({ "selector": "10.0.0.0/24" })).expect("a rule");
        engine.set_policy(PolicyTable::new([rule]));
        Self { engine, env: Recorder { ready, wire: Vec::new() } }
    }

    fn hear(&mut self, side: Side, (mut bytes, offload): (Vec<u8>, Offload)) {
        self.engine.handle_packet(Instant::ZERO, side, offload, &mut bytes, &mut self.env);
    }

    /// The options of the only segment that went to the wire.
    fn sent(&mut self) -> Vec<u8> {
        assert_eq!(self.env.wire.len(), 1);
        let sent = self.env.wire.remove(0);
        Packet::<P>::parse(&sent).expect("a segment").options(&sent).to_vec()
    }
}

/// The options that a local kernel's SYN has on the wire.
fn syn_on_the_wire(ready: bool) -> Vec<u8> {
    let mut host = Host::new(ready);
    host.hear(Side::Plain, segment([CLIENT, SERVER], 1, 0, Flags::SYN, &[2, 4, 5, 0xb4]));
    host.sent()
}

#[test]
fn eno_18_without_a_seeded_random_source_no_option_is_sent() {
    assert!(!tcpcrypt::eno::option::has_eno(&syn_on_the_wire(false)));
    assert!(tcpcrypt::eno::option::has_eno(&syn_on_the_wire(true)), "the test must be able to fail");
}

#[test]
fn eno_18_without_a_seeded_random_source_no_option_is_answered() {
    let asked = syn_on_the_wire(true);
    for ready in [false, true] {
        let mut host = Host::new(ready);
        host.hear(Side::Wire, segment([CLIENT, SERVER], 1, 0, Flags::SYN, &asked));
        host.hear(Side::Plain, segment([SERVER, CLIENT], 7, 2, Flags::SYN.with(Flags::ACK), &[2, 4, 5, 0xb4]));
        assert_eq!(tcpcrypt::eno::option::has_eno(&host.sent()), ready);
    }
}
