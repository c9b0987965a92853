//! No ENO before the random source is ready (ENO-18).

mod harness;

use std::net::SocketAddr;

use enotun::crypto::provider;
use enotun::engine::{Config, Engine, Side};
use enotun::selector::{PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::build::{IpFields, TcpFields, headers};
use enotun::wire::{Flags, Offload, P, Packet};
use harness::env::TestEnv;

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
    env: TestEnv,
}

impl Host {
    fn new(ready: bool) -> Self {
        let mut engine = Engine::new(Config::default(), provider());
        let rule: Rule = serde_json::from_value(serde_json::json!({ "selector": "10.0.0.0/24" })).expect("a rule");
        engine.set_policy(PolicyTable::new([rule]));
        Self { engine, env: TestEnv { ready, ..TestEnv::default() } }
    }

    fn hear(&mut self, side: Side, (mut bytes, offload): (Vec<u8>, Offload)) {
        self.engine.handle_packet(Instant::ZERO, side, offload, &mut bytes, &mut self.env);
    }

    /// The options of the only segment that went to the wire.
    fn sent(&mut self) -> Vec<u8> {
        let on_wire: Vec<_> = self.env.take().into_iter().filter(|sent| sent.side == Side::Wire).collect();
        let [sent] = &on_wire[..] else { panic!("{on_wire:?}") };
        Packet::<P>::parse(&sent.bytes).expect("a segment").options(&sent.bytes).to_vec()
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
