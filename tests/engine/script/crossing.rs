//! Both kernels open at once (RFC 9293, section 3.5; ENO-7, ENO-14), whichever packets are lost on the way.

use std::collections::VecDeque;

use enotun::engine::FlowState;

use super::packet::ENO;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Established,
}

/// As much of a kernel as a simultaneous open needs.
struct Kernel {
    state: State,
    local: SocketAddr,
    remote: SocketAddr,
    isn: u32,
    peer_isn: u32,
    /// In SYN-RECEIVED it takes a SYN-ACK for the acknowledgement that it is (as Linux since 6.12).
    modern: bool,
    timestamps: bool,
    received: Vec<u8>,
    resets: usize,
}

impl Kernel {
    fn seg(&self, flags: u8) -> Seg {
        let mut seg = Seg::new(self.local, self.remote);
        let syn = flags & SYN != 0;
        (seg.seq, seg.flags, seg.win) = (self.isn.wrapping_add(u32::from(!syn)), flags, WINDOW);
        seg.ack = if flags & ACK != 0 { self.peer_isn.wrapping_add(1 + self.received.len() as u32) } else { 0 };
        if syn {
            seg.options = syn_options(0);
        }
        if self.timestamps {
            seg.options.extend([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0]);
        }
        seg
    }

    fn hear(&mut self, seg: &Seg) -> Option<Seg> {
        if seg.has(packet::RST) {
            self.resets += 1;
            return None;
        }
        let acks_syn = seg.has(ACK) && seg.ack == self.isn.wrapping_add(1);
        match (self.state, seg.has(SYN)) {
            (State::SynSent, true) if seg.has(ACK) && !acks_syn => None,
            (State::SynSent, true) => {
                self.peer_isn = seg.seq;
                self.state = if acks_syn { State::Established } else { State::SynReceived };
                Some(self.seg(if acks_syn { ACK } else { SYN | ACK }))
            }
            (State::SynSent, false) => None,
            (State::SynReceived, true) => {
                if self.modern && acks_syn && seg.seq == self.peer_isn {
                    self.state = State::Established;
                }
                Some(self.seg(ACK))
            }
            (State::Established, true) => Some(self.seg(ACK)),
            (_, false) => {
                if acks_syn {
                    self.state = State::Established;
                }
                let next = self.peer_isn.wrapping_add(1 + self.received.len() as u32);
                if seg.seq == next && !seg.payload.is_empty() {
                    self.received.extend(&seg.payload);
                    return Some(self.seg(ACK));
                }
                None
            }
        }
    }

    fn timer(&self) -> Option<Seg> {
        match self.state {
            State::SynSent => Some(self.seg(SYN)),
            State::SynReceived => Some(self.seg(SYN | ACK)),
            State::Established => None,
        }
    }
}

/// Where a packet is going: the host's kernel or its engine's two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Kernel,
    Plain,
    Wire,
}

/// Two hosts and what is under way between their parts.
struct Crossing {
    hosts: [Host; 2],
    kernels: [Kernel; 2],
    under_way: VecDeque<(usize, To, Seg)>,
    /// The n-th packet is lost if bit n is set.
    lost: u64,
    passed: u32,
    /// Every ENO option of SYNs and SYN-ACKs that each host sent.
    options: [Vec<Option<Vec<u8>>>; 2],
    wire_payload: Vec<u8>,
}

impl Crossing {
    fn new(configs: [Config; 2], options: [&str; 2], policy: Policy) -> Self {
        let addresses = [a_addr(), b_addr()];
        let mut configs = configs.into_iter();
        let hosts = options.map(|options| {
            let selected: enotun::selector::Selected = format!("0.0.0.0/0{options}").parse().expect("a selector");
            let config = configs.next().expect("two");
            Host::with_rule(config, selected.rule(policy))
        });
        let kernels = [0, 1].map(|h| Kernel {
            state: State::SynSent,
            local: addresses[h],
            remote: addresses[1 - h],
            isn: [A_ISN, B_ISN][h],
            peer_isn: 0,
            modern: false,
            timestamps: false,
            received: Vec::new(),
            resets: 0,
        });
        Self {
            hosts,
            kernels,
            under_way: VecDeque::new(),
            lost: 0,
            passed: 0,
            options: Default::default(),
            wire_payload: Vec::new(),
        }
    }

    fn simple(options: [&str; 2], policy: Policy) -> Self {
        Self::new([Config::default(), Config::default()], options, policy)
    }

    /// Sends what an engine made on its way.
    fn spread(&mut self, host: usize, sent: Sent) {
        for seg in sent.wire {
            if seg.has(SYN) {
                self.options[host].push(seg.option(ENO));
            }
            self.wire_payload.extend(&seg.payload);
            self.under_way.push_back((1 - host, To::Wire, seg));
        }
        self.under_way.extend(sent.plain.into_iter().map(|seg| (host, To::Kernel, seg)));
    }

    /// Delivers what is under way, and what comes of it.
    fn settle(&mut self) {
        while let Some((host, to, seg)) = self.under_way.pop_front() {
            let lost = self.passed < 64 && self.lost & 1 << self.passed != 0;
            self.passed += 1;
            if lost {
                continue;
            }
            match to {
                To::Kernel => {
                    assert!(!seg.eno(), "the kernel sees no ENO of a connection that is (becoming) encrypted: {seg:?}");
                    let answer = self.kernels[host].hear(&seg);
                    self.under_way.extend(answer.map(|seg| (host, To::Plain, seg)));
                }
                To::Plain => {
                    let sent = self.hosts[host].kernel(&seg);
                    self.spread(host, sent);
                }
                To::Wire => {
                    let sent = self.hosts[host].wire(&seg);
                    self.spread(host, sent);
                }
            }
        }
    }

    /// Both open at once, and no timer runs.
    fn open_at_once(&mut self) {
        for host in 0..2 {
            let syn = self.kernels[host].seg(SYN);
            self.under_way.push_back((host, To::Plain, syn));
        }
        self.settle();
    }

    /// Both open at once, and timers run until nothing is left to do.
    fn open(&mut self) {
        for _ in 0..8 {
            for host in 0..2 {
                let seg = self.kernels[host].timer();
                self.under_way.extend(seg.map(|seg| (host, To::Plain, seg)));
            }
            self.settle();
            for host in 0..2 {
                let sent = self.hosts[host].wait(Duration::from_secs(1));
                self.spread(host, sent);
            }
            self.settle();
        }
    }

    fn write(&mut self, host: usize, data: &[u8]) {
        let mut seg = self.kernels[host].seg(ACK);
        seg.payload = data.to_vec();
        self.under_way.push_back((host, To::Plain, seg));
        self.settle();
    }

    fn flow(&self, host: usize) -> FlowInfo {
        let kernel = &self.kernels[host];
        self.hosts[host].engine.flow(kernel.local, kernel.remote).expect("a connection")
    }

    fn assert_encrypted(&mut self, b: usize, what: &str) {
        let flows = [0, 1].map(|host| self.flow(host));
        for (host, flow) in flows.iter().enumerate() {
            let kernel = &self.kernels[host];
            assert_eq!((flow.state, kernel.state), (FlowState::Encrypted, State::Established), "{what}: host {host}");
            assert_eq!(flow.role, Some(if host == b { 'B' } else { 'A' }), "{what}: host {host}");
            let first = &self.options[host][0];
            assert!(first.is_some() && self.options[host].iter().all(|o| o == first), "ENO-14, {what}: host {host}");
        }
        assert!(flows[0].session_id.is_some(), "{what}");
        self.lost = 0;
        assert_eq!(flows[0].session_id, flows[1].session_id, "{what}");
        for host in 0..2 {
            self.write(host, b"recognisable");
            assert_eq!(self.kernels[1 - host].received, b"recognisable", "{what}: from host {host}");
        }
        assert!(!self.wire_payload.windows(12).any(|bytes| bytes == b"recognisable"), "{what}: plaintext on the wire");
    }
}

/// Every way in which one or two of the first packets, on the wire or inside of a host, can be lost. But not the kernels'
/// first SYNs inside of their own hosts (0 and 1): that host does not open then, it answers.
fn losses() -> impl Iterator<Item = u64> {
    const FIRST: u64 = 16;
    std::iter::once(0).chain((2..FIRST).flat_map(|i| (i..FIRST).map(move |j| 1 << i | 1 << j)))
}

#[test]
fn eno_7_14_a_simultaneous_open_with_one_b_is_encrypted_whatever_is_lost() {
    for (modern, timestamps, b) in [(false, false, 0), (false, true, 1), (true, false, 1), (true, true, 0)] {
        for lost in losses() {
            let options = if b == 0 { [",role-b", ""] } else { ["", ",role-b"] };
            let mut open = Crossing::simple(options, Policy::Required);
            open.kernels.iter_mut().for_each(|kernel| (kernel.modern, kernel.timestamps) = (modern, timestamps));
            open.lost = lost;
            open.open();
            open.assert_encrypted(b, &format!("modern {modern}, timestamps {timestamps}, lost {lost:#b}"));
        }
    }
}

#[test]
fn a_simultaneous_open_on_a_good_network_needs_no_timer() {
    for (modern, b) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
        let mut open = Crossing::simple(if b == 0 { [",role-b", ""] } else { ["", ",role-b"] }, Policy::Required);
        open.kernels.iter_mut().for_each(|kernel| kernel.modern = modern);
        open.open_at_once();
        open.assert_encrypted(b, &format!("modern {modern}"));
    }
}

/// The engine reads the peer's SYN first, the kernel's is waiting in the other device.
#[test]
fn a_simultaneous_open_is_encrypted_even_if_the_peers_syn_is_seen_first() {
    for b in [0, 1] {
        for opportunistic in [false, true] {
            let policy = if opportunistic { Policy::Opportunistic } else { Policy::Required };
            let mut open = Crossing::simple(if b == 0 { [",role-b", ""] } else { ["", ",role-b"] }, policy);
            let [first, second] = [0, 1].map(|host| open.kernels[host].seg(SYN));
            let sent = open.hosts[1].kernel(&second);
            open.options[1].push(sent.wire[0].option(ENO));
            let sent = open.hosts[0].wire(&sent.wire[0]);
            let to_kernel = sent.plain[0].clone();
            let sent = open.hosts[0].kernel(&first);
            open.spread(0, sent);
            // Plain, if it was given away as that.
            let answer = open.kernels[0].hear(&to_kernel);
            open.under_way.extend(answer.map(|seg| (0, To::Plain, seg)));
            open.settle();
            open.open();
            open.assert_encrypted(b, &format!("b {b}, opportunistic {opportunistic}"));
        }
    }
}

/// The kernel sends its SYN again before it gets the peer's, and the peer's SYN-ACK is here before its answer to that.
fn answered_behind_its_own_syn(strip: bool) -> Crossing {
    let mut open = Crossing::simple(["", ",role-b"], Policy::Opportunistic);
    let [syn, peers] = [0, 1].map(|host| open.kernels[host].seg(SYN));
    let syn_out = open.hosts[0].kernel(&syn).wire.remove(0);
    let peers_out = open.hosts[1].kernel(&peers).wire.remove(0);
    let to_kernel = open.hosts[0].wire(&peers_out).plain.remove(0);
    open.hosts[0].kernel(&syn);
    let to_peer = open.hosts[1].wire(&syn_out).plain.remove(0);
    let answer = open.kernels[1].hear(&to_peer).expect("a SYN-ACK");
    let mut answer = open.hosts[1].kernel(&answer).wire.remove(0);
    if strip {
        answer.options = vec![2, 4, 5, 0xb4];
    }
    let sent = open.hosts[0].wire(&answer);
    open.spread(0, sent);
    let syn_ack = open.kernels[0].hear(&to_kernel).expect("a SYN-ACK");
    let sent = open.hosts[0].kernel(&syn_ack);
    open.spread(0, sent);
    open
}

#[test]
fn eno_15_the_syn_ack_counts_although_the_syn_was_seen_before_the_kernel_sent_its_own_again() {
    let mut open = answered_behind_its_own_syn(false);
    open.options = Default::default();
    open.settle();
    open.open();
    let flows = [0, 1].map(|host| open.flow(host));
    assert_eq!(flows.map(|flow| flow.state), [FlowState::Encrypted; 2]);
}

#[test]
fn eno_13_a_syn_ack_without_the_option_counts_although_the_syn_had_it() {
    let open = answered_behind_its_own_syn(true);
    let flow = open.flow(0);
    assert_ne!(flow.role, Some('A'), "encryption is off: {flow:?}");
    assert!(flow.reason.is_some(), "{flow:?}");
}

#[test]
fn eno_7_a_simultaneous_open_with_the_same_b_on_both_sides_is_plain() {
    for options in [["", ""], [",role-b", ",role-b"]] {
        for lost in losses() {
            let mut open = Crossing::simple(options, Policy::Opportunistic);
            open.lost = lost;
            // The kernels get what comes as it comes.
            for _ in 0..8 {
                for host in 0..2 {
                    let seg = open.kernels[host].timer();
                    open.under_way.extend(seg.map(|seg| (host, To::Plain, seg)));
                }
                while let Some((host, to, seg)) = open.under_way.pop_front() {
                    let lost = open.passed < 64 && open.lost & 1 << open.passed != 0;
                    open.passed += 1;
                    let sent = match to {
                        _ if lost => continue,
                        To::Kernel => {
                            let answer = open.kernels[host].hear(&seg);
                            open.under_way.extend(answer.map(|seg| (host, To::Plain, seg)));
                            continue;
                        }
                        To::Plain => open.hosts[host].kernel(&seg),
                        To::Wire => open.hosts[host].wire(&seg),
                    };
                    open.spread(host, sent);
                }
            }
            for host in 0..2 {
                let flow = open.flow(host);
                assert_eq!((flow.state, open.kernels[host].state), (FlowState::Plain, State::Established), "{lost:#b}");
                assert_eq!(open.kernels[host].resets, 0);
            }
        }
    }
}

#[test]
fn a_simultaneous_open_that_cannot_be_encrypted_is_refused_if_policy_requires_it() {
    let mut open = Crossing::simple(["", ""], Policy::Required);
    open.open();
    for host in 0..2 {
        let flow = open.flow(host);
        assert_eq!(flow.state, FlowState::Closed);
        assert_eq!(flow.reason.as_deref(), Some("refused: policy requires encryption, but same-role"));
        assert!(open.kernels[host].resets > 0);
    }
}

#[test]
fn eno_16_data_in_a_syn_that_crosses_is_discarded() {
    for (options, encrypted) in [(["", ",role-b"], true), (["", ""], false)] {
        let mut open = Crossing::simple(options, Policy::Opportunistic);
        open.hosts[0].kernel(&Pair::syn());
        let mut syn = open.kernels[1].seg(SYN);
        syn = open.hosts[1].kernel(&syn).wire.remove(0);
        syn.payload = b"early".to_vec();
        let sent = open.hosts[0].wire(&syn);
        assert_eq!(sent.plain.len(), 1);
        assert!(sent.plain[0].has(SYN) && sent.plain[0].payload.is_empty(), "encrypted {encrypted}");
    }
}

/// An old connection between the two leaves both with the same secrets: both propose the same one.
#[test]
fn tc_19_one_secret_that_both_propose_in_a_simultaneous_open_is_resumed() {
    // With room for another TEP beside the proposal of B; without, B proposes nothing (see `active_option`).
    for (timestamps, resumed) in [(false, true), (true, false)] {
        let mut open = Crossing::simple(["", ",role-b"], Policy::Required);
        open.kernels.iter_mut().for_each(|kernel| kernel.timestamps = timestamps);
        open.open();
        open.assert_encrypted(1, "fresh");
        let Crossing { hosts, kernels, .. } = open;
        let mut ids = vec![hosts[0].engine.flow(kernels[0].local, kernels[0].remote).and_then(|f| f.session_id)];
        let mut again = Crossing { hosts, ..Crossing::simple(["", ""], Policy::Required) };
        for round in 1..4 {
            // The same addresses with other ports.
            for (host, kernel) in again.kernels.iter_mut().enumerate() {
                kernel.local.set_port([40000, 80][host] + round);
                kernel.remote.set_port([80, 40000][host] + round);
                (kernel.state, kernel.timestamps) = (State::SynSent, timestamps);
                kernel.received.clear();
            }
            again.options = Default::default();
            again.open_at_once();
            again.assert_encrypted(1, "again");
            for host in 0..2 {
                let flow = again.flow(host);
                assert_eq!(flow.resumed, resumed, "host {host}, timestamps {timestamps}, round {round}");
                if resumed {
                    assert!(flow.session_id.as_deref().is_some_and(|id| id.starts_with("a3")), "{flow:?}");
                }
            }
            ids.push(again.flow(0).session_id);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 4, "no session ID occurs twice");
    }
}

#[test]
fn tc_18_19_different_secrets_in_a_simultaneous_open_fall_back_to_fresh_keys() {
    let mut open = Crossing::simple(["", ",role-b"], Policy::Required);
    open.open();
    open.assert_encrypted(1, "fresh");
    let Crossing { mut hosts, .. } = open;
    // One of them has lost its cache.
    assert_eq!(hosts[1].engine.flush_sessions(None), 1);
    let mut again = Crossing { hosts, ..Crossing::simple(["", ""], Policy::Required) };
    for (host, kernel) in again.kernels.iter_mut().enumerate() {
        kernel.local.set_port([40001, 81][host]);
        kernel.remote.set_port([81, 40001][host]);
    }
    again.open();
    again.assert_encrypted(1, "again");
    assert!(!again.flow(0).resumed);
    assert_eq!(again.hosts[0].engine.counters().resumptions_refused, 1);
}

/// On the plain side of a gateway anybody may answer a SYN-ACK with a SYN-ACK: that counts for what it acknowledges, and what was
/// agreed decides. (Found by fuzzing.)
#[test]
fn a_syn_ack_that_answers_a_syn_ack_is_an_acknowledgement_of_what_was_agreed() {
    for (eno, state) in [(&[ENO, 4, 1, 0x23][..], FlowState::Negotiating), (&[ENO, 4, 1, 0x24], FlowState::Plain)] {
        let mut a = Host::new(Config::default());
        let wire = a.kernel(&Pair::syn()).wire;
        assert_eq!(wire.len(), 1);
        let answer = Seg { options: [&syn_options(0)[..], eno].concat(), ..Pair::syn_ack() };
        a.wire(&answer);
        let sent = a.kernel(&Seg { flags: SYN | ACK, ack: B_ISN.wrapping_add(1), ..Pair::syn() });
        let flow = a.engine.flow(a_addr(), b_addr()).expect("a connection");
        let encrypts = eno[3] == 0x23;
        assert_eq!(flow.state, state, "{flow:?}");
        assert_eq!(flow.reason.is_none(), encrypts, "{flow:?}");
        // With ENO if that was agreed, and Init1 behind it; without if not.
        assert!(sent.wire.iter().all(|seg| seg.option(ENO).is_some() == encrypts), "{:?}", sent.wire);
        assert_eq!(sent.wire.iter().any(|seg| !seg.payload.is_empty()), encrypts, "{:?}", sent.wire);
    }
}
