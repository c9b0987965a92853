//! Looks at every packet on its way: no plaintext on the wire, repeated bytes are the same bytes, windows are not taken
//! back, nothing is larger than the path takes. And writes the trace.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use enotun::time::Instant;

use super::host::{Seen, Tap};
use crate::harness::packet::{self, ACK, FIN, RST, SYN, Seg};
use crate::harness::rng::{self, Stream};

/// One direction of a connection, as seen where its sender meets the network.
#[derive(Default)]
struct Way {
    isn: Option<u32>,
    /// The payload by offset; 0x100 where none was seen.
    bytes: Vec<u16>,
    /// Largest acknowledgement and right edge announced, relative to the other way's ISN.
    acked: i32,
    edge: Option<i32>,
    scale: Option<u8>,
    /// Where its FIN was, likewise.
    fin: Option<i32>,
    /// When something was last sent while it was not forgotten.
    used: Option<Instant>,
}

/// So long after its end a connection is forgotten ([`enotun::engine::Config::closed_linger`]). What a kernel that has missed the end
/// repeats then passes as it is; if it has data, that is a leak.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A connection under watch.
pub struct Conn {
    /// By host.
    pub ends: [SocketAddr; 2],
    /// By sending host.
    pub streams: [Stream; 2],
    /// Bytes written by the application so far, by sending host.
    pub written: [u64; 2],
    ways: [Way; 2],
    /// The first plaintext seen on the wire.
    pub leak: Option<String>,
    /// Whether a SYN without ENO was sent by either engine.
    pub syn_without_eno: bool,
    /// Whether a SYN with ENO was sent.
    pub syn_with_eno: bool,
    pub wire_bytes: u64,
    /// By host: bytes of its stream that its kernel called urgent.
    pub urgent_sent: [BTreeSet<u32>; 2],
    /// By host: when its kernel last sent a FIN.
    pub last_fin: [Option<Instant>; 2],
    /// A segment with URG was on the wire.
    pub urg_on_wire: bool,
    /// By host: bytes of its peer's stream that its kernel was told are urgent.
    pub urgent_seen: [BTreeSet<u32>; 2],
    /// Whether it has begun: connections may follow one another on the same addresses and ports.
    pub active: bool,
}

impl Conn {
    pub fn new(ends: [SocketAddr; 2], streams: [Stream; 2]) -> Self {
        Self {
            ends,
            streams,
            written: [0; 2],
            ways: [Way::default(), Way::default()],
            leak: None,
            syn_without_eno: false,
            syn_with_eno: false,
            wire_bytes: 0,
            last_fin: [None; 2],
            urg_on_wire: false,
            urgent_sent: Default::default(),
            urgent_seen: Default::default(),
            active: false,
        }
    }
}

/// Everything under watch.
pub struct Watch {
    pub conns: Vec<Conn>,
    pub faults: Vec<String>,
    pub mtu: usize,
    pub packets: u64,
    /// Of everything seen, to compare runs.
    pub fingerprint: u64,
    /// Lines, if wanted.
    pub trace: Option<Vec<String>>,
    /// By host: payload that the kernel has handed over as a single packet just now, and the segments on the wire since.
    single: [Option<(usize, Vec<usize>)>; 2],
}

impl Watch {
    pub fn new(mtu: usize, trace: bool) -> Self {
        Self {
            conns: Vec::new(),
            faults: Vec::new(),
            mtu,
            packets: 0,
            fingerprint: 0,
            trace: trace.then(Vec::new),
            single: [None, None],
        }
    }

    /// A line for the trace.
    pub fn note(&mut self, now: Instant, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6}   {}", now.as_micros() as f64 / 1e6, text()));
        }
    }

    fn conn_of(&self, seg: &Seg, sender: usize) -> Option<usize> {
        self.conns.iter().rposition(|c| c.active && c.ends[sender] == seg.src && c.ends[1 - sender] == seg.dst)
    }

    /// A packet passed `host`'s tap.
    pub fn see(&mut self, now: Instant, host: usize, seen: &Seen) {
        self.packets += 1;
        for chunk in seen.bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fingerprint = rng::mix(self.fingerprint ^ u64::from_le_bytes(word));
        }
        self.fingerprint = rng::mix(self.fingerprint ^ now.as_micros());
        let seg = Seg::parse(&seen.bytes);
        if self.trace.is_some() {
            self.write_trace(now, host, seen, seg.as_ref());
        }
        if let Some(seg) = seg.as_ref().filter(|seg| seg.has(packet::URG)) {
            self.see_urgent(host, seen.tap, seg);
        }
        self.see_single(now, host, seen, seg.as_ref());
        if seen.tap == Tap::KernelOut
            && let Some(conn) = seg.as_ref().filter(|seg| seg.has(FIN)).and_then(|seg| self.conn_of(seg, host))
        {
            self.conns[conn].last_fin[host] = Some(now);
        }
        if seen.tap != Tap::WireOut {
            return;
        }
        if seen.bytes.len() > self.mtu {
            self.faults.push(format!("{} bytes on a path of MTU {}: {seg:?}", seen.bytes.len(), self.mtu));
        }
        if let Some(seg) = seg
            && let Some(conn) = self.conn_of(&seg, host)
        {
            self.check(now, conn, host, &seg);
        }
    }

    /// What the kernel hands over as one packet leaves as one segment, if it leaves at once and whole: it may be trying out what
    /// the path takes (RFC 4821).
    fn see_single(&mut self, now: Instant, host: usize, seen: &Seen, seg: Option<&Seg>) {
        let single = &mut self.single[host];
        let len = seg.map_or(0, |seg| seg.payload.len());
        if seen.tap == Tap::WireOut {
            if let Some((_, sizes)) = single.as_mut().filter(|_| len > 0) {
                sizes.push(len);
            }
            return;
        }
        if let Some((handed, sizes)) = single.take() {
            let whole: usize = sizes.iter().sum();
            // Headers of at most 40 bytes of IP and 60 of TCP.
            if sizes.len() > 1 && whole == handed + tcpcrypt::frame::OVERHEAD && whole + 100 <= self.mtu {
                self.faults.push(format!(
                    "at {:.6}: host {host}: a packet with {handed} bytes left as {sizes:?}",
                    now.as_micros() as f64 / 1e6
                ));
            }
        }
        *single = (seen.tap == Tap::KernelOut && seen.gso.is_none() && len > 0).then(|| (len, Vec::new()));
    }

    /// The urgent byte lies before the one that the pointer names (RFC 6093). On the wire nothing is urgent (TC-30).
    fn see_urgent(&mut self, host: usize, tap: Tap, seg: &Seg) {
        let sender = if matches!(tap, Tap::KernelOut | Tap::WireOut) { host } else { 1 - host };
        let Some(conn) = self.conn_of(seg, sender).map(|i| &mut self.conns[i]) else { return };
        // The kernel's initial sequence number is that on the wire as well.
        let Some(isn) = conn.ways[sender].isn else { return };
        let byte = seg.seq.wrapping_add(u32::from(seg.urgent)).wrapping_sub(isn).wrapping_sub(2);
        match tap {
            Tap::KernelOut => _ = conn.urgent_sent[host].insert(byte),
            Tap::KernelIn => _ = conn.urgent_seen[host].insert(byte),
            Tap::WireOut => conn.urg_on_wire = true,
            Tap::WireIn => {}
        }
    }

    fn check(&mut self, now: Instant, number: usize, host: usize, seg: &Seg) {
        let conn = &mut self.conns[number];
        conn.wire_bytes += seg.payload.len() as u64;
        let ended = conn.ways.iter().all(|way| way.fin.is_some());
        let used = &mut conn.ways[host].used;
        let forgotten = ended && used.is_some_and(|used| now.since(used) >= FORGOTTEN);
        if !forgotten {
            *used = Some(now);
        }
        if seg.has(SYN) {
            if seg.eno() {
                conn.syn_with_eno = true;
            } else {
                conn.syn_without_eno = true;
            }
            let way = &mut conn.ways[host];
            if way.isn != Some(seg.seq) {
                *way = Way { isn: Some(seg.seq), ..Way::default() };
            }
            way.scale = seg.window_scale();
        }
        if conn.leak.is_none() && !seg.payload.is_empty() {
            let streams = [(conn.streams[0], conn.written[0]), (conn.streams[1], conn.written[1])];
            if let Some((at, which, offset)) = rng::leak(&seg.payload, &streams) {
                conn.leak = Some(format!(
                    "at {:.6}: byte {offset} of what host {which} wrote is at {at} in {seg:?}",
                    now.as_micros() as f64 / 1e6
                ));
            }
        }
        let Some(isn) = conn.ways[host].isn else { return };
        // The same place always has the same bytes (TC-27). Keep-alives repeat an acknowledged byte as garbage.
        let offset = seg.seq.wrapping_sub(isn).wrapping_sub(1).cast_signed();
        let acked_by_peer = conn.ways[1 - host].acked - 1;
        let keep_alive = seg.payload.len() <= 1 && offset < acked_by_peer;
        if !seg.has(SYN | RST) && !seg.payload.is_empty() && !keep_alive {
            match usize::try_from(offset) {
                Err(_) => self.faults.push(format!("payload before the start of the stream: {seg:?}")),
                Ok(offset) if offset > conn.ways[host].bytes.len() + (1 << 24) => {
                    self.faults.push(format!("payload far from the stream: {seg:?}"));
                }
                Ok(offset) => {
                    let way = &mut conn.ways[host];
                    let end = offset + seg.payload.len();
                    if way.bytes.len() < end {
                        way.bytes.resize(end, 0x100);
                    }
                    let places = &mut way.bytes[offset..end];
                    let differs =
                        places.iter().zip(&seg.payload).position(|(old, new)| *old != 0x100 && *old != u16::from(*new));
                    if let Some(at) = differs {
                        self.faults.push(format!(
                            "at {:.6}: connection {number}, host {host}: other bytes for offset {} than before: {seg:?}",
                            now.as_micros() as f64 / 1e6,
                            offset + at
                        ));
                    }
                    for (old, new) in places.iter_mut().zip(&seg.payload) {
                        *old = u16::from(*new);
                    }
                }
            }
        }
        // What lies beyond the peer's window, it discards with the acknowledgement in it (RFC 9293, section 3.10.7.4).
        // An engine that has lost its memory wants to be answered, and acknowledges nothing.
        if seg.payload.is_empty()
            && seg.ack != 0
            && !seg.has(SYN | RST | FIN)
            && let Some(edge) = conn.ways[1 - host].edge
            && conn.syn_with_eno
            && !conn.syn_without_eno
            && seg.seq.wrapping_sub(isn).cast_signed() > edge + i32::from(conn.ways[host].fin.is_some())
        {
            self.faults.push(format!(
                "at {:.6}: connection {number}, host {host}: beyond the peer's window, which ends at {edge}: {seg:?}",
                now.as_micros() as f64 / 1e6
            ));
        }
        // The right edge of the window only grows, but for what scaling rounds off (RFC 7323, 2.4).
        // An engine that has lost its memory asks with numbers that nobody takes.
        if seg.has(ACK)
            && !seg.has(RST)
            && (seg.seq % (1 << 30), seg.ack) != (0, 0)
            && let Some(peer_isn) = conn.ways[1 - host].isn
        {
            let both = conn.ways[0].scale.is_some() && conn.ways[1].scale.is_some();
            let scale = if both && !seg.has(SYN) { conn.ways[host].scale.unwrap_or(0) } else { 0 };
            let acked = seg.ack.wrapping_sub(peer_isn).cast_signed();
            let edge = acked.wrapping_add((i32::from(seg.win)) << scale);
            let peer_fin = conn.ways[1 - host].fin;
            let way = &mut conn.ways[host];
            let slack = (1i32 << way.scale.filter(|_| both).unwrap_or(0)) - 1;
            // Behind the peer's FIN the window means nothing any more.
            let over = peer_fin.is_some_and(|fin| acked > fin);
            if let Some(before) = way.edge
                && edge < before - slack
                && !over
                && !forgotten
                // A SYN-ACK again has no scale: behind an acknowledgement of a simultaneous open it seems to take something back.
                && !seg.has(SYN)
            {
                self.faults.push(format!(
                    "at {:.6}: connection {number}, host {host}: right edge of the window goes back from {before} to {edge}: {seg:?}",
                    now.as_micros() as f64 / 1e6
                ));
            }
            way.edge = Some(way.edge.map_or(edge, |e| e.max(edge)));
            way.acked = way.acked.max(acked);
        }
        if seg.has(FIN) {
            conn.ways[host].fin = Some(offset + 1 + seg.payload.len() as i32);
        }
    }

    fn write_trace(&mut self, now: Instant, host: usize, seen: &Seen, seg: Option<&Seg>) {
        let place = match seen.tap {
            Tap::KernelOut => "P out",
            Tap::KernelIn => "P in ",
            Tap::WireOut => "C out",
            Tap::WireIn => "C in ",
        };
        let mut line = format!("{:>12.6} {} {place} ", now.as_micros() as f64 / 1e6, ["A", "B"][host]);
        match seg {
            None => {
                let _ = write!(line, "{}", hex::encode(&seen.bytes[..seen.bytes.len().min(80)]));
            }
            Some(seg) => {
                let sender = match seen.tap {
                    Tap::KernelOut | Tap::WireOut => host,
                    _ => 1 - host,
                };
                let conn = self.conn_of(seg, sender).map(|i| &self.conns[i]);
                let base = |who: usize| conn.and_then(|c| c.ways[who].isn).unwrap_or(0);
                // Absolute numbers in SYNs, relative ones elsewhere.
                let (seq, ack) = if seg.has(SYN) {
                    (seg.seq, seg.ack)
                } else {
                    (seg.seq.wrapping_sub(base(sender)), seg.ack.wrapping_sub(base(1 - sender)))
                };
                let _ = write!(
                    line,
                    "{} → {} {} seq={}",
                    seg.src.port(),
                    seg.dst.port(),
                    packet::flag_names(seg.flags),
                    signed(seq)
                );
                if seg.has(ACK) {
                    let _ = write!(line, " ack={}", signed(ack));
                }
                let _ = write!(line, " win={} len={}", seg.win, seg.payload.len());
                if let Some(size) = seen.gso {
                    let _ = write!(line, " gso={size}");
                }
                let _ = packet::write_options(&mut line, seg, base(1 - sender));
                if !seg.payload.is_empty() {
                    let _ = write!(line, "  {}", hex::encode(&seg.payload[..seg.payload.len().min(12)]));
                }
                if seen.tap == Tap::WireIn && seen.gso.is_none() && !packet::checksums_are_right(&seen.bytes) {
                    line.push_str(" (wrong checksum)");
                }
            }
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }
}

/// Small negative numbers as such: they are more telling than numbers near 2^32.
fn signed(n: u32) -> i64 {
    let s = i64::from(n.cast_signed());
    if s > -100_000 { s.max(i64::from(n.cast_signed())) } else { i64::from(n) }
}
