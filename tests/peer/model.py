"""An honest host in Python, to try the scenarios on: `peer.py selftest`. Same TCP as the peer's, but with an application, and
with the defences that the scenarios ask for. `bugs` makes it dishonest in one respect, to see that the observer notices."""

import hashlib
import os
import queue
import struct
import threading

import eno
import packet
import tcpcrypt as tc
from app import pattern
from conn import Conn, Opts
from packet import ACK, FIN, MASK, PSH, RST, SYN

FATAL = ("TC-29: FIN without", "TC-29: a frame with data behind", "TC-29: FIN before")


def _secret(chain, ss):
    return eno.Secret(chain["tep"], chain["aead"], chain["role"], ss, tc.cprf(ss, tc.RESUME, 18))


def _ahead(ss):
    for _ in range(8):
        yield ss
        ss = tc.cprf(ss, tc.NEXTK, 32)


class ModelConn(Conn):
    def __init__(self, *args, bug=None, **kwargs):
        self.acked_in = 0
        self.bug = bug
        super().__init__(*args, **kwargs)
        self.app = None
        self.failed = None
        self.reading = True
        self.agent = None

    def bad(self, text, seg=None):
        if text.startswith(FATAL):
            self.stage = "broken"

    # ---- session secrets

    def derive(self, *args):
        super().derive(*args)
        if self.agent is not None and self.bug != "never-resumes":
            self.agent.chains.setdefault(self.remote, []).append(
                {"tep": self.outcome.tep, "aead": self.cipher, "role": self.outcome.role, "ss": self.keys.next_secret()})

    def propose(self):
        """The active opener's option, naming a secret if there is one."""
        for chain in self.agent.chains.get(self.remote, []):
            self.o.secret = _secret(chain, chain["ss"])
            if self.bug != "secret-twice":
                chain["ss"] = tc.cprf(chain["ss"], tc.NEXTK, 32)
            nonce = os.urandom(8) if self.bug != "same-nonce" else bytes(8)
            self.o.eno = bytes([0x80 | chain["tep"]]) + self.o.secret.own_half() + nonce

    def on_syn(self, seg):
        if self.state == "closed" and self.agent is not None:
            cache = []
            for chain in self.agent.chains.get(self.remote, []):
                ss = chain["ss"]
                for _ in range(8):
                    cache.append(_secret(chain, ss))
                    ss = tc.cprf(ss, tc.NEXTK, 32)
            self.o.cache, self.o.nonce = tuple(cache), os.urandom(8)
        super().on_syn(seg)
        if self.state == "syn-rcvd" and self.o.secret is not None and not self.active and self.bug != "secret-twice":
            for chain in self.agent.chains.get(self.remote, []):
                if self.o.secret.ss in (s for s in _ahead(chain["ss"])):
                    chain["ss"] = tc.cprf(self.o.secret.ss, tc.NEXTK, 32)

    # ---- receiving with suspicion

    def ack_point(self):
        return self.acked_in

    def window(self):
        if not self.reading:
            self.o.rcv_wnd = max(0, 60000 - (self.acked_in - self.stalled_at))
        else:
            self.o.rcv_wnd = 1 << 18
        value = super().window()
        if self.bug == "window-shrinks" and len(self.rx) > 400:
            value = max(0, value - 20)
        return value

    stalled_at = fins = 0

    def receive(self, seg):
        if seg.problems and any("option 69" not in p and "after end" not in p for p in seg.problems):
            return
        if seg.flags & RST:
            return self.on_rst(seg)
        if seg.flags & SYN:
            if self.state == "syn-sent" and not seg.flags & ACK:
                return self.cross(seg)
            if self.state == "syn-rcvd" and self.active and seg.flags & ACK:
                self.established_passive(seg)
                return self.ack()
            if not seg.flags & ACK and self.fin_taken and self.fin_acked:
                del self.stack.conns[self.local, self.lport, self.remote, self.rport]
                return self.stack.deliver(seg.raw)
            if self.state in ("est", "reset"):
                return self.ack() if self.state == "est" else None
            return self.on_syn(seg)
        if self.state in ("closed", "syn-sent", "reset"):
            return None
        if not seg.flags & ACK:
            return None
        at = self.tx_offset(seg.ack)
        if at > self.max_sent + (1 if self.fin_sent else 0) or at < -1:
            return self.ack() if self.state == "est" else None
        off, end = self.offset(seg.seq), self.offset(seg.seq) + len(seg.payload)
        if self.state == "est" and (off > max(self.adv_edge, self.ack_point()) or end < self.ack_point() - (1 << 30)):
            return self.ack()
        if self.state == "syn-rcvd":
            if at != 0:
                return None
            self.established_passive(seg)
            if self.state != "est":
                return None
        first = not self.nonsyn_received
        if first and self.outcome.result != "plain" and self.active is False and not seg.count(eno.KIND):
            return None
        self.nonsyn_received = True
        if seg.opt(8):
            value = struct.unpack("!I", seg.opt(8)[:4])[0]
            if off <= self.ack_point():
                self.ts_recent = value
        self.on_ack(seg)
        fin_before = self.fin_taken
        if end <= self.ack_point() and (seg.payload or off < self.ack_point()):
            self.ack()
        else:
            self.on_payload_model(seg, off)
        if self.stage == "broken":
            self.abort()
        elif fin_before != self.fin_taken:
            self.ack()
        return None

    def cross(self, seg):
        """A simultaneous open."""
        self.irs = seg.seq
        self.host_syn_opts = self.read_syn_options(seg)
        self.host_mss, self.host_ws = self.host_syn_opts["mss"], self.host_syn_opts["ws"] or 0
        self.ts_recent = (self.host_syn_opts["ts"] or (0, 0))[0]
        self.host_eno = eno.from_area(seg.opts)[1]
        self.edge = self.wnd_edge = seg.wnd
        self.outcome = eno.negotiate(self.own_eno, self.host_eno, True)
        self.state = "syn-rcvd"
        self.send_syn()

    def expected_eno_missing(self, seg):
        pass

    def on_payload_model(self, seg, off):
        data = seg.payload
        if self.fin_taken:
            data = b""
        if data:
            self.segments.append((off, off + len(data), seg.flags))
            self.take(off, data)
        if seg.flags & FIN:
            self.fin_rx = off + len(data)
            self.fins += 1
        self.parse(seg)
        if self.fins > 6 and not self.fin_taken and self.stage in ("init", "frames"):
            self.stage = "broken"  # it insists
        if self.fin_rx is not None and not self.fin_taken and len(self.rx) == self.fin_rx and self.stage != "broken":
            if self.stage != "frames" or self.parsed == len(self.rx):
                self.take_fin(seg)
        if self.stage == "frames" and not self.fin_taken:
            self.acked_in = max(self.acked_in, self.parsed)
            if len(self.rx) - self.parsed > 14000:
                self.acked_in = len(self.rx)
        else:
            self.acked_in = max(self.acked_in, len(self.rx))
        if data or seg.flags & FIN:
            self.ack()

    def take(self, off, data):
        """What is not acknowledged yet is replaced by what comes later."""
        if off < self.acked_in:
            data, off = data[self.acked_in - off :], self.acked_in
        at = len(self.rx)
        if not data:
            return
        if off > at:
            self.ooo[off] = bytes(data)
            return
        self.rx[off : off + len(data)] = data
        self.absorb()

    def parse_init(self, seg):
        if self.rx[8:9] and tc.init_len(self.rx) > 65536:
            self.stage = "broken"
            return
        which = 2 if self.outcome.role == "A" else 1
        length = tc.init_len(self.rx)
        if length is not None and len(self.rx) >= length:
            # The strict reading of Conn refuses what follows the key; cut it for the checks, hash it all the same.
            message = bytes(self.rx[:length])
            try:
                ciphers, nonce, pub = tc.parse_init(self.outcome.tep, which, message, strict=False)
                shared = self.private.agree(pub)
            except (tc.Violation, IndexError, struct.error):
                self.stage = "broken"
                return
            self.init_host, self.parsed = message, length
            if which == 1:
                common = [c for c in (1, 16, 2) if c in ciphers]
                if not common:
                    self.stage = "broken"
                    return
                self.cipher = common[-1] if len(common) == 1 or 2 not in common else 2
                self.send_init(tc.init2(self.outcome.tep, self.cipher, self.nonce, self.private.public()))
                self.derive(nonce, message, self.init_own, shared)
            else:
                self.cipher = ciphers[0]
                if self.cipher not in self.o.ciphers:
                    self.stage = "broken"
                    return
                self.derive(self.nonce, self.init_own, message, shared)
            return
        magic = tc.INIT1_MAGIC if which == 1 else tc.INIT2_MAGIC
        if self.rx[:4] != magic[: len(self.rx)]:
            self.stage = "broken"

    def parse_frame(self, seg):
        at = self.parsed
        if len(self.rx) - at >= 3:
            control, clen = struct.unpack("!BH", self.rx[at : at + 3])
            if len(self.rx) >= at + 3 + clen:
                back = "ba" if self.direction == "ab" else "ab"
                plain = None
                if clen >= 16:
                    plain = self.keys.open(back, self.remote_gen + (control & 1), at, bytes(self.rx[at : at + 3 + clen]))
                if plain is None:
                    if self.acked_in > at:
                        self.stage = "broken"
                    else:
                        del self.rx[at:]
                        self.ooo.clear()
                        self.fin_rx = None
                    return False
                if not plain or (plain[0] & 2 and len(plain) < 3):
                    self.stage = "broken"
                    return False
        return super().parse_frame(seg)

    def on_rst(self, seg):
        if self.state == "syn-sent":
            if seg.flags & ACK and seg.ack == (self.iss + 1) & MASK:
                self.state, self.failed = "reset", "ECONNREFUSED"
            return
        if self.irs is None or self.state == "reset":
            return
        off = self.offset(seg.seq)
        if off == self.ack_point() + (1 if self.fin_taken else 0):
            self.state, self.failed = "reset", "ECONNRESET"
        elif self.ack_point() < off < self.adv_edge:
            self.ack()

    def abort(self):
        self.send_rst()
        self.state, self.failed = "reset", "ECONNRESET"

    # ---- one wrong thing each

    def segment(self, off=None, payload=b"", flags=ACK, **over):
        bug = self.bug
        if bug == "no-eno-in-third-ack" and not flags & SYN:
            over["eno"] = False
        if bug == "eno-with-contents" and self.wants_eno(flags):
            over["eno"] = False
            over["opts"] = self.options(flags, False) + b"\x45\x03\x00"
        if bug == "psh-missing" and self.init_own and (off or 0) < len(self.init_own):
            flags &= ~PSH
        if bug == "fin-alone" and flags & FIN and payload:
            super().segment(off, payload, flags & ~FIN, **over)
            off, payload = off + len(payload), b""
        if bug == "acks-unsent" and len(self.rx) > 400:
            over["ack"] = (self.ack_number() + 1) & MASK
        if bug == "checksum" and len(payload) > 1000:
            over["bad_checksum"] = True
        if bug == "over-mss" and payload and self.stage == "frames":
            payload = self.tx[off : off + self.host_mss + 1]
        if bug == "timestamp-back" and self.use_ts and len(self.rx) > 400:
            self.ts_base -= 50000
            self.bug = None
        if bug == "retransmits-other-bytes" and payload and (off or 0) < self.max_sent and self.stage == "frames":
            payload = bytes(payload[:-1]) + bytes([payload[-1] ^ 1])
        if bug == "plaintext" and payload and self.stage == "frames" and self.una > 500:
            payload = pattern(1, len(payload))
        if bug == "sack-nonsense" and len(self.rx) > 400 and not flags & RST:
            over["opts"] = self.options(flags) + b"\x01\x01\x05\x0a" + struct.pack("!II", self.ack_number() + 5000, self.ack_number() + 9000)
        if bug == "payload-in-window-zero":
            pass
        super().segment(off, payload, flags, **over)

    def seal(self, data=b"", fin=False, **more):
        if self.bug == "no-finp":
            fin = False
        if self.bug == "reserved-control-bit":
            more["control"] = 0x40
        if self.bug == "reserved-flag-bit":
            more["reserved"] = 0x80
        if self.bug == "wrong-offset":
            more["at"] = len(self.tx) - len(self.init_own)
        if self.bug == "ignores-rekey" and self.rekey_due:
            self.rekey_due = False
            self.local_gen -= 1
        if self.bug == "rekey-bit-on-every-frame":
            more["control"] = 1
        return super().seal(data, fin, **more)

    def send_syn(self):
        if self.bug == "other-eno-on-retransmit" and self.syn_tries:
            self.own_syn = self.own_syn.replace(b"\x45\x03\x23", b"\x45\x03\x24").replace(b"\x45\x04\x01\x23", b"\x45\x04\x01\x24")
        if self.bug == "same-b" and self.state == "syn-rcvd":
            self.own_syn = self.own_syn.replace(b"\x45\x04\x01\x23", b"\x45\x03\x23")
        if self.bug == "syn-data-acked" and self.state == "syn-rcvd":
            self.irs += 3
        super().send_syn()
        if self.bug == "syn-data-acked" and self.state == "syn-rcvd":
            self.irs -= 3


BUGS = {  # bug: a scenario that must notice
    "no-eno-in-third-ack": "echo.s4", "eno-with-contents": "echo.s4", "psh-missing": "echo.c4", "fin-alone": "echo.c4",
    "acks-unsent": "echo.c4", "checksum": "echo.c4", "over-mss": "big_from_host.c4", "timestamp-back": "echo.c4",
    "retransmits-other-bytes": "lost_segments_from_host.c4", "plaintext": "big_from_host.c4", "sack-nonsense": "echo.c4",
    "no-finp": "echo.c4", "reserved-control-bit": "echo.c4", "reserved-flag-bit": "echo.c4", "wrong-offset": "echo.c4",
    "ignores-rekey": "rekey_by_peer.c4", "rekey-bit-on-every-frame": "echo.c4", "other-eno-on-retransmit": "syn_ack_retransmitted.c4",
    "secret-twice": "resumption_secret_is_used_once.c4", "same-nonce": "resumption_nonces_differ.s4",
    "same-b": "echo.c4", "syn-data-acked": "syn_with_data.c4", "window-shrinks": "big_to_host.c4",
}


class ModelApp:
    """The application of one model connection, as a reaction to what has arrived."""

    def __init__(self, spec):
        self.spec, self.kind = spec, spec["kind"]
        self.conn = None
        self.taken = self.sent = 0
        self.digest = hashlib.sha256()
        self.head = b""
        self.eof = self.done = self.connected = False
        self.error = None
        self.closed = False
        self.gone = False
        self.oob = b""
        self.args = None

    def state(self):
        return {"connected": self.connected, "eof": self.eof, "error": self.error, "where": "run" if self.connected else "connect",
                "received": self.taken - len(self.oob), "sha": self.digest.copy().hexdigest(), "head": self.head.hex(), "sent": self.sent,
                "oob": self.oob.hex(), "done": self.done, "accepted": int(self.connected)}

    def step(self):
        conn = self.conn
        if conn is None or self.done:
            return
        if conn.state == "est" and conn.stage in ("frames", "plain"):
            self.connected = True
        if conn.state == "est" and conn.stage == "plain" and not self.connected:
            self.connected = True
        if conn.failed:
            self.error, self.done = conn.failed, True
            return
        if conn.state != "est" or conn.stage not in ("frames", "plain"):
            return
        go = self.args is not None
        if self.kind == "stall" and not go:
            if conn.reading:
                conn.stalled_at = conn.acked_in
            conn.reading = False
            return
        if not conn.reading:
            conn.reading = True
            conn.ack()
        if self.kind == "rst":
            if go:
                conn.send_rst()
                conn.state, self.done = "reset", True
            return
        new = bytes(conn.rx_app[self.taken :])
        if new:
            if self.kind == "urgent" and conn.stage == "frames" and not self.oob:
                at = 0
                for frame in conn.frames:
                    if frame.urgent is not None:
                        pos = at + frame.urgent - self.taken
                        if 0 <= pos < len(new):
                            self.oob = new[pos : pos + 1]
                    at += len(frame.data)
            self.taken += len(new)
            self.digest.update(new)
            self.head = (self.head + new)[:64]
            if self.kind == "echo":
                self.send(new)
        ended = conn.rx_fin and self.taken == len(conn.rx_app)
        if ended:
            self.eof = True
        n, seed = self.spec.get("n", 0), self.spec.get("seed", 1)
        if not self.closed:
            if self.kind in ("source", "duplex") or (self.kind == "hold" and go) or (self.kind == "reply" and ended):
                self.send(pattern(seed, (self.args or {}).get("n", n)))
                self.close()
            elif self.kind == "oob":
                self.send(pattern(seed, n))
                conn.write(conn.seal(b"!", urgent=0))
                self.send(pattern(seed, n))
                self.close()
            elif ended:
                self.close()
        if ended and self.closed:
            self.done = True

    def send(self, data):
        if data:
            if self.spec.get("chunk") and self.conn.stage == "frames":
                self.conn.send_app(data, frame=self.spec["chunk"])
            else:
                self.conn.send_app(data, frame=max(20, self.conn.host_mss - 40))
            self.sent += len(data)

    def close(self):
        self.closed = True
        self.conn.close()


class ModelAgent:
    """Same requests as app.Agent; the model runs in a thread of its own."""

    def __init__(self, stack, local, bug=None):
        self.stack, self.local, self.bug = stack, packet.address(local), bug
        self.local6 = packet.address("fd66:1::1")
        self.apps = []
        self.chains = {}  # session secrets for each peer
        self.todo = queue.Queue()
        self.stop = False
        stack.on_other = self.icmp
        self.thread = threading.Thread(target=self.main, daemon=True)
        self.thread.start()

    def main(self):
        while not self.stop:
            self.stack.step(0.002)
            while not self.todo.empty():
                self.todo.get()()
            for app in self.apps:
                app.step()
                if app.conn is not None and app.done and app.conn.state == "est" and app.conn.fin_acked and not app.gone:
                    app.gone = True
            for seg in self.stack.strays:
                if seg.flags & SYN and not seg.flags & ACK:
                    self.stack.send(packet.build(packet.Seg(seg.dst, seg.src, seg.dport, seg.sport, 0, seg.seq + 1, RST | ACK, 0)))
            self.stack.strays.clear()

    def icmp(self, raw):
        """Packet too big: believed if it quotes what is in flight."""
        at = 20 if raw[:1] and raw[0] >> 4 == 4 else 40
        if len(raw) < 2 * at + 16 or (at == 20 and (raw[9] != 1 or raw[20:22] != b"\3\4")) or (at == 40 and (raw[6] != 58 or raw[40] != 2)):
            return
        mtu = struct.unpack("!H", raw[26:28])[0] if at == 20 else struct.unpack("!I", raw[44:48])[0]
        quoted = raw[at + 8 :]
        size = 4 if at == 20 else 16
        src, dst = (quoted[12:16], quoted[16:20]) if at == 20 else (quoted[8:24], quoted[24:40])
        sport, dport, seq = struct.unpack("!HHI", quoted[at : at + 8])
        conn = self.stack.conns.get((src[:size], sport, dst, dport))
        if conn is not None and mtu >= 576:
            off = (seq - conn.iss - 1 - conn.una) & MASK
            if off < conn.max_sent - conn.una:
                conn.o.seg = min(conn.o.seg or 65535, mtu - at - 20)
                conn.nxt = conn.una
                conn.output()

    def request(self, req):
        if req["op"] == "start":
            app = ModelApp(req)
            self.apps.append(app)
            opts = {"mss": 1440 if req["family"] == 6 else 1460, "eno": b"\x21\x22\x24\x23"}
            local = self.local6 if req["family"] == 6 else self.local
            if req["role"] == "server":
                def factory(seg):
                    if app.conn is not None and app.conn.state != "reset":
                        return None
                    conn = ModelConn(self.stack, local, req["port"], seg.src, seg.sport, Opts(**opts), bug=self.bug)
                    self.stack.conns[local, req["port"], seg.src, seg.sport] = conn
                    conn.app, app.conn, conn.agent = app, conn, self
                    return conn

                self.stack.listeners[local, req["port"]] = factory
            else:
                def begin():
                    conn = ModelConn(self.stack, local, 40000 + len(self.apps), packet.address(req["addr"]), req["port"],
                                     Opts(**opts), bug=self.bug)
                    self.stack.conns[local, conn.lport, conn.remote, conn.rport] = conn
                    conn.app, app.conn, conn.agent = app, conn, self
                    conn.propose()
                    conn.connect()

                self.todo.put(begin)
            return {"id": len(self.apps) - 1, "error": None}
        app = self.apps[req["id"]]
        if req["op"] == "go":
            app.args = req
        elif req["op"] == "stop":
            if app.kind == "stall" and not app.done and app.conn is not None and len(app.conn.rx_app) > app.taken:
                self.todo.put(app.conn.abort)
            app.done = True
        return app.state()


_ = os
