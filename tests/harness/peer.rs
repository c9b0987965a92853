//! One engine, every packet by hand: the test is the local kernel (P) and the peer (C) at once. The peer opens the connection
//! and is A; the engine's host is B.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use enotun::engine::{Config, Engine, FlowState, Side};
use enotun::selector::Policy;
use tcpcrypt::eno::negotiate::{active_option, conclude};
use tcpcrypt::eno::option::find_syn;
use tcpcrypt::handshake::Initiator;
use tcpcrypt::rust_crypto::PROVIDER;
use tcpcrypt::{AeadId, NegotiationConfig, Outcome, Plaintext, Record, Tep};

use super::env::TestEnv;
use super::host::{Host, Sent, everything};
use super::packet::{ACK, ENO, PSH, SYN, Seg};

pub const KERNEL_ISN: u32 = 1_000;
/// The numbers wrap early in every test.
pub const PEER_ISN: u32 = u32::MAX - 150;

/// The engine with a kernel and a peer that do what the test says.
pub struct Bench {
    pub host: Host,
    pub kernel: SocketAddr,
    pub peer: SocketAddr,
    pub kernel_window: u16,
    pub record: Option<Record>,
    /// The same keys again, for a peer that does what a record does not.
    pub twin: Option<Record>,
    /// Both ends have timestamps: the peer's clock and the kernel's.
    pub clocks: Option<(u32, u32)>,
    /// Bytes that the peer has made, and those of the engine that it knows, without the SYN.
    pub peer_made: u32,
    pub engine_made: u32,
}

impl Deref for Bench {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        let mut engine = Engine::new(config, &PROVIDER);
        engine.set_policy(everything(Policy::Opportunistic));
        Self {
            host: Host::with_engine(engine, TestEnv::default()),
            kernel: "10.0.0.1:80".parse().expect("an address"),
            peer: "10.0.0.2:50000".parse().expect("an address"),
            kernel_window: 0xffff,
            record: None,
            twin: None,
            clocks: None,
            peer_made: 0,
            engine_made: 0,
        }
    }

    /// A segment of the peer's, `seq` and `ack` counting bytes after the SYNs.
    pub fn peer_seg(&self, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Seg {
        let mut seg = Seg::new(self.peer, self.kernel);
        seg.seq = PEER_ISN.wrapping_add(1).wrapping_add(seq);
        seg.ack = (KERNEL_ISN + 1).wrapping_add(ack);
        seg.flags = flags | ACK;
        seg.payload = payload.to_vec();
        seg.set_options(&self.timestamps(true));
        seg
    }

    /// The option for a segment of the peer's, or of the kernel's.
    pub fn timestamps(&self, of_peer: bool) -> Vec<(u8, Vec<u8>)> {
        let option = |(peer, kernel): (u32, u32)| {
            let (value, echo) = if of_peer { (peer, kernel) } else { (kernel, peer) };
            (8, [value.to_be_bytes(), echo.to_be_bytes()].concat())
        };
        self.clocks.map(option).into_iter().collect()
    }

    pub fn from_peer(&mut self, seq: u32, flags: u8, payload: &[u8]) -> Sent {
        let seg = self.peer_seg(seq, self.engine_made, flags, payload);
        self.hear_bytes(Side::Wire, seg.build())
    }

    pub fn kernel_seg(&self, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Seg {
        let mut seg = Seg::new(self.kernel, self.peer);
        seg.seq = (KERNEL_ISN + 1).wrapping_add(seq);
        seg.ack = PEER_ISN.wrapping_add(1).wrapping_add(ack);
        seg.win = self.kernel_window;
        seg.flags = flags | ACK;
        seg.payload = payload.to_vec();
        seg.set_options(&self.timestamps(false));
        seg
    }

    pub fn from_kernel(&mut self, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Sent {
        let seg = self.kernel_seg(seq, ack, flags, payload);
        self.hear_bytes(Side::Plain, seg.build())
    }

    /// A frame at the end of what the peer has made; the peer has made it then.
    pub fn frame(&mut self, data: &[u8], fin: bool) -> (u32, Vec<u8>) {
        let plaintext = Plaintext { fin, urgent: None, data };
        let mut bytes = vec![0; plaintext.frame_len()];
        let at = self.peer_made;
        self.record.as_mut().expect("keys").seal(u64::from(at), &plaintext, &mut bytes).expect("sealed");
        self.peer_made += bytes.len() as u32;
        (at, bytes)
    }

    /// Opens the engine's frame with which `bytes` begin, at `at`.
    pub fn open(&mut self, at: u32, bytes: &[u8]) -> (Vec<u8>, tcpcrypt::Opened) {
        let mut frame = bytes.to_vec();
        let opened = self.record.as_mut().expect("keys").open(u64::from(at), &mut frame).expect("authentic");
        (frame[opened.data.clone()].to_vec(), opened)
    }

    /// The SYNs. Returns what the kernel saw of the SYN and the peer of the SYN-ACK.
    pub fn handshake(&mut self) -> (Seg, Seg) {
        let settings = settings();
        let own = active_option(&settings, None, 20).expect("an option").bytes;
        let mut syn = self.peer_seg(0, 0, 0, &[]);
        (syn.seq, syn.ack, syn.flags) = (PEER_ISN, 0, SYN);
        let options = vec![(2, vec![5, 180]), (4, vec![]), (ENO, own[2..].to_vec())];
        syn.set_options(&[options, self.timestamps(true)].concat());
        let seen = self.hear_bytes(Side::Wire, syn.build());
        assert!(seen.wire.is_empty());
        let [kernel_syn] = &seen.plain[..] else { panic!("{seen:?}") };
        let kernel_syn = kernel_syn.clone();
        let mut syn_ack = self.kernel_seg(0, 0, 0, &[]);
        (syn_ack.seq, syn_ack.flags) = (KERNEL_ISN, SYN | ACK);
        syn_ack.set_options(&[vec![(2, vec![5, 180]), (4, vec![])], self.timestamps(false)].concat());
        let seen = self.hear_bytes(Side::Plain, syn_ack.build());
        assert!(seen.plain.is_empty());
        let [peer_syn_ack] = &seen.wire[..] else { panic!("{seen:?}") };
        (kernel_syn, peer_syn_ack.clone())
    }

    /// A connection with keys in place.
    pub fn encrypted() -> Self {
        Self::encrypted_with_window(0xffff)
    }

    /// The same with a kernel that announces `window`.
    pub fn encrypted_with_window(window: u16) -> Self {
        let mut b = Self::new();
        b.kernel_window = window;
        b.exchange_keys()
    }

    /// The same with timestamps.
    pub fn encrypted_with_clocks() -> Self {
        let mut b = Self::new();
        b.clocks = Some((1_000_000, 5_000));
        b.exchange_keys()
    }

    pub fn exchange_keys(self) -> Self {
        self.exchange_keys_after(|_| {})
    }

    /// The same, with something before Init1 comes.
    pub fn exchange_keys_after(self, before: impl FnOnce(&mut Self)) -> Self {
        let mut b = self;
        let (_, syn_ack) = b.handshake();
        let settings = settings();
        let own = active_option(&settings, None, 20).expect("an option").bytes;
        let Outcome::Fresh(negotiated) = conclude(&settings, Some(&own), None, &find_syn(&syn_ack.options)) else {
            panic!("{syn_ack:?}")
        };
        let mut random = |_, out: &mut [u8]| out.fill(0x42);
        let ciphers = [AeadId::Aes128Gcm];
        let (init1, initiator) = Initiator::start(&PROVIDER, negotiated, &ciphers, &mut random).expect("Init1");
        before(&mut b);
        let mut seg = b.peer_seg(0, 0, PSH, &init1);
        seg.set_options(&[vec![(ENO, vec![])], b.timestamps(true)].concat());
        let seen = b.hear_bytes(Side::Wire, seg.build());
        b.peer_made = init1.len() as u32;
        let init2 = seen.wire_bytes();
        b.engine_made = init2.len() as u32;
        let session = initiator.handle_init2(&init2).expect("a session");
        let flow = b.engine.flow(b.kernel, b.peer).expect("a flow");
        assert_eq!((flow.state, flow.peer_confirmed), (FlowState::Negotiating, false), "no frame has come yet");
        assert_eq!(flow.session_id, Some(session.id().to_string()));
        assert!(seen.delivered().is_empty());
        b.record = Some(Record::new(&PROVIDER, &session));
        b.twin = Some(Record::new(&PROVIDER, &session));
        let acknowledge = b.peer_made;
        let seen = b.from_peer(acknowledge, 0, &[]);
        assert!(seen.wire.is_empty(), "{seen:?}");
        b
    }
}

pub fn settings() -> NegotiationConfig {
    NegotiationConfig { teps: vec![Tep::Curve25519], resume: false, ..NegotiationConfig::default() }
}
