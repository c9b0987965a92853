"""One TCP connection of the peer: a small TCP with tcpcrypt on top, and the strict observer of what the other host
sends. The observer never trusts: whatever breaks a rule is recorded in `violations`, with the packet."""

import os
import struct
import time
from dataclasses import dataclass, field

import eno
import packet
import tcpcrypt as tc
from packet import ACK, FIN, MASK, PSH, RST, SYN, Seg

CANARY = b"PLAINTEXT-"


@dataclass
class Opts:
    """How this end behaves. Sizes in bytes."""

    mss: int = 1460
    ws: int = 7  # None: no window scale option
    sack: bool = True
    ts: bool = True
    eno: object = b"\x23"  # contents of the SYN's option, None for no option
    eno_reply: object = "auto"  # the same for a SYN-ACK; "auto": what eno.reply() says
    third_ack_eno: bool = True  # send ENO beside the ACKs (ENO-12)
    extra: bytes = b""  # further options of the SYN
    syn_data: bytes = b""
    ciphers: tuple = (tc.AES128, tc.AES256, tc.CHACHA)
    rcv_wnd: int = 1 << 18
    frame: int = 1400  # application bytes per frame
    seg: int = None  # largest segment sent
    ecn: bool = False
    auto_init: bool = True
    auto_rekey: bool = True
    auto_ack: bool = True
    ack_every: int = 2
    cwnd: int = 1 << 17
    cache: tuple = ()  # session secrets a passive opener accepts
    secret: object = None  # the one an active opener names
    nonce: bytes = b""
    host_b: bool = False  # the host was told to be B where it opens


class Ranges:
    """A set of byte ranges."""

    def __init__(self):
        self.list = []

    def add(self, a, b):
        out = []
        for x, y in self.list:
            if y < a or x > b:
                out.append((x, y))
            else:
                a, b = min(a, x), max(b, y)
        out.append((a, b))
        self.list = sorted(out)

    def covers(self, a, b):
        return any(x <= a and b <= y for x, y in self.list)


@dataclass
class Frame:
    offset: int
    length: int
    control: int
    flags: int
    generation: int
    data: bytes
    urgent: int = None


class Conn:
    def __init__(self, stack, local, lport, remote, rport, opts, iss=None):
        self.stack, self.local, self.lport, self.remote, self.rport, self.o = stack, local, lport, remote, rport, opts
        self.v6 = len(local) == 16
        self.violations = []
        self.warnings = []
        self.state = "closed"
        self.active = False
        self.now = time.monotonic
        # sending
        self.iss = int.from_bytes(os.urandom(4), "big") if iss is None else iss
        self.tx = bytearray()
        self.psh = set()  # offsets behind a byte to push
        self.una = self.nxt = self.max_sent = 0
        self.fin_at = None
        self.fin_sent = self.fin_acked = False
        self.sent = Ranges()
        self.forged_top = 0  # how far an attacker has sent in this end's name (SACK blocks may name it)
        self.hold = False
        self.edge = 0  # the host's right edge as announced, the highest
        self.wnd_edge = 0  # and as it is now
        self.cut = None  # function(offset) -> longest segment from there
        self.dupacks = 0
        self.rto_at, self.rto = None, 0.4
        self.retransmits = 0
        self.syn_at, self.syn_tries = None, 0
        self.tsvals = set()
        self.ts_base = int.from_bytes(os.urandom(3), "big")
        self.last_ack = 0
        self.acks_seen = 0
        self.host_mss, self.host_ws = 536, 0
        self.use_ts = self.use_sack = self.use_ws = self.use_ecn = False
        # receiving
        self.irs = None
        self.rx = bytearray()
        self.ooo = {}
        self.history, self.have = bytearray(), bytearray()
        self.adv_edge = 0
        self.ts_recent, self.last_tsval = 0, None
        self.unacked = 0
        self.fin_rx = None  # offset of the host's FIN
        self.fin_taken = False
        self.rst = None
        self.may_reset = False  # the scenario lets the host reset
        self.segments = []  # (offset, end, flags) of payload segments received
        self.syns = []
        self.host_syn_opts = None
        self.nonsyn_sent = self.nonsyn_received = False
        self.received = []  # Seg list, for scenarios that look at headers
        # encryption
        self.outcome = None
        self.own_eno = self.host_eno = None
        self.stage = "handshake"  # init, frames, plain
        self.private = None
        self.init_own = self.init_host = None
        self.nonce = tc.fresh_nonce()
        self.keys = None
        self.cipher = None
        self.parsed = 0
        self.local_gen = self.remote_gen = 0
        self.rekey_due = False
        self.rekey_pending = 0
        self.rx_app = bytearray()
        self.rx_fin = False
        self.frames = []
        self.sealed_fin = False
        self.on_plain = None

    # ---- reporting

    def bad(self, text, seg=None):
        self.violations.append((text, packet.dump(seg.raw) if seg is not None and seg.raw else ""))

    def warn(self, text):
        if text not in self.warnings:
            self.warnings.append(text)

    # ---- building segments

    def tsval(self):
        return (int(time.monotonic() * 1000) + self.ts_base) & MASK

    def options(self, flags, with_eno=None):
        out = b""
        if self.use_ts and not flags & RST:
            value = self.tsval()
            self.tsvals.add(value)
            out += b"\x01\x01\x08\x0a" + struct.pack("!II", value, self.ts_recent if flags & ACK else 0)
        if with_eno if with_eno is not None else self.wants_eno(flags):
            out += b"\x45\x02"
        if self.use_sack and self.ooo and not flags & RST:
            blocks = self.sack_blocks()[: (40 - len(out) - 4) // 8]
            if blocks:
                out += b"\x01\x01\x05" + bytes([2 + 8 * len(blocks)])
                for a, b in blocks:
                    out += struct.pack("!II", (self.irs + 1 + a) & MASK, (self.irs + 1 + b) & MASK)
        return out

    def wants_eno(self, flags):
        return (self.outcome is not None and self.outcome.result != "plain" and self.o.third_ack_eno
                and not self.nonsyn_received and not flags & RST)

    def sack_blocks(self):
        ranges = Ranges()
        for off, data in self.ooo.items():
            ranges.add(off, off + len(data))
        return [r for r in reversed(ranges.list) if r[0] > self.ack_point()]

    def ack_point(self):
        """The stream offset this end acknowledges (without the FIN)."""
        return len(self.rx)

    def ack_number(self):
        return (self.irs + 1 + self.ack_point() + (1 if self.fin_taken else 0)) & MASK if self.irs is not None else 0

    def window(self):
        scale = self.o.ws if self.use_ws else 0
        at = self.ack_point()
        edge = max(self.adv_edge, at + self.o.rcv_wnd)
        value = min((edge - at + (1 << scale) - 1) >> scale, 65535)
        self.adv_edge = max(self.adv_edge, at + (value << scale))
        return value

    def segment(self, off=None, payload=b"", flags=ACK, **over):
        """Sends one segment; `off` is the stream offset (default: next unsent). Keywords override header fields."""
        off = self.nxt if off is None else off
        with_eno, bad_checksum = over.pop("eno", None), over.pop("bad_checksum", False)
        data_offset = over.pop("data_offset", None)
        opts = over.pop("opts", None)
        mark = over.pop("mark", True)
        seg = Seg(self.local, self.remote, self.lport, self.rport, (self.iss + 1 + off) & MASK,
                  self.ack_number() if flags & ACK else 0, flags, self.window() if self.irs is not None else 65535, 0,
                  self.options(flags, with_eno) if opts is None else opts, bytes(payload),
                  ecn=2 if self.use_ecn and payload else 0)
        for name, value in over.items():
            setattr(seg, name, value)
        if mark and payload and "seq" not in over and not bad_checksum:
            self.sent.add(off, off + len(payload))
            self.max_sent = max(self.max_sent, off + len(payload))
        if not flags & (SYN | RST):
            self.nonsyn_sent = True
        if flags & ACK:
            self.unacked = 0
        self.stack.send(packet.build(seg, bad_checksum, data_offset))

    def ack(self, **over):
        self.segment(self.max_sent + (1 if self.fin_sent else 0), **over)

    def send_rst(self, seq_off=None):
        off = self.max_sent + (1 if self.fin_sent else 0) if seq_off is None else seq_off
        self.segment(off, flags=RST | ACK)

    def syn_options(self, contents):
        out = struct.pack("!BBH", 2, 4, self.o.mss)
        answering = self.host_syn_opts
        if self.o.sack and (answering is None or answering.get("sack")):
            out += b"\x04\x02"
            self.use_sack = True
        if self.o.ts and (answering is None or answering.get("ts")):
            value = self.tsval()
            self.tsvals.add(value)
            out += b"\x08\x0a" + struct.pack("!II", value, self.ts_recent)
            self.use_ts = True
        if self.o.ws is not None and (answering is None or answering.get("ws") is not None):
            out += b"\x03\x03" + bytes([self.o.ws])
            self.use_ws = True
        if contents is not None:
            out += eno.wire(contents)
        out += self.o.extra
        if len(out) > 40:
            raise ValueError("options do not fit: %d" % len(out))
        return out

    # ---- opening

    def connect(self):
        """Sends the SYN; the rest happens in `receive`."""
        self.active = True
        self.state = "syn-sent"
        self.own_eno = self.o.eno
        self.own_syn = self.syn_options(self.own_eno)
        self.send_syn()

    def send_syn(self):
        flags = SYN | (0xC0 if self.o.ecn else 0)
        if self.state == "syn-rcvd":
            flags = SYN | ACK | (0x40 if self.use_ecn else 0)
        self.syn_tries += 1
        self.syn_at = self.now() + 1.0
        seg = Seg(self.local, self.remote, self.lport, self.rport, self.iss, (self.irs + 1) & MASK if self.irs is not None else 0,
                  flags, min(65535, self.o.rcv_wnd), 0, self.own_syn, self.o.syn_data)
        self.adv_edge = max(self.adv_edge, seg.wnd)
        self.stack.send(packet.build(seg))

    # ---- what arrives

    def receive(self, seg):
        self.received.append(seg)
        for problem in seg.problems:
            self.bad("malformed packet: " + problem, seg)
        if "bad TCP checksum" in seg.problems:
            return
        if CANARY in seg.payload and self.stage != "plain":
            self.bad("ENO-15: plaintext on the wire", seg)
        if seg.flags & RST:
            self.on_rst(seg)
            return
        if seg.flags & SYN:
            self.on_syn(seg)
            return
        if self.state in ("closed", "syn-sent"):
            if self.rst is None:
                self.bad("a segment without SYN before the handshake", seg)
            return
        if self.state == "syn-rcvd":
            self.established_passive(seg)
            if self.state != "est":
                return
        self.check_header(seg)
        self.nonsyn_received = True
        self.on_ack(seg)
        self.on_payload(seg)

    def on_rst(self, seg):
        self.rst = seg
        if self.state == "syn-sent":
            self.state = "reset"
            return
        if self.irs is not None and seg.flags & ACK == 0 and seg.opts:
            self.warn("RST with options")
        expected = {self.offset(seg.seq)} & {len(self.history) + (1 if self.fin_rx is not None else 0), self.ack_point() + (1 if self.fin_taken else 0)}
        if self.irs is not None and not expected:
            self.bad("RFC 5961: RST at stream offset %d, next expected is %d" % (self.offset(seg.seq), self.ack_point()), seg)
        if not self.may_reset:
            self.bad("unexpected RST", seg)
        self.state = "reset"

    def offset(self, seq):
        """Stream offset of a sequence number of the host."""
        base = len(self.rx)
        return base + (((seq - self.irs - 1 - base + (1 << 31)) & MASK) - (1 << 31))

    def tx_offset(self, number):
        base = self.una
        return base + (((number - self.iss - 1 - base + (1 << 31)) & MASK) - (1 << 31))

    def read_syn_options(self, seg):
        out = {"mss": 536, "ws": None, "sack": False, "ts": None}
        for kind, data in seg.optlist:
            if kind == 2:
                out["mss"] = struct.unpack("!H", data)[0]
            elif kind == 3:
                out["ws"] = data[0]
            elif kind == 4:
                out["sack"] = True
            elif kind == 8:
                out["ts"] = struct.unpack("!II", data)
            elif kind == 34 and data and seg.count(eno.KIND):
                self.bad("ENO-16: non-empty TCP Fast Open option beside ENO", seg)
            elif kind in (253, 254) and data[:2] == b"\x45\x4e" and seg.count(eno.KIND):
                self.bad("ENO-20: the option of ENO's predecessor beside ENO", seg)
            elif kind in (253, 254) and data[:2] == b"\xf9\x89" and len(data) > 2 and seg.count(eno.KIND):
                self.bad("ENO-16: an experimental TCP Fast Open cookie beside ENO", seg)
            elif kind not in (0, 1, 34, eno.KIND):
                self.warn("option %d in a SYN" % kind)
        return out

    def check_syn(self, seg):
        """The SYN or SYN-ACK of the host."""
        if seg.payload and seg.count(eno.KIND):
            self.bad("ENO-16: data in a SYN with ENO", seg)
        if seg.flags & FIN or seg.flags & PSH:
            self.bad("SYN with FIN or PSH", seg)
        result, contents = eno.from_area(seg.opts)
        if result == "no-eno":
            return None
        if result != "ok":
            self.bad("ENO-3/ENO-5: the option of the host's SYN is %s" % result, seg)
            return contents
        opt = eno.parse(contents)
        if opt.glob & 0x1C:
            self.bad("ENO-4: z bits set", seg)
        if opt.globals_seen > 1:
            self.bad("ENO-4: two global suboptions", seg)
        passive = bool(seg.flags & ACK) and self.state == "syn-sent"
        if passive:
            if not opt.b:
                self.bad("ENO-7: passive opener with b = 0", seg)
            if len(opt.subs) > 1:
                self.bad("ENO-10: passive opener sends %d TEPs" % len(opt.subs), seg)
            if self.own_eno is None:
                self.bad("ENO-11: an ENO option in the answer to a SYN without one", seg)
            else:
                try:
                    mine = {t for t, _, _ in eno.parse(self.own_eno).subs}
                except eno.IllFormed:
                    mine = set()
                for tep, _, _ in opt.subs:
                    if tep not in mine:
                        self.bad("ENO-10: passive opener sends TEP 0x%02x, not offered" % tep, seg)
        else:
            if opt.b != self.o.host_b:
                self.bad("ENO-7: active opener with b = %d" % opt.b, seg)
            if sum(1 for _, v, d in opt.subs if v and len(d) >= 9) > 1:
                self.bad("TC-20: two resumption suboptions", seg)
        return contents

    def on_syn(self, seg):
        for old in self.syns:
            if (old.flags & ACK) != (seg.flags & ACK):
                continue
            dropped = not seg.flags & ACK and not seg.count(eno.KIND)
            if old.seq != seg.seq:
                self.bad("retransmitted SYN with another sequence number", seg)
            if old.opt(eno.KIND) != seg.opt(eno.KIND) and not (dropped or (not old.count(eno.KIND) and dropped)):
                self.bad("ENO-14: retransmitted SYN with another ENO option (%s, before %s)" % (seg.opt(eno.KIND), old.opt(eno.KIND)), seg)
            for kind in (2, 3, 4):
                if old.opt(kind) != seg.opt(kind):
                    self.bad("ENO-14: retransmitted SYN with another option %d" % kind, seg)
        self.syns.append(seg)
        if self.state in ("est", "reset"):
            if self.state == "est":
                self.ack()
            return
        contents = self.check_syn(seg)
        if self.state == "syn-rcvd":
            if not seg.flags & ACK:
                self.send_syn()
            return
        self.irs = seg.seq
        opts = self.read_syn_options(seg)
        self.host_mss = opts["mss"]
        self.host_eno = contents
        if opts["ts"] is not None:
            self.ts_recent = self.last_tsval = opts["ts"][0]
        if self.state == "syn-sent":
            if not seg.flags & ACK:
                self.bad("simultaneous open not expected", seg)
                return
            if seg.ack != (self.iss + 1) & MASK:
                self.bad("ENO-16: SYN-ACK acknowledges %d bytes of SYN data" % ((seg.ack - self.iss - 1) & MASK), seg)
            for name, wanted in (("sack", self.o.sack), ("ts", self.o.ts), ("ws", self.o.ws is not None)):
                if opts[name] not in (None, False) and not wanted:
                    self.bad("SYN-ACK with option %s that the SYN did not have" % name, seg)
            if opts["ts"] is not None and opts["ts"][1] not in self.tsvals:
                self.bad("SYN-ACK echoes a timestamp never sent", seg)
            self.use_sack, self.use_ts, self.use_ws = opts["sack"], opts["ts"] is not None, opts["ws"] is not None
            self.use_ecn = self.o.ecn and bool(seg.flags & 0x40)
            self.host_ws = opts["ws"] or 0
            self.edge = self.wnd_edge = seg.wnd
            self.outcome = eno.negotiate(self.own_eno, self.host_eno, True, secret=self.o.secret)
            if not self.o.third_ack_eno and self.outcome.result != "plain":
                self.outcome = eno.Outcome("plain", why="ENO left out of the third segment")
            self.state = "est"
            self.syn_at = None
            self.ack()
            self.begin()
        else:
            if seg.flags & ACK:
                self.bad("SYN-ACK for a connection that was not asked for", seg)
                return
            self.host_syn_opts = opts
            self.host_ws = (opts["ws"] or 0) if self.o.ws is not None else 0
            self.edge = self.wnd_edge = seg.wnd
            if self.o.eno_reply == "auto":
                self.own_eno, self.o.secret = eno.reply(contents, self.o.cache, self.o.nonce)
            else:
                self.own_eno = self.o.eno_reply
            self.use_ecn = self.o.ecn and seg.flags & 0xC0 == 0xC0
            self.own_syn = self.syn_options(self.own_eno)
            self.outcome = eno.negotiate(self.own_eno, self.host_eno, False, secret=self.o.secret)
            self.state = "syn-rcvd"
            self.send_syn()

    def established_passive(self, seg):
        if not seg.flags & ACK:
            self.bad("third segment without ACK", seg)
            return
        if seg.ack != (self.iss + 1) & MASK:
            self.bad("third segment acknowledges %d bytes too many" % ((seg.ack - self.iss - 1) & MASK), seg)
            return
        if self.outcome.result != "plain" and not seg.count(eno.KIND):
            self.outcome = eno.Outcome("plain", why="third segment without ENO")
            self.expected_eno_missing(seg)
        self.state = "est"
        self.syn_at = None
        self.begin()

    def expected_eno_missing(self, seg):
        if not self.on_plain:
            self.bad("ENO-12: the first ACK segment carries no ENO option", seg)

    def begin(self):
        """The handshake is over: what the stream starts with."""
        out = self.outcome
        if out.result == "plain":
            self.stage = "plain"
        elif out.result == "resumed":
            secret = self.o.secret
            self.keys = tc.Keys(secret.ss, secret.aead, out.sn, out.tep_byte)
            self.cipher = secret.aead
            self.stage = "frames"
            self.direction = "ab" if secret.orig_role == "A" else "ba"
        else:
            self.stage = "init"
            self.private = tc.PrivateKey(out.tep)
            self.direction = "ab" if out.role == "A" else "ba"
            if out.role == "A" and self.o.auto_init:
                self.send_init(tc.init1(out.tep, self.o.ciphers, self.nonce, self.private.public()))

    def send_init(self, message, hashed=None):
        """`hashed`: the message as it enters the key schedule, if other than what is sent."""
        self.init_own = message if hashed is None else hashed
        self.write(message)

    # ---- headers

    def check_header(self, seg):
        host_saw_nonsyn = self.nonsyn_sent
        count = seg.count(eno.KIND)
        if not seg.flags & ACK:
            self.bad("segment without ACK", seg)
        on = self.outcome.result != "plain"
        if count:
            if not on and not self.outcome.why.startswith("ENO left out"):
                self.bad("ENO-13: ENO option though encryption is off (%s)" % self.outcome.why, seg)
            if seg.opt(eno.KIND):
                self.bad("ENO-1: non-SYN option with contents", seg)
            if on and self.una > 0 and self.max_sent > 0:
                self.warn("ENO option after the host had received a non-SYN segment")
        elif on and not host_saw_nonsyn:
            self.bad("ENO-12: no ENO option though the host has not received a non-SYN segment", seg)
        # timestamps
        stamp = seg.opt(8)
        if self.use_ts and stamp is None:
            self.bad("RFC 7323: timestamps negotiated but missing", seg)
        if not self.use_ts and stamp is not None:
            self.bad("RFC 7323: timestamps not negotiated", seg)
        if stamp is not None and len(stamp) == 8:
            value, echo = struct.unpack("!II", stamp)
            if self.last_tsval is not None and (value - self.last_tsval) & MASK >= 1 << 31:
                self.bad("RFC 7323: timestamp went back from %d to %d" % (self.last_tsval, value), seg)
            self.last_tsval = value
            if self.use_ts and echo not in self.tsvals:
                self.bad("RFC 7323: timestamp echo %d was never sent" % echo, seg)
            if self.offset(seg.seq) <= self.ack_point():
                self.ts_recent = value
        # size
        if len(seg.payload) + len(seg.opts) > self.o.mss:
            self.bad("RFC 6691: %d payload and %d option bytes, MSS is %d" % (len(seg.payload), len(seg.opts), self.o.mss), seg)
        if seg.flags & packet.URG:
            self.warn("URG in a TCP header")
        if seg.ecn and not self.use_ecn:
            self.bad("ECN-capable packet though ECN was not negotiated", seg)
        if seg.flags & (packet.ECE | packet.CWR) and not self.use_ecn:
            self.bad("ECE or CWR though ECN was not negotiated", seg)
        for kind, _ in seg.optlist:
            if kind not in (0, 1, 5, 8, eno.KIND):
                self.bad("option %d in an established connection" % kind, seg)

    def on_ack(self, seg):
        if not seg.flags & ACK:
            return
        at = self.tx_offset(seg.ack)
        top = self.max_sent + (1 if self.fin_sent else 0)
        if at > top:
            self.bad("ACK of %d, sent up to %d" % (at, top), seg)
            return
        if at < self.last_ack and self.offset(seg.seq) >= self.ack_point():
            self.warn("ACK number went back")
        edge = at + (seg.wnd << self.host_ws)
        if edge < self.edge and at >= self.last_ack:
            lost = self.edge - edge
            if lost >= max(1 << self.host_ws, 1 + (1 if self.fin_sent else 0)):
                self.bad("window shrank: right edge %d, was %d" % (edge, self.edge), seg)
            elif lost > 1:
                self.warn("window edge shrank by less than the scale unit")
        self.edge = max(self.edge, edge)
        if at >= self.last_ack:
            self.wnd_edge = edge
        self.check_sack(seg, at)
        self.acks_seen += 1
        if at > self.una:
            self.una = min(at, self.max_sent)
            self.nxt = max(self.nxt, self.una)
            if self.fin_sent and at == self.max_sent + 1:
                self.fin_acked = True
            self.dupacks, self.rto = 0, 0.4
            self.rto_at = None
        elif at == self.una and not seg.payload and self.una < self.max_sent and self.nxt > self.una and edge == self.last_edge:
            self.dupacks += 1
            if self.dupacks == 3 and not self.hold:
                self.retransmits += 1
                self.transmit(self.una, self.segment_length(self.una, min(self.nxt, self.una + 65536)))
        self.last_edge = edge
        self.last_ack = max(self.last_ack, at)
        self.output()

    last_edge = None

    def check_sack(self, seg, at):
        data = seg.opt(5)
        if data is None:
            return
        if not self.use_sack:
            self.bad("RFC 2018: SACK not negotiated", seg)
        if len(data) % 8 or not 8 <= len(data) <= 32:
            self.bad("RFC 2018: SACK option of %d bytes" % len(data), seg)
            return
        blocks = []
        for i in range(0, len(data), 8):
            left, right = (self.tx_offset(n) for n in struct.unpack("!II", data[i : i + 8]))
            if left >= right:
                self.bad("RFC 2018: SACK block %d-%d" % (left, right), seg)
                continue
            if (left, right) == (-1, 0) and i == 0:
                continue  # D-SACK of the SYN (RFC 2883)
            top = max(self.max_sent + (1 if self.fin_sent else 0), self.forged_top)
            if right > top or not self.sent.covers(left, min(right, max(self.max_sent, self.forged_top, left))):
                self.bad("RFC 2018: SACK block %d-%d covers what was never sent" % (left, right), seg)
            if left <= at and not (i == 0 and right <= at):
                self.bad("RFC 2018: SACK block %d-%d at or below the ACK %d" % (left, right, at), seg)
            for n, (x, y) in enumerate(blocks):
                if left < y and x < right and n != 0:
                    self.bad("RFC 2018: overlapping SACK blocks", seg)
            blocks.append((left, right))

    # ---- payload

    def on_payload(self, seg):
        off, data = self.offset(seg.seq), seg.payload
        end = off + len(data)
        if data:
            if end > self.adv_edge:
                self.bad("window overrun: data up to %d, right edge announced %d" % (end, self.adv_edge), seg)
            if self.fin_rx is not None and end > self.fin_rx:
                self.bad("data beyond the FIN", seg)
            self.remember(off, data, seg)
            self.segments.append((off, end, seg.flags))
            self.take(off, data)
        if seg.flags & FIN:
            if self.fin_rx is not None and self.fin_rx != end:
                self.bad("FIN at %d, before at %d" % (end, self.fin_rx), seg)
            if end < len(self.history):
                self.bad("FIN at %d below data at %d" % (end, len(self.history)), seg)
            self.fin_rx = end
        if data or seg.flags & FIN or off < self.ack_point():
            self.unacked += 1
        self.parse(seg)
        if self.fin_rx is not None and not self.fin_taken and len(self.rx) >= self.fin_rx:
            self.take_fin(seg)
        if self.o.auto_ack and self.unacked and (self.unacked >= self.o.ack_every or self.ooo or seg.flags & FIN):
            self.ack()
        self.output()

    def remember(self, off, data, seg):
        """TC-27: the same sequence numbers always carry the same bytes."""
        if off < 0:
            self.bad("data before the stream starts (offset %d)" % off, seg)
            return
        end, size = off + len(data), len(self.history)
        overlap = min(end, size)
        if off < overlap:
            known = self.have[off:overlap]
            old, new = self.history[off:overlap], data[: overlap - off]
            if old != new and any(k and x != y for k, x, y in zip(known, old, new)):
                self.bad("TC-27: a retransmission carries other bytes at offsets %d-%d" % (off, overlap), seg)
            self.history[off:overlap] = new
            self.have[off:overlap] = b"\1" * len(new)
        if end > size:
            start = max(off, size)
            self.history += bytes(start - size) + data[start - off :]
            self.have += bytes(start - size) + b"\1" * (end - start)

    def take(self, off, data):
        at = len(self.rx)
        if off > at:
            if len(self.ooo.get(off, b"")) < len(data):
                self.ooo[off] = bytes(data)
            return
        if off + len(data) > at:
            self.rx += data[at - off :]
        self.absorb()

    def absorb(self):
        while self.ooo:
            at = len(self.rx)
            ready = [o for o in self.ooo if o <= at]
            if not ready:
                break
            for o in ready:
                data = self.ooo.pop(o)
                if o + len(data) > len(self.rx):
                    self.rx += data[len(self.rx) - o :]

    def take_fin(self, seg):
        if self.stage == "frames" and not self.rx_fin:
            self.bad("TC-29: FIN without FINp", seg)
        if self.stage == "init":
            self.bad("TC-29: FIN before the key exchange is over", seg)
        self.fin_taken = True

    # ---- the stream: Init, then frames

    def parse(self, seg=None):
        if self.stage == "plain":
            self.rx_app += self.rx[self.parsed :]
            self.parsed = len(self.rx)
            self.rx_fin = self.fin_rx is not None and len(self.rx) >= self.fin_rx
        if self.stage == "init":
            self.parse_init(seg)
        if self.stage == "frames":
            while self.parse_frame(seg):
                pass

    def parse_init(self, seg):
        which = 2 if self.outcome.role == "A" else 1
        magic = tc.INIT1_MAGIC if which == 1 else tc.INIT2_MAGIC
        if self.rx[:4] != magic[: len(self.rx)]:
            self.bad("TC-3: Init%d starts with %s" % (which, bytes(self.rx[:4]).hex()), seg)
            self.stage = "broken"
            return
        length = tc.init_len(self.rx)
        if length is None or len(self.rx) < length:
            if length is not None and length > 4096:
                self.bad("TC-3: Init%d message_len %d" % (which, length), seg)
                self.stage = "broken"
            return
        message = bytes(self.rx[:length])
        for off, end, flags in self.segments:
            if off <= length - 1 < end and not flags & PSH:
                self.bad("TC-4: the segment with the last byte of Init%d has no PSH" % which, seg)
        try:
            ciphers, nonce, pub = tc.parse_init(self.outcome.tep, which, message)
            shared = self.private.agree(pub)
        except tc.Violation as error:
            self.bad(str(error), seg)
            self.stage = "broken"
            return
        self.host_ciphers = ciphers
        if not any(nonce):
            self.bad("TC-3: the nonce of Init%d is zero" % which, seg)
        self.init_host = message
        self.parsed = length
        if which == 1:
            if tc.AES128 not in ciphers:
                self.bad("RFC 8548 6: Init1 does not offer AEAD_AES_128_GCM", seg)
            if len(set(ciphers)) != len(ciphers):
                self.bad("TC-3: Init1 repeats a cipher", seg)
            if not self.o.auto_init:
                self.shared = shared
                self.peer_nonce = nonce
                self.stage = "init-received"
                return
            common = [c for c in self.o.ciphers if c in ciphers]
            if not common:
                self.stage = "broken"
                return
            self.cipher = common[-1]
            self.send_init(tc.init2(self.outcome.tep, self.cipher, self.nonce, self.private.public()))
            self.derive(nonce, message, self.init_own, shared)
        else:
            self.cipher = ciphers[0]
            if self.cipher not in self.o.ciphers:
                self.bad("TC-5: Init2 chooses cipher 0x%04x, not offered" % self.cipher, seg)
                self.stage = "broken"
                return
            self.derive(self.nonce, self.init_own, message, shared)

    def derive(self, nonce_a, msg1, msg2, shared):
        prk = tc.Keys.prk(nonce_a, self.outcome.transcript, msg1, msg2, shared)
        self.keys = tc.Keys(prk, self.cipher, b"", self.outcome.tep_byte)
        self.stage = "frames"

    def answer_init1(self, message, cipher):
        """With auto_init off: sends `message` as Init2 and goes on with `cipher`."""
        self.cipher = cipher
        self.send_init(message)
        self.derive(self.peer_nonce, self.init_host, message, self.shared)
        self.parse()

    def parse_frame(self, seg):
        at = self.parsed
        if len(self.rx) - at < 3:
            if self.rx_fin and len(self.rx) > at:
                self.bad("TC-29: bytes behind the frame with FINp", seg)
            return False
        control, clen = struct.unpack("!BH", self.rx[at : at + 3])
        if control & 0xFE:
            self.bad("TC-23: reserved control bits: %02x" % control, seg)
        if clen < tc.TAG + 1:
            self.bad("TC-24: frame with clen %d at offset %d" % (clen, at), seg)
            self.stage = "broken"
            return False
        if len(self.rx) < at + 3 + clen:
            return False
        frame = bytes(self.rx[at : at + 3 + clen])
        generation = self.remote_gen + (control & 1)
        back = "ba" if self.direction == "ab" else "ab"
        plain = self.keys.open(back, generation, at, frame)
        if plain is None:
            self.bad("TC-26: frame at offset %d (clen %d, generation %d) does not decrypt" % (at, clen, generation), seg)
            self.stage = "broken"
            return False
        flags, urgent, body = plain[0], None, plain[1:]
        if self.rx_fin:
            self.frame_behind_finp(flags, body, seg)
        if flags & 0xFC:
            self.bad("TC-24: reserved flag bits: %02x" % flags, seg)
        if flags & 2:
            if len(body) < 2:
                self.bad("TC-24: URGp without urgent field", seg)
            urgent, body = struct.unpack("!H", body[:2].ljust(2, b"\0"))[0], body[2:]
        if not body and not control & 1 and not flags & 1:
            self.warn("empty frame without rekey or FINp")
        self.frames.append(Frame(at, len(frame), control, flags, generation, body, urgent))
        self.rx_app += body
        self.parsed = at + 3 + clen
        if control & 1:
            self.remote_gen += 1
            if self.remote_gen > self.local_gen:
                self.local_gen += 1
                self.rekey_due = True
                if self.o.auto_rekey and not self.sealed_fin:
                    self.write(self.seal(b""))
        if flags & 1:
            self.rx_fin = True
            end = self.parsed
            if not any(o < end <= e and f & FIN for o, e, f in self.segments if e == end):
                self.bad("TC-29: the segment that ends the frame with FINp has no FIN", seg)
        return True

    def frame_behind_finp(self, flags, body, seg):
        """TC-29 lets empty ones pass, answers to a rekey; the host sends none (docs/readings.md, reading 11)."""
        self.bad("TC-29: a frame%s behind the one with FINp" % (" with data" if body else ""), seg)

    # ---- sending

    def seal(self, data=b"", fin=False, urgent=None, rekey=None, control=None, reserved=0, plain=None, at=None):
        """A frame for the end of the stream so far. Call `write` with it at once (its offset is bound)."""
        if rekey:
            self.local_gen += 1
            self.rekey_due = True
        bits = 1 if self.rekey_due else 0
        self.rekey_due = False
        if control is not None:
            bits |= control
        if fin:
            self.sealed_fin = True
        body = tc.plaintext(bytes(data), fin, urgent, reserved) if plain is None else plain
        return self.keys.seal(self.direction, self.local_gen, len(self.tx) if at is None else at, body, bits)

    def write(self, data, push=True):
        """Appends bytes to the stream and sends what may be sent."""
        self.tx += data
        if push:
            self.psh.add(len(self.tx))
        self.output()

    def send_app(self, data, fin=False, frame=None):
        """Application data as frames (or plain), optionally ending the stream."""
        size = frame or self.o.frame
        held, self.hold = self.hold, True
        if self.stage == "plain":
            self.tx += data
        else:
            pieces = [data[i : i + size] for i in range(0, len(data), size)] or ([b""] if fin else [])
            for i, piece in enumerate(pieces):
                self.write(self.seal(piece, fin=fin and i == len(pieces) - 1))
        if fin:
            self.fin_at = len(self.tx)
        self.hold = held
        self.psh.add(len(self.tx))
        self.output()

    def close(self):
        self.send_app(b"", fin=True)

    def segment_length(self, off, limit):
        room = min(self.host_mss, self.o.seg or 65535) - len(packet.pad_options(self.options(ACK)))
        if self.o.seg:
            room = min(room, self.o.seg)
        n = min(room, limit - off)
        if self.cut is not None:
            n = min(n, max(1, self.cut(off)))
        return max(n, 1)

    def transmit(self, off, n):
        n = min(n, len(self.tx) - off)
        end = off + n
        flags = ACK
        if any(off < p <= end for p in self.psh) or end == len(self.tx):
            flags |= PSH
        if self.fin_at is not None and end == self.fin_at:
            flags |= FIN
        self.segment(off, self.tx[off:end], flags)
        if flags & FIN:
            self.fin_sent = True
        return end

    def output(self):
        if self.hold or self.state != "est":
            return
        while self.nxt < len(self.tx) and self.nxt < self.wnd_edge and self.nxt < self.una + self.o.cwnd:
            limit = min(len(self.tx), self.wnd_edge)
            self.nxt = self.transmit(self.nxt, self.segment_length(self.nxt, limit))
        if self.fin_at is not None and self.nxt == self.fin_at and not self.fin_sent:
            self.segment(self.nxt, flags=ACK | FIN)
            self.fin_sent = True
        if self.rto_at is None and (self.una < self.max_sent or (self.fin_sent and not self.fin_acked) or self.nxt < len(self.tx)):
            self.rto_at = self.now() + self.rto

    def tick(self):
        now = self.now()
        if self.unacked and self.o.auto_ack and self.state == "est":
            self.ack()
        if self.state in ("syn-sent", "syn-rcvd") and self.syn_at is not None and now >= self.syn_at and self.syn_tries < 5:
            self.send_syn()
        if self.state != "est" or self.hold or self.rto_at is None or now < self.rto_at:
            return
        self.rto_at = None
        self.rto = min(self.rto * 2, 2.0)
        if self.una < self.max_sent or (self.fin_sent and not self.fin_acked):
            self.retransmits += 1
            if self.una < len(self.tx):
                self.nxt = self.transmit(self.una, self.segment_length(self.una, len(self.tx)))
            else:
                self.segment(self.una, flags=ACK | FIN)
            self.rto_at = now + self.rto
        elif self.nxt < len(self.tx):
            self.segment(self.una - 1 if self.una else -1, flags=ACK)  # window probe
            self.rto_at = now + self.rto
        self.output()

    # ---- waiting

    def wait(self, until, timeout=5.0):
        return self.stack.pump(until, timeout)

    def wait_ready(self, timeout=5.0):
        """Until data can be sent: encrypted or plain."""
        return self.wait(lambda: self.stage in ("frames", "plain", "broken") or self.state == "reset", timeout) and self.stage in ("frames", "plain")

    def wait_app(self, count, timeout=10.0):
        return self.wait(lambda: len(self.rx_app) >= count or self.state == "reset" or self.stage == "broken", timeout) and len(self.rx_app) >= count

    def wait_acked(self, timeout=10.0):
        return self.wait(lambda: (self.una == len(self.tx) and (self.fin_at is None or self.fin_acked)) or self.state == "reset", timeout) and self.state != "reset"

    def wait_fin(self, timeout=10.0):
        return self.wait(lambda: self.fin_taken or self.state == "reset", timeout) and self.fin_taken

    def wait_reset(self, timeout=5.0):
        return self.wait(lambda: self.rst is not None, timeout)
