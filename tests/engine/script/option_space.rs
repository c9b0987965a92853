//! SYNs and SYN-ACKs in which other options take the room (40 bytes in all): ENO fits, or is left out, and whatever the two
//! hosts make of it, both make the same.

use enotun::engine::FlowState;

use super::packet::ENO;
use super::*;

/// Options of a SYN in Linux' order, and others. Not all that can be here goes together in a real one.
const MSS: &[u8] = &[2, 4, 5, 0xb4];
const SACK: &[u8] = &[4, 2];
const TIMESTAMPS: &[u8] = &[8, 10, 0, 0, 0, 7, 0, 0, 0, 0];
const WINDOW_SCALE: &[u8] = &[3, 3, 0];
const MD5: &[u8] = &[19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const FAST_OPEN_REQUEST: &[u8] = &[34, 2];
const FAST_OPEN_COOKIE: &[u8] = &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8];
/// Fast Open as it was before it had a kind of its own: a request, a cookie in the other kind for experiments.
const OLD_FAST_OPEN: &[u8] = &[254, 4, 0xf9, 0x89];
const OLD_COOKIE: &[u8] = &[253, 8, 0xf9, 0x89, 1, 2, 3, 4];
/// ENO's predecessor (RFC 8547, section 11).
const OLD_ENO: &[u8] = &[253, 5, 0x45, 0x4e, 0x23];
const OLD_ENO_TOO: &[u8] = &[254, 4, 0x45, 0x4e];
const MP_CAPABLE: &[u8] = &[30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8];
const ALL: [&[u8]; 12] = [
    MSS,
    SACK,
    TIMESTAMPS,
    WINDOW_SCALE,
    MD5,
    FAST_OPEN_REQUEST,
    FAST_OPEN_COOKIE,
    OLD_FAST_OPEN,
    OLD_COOKIE,
    OLD_ENO,
    OLD_ENO_TOO,
    MP_CAPABLE,
];

/// An option of `len` bytes that nobody knows, and no option for 0.
fn filler(len: usize) -> Vec<u8> {
    if len == 0 { Vec::new() } else { [&[253, len as u8][..], &vec![0x5a; len - 2]].concat() }
}

/// The options one after the other, with NOPs behind them; `None` if they are too many.
fn area(options: &[&[u8]]) -> Option<Vec<u8>> {
    let mut area = options.concat();
    area.resize(area.len().next_multiple_of(4), 1);
    (area.len() <= 40).then_some(area)
}

/// All sets of [`ALL`] that a SYN has room for.
fn sets() -> impl Iterator<Item = (Vec<&'static [u8]>, Vec<u8>)> {
    (0..1_u32 << ALL.len()).filter_map(|set| {
        let options: Vec<&[u8]> = (0..ALL.len()).filter(|i| set & 1 << i != 0).map(|i| ALL[i]).collect();
        Some((options.clone(), area(&options)?))
    })
}

/// Two hosts and the ports of their connections.
struct Two {
    a: Host,
    b: Host,
    port: u16,
}

/// What came of a connection.
struct Made {
    syn: Seg,
    syn_ack: Seg,
    flows: [FlowInfo; 2],
    delivered: Vec<u8>,
}

impl Two {
    fn new(options: &str) -> Self {
        let rule = || format!("0.0.0.0/0{options}").parse::<enotun::selector::Selected>().expect("a selector");
        let host = || Host::with_rule(Config::default(), rule().rule(Policy::Opportunistic));
        Self { a: host(), b: host(), port: 40_000 }
    }

    /// The same, with a session that both have in their caches.
    fn with_session(options: &str) -> Self {
        let mut two = Self::new(options);
        let made = two.connect(&area(&[MSS]).expect("fits"), &area(&[MSS]).expect("fits"));
        assert!(made.flows.iter().all(|flow| flow.state == FlowState::Encrypted), "{:?}", made.flows);
        two
    }

    /// A connection whose SYN and SYN-ACK come with these options from the kernels, and some data on it.
    fn connect(&mut self, syn_options: &[u8], syn_ack_options: &[u8]) -> Made {
        self.port += 1;
        let (mut from, to) = (a_addr(), b_addr());
        from.set_port(self.port);
        let mut syn = Seg::new(from, to);
        (syn.seq, syn.flags, syn.win, syn.options) = (A_ISN, SYN, WINDOW, syn_options.to_vec());
        let syn = only(self.a.kernel(&syn).wire);
        only(self.b.wire(&syn).plain);
        let mut syn_ack = Seg::new(to, from);
        (syn_ack.seq, syn_ack.ack) = (B_ISN, A_ISN + 1);
        (syn_ack.flags, syn_ack.win, syn_ack.options) = (SYN | ACK, WINDOW, syn_ack_options.to_vec());
        let syn_ack = only(self.b.kernel(&syn_ack).wire);
        only(self.a.wire(&syn_ack).plain);
        let mut ack = Seg::new(from, to);
        (ack.seq, ack.ack, ack.win) = (A_ISN + 1, B_ISN.wrapping_add(1), WINDOW);
        let mut delivered = Vec::new();
        let mut data = ack.clone();
        data.payload = b"recognisable".to_vec();
        for seg in [ack, data] {
            let mut to_b = self.a.kernel(&seg).wire;
            while !to_b.is_empty() {
                let mut to_a = Vec::new();
                for seg in std::mem::take(&mut to_b) {
                    let sent = self.b.wire(&seg);
                    delivered.extend(sent.delivered());
                    to_a.extend(sent.wire);
                }
                to_b.extend(to_a.iter().flat_map(|seg| self.a.wire(seg).wire).collect::<Vec<_>>());
            }
        }
        if self.a.engine.session(from, to).is_ok() {
            confirm(&mut self.a, &mut self.b, from, Seg::clone);
        }
        let flows =
            [self.a.engine.flow(from, to).expect("a connection"), self.b.engine.flow(to, from).expect("a connection")];
        Made { syn, syn_ack, flows, delivered }
    }
}

fn only(mut segs: Vec<Seg>) -> Seg {
    assert_eq!(segs.len(), 1, "{segs:?}");
    segs.remove(0)
}

impl Made {
    /// Both agree, data goes through, and everything is as the room allows.
    fn assert_sound(&self, what: &str) {
        for seg in [&self.syn, &self.syn_ack] {
            assert!(seg.options.len() <= 40, "{what}");
            let list = seg.option_list().unwrap_or_else(|| panic!("{what}: {:02x?}", seg.options));
            assert!(list.iter().filter(|(kind, _)| *kind == ENO).count() <= 1, "{what}");
            let experiment = |id: [u8; 2]| list.iter().any(|(k, data)| matches!(k, 253 | 254) && data.starts_with(&id));
            let fast_open = list.iter().any(|(kind, _)| *kind == 34) || experiment([0xf9, 0x89]);
            assert!(!(seg.eno() && fast_open), "ENO-16, {what}: {:02x?}", seg.options);
            assert!(!(seg.eno() && experiment([0x45, 0x4e])), "ENO-20, {what}: {:02x?}", seg.options);
        }
        let [a, b] = &self.flows;
        assert_eq!(a.state, b.state, "{what}: {a:?}, {b:?}");
        assert_eq!(a.session_id, b.session_id, "{what}");
        assert_eq!(a.resumed, b.resumed, "{what}");
        assert!(matches!(a.state, FlowState::Encrypted | FlowState::Plain), "{what}: {a:?}");
        assert_eq!(self.delivered, b"recognisable", "{what}: {a:?}");
    }

    /// Bytes of the ENO option in a SYN or SYN-ACK.
    fn eno(seg: &Seg) -> usize {
        seg.option(ENO).map_or(0, |contents| contents.len() + 2)
    }
}

#[test]
fn options_of_every_kind_go_with_eno_or_keep_it_out() {
    for session in [false, true] {
        let mut two = if session { Two::with_session("") } else { Two::new("") };
        for (options, area) in sets() {
            if two.a.engine.session_count() > 60 {
                two.a.engine.flush_sessions(None);
                two.b.engine.flush_sessions(None);
            }
            // What a kernel answers to these: no option that was not there, and no Fast Open request.
            let answer: Vec<&[u8]> = options.iter().copied().filter(|option| *option != FAST_OPEN_REQUEST).collect();
            let answer = self::area(&answer).expect("less than before");
            let made = two.connect(&area, &answer);
            let what = format!("session {session}, {area:02x?}");
            made.assert_sound(&what);
            let (flow, alone) = (&made.flows[0], options.iter().any(|option| [MD5, MP_CAPABLE].contains(option)));
            if alone {
                // Left alone: no byte of the SYN is touched.
                assert_eq!(made.syn.options, area, "{what}");
                assert!(matches!(flow.reason.as_deref(), Some("mptcp" | "signed-segments")), "{what}: {flow:?}");
                continue;
            }
            assert_eq!(flow.state, FlowState::Encrypted, "all but these leave room for a TEP; {what}: {flow:?}");
            for (kind, option) in [(2, MSS), (4, SACK), (8, TIMESTAMPS), (3, WINDOW_SCALE)] {
                let there = options.contains(&option).then(|| option[2..].to_vec());
                assert_eq!(made.syn.option(kind), there, "{what}");
                assert_eq!(made.syn_ack.option(kind), there, "{what}");
            }
        }
    }
}

/// Every number of bytes that other options leave in the SYN and in the SYN-ACK.
#[test]
fn tc_16_where_a_resumption_does_not_fit_fresh_keys_are_made_and_where_no_tep_fits_it_is_plain() {
    for (global, options) in [(0, ""), (1, ",aware")] {
        let mut two = Two::with_session(options);
        let lengths = || std::iter::once(0).chain(2..=40);
        for (taken, answer_taken) in lengths().flat_map(|a| lengths().map(move |b| (a, b))) {
            let made =
                two.connect(&area(&[&filler(taken)]).expect("fits"), &area(&[&filler(answer_taken)]).expect("fits"));
            let what = format!("{options} {taken} bytes taken in the SYN, {answer_taken} in the SYN-ACK");
            made.assert_sound(&what);
            let (room, answer_room) = (40 - taken, 40 - answer_taken);
            // Option, global suboption, TEP with half and nonce; B always has the global suboption (ENO-7).
            let (proposal, acceptance) = (2 + global + 18, 2 + 1 + 18);
            let (offer, reply) = (2 + global + 1, 2 + 1 + 1);
            let [a, _] = &made.flows;
            if room < offer || answer_room < reply {
                assert_eq!((a.state, Made::eno(&made.syn_ack)), (FlowState::Plain, 0), "{what}");
                assert!(room >= offer || Made::eno(&made.syn) == 0, "{what}");
                continue;
            }
            assert_eq!(a.state, FlowState::Encrypted, "{what}: {a:?}");
            // What this host proposes may be refused for want of room, and then its secret is spent: not more than one
            // chain is, before the next one proposes again.
            if room >= proposal && Made::eno(&made.syn) >= proposal {
                assert_eq!(a.resumed, answer_room >= acceptance, "{what}");
            } else {
                assert!(!a.resumed, "{what}");
                assert!(Made::eno(&made.syn) <= (offer + 3).min(room), "{what}");
            }
            assert!(room < proposal || Made::eno(&made.syn) >= proposal, "{what}: nothing was proposed");
        }
    }
}

#[test]
fn mss_options_of_another_length_are_none() {
    let mut two = Two::new("");
    let mut syn = Vec::new();
    while syn.len() < 36 {
        syn.extend([2, 2]);
    }
    let made = two.connect(&syn, &area(&[MSS]).expect("fits"));
    made.assert_sound("MSS without a value");
    assert_eq!(made.flows[0].state, FlowState::Encrypted);
}

/// Whatever the reason for which a SYN with ENO is passed on, its data is not (ENO-16), the first time and again.
#[test]
fn eno_16_data_beside_eno_goes_to_nobody_even_where_nothing_is_encrypted() {
    for (config, policy, taken, contents, why) in [
        (Config::default(), Policy::Off, MSS, &[0x23][..], "policy off"),
        (Config::default(), Policy::Opportunistic, MP_CAPABLE, &[0x23], "mptcp"),
        (Config::default(), Policy::Opportunistic, MSS, &[0x01, 0x23], "b = 1"),
        (Config::default(), Policy::Opportunistic, MSS, &[0x80], "ill-formed"),
    ] {
        let mut host = Host::with_policy(config, policy);
        let mut syn = Seg::new(a_addr(), b_addr());
        let eno = [&[ENO, contents.len() as u8 + 2][..], contents].concat();
        (syn.seq, syn.flags, syn.win) = (A_ISN, SYN, WINDOW);
        syn.options = area(&[taken, FAST_OPEN_COOKIE, &eno]).expect("fits");
        syn.payload = b"early data".to_vec();
        for _ in 0..2 {
            let seen = only(host.wire(&syn).plain);
            assert!(seen.has(SYN) && seen.seq == A_ISN && seen.payload.is_empty(), "{why}: {seen:?}");
            assert!(!seen.eno() && seen.option(34).is_none(), "{why}");
            assert_eq!(seen.option(taken[0]), Some(taken[2..].to_vec()), "{why}");
        }
        // Without ENO it is an ordinary SYN, and Fast Open's.
        syn.options = area(&[taken, FAST_OPEN_COOKIE]).expect("fits");
        syn.src.set_port(50_000);
        assert_eq!(only(host.wire(&syn).plain).payload, b"early data", "{why}");
    }
}

/// With what Linux sends in each SYN there is room for a proposal and one more TEP, and for its acceptance.
#[test]
fn tc_12_a_resumption_fits_beside_the_options_of_linux() {
    // MSS, SACK permitted, timestamps, NOP, window scale; the peer's answer likewise.
    let linux = [MSS, SACK, TIMESTAMPS, &[1], WINDOW_SCALE].concat();
    for options in ["", ",aware"] {
        let mut two = Two::with_session(options);
        let made = two.connect(&linux, &linux);
        made.assert_sound(options);
        assert!(made.flows[0].resumed, "{:?}", made.flows);
        assert_eq!(Made::eno(&made.syn), 21, "with one more TEP, or the global suboption");
        assert_eq!(Made::eno(&made.syn_ack), 21);
    }
}
