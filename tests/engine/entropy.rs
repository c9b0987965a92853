//! No ENO before the random source is ready (ENO-18).

use enotun::engine::{Config, Side};

use crate::harness::host::Host;
use crate::harness::packet::Seg;
use crate::harness::pair::Pair;

/// A host whose random source is ready or not.
fn host(ready: bool) -> Host {
    let mut host = Host::new(Config::default());
    host.env.ready = ready;
    host
}

/// The SYN of a local kernel on the wire.
fn syn_on_the_wire(ready: bool) -> Seg {
    host(ready).kernel(&Pair::syn()).wire.remove(0)
}

#[test]
fn eno_18_without_a_seeded_random_source_no_option_is_sent() {
    assert!(!syn_on_the_wire(false).eno());
    assert!(syn_on_the_wire(true).eno(), "the test must be able to fail");
}

#[test]
fn eno_18_without_a_seeded_random_source_no_option_is_answered() {
    let asked = syn_on_the_wire(true);
    for ready in [false, true] {
        let mut host = host(ready);
        host.hear(Side::Wire, &asked);
        let sent = host.kernel(&Pair::syn_ack()).wire;
        assert_eq!((sent.len(), sent[0].eno()), (1, ready));
    }
}
