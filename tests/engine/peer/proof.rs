//! What the peer has shown, and what it has not; when keys are exchanged.

use super::*;

impl Bench {
    /// A first segment of somebody's, with the ENO option and `bytes` where Init1 belongs.
    fn in_place_of_init1(&mut self, bytes: &[u8]) -> Sent {
        let mut seg = self.peer_seg(0, 0, PSH, bytes);
        seg.set_options(&[vec![(ENO, vec![])], self.timestamps(true)].concat());
        self.hear_bytes(Side::Wire, seg.build())
    }
}

/// An Init1 with everything right but its beginning, its length, its ciphers, or its key.
fn wrong() -> Vec<Vec<u8>> {
    let init1 = |ciphers: &[u16], key: &[u8]| {
        let len = 4 + 4 + 1 + 2 * ciphers.len() + 32 + key.len();
        let mut bytes = tcpcrypt::constants::INIT1_MAGIC.to_be_bytes().to_vec();
        bytes.extend((len as u32).to_be_bytes());
        bytes.push(ciphers.len() as u8);
        ciphers.iter().for_each(|cipher| bytes.extend(cipher.to_be_bytes()));
        bytes.extend([7; 32]);
        bytes.extend(key);
        bytes
    };
    let right = init1(&[1], &[9; 32]);
    let mut length = right.clone();
    length[4..8].copy_from_slice(&(1_u32 << 20).to_be_bytes());
    vec![
        [&[0xff; 4], &right[4..]].concat(),
        length,
        init1(&[77], &[9; 32]),
        init1(&[1], &[0; 32]),
        init1(&[1], &[9; 31]),
    ]
}

#[test]
fn tc_5_a_forged_init_message_does_not_end_the_key_exchange() {
    for forged in wrong() {
        // Once before the peer's own.
        let mut b = Bench::new().exchange_keys_after(|b| {
            let seen = b.in_place_of_init1(&forged);
            assert!(seen.plain.is_empty() && seen.wire.iter().all(|s| !s.has(RST)), "{seen:?}");
        });
        let (at, bytes) = b.frame(b"hello", false);
        assert_eq!(b.from_peer(at, PSH, &bytes).delivered(), b"hello", "{forged:02x?}");
    }
}

#[test]
fn tc_5_a_peer_that_insists_on_a_wrong_init_message_is_reset() {
    for wrong in wrong() {
        let mut b = Bench::new();
        b.handshake();
        let mut resets = 0;
        for _ in 0..4 {
            let seen = b.in_place_of_init1(&wrong);
            resets += seen.wire.iter().filter(|s| s.has(RST)).count();
            b.wait(Duration::from_millis(600));
        }
        assert!(resets > 0, "{wrong:02x?}");
        assert_eq!(b.engine.flow(b.kernel, b.peer).expect("lingers").state, FlowState::Closed);
    }
}

/// Packets of open connections come first, however many others want keys.
#[test]
fn keys_are_exchanged_when_the_packets_are_through() {
    let mut b = Bench::new();
    b.handshake();
    let init1 = wrong().remove(0);
    let init1 = [&tcpcrypt::constants::INIT1_MAGIC.to_be_bytes()[..], &init1[4..]].concat();
    let mut seg = b.peer_seg(0, 0, PSH, &init1);
    seg.set_options(&[(ENO, vec![])]);
    b.host.engine.handle_packet(b.host.now, Side::Wire, Offload::NONE, &mut seg.build(), &mut b.host.env);
    assert!(b.take().wire_bytes().is_empty(), "not in the packet's own time");
    assert!(b.engine.session(b.kernel, b.peer).is_err());
    assert_eq!(b.engine.poll_timeout(), Some(b.now), "but at once");
    b.host.engine.handle_timeout(b.host.now, &mut b.host.env);
    assert!(!b.take().wire_bytes().is_empty(), "Init2");
    assert!(b.engine.session(b.kernel, b.peer).is_ok());
}

#[test]
fn a_connection_counts_as_encrypted_when_a_frame_of_the_peers_has_opened() {
    let mut b = Bench::encrypted();
    let shown = |b: &Bench| {
        let flow = b.engine.flow(b.kernel, b.peer).expect("a flow");
        let session = b.engine.session(b.kernel, b.peer).expect("a session ID, for whoever wants to sign it");
        assert_eq!(session.peer_confirmed, flow.peer_confirmed);
        (flow.state, flow.peer_confirmed, b.engine.counters().connections_encrypted, b.engine.paths(b.now).len())
    };
    b.from_kernel(0, 0, PSH, b"what the server says first is encrypted all the same");
    assert_eq!(shown(&b), (FlowState::Negotiating, false, 0, 0));
    let at = b.peer_made;
    b.from_peer(at, PSH, &[0; 40]);
    assert_eq!(shown(&b), (FlowState::Negotiating, false, 0, 0), "bytes of anybody's");
    let (at, bytes) = b.frame(b"hello", false);
    b.from_peer(at, PSH, &bytes);
    assert_eq!(shown(&b), (FlowState::Encrypted, true, 1, 1));
}
