"""Orderly peers, ordinary and odd: everything here must simply work."""

import json
import struct

import eno
import packet
import tcpcrypt as tc
from packet import ACK, PSH
from scenario import Skip, be16, pattern, scenario


@scenario("cs", "46", "TC-3 TC-9 TC-26 TC-29")
def echo(env):
    conn = env.encrypted()
    data = pattern(1, 5000)
    env.echo(conn, data)
    env.echo(conn, b"x", "one byte")
    env.finish(conn, data + b"x")


def _tep(env, tep):
    opts = {"eno": bytes([tep])} if env.role == "c" else {"eno_reply": bytes([1, tep])}
    conn = env.open(**opts)
    if env.role == "s" and tep != tc.X25519 and tep not in [t for t, _, _ in eno.parse(conn.host_eno or b"").subs]:
        raise Skip("the host does not offer TEP 0x%02x" % tep)
    if conn.stage == "plain" and tep != tc.X25519 and env.role == "c":
        raise Skip("the host does not accept TEP 0x%02x" % tep)
    env.need(conn.stage == "frames", "not encrypted: %s%s" % (conn.stage, env.why(conn)))
    env.check(conn.outcome.tep == tep, "ENO-10: TEP 0x%02x negotiated" % conn.outcome.tep)
    env.echo(conn, pattern(2, 3000))
    env.finish(conn)


@scenario("cs", "4", "TC-1 TC-2 TC-7")
def tep_p256(env):
    _tep(env, tc.P256)


@scenario("cs", "4", "TC-1 TC-2 TC-7")
def tep_p521(env):
    _tep(env, tc.P521)


@scenario("cs", "4", "TC-7")
def tep_x25519(env):
    _tep(env, tc.X25519)


@scenario("cs", "4", "TC-7")
def tep_x448(env):
    _tep(env, tc.X448)


def _cipher(env, cipher):
    conn = env.encrypted(ciphers=(0x7A7A, cipher) if env.role == "c" else (cipher,))
    env.check(conn.cipher == cipher, "TC-5: cipher 0x%04x" % conn.cipher)
    env.echo(conn, pattern(3, 3000))
    env.finish(conn)


@scenario("cs", "4", "TC-5")
def cipher_aes128(env):
    _cipher(env, tc.AES128)


@scenario("cs", "4", "TC-5")
def cipher_aes256(env):
    _cipher(env, tc.AES256)


@scenario("cs", "4", "TC-5")
def cipher_chacha(env):
    _cipher(env, tc.CHACHA)


@scenario("cs", "46", "TC-26 TC-29")
def big_from_host(env):
    conn = env.encrypted("source", app={"n": 1500000, "seed": 5})
    env.check(conn.wait_app(1500000, 30), "%d of 1500000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(5, 1500000), "other bytes")
    env.check(conn.wait_fin(), "TC-29: no FIN")
    env.check(conn.rx_fin, "TC-29: no FINp")
    env.finish(conn)


@scenario("cs", "46", "TC-26 TC-29")
def big_to_host(env):
    conn = env.encrypted("sink")
    data = pattern(6, 1500000)
    conn.send_app(data)
    env.check(conn.wait_acked(30), "%d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "4", "TC-26 TC-27 TC-29")
def duplex(env):
    conn = env.encrypted("duplex", app={"n": 700000, "seed": 7})
    data = pattern(8, 700000)
    conn.send_app(data)
    env.check(conn.wait_app(700000, 30), "%d of 700000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(7, 700000), "other bytes")
    env.check(conn.wait_acked(30), "%d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "4", "TC-29")
def half_close_by_peer(env):
    conn = env.encrypted("reply", app={"n": 200000, "seed": 9})
    data = pattern(10, 20000)
    conn.send_app(data, fin=True)
    env.check(conn.wait_app(200000, 15), "after the peer's FIN only %d of 200000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(9, 200000), "other bytes")
    env.finish(conn, data)


@scenario("cs", "4", "TC-29")
def half_close_by_host(env):
    conn = env.encrypted("source", app={"n": 0})
    env.check(conn.wait_fin(), "TC-29: no FIN")
    env.check(conn.rx_fin, "TC-29: no FINp")
    data = pattern(11, 200000)
    conn.send_app(data)
    env.check(conn.wait_acked(15), "only %d of %d bytes acknowledged after the host's FIN" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "4", "TC-29")
def finp_on_data_frame(env):
    """FINp and FIN together with data, and in a frame of its own."""
    for alone in (False, True):
        conn = env.encrypted("sink")
        data = pattern(12, 900)
        conn.send_app(data, fin=not alone)
        env.finish(conn, data)


@scenario("cs", "4", "TC-23")
def frames_of_one_byte(env):
    conn = env.encrypted()
    data = pattern(13, 400)
    conn.send_app(data, frame=1)
    env.check(conn.wait_app(400) and bytes(conn.rx_app) == data, "%d of 400 bytes came back" % len(conn.rx_app))
    env.finish(conn, data)


@scenario("cs", "46", "TC-23 TC-24")
def frames_of_64k(env):
    conn = env.encrypted("sink")
    data = pattern(14, 65518 * 6)
    conn.send_app(data, frame=65518)
    env.check(conn.wait_acked(20), "%d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "4", "TC-23 TC-24")
def frame_of_64k_through_a_small_cwnd(env):
    """A sender whose congestion window is below the frame gets no further unless parts of a frame are acknowledged."""
    conn = env.encrypted("sink", cwnd=14600)
    data = pattern(15, 65518 * 2)
    conn.send_app(data, frame=65518)
    env.check(conn.wait_acked(20), "%d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("c", "4", "TC-23")
def frames_of_mixed_sizes(env):
    conn = env.encrypted()
    total = b""
    for i in range(60):
        size = env.random.choice((0, 1, 2, 3, 16, 17, 100, 1400, 1439, 1440, 1460, 3000, 9000, 20000))
        piece = pattern(100 + i, size)
        conn.write(conn.seal(piece), push=env.random.random() < 0.5)
        total += piece
    env.check(conn.wait_app(len(total), 15) and bytes(conn.rx_app) == total, "%d of %d bytes came back" % (len(conn.rx_app), len(total)))
    env.finish(conn, total)


@scenario("cs", "4", "TC-23")
def frames_cut_everywhere(env):
    """One small frame for each place where it can be cut in two."""
    conn = env.encrypted()
    total = b""
    for at in range(1, 34):
        start = len(conn.tx)
        conn.cut = lambda off, start=start, at=at: at - (off - start) if off - start < at else 1 << 16
        piece = pattern(at, 14)
        conn.write(conn.seal(piece))
        total += piece
        if not env.check(conn.wait_app(len(total)), "a frame cut behind byte %d did not get through" % at):
            break
    env.check(bytes(conn.rx_app) == total, "other bytes came back")
    conn.cut = None
    env.finish(conn)


@scenario("cs", "4", "TC-23")
def segments_of_one_byte(env):
    conn = env.encrypted()
    conn.cut = lambda off: 1
    env.echo(conn, pattern(16, 150))
    conn.cut = None
    env.finish(conn)


@scenario("cs", "4", "TC-23")
def segments_of_odd_sizes(env):
    conn = env.encrypted("sink")
    conn.cut = lambda off: env.random.choice((1, 2, 3, 5, 7, 19, 21, 333, 1001, 1447))
    data = pattern(17, 120000)
    conn.send_app(data)
    env.check(conn.wait_acked(20), "%d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    conn.cut = None
    env.finish(conn, data)


@scenario("cs", "4", "TC-3 TC-4")
def init_in_tiny_segments(env):
    for size in (1, 3, 7, 40):
        conn = env.encrypted(setup=lambda c, size=size: setattr(c, "cut", lambda off: size))
        conn.cut = None
        env.echo(conn, pattern(18, 2000))
        env.finish(conn)


def _own_init(env, conn, **kwargs):
    """Sends the peer's Init message made with `kwargs`; for role B it answers the host's Init1."""
    if conn.outcome.role == "A":
        ciphers = kwargs.pop("ciphers", conn.o.ciphers)
        conn.send_init(tc.init1(conn.outcome.tep, ciphers, conn.nonce, conn.private.public(), **kwargs))
    else:
        env.need(conn.wait(lambda: conn.stage == "init-received"), "TC-3: no Init1 from the host (stage %s)" % conn.stage)
        kwargs.pop("ciphers", None)
        conn.answer_init1(tc.init2(conn.outcome.tep, tc.AES128, conn.nonce, conn.private.public(), **kwargs), tc.AES128)


@scenario("cs", "4", "TC-3 TC-7")
def init_with_ignored_bytes(env):
    for count in (1, 500, 20000):
        conn = env.open(ready=False, auto_init=False)
        env.need(conn.wait(lambda: conn.stage.startswith("init")), "no handshake: %s%s" % (conn.state, env.why(conn)))
        _own_init(env, conn, ignored=bytes(i & 255 for i in range(count)))
        env.need(conn.wait_ready(), "TC-3: no key exchange with %d ignored bytes (stage %s, state %s)" % (count, conn.stage, conn.state))
        env.echo(conn, pattern(19, 3000))
        env.finish(conn)


@scenario("c", "4", "TC-3 TC-5")
def init1_with_many_unknown_ciphers(env):
    conn = env.open(ciphers=tuple(range(0x4000, 0x40F0)) + (tc.AES128,))
    env.check(conn.cipher == tc.AES128, "TC-5: cipher %s" % conn.cipher)
    env.echo(conn, pattern(20, 100))
    env.finish(conn)


@scenario("cs", "4", "TC-3")
def init_out_of_order(env):
    def setup(conn):
        conn.o.auto_init = False

    conn = env.open(ready=False, setup=setup)
    env.need(conn.wait(lambda: conn.stage.startswith("init")), "no handshake")
    conn.hold = True
    _own_init(env, conn)
    pieces = [(i, min(i + 9, len(conn.tx))) for i in range(0, len(conn.tx), 9)]
    for a, b in reversed(pieces):
        conn.segment(a, conn.tx[a:b], ACK | PSH)
    conn.nxt = len(conn.tx)
    conn.hold = False
    env.need(conn.wait_ready(), "no key exchange")
    env.echo(conn, pattern(21, 1000))
    env.finish(conn)


@scenario("s", "4", "TC-11")
def data_right_behind_init2(env):
    """Init2 and the first frames in one segment."""
    conn = env.open("duplex", app={"n": 3000, "seed": 22}, ready=False, auto_init=False)
    env.need(conn.wait(lambda: conn.stage == "init-received"), "no Init1")
    conn.hold = True
    conn.answer_init1(tc.init2(conn.outcome.tep, tc.AES256, conn.nonce, conn.private.public()), tc.AES256)
    data = pattern(23, 500)
    conn.write(conn.seal(data))
    conn.hold = False
    conn.output()
    env.check(conn.wait_app(3000), "%d of 3000 bytes came" % len(conn.rx_app))
    env.finish(conn, data)


@scenario("s", "4", "ENO-15 TC-11")
def application_data_before_init2_is_held(env):
    conn = env.open("duplex", app={"n": 300000, "seed": 24}, ready=False, auto_init=False)
    env.need(conn.wait(lambda: conn.stage == "init-received"), "no Init1")
    env.pause(1.0)
    env.check(len(conn.rx) == conn.parsed, "TC-11: %d bytes behind Init1 before Init2" % (len(conn.rx) - conn.parsed))
    conn.answer_init1(tc.init2(conn.outcome.tep, tc.AES128, conn.nonce, conn.private.public()), tc.AES128)
    env.check(conn.wait_app(300000, 20), "%d of 300000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(24, 300000), "other bytes")
    env.finish(conn)


@scenario("c", "4", "ENO-15 TC-11")
def host_data_waits_for_init1(env):
    """The host is B and its application speaks first; the peer's Init1 comes late."""
    conn = env.open("duplex", app={"n": 50000, "seed": 25}, ready=False, auto_init=False)
    env.need(conn.wait(lambda: conn.stage == "init"), "no handshake")
    env.pause(1.0)
    env.check(not conn.rx, "TC-3: %d bytes before Init1" % len(conn.rx))
    _own_init(env, conn)
    env.check(conn.wait_app(50000, 15), "%d of 50000 bytes came" % len(conn.rx_app))
    env.finish(conn)


def _burst(conn, data, frame=1400, seg=1000):
    """Frames put into the stream but not sent: [(start, end)] of the segments they would make."""
    conn.hold = True
    start = len(conn.tx)
    conn.send_app(data, frame=frame)
    conn.hold = True
    return [(i, min(i + seg, len(conn.tx))) for i in range(start, len(conn.tx), seg)]


@scenario("cs", "4", "TC-26 TC-27")
def segments_in_reverse(env):
    conn = env.encrypted()
    for _ in range(4):
        data = pattern(26, 15000)
        at = len(conn.rx_app)
        for a, b in reversed(_burst(conn, data)):
            conn.segment(a, conn.tx[a:b], ACK | PSH)
        conn.nxt = len(conn.tx)
        conn.hold = False
        env.check(conn.wait_app(at + len(data)) and bytes(conn.rx_app[at:]) == data, "%d of %d bytes came back" % (len(conn.rx_app) - at, len(data)))
    env.finish(conn)


@scenario("cs", "46", "TC-26 TC-27")
def segments_shuffled_and_doubled(env):
    conn = env.encrypted()
    for _ in range(4):
        data = pattern(27, 20000)
        at = len(conn.rx_app)
        todo = _burst(conn, data) * 2
        env.random.shuffle(todo)
        for a, b in todo:
            conn.segment(a, conn.tx[a:b], ACK | PSH)
        conn.nxt = len(conn.tx)
        conn.hold = False
        env.check(conn.wait_app(at + len(data)) and bytes(conn.rx_app[at:]) == data, "%d of %d bytes came back" % (len(conn.rx_app) - at, len(data)))
    env.finish(conn)


@scenario("cs", "4", "TC-26")
def overlapping_segments_with_other_boundaries(env):
    conn = env.encrypted()
    for _ in range(4):
        data = pattern(28, 12000)
        at = len(conn.rx_app)
        whole = _burst(conn, data)
        start, end = whole[0][0], whole[-1][1]
        todo = [(a, min(a + env.random.choice((1, 50, 700, 1400)), end)) for a in range(start, end, 97)]
        env.random.shuffle(todo)
        for a, b in todo:
            conn.segment(a, conn.tx[a:b], ACK | PSH)
        for a, b in whole:
            conn.segment(a, conn.tx[a:b], ACK | PSH)
        conn.nxt = len(conn.tx)
        conn.hold = False
        env.check(conn.wait_app(at + len(data)) and bytes(conn.rx_app[at:]) == data, "%d of %d bytes came back" % (len(conn.rx_app) - at, len(data)))
    env.finish(conn)


@scenario("cs", "4", "TC-27 RFC 2018")
def lost_segments_from_peer(env):
    """One in eight segments of the peer is lost; SACK blocks are looked at."""
    conn = env.encrypted("sink")
    real = conn.stack.link.send
    conn.stack.link.send = lambda raw: True if len(raw) > 200 and env.random.random() < 0.12 else real(raw)
    try:
        data = pattern(29, 150000)
        conn.send_app(data)
        env.check(conn.wait_acked(40), "%d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    finally:
        conn.stack.link.send = real
    env.finish(conn, data)


def _lossy_in(conn, choose):
    """The peer's TCP does not get the segments `choose` picks; the observer still remembers their bytes (TC-27)."""
    take = conn.on_payload

    def on_payload(seg):
        if seg.payload and choose(seg):
            conn.remember(conn.offset(seg.seq), seg.payload, seg)
            return
        take(seg)

    conn.on_payload = on_payload


@scenario("cs", "46", "TC-27")
def lost_segments_from_host(env):
    conn = env.encrypted("source", app={"n": 300000, "seed": 30})
    _lossy_in(conn, lambda seg: env.random.random() < 0.05)
    env.check(conn.wait_app(300000, 40), "%d of 300000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(30, 300000), "other bytes")
    env.finish(conn)


@scenario("cs", "4", "TC-27")
def host_retransmits_the_last_segments(env):
    """Every segment is lost once, the last ones and the FIN too (tail loss, timeouts)."""
    conn = env.encrypted("source", app={"n": 6000, "seed": 31})
    seen = set()

    def first(seg):
        key = seg.seq
        if key in seen:
            return False
        seen.add(key)
        return True

    _lossy_in(conn, first)
    env.check(conn.wait_app(6000, 20), "%d of 6000 bytes came" % len(conn.rx_app))
    env.finish(conn)


@scenario("cs", "4", "TC-3 TC-27")
def host_init_is_lost_twice(env):
    """The host's Init message is the engine's own to retransmit."""
    lost = []

    def setup(conn):
        _lossy_in(conn, lambda seg: len(lost) < 2 and (lost.append(seg) or True))

    conn = env.open(ready=False, setup=setup)
    env.need(conn.wait_ready(10), "the Init message was not retransmitted (lost %d, stage %s)" % (len(lost), conn.stage))
    env.echo(conn, pattern(32, 100))
    env.finish(conn)


@scenario("cs", "4", "RFC 9293 3.8.6")
def small_window(env):
    for size in (3000, 600):
        conn = env.encrypted("source", app={"n": 40000, "seed": 33}, rcv_wnd=size, ws=None)
        env.check(conn.wait_app(40000, 30), "window %d: %d of 40000 bytes came" % (size, len(conn.rx_app)))
        env.check(bytes(conn.rx_app) == pattern(33, 40000), "other bytes")
        env.finish(conn)


@scenario("c", "4", "RFC 9293 3.8.6")
def tiny_window(env):
    """A window below one frame's overhead."""
    conn = env.encrypted("source", app={"n": 300, "seed": 34}, rcv_wnd=48, ws=None)
    env.check(conn.wait_app(300, 30), "%d of 300 bytes came" % len(conn.rx_app))
    conn.o.rcv_wnd = 10000
    env.finish(conn)


@scenario("cs", "4", "RFC 9293 3.8.6.1")
def zero_window_of_peer(env):
    def setup(conn):
        take = conn.take

        def closing(off, data):
            take(off, data)
            if len(conn.rx) > 500 and not conn.reopened:
                conn.o.rcv_wnd = 0

        conn.take, conn.reopened = closing, False

    conn = env.encrypted("source", app={"n": 100000, "seed": 35}, rcv_wnd=20000, ws=None, setup=setup)
    conn.wait_app(1, 5)
    env.pause(2.0)
    before = len(conn.rx_app)
    env.check(before < 100000, "all data came through a closed window")
    conn.reopened = True
    conn.o.rcv_wnd = 30000
    conn.ack()
    env.check(conn.wait_app(100000, 20), "after reopening %d of 100000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(35, 100000), "other bytes")
    env.finish(conn)


@scenario("cs", "4", "RFC 9293 3.8.6")
def zero_window_of_host(env):
    """The application does not read: the host's window must close without moving back, and open again."""
    conn = env.encrypted("stall", app={"rcvbuf": 8192})
    data = pattern(36, 400000)
    conn.send_app(data)
    env.pause(3.0)
    env.check(conn.una < len(conn.tx), "the host took %d bytes for an application that reads nothing" % conn.una)
    conn.app.go()
    env.check(conn.wait_acked(30), "after reading began %d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


def _without(env, **opts):
    conn = env.encrypted("duplex", app={"n": 100000, "seed": 37}, **opts)
    data = pattern(38, 100000)
    conn.send_app(data)
    env.check(conn.wait_app(100000, 15) and bytes(conn.rx_app) == pattern(37, 100000), "%d of 100000 bytes came" % len(conn.rx_app))
    env.check(conn.wait_acked(15), "%d of %d acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)
    return conn


@scenario("cs", "4", "RFC 2018")
def without_sack(env):
    _without(env, sack=False)


@scenario("cs", "4", "RFC 7323")
def without_timestamps(env):
    _without(env, ts=False)


@scenario("cs", "4", "RFC 7323")
def without_window_scale(env):
    _without(env, ws=None)


@scenario("cs", "46", "RFC 9293")
def without_any_other_option(env):
    _without(env, sack=False, ts=False, ws=None)


@scenario("cs", "46", "RFC 6691")
def small_mss(env):
    for mss in (536, 1220):
        _without(env, mss=mss)


@scenario("cs", "4", "RFC 6691")
def tiny_mss(env):
    conn = env.encrypted("source", app={"n": 20000, "seed": 39}, mss=120)
    env.check(conn.wait_app(20000, 15) and bytes(conn.rx_app) == pattern(39, 20000), "%d of 20000 bytes came" % len(conn.rx_app))
    env.finish(conn)


@scenario("cs", "4", "RFC 3168")
def ecn(env):
    conn = _without(env, ecn=True)
    env.check(True, "") if conn.use_ecn else conn.warn("the host did not negotiate ECN")


@scenario("cs", "46", "TC-31 TC-32")
def rekey_by_peer(env):
    conn = env.encrypted()
    total = b""
    for i in range(1, 6):
        data = pattern(40 + i, 3000)
        env.echo(conn, data, "before rekey %d" % i)
        more = pattern(50 + i, 500)
        conn.write(conn.seal(more, rekey=True))
        env.check(conn.wait(lambda i=i: conn.remote_gen == i, 5), "TC-32: no frame with rekey = 1 in answer to rekey %d (host at generation %d)" % (i, conn.remote_gen))
        total += data + more
        env.check(conn.wait_app(len(total)), "%d of %d bytes came back" % (len(conn.rx_app), len(total)))
    env.check(bytes(conn.rx_app) == total, "other bytes")
    env.finish(conn, total)


@scenario("cs", "4", "TC-32 TC-35")
def rekey_with_an_empty_frame(env):
    """What a liveness probe looks like (RFC 8548 3.9): the answer must come without data from the application."""
    conn = env.encrypted("hold", app={"n": 1000, "seed": 41})
    for i in range(1, 4):
        conn.write(conn.seal(b"", rekey=True))
        env.check(conn.wait(lambda i=i: conn.remote_gen == i, 3), "TC-32: rekey %d with an empty frame not answered" % i)
    conn.app.go(n=1000)
    env.check(conn.wait_app(1000) and bytes(conn.rx_app) == pattern(41, 1000), "%d of 1000 bytes came" % len(conn.rx_app))
    env.finish(conn)


@scenario("c", "4", "TC-31 TC-32 TC-33")
def rekey_many_at_once(env):
    """Several rekeys with data before the first answer can come."""
    conn = env.encrypted()
    total = b""
    conn.hold = True
    for i in range(8):
        piece = pattern(60 + i, 300)
        conn.write(conn.seal(piece, rekey=True))
        total += piece
    conn.hold = False
    conn.output()
    env.check(conn.wait_app(len(total)) and bytes(conn.rx_app) == total, "%d of %d bytes came back" % (len(conn.rx_app), len(total)))
    env.check(conn.wait(lambda: conn.remote_gen == 8, 5), "TC-32: host at generation %d, expected 8" % conn.remote_gen)
    env.finish(conn, total)


@scenario("cs", "4", "TC-27 TC-31")
def retransmission_across_a_rekey(env):
    """Frames of the old generation are lost, a rekey follows, and then they are retransmitted: same bytes."""
    conn = env.encrypted()
    lost = []
    blocked = [True]
    _lossy_in(conn, lambda seg: blocked[0] and (lost.append(seg) or True))
    data = pattern(42, 4000)
    conn.send_app(data)
    conn.wait(lambda: len(lost) >= 3, 3)
    env.check(lost, "nothing came")
    conn.write(conn.seal(b"across", rekey=True))
    env.pause(0.5)
    blocked[0] = False
    total = data + b"across"
    env.check(conn.wait_app(len(total), 10) and bytes(conn.rx_app) == total, "%d of %d bytes came back" % (len(conn.rx_app), len(total)))
    env.check(conn.remote_gen == 1, "TC-32: host at generation %d" % conn.remote_gen)
    env.finish(conn, total)


@scenario("cs", "4", "TC-27 TC-31")
def peer_retransmits_across_a_rekey(env):
    """Old-generation frames of the peer come again after its rekey."""
    conn = env.encrypted()
    old = pattern(43, 2000)
    env.echo(conn, old)
    top = len(conn.tx)
    env.echo(conn, pattern(44, 1000))
    conn.write(conn.seal(b"new", rekey=True))
    env.check(conn.wait_app(3003), "%d of 3003 bytes came back" % len(conn.rx_app))
    conn.segment(0, conn.tx[:1200], ACK | PSH)
    conn.segment(top - 500, conn.tx[top - 500 : top + 400], ACK | PSH)
    env.echo(conn, pattern(45, 1000), "after the retransmissions")
    env.finish(conn)


@scenario("cs", "4", "TC-31 TC-32")
def rekey_frames_reordered(env):
    conn = env.encrypted()
    conn.hold = True
    total, marks = b"", [len(conn.tx)]
    for i in range(6):
        piece = pattern(70 + i, 700)
        conn.write(conn.seal(piece, rekey=i % 2 == 1))
        marks.append(len(conn.tx))
        total += piece
    for a, b in reversed(list(zip(marks, marks[1:]))):
        conn.segment(a, conn.tx[a:b], ACK | PSH)
    conn.nxt = len(conn.tx)
    conn.hold = False
    env.check(conn.wait_app(len(total)) and bytes(conn.rx_app) == total, "%d of %d bytes came back" % (len(conn.rx_app), len(total)))
    env.finish(conn, total)


@scenario("cs", "4", "TC-31 TC-32")
def rekey_crossing(env):
    """Both sides start a rekey at once: both end at the same generation."""
    if env.control is None:
        raise Skip("needs the daemon's command line")
    conn = env.encrypted()
    env.echo(conn, pattern(46, 100))
    remote = "%s:%d" % (env.local_text, conn.lport)
    local = "%s:%d" % (env.host_text, conn.rport)
    # The answer to the host's rekey is held back until the peer's own rekey frame is in the stream.
    conn.o.auto_rekey = False
    status, text = env.control("rekey", local, remote)
    if status != 0:
        raise Skip("enotun rekey: %s" % text.strip())
    conn.local_gen += 1
    conn.rekey_due = True
    conn.write(conn.seal(b"crossing"))
    env.check(conn.wait(lambda: conn.remote_gen >= 1, 5), "TC-31: the host sent no rekey frame")
    conn.o.auto_rekey = True
    env.check(conn.wait_app(108), "%d of 108 bytes came back" % len(conn.rx_app))
    env.echo(conn, pattern(47, 2000), "after the crossing")
    env.check(conn.remote_gen == 1 and conn.local_gen == 1, "TC-32: generations %d and %d, expected 1 and 1" % (conn.remote_gen, conn.local_gen))
    env.finish(conn)


@scenario("cs", "4", "TC-31 TC-33")
def rekey_by_host(env):
    if env.control is None:
        raise Skip("needs the daemon's command line")
    conn = env.encrypted()
    env.echo(conn, pattern(48, 100))
    for i in range(1, 4):
        status, text = env.control("rekey", "%s:%d" % (env.host_text, conn.rport), "%s:%d" % (env.local_text, conn.lport))
        if status != 0:
            raise Skip("enotun rekey: %s" % text.strip())
        env.check(conn.wait(lambda i=i: conn.remote_gen == i, 5), "TC-31: no rekey frame")
        env.echo(conn, pattern(49, 2000), "after rekey %d" % i)
    env.finish(conn)


@scenario("c", "4", "TC-32")
def rekey_after_the_host_sent_fin(env):
    """The host has sent FINp: it answers no rekey any more, and goes on reading."""
    conn = env.encrypted("source", app={"n": 100, "seed": 71})
    env.need(conn.wait_fin(), "no FIN")
    data = pattern(72, 1000)
    conn.write(conn.seal(data, rekey=True))
    env.check(conn.wait_acked(), "not acknowledged")
    env.finish(conn, data)


@scenario("cs", "4", "TC-24 TC-30")
def urgent_frame_from_peer(env):
    conn = env.encrypted("urgent")
    data = pattern(73, 300)
    conn.write(conn.seal(data, urgent=99))
    conn.write(conn.seal(b"tail"))
    env.check(conn.wait_acked(), "not acknowledged")
    conn.close()
    env.check(conn.wait_fin(), "no FIN")
    state = env.expect_app(conn, eof=True, error=None)
    got = state["oob"]
    whole = data + b"tail"
    if got:
        env.check(got == data[99:100].hex(), "TC-30: urgent byte %s, expected %s" % (got, data[99:100].hex()))
        env.check(state["received"] == len(whole) - 1, "%d bytes beside the urgent one" % state["received"])
    else:
        conn.warn("TC-30: the urgent byte was delivered as ordinary data")
        env.check(state["received"] == len(whole), "%d of %d bytes received" % (state["received"], len(whole)))


@scenario("cs", "4", "TC-30")
def urgent_data_from_host(env):
    conn = env.encrypted("oob", app={"n": 500, "seed": 74})
    env.check(conn.wait_app(1001), "%d of 1001 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(74, 500) + b"!" + pattern(74, 500), "other bytes")
    at, marks = 0, []
    for frame in conn.frames:
        if frame.urgent is not None:
            marks.append(at + frame.urgent)
        at += len(frame.data)
    env.check(marks, "TC-30: no frame with URGp though the application sent urgent data")
    env.check(all(m == 500 for m in marks), "TC-30: last urgent byte at %s, expected 500" % marks)
    env.finish(conn)


@scenario("cs", "4", "TC-30")
def urg_flag_of_the_header_is_not_trusted(env):
    conn = env.encrypted("urgent")
    data = pattern(75, 600)
    conn.hold = True
    start = len(conn.tx)
    conn.write(conn.seal(data))
    conn.segment(start, conn.tx[start:], ACK | PSH | packet.URG, urg=5)
    conn.nxt = len(conn.tx)
    conn.hold = False
    env.check(conn.wait_acked(), "not acknowledged")
    conn.close()
    conn.wait_fin()
    state = env.expect_app(conn, data, eof=True, error=None)
    env.check(not state["oob"], "TC-30: URG in the header reached the application")


@scenario("cs", "4", "TC-23 TC-24")
def reserved_bits_are_ignored(env):
    conn = env.encrypted()
    total = b""
    for control, flags in ((0x02, 0), (0xFE, 0), (0, 0x04), (0, 0xFC), (0x80, 0x80)):
        piece = pattern(control + flags, 200)
        conn.write(conn.seal(piece, control=control, reserved=flags))
        total += piece
    env.check(conn.wait_app(len(total)) and bytes(conn.rx_app) == total, "%d of %d bytes came back" % (len(conn.rx_app), len(total)))
    env.finish(conn, total)


@scenario("cs", "4", "TC-24")
def empty_frames(env):
    conn = env.encrypted()
    for _ in range(20):
        conn.write(conn.seal(b""))
    env.echo(conn, pattern(76, 100))
    env.finish(conn)


@scenario("cs", "4", "RFC 9293 3.8.4")
def keepalive_by_peer(env):
    conn = env.encrypted()
    env.echo(conn, pattern(77, 100))
    for payload in (b"", conn.tx[-1:]):
        before = conn.acks_seen
        conn.segment(len(conn.tx) - 1, payload, ACK, mark=False)
        env.check(conn.wait(lambda: conn.acks_seen > before, 2), "keep-alive with %d bytes not answered" % len(payload))
    env.echo(conn, pattern(78, 100))
    env.finish(conn)


@scenario("cs", "4", "RFC 9293 3.8.4")
def keepalive_by_host(env):
    conn = env.encrypted(app={"keepalive": True})
    env.echo(conn, pattern(79, 100))
    env.pause(3.5)
    env.check(conn.state == "est", "state %s" % conn.state)
    env.echo(conn, pattern(80, 100))
    env.finish(conn)


@scenario("cs", "4", "RFC 9293 3.8.6.1")
def window_probe_by_peer(env):
    """One byte of the next frame beyond nothing: probes as BSD sends them."""
    conn = env.encrypted()
    conn.hold = True
    start = len(conn.tx)
    conn.send_app(pattern(81, 200))
    conn.hold = True
    for _ in range(3):
        conn.segment(start, conn.tx[start : start + 1], ACK)
        env.pause(0.1)
    conn.hold = False
    conn.output()
    env.check(conn.wait_app(200), "%d of 200 bytes came back" % len(conn.rx_app))
    env.finish(conn)


@scenario("cs", "4", "RFC 5961")
def reset_with_right_sequence_number(env):
    conn = env.encrypted()
    env.echo(conn, pattern(82, 100))
    conn.send_rst()
    conn.state = "reset"
    state = env.expect_app(conn)
    env.check(not state["eof"] and state["error"] == "ECONNRESET", "application: error %s, end-of-file %s" % (state["error"], state["eof"]))


@scenario("cs", "4", "RFC 5961")
def reset_with_wrong_sequence_number(env):
    conn = env.encrypted()
    env.echo(conn, pattern(83, 100))
    for away in (1, 7, 1000, -1, -500, 1 << 20, 1 << 30):
        before = conn.acks_seen
        conn.segment(len(conn.tx) + away, flags=packet.RST | ACK)
        conn.segment(len(conn.tx) + away, flags=packet.RST)
        if away in (1, 7, 1000):
            conn.wait(lambda: conn.acks_seen > before, 0.5)
    env.pause(0.2)
    env.echo(conn, pattern(84, 1000), "after RSTs with wrong sequence numbers")
    env.finish(conn)


@scenario("cs", "4", "RFC 5961 TC-6")
def application_resets(env):
    conn = env.encrypted("rst")
    conn.may_reset = True
    conn.app.go()
    env.check(conn.wait_reset(3), "no RST on the wire")


@scenario("cs", "4", "ENO-19 TC-10")
def session_id_agrees(env):
    """The session ID that the daemon reports is the peer's."""
    if env.control is None:
        raise Skip("needs the daemon's command line")
    conn = env.encrypted()
    env.echo(conn, pattern(85, 100))
    status, text = env.control("session", "%s:%d" % (env.host_text, conn.rport), "%s:%d" % (env.local_text, conn.lport), "--json")
    env.check(status == 0, "ENO-19: session: status %d: %s" % (status, text.strip()))
    if status == 0:
        want = conn.keys.session_id().hex()
        env.check(want in text.lower(), "TC-10: session ID %s, expected %s" % (text.strip(), want))
        role = "B" if conn.outcome.role == "A" else "A"
        said = json.loads(text)
        env.check(said.get("role") == role, "ENO-19: role in %s, expected %s" % (text.strip(), role))
        names = {"A": "00" + want, "B": "01" + want}
        env.check(said["self_name"] == names[role] and said["peer_name"] == names[conn.outcome.role], "ENO-19: names in %s" % text.strip())
        env.check(said["transcript"] == conn.outcome.transcript.hex(), "ENO-17: transcript %s, expected %s" % (said["transcript"], conn.outcome.transcript.hex()))
        env.check(said["tep_byte"] == conn.outcome.tep_byte, "TEP byte in %s" % text.strip())
        env.check(said["self_gopt"] == (role == "B") and said["peer_gopt"] == (role == "A"), "ENO-4: global suboptions in %s" % text.strip())
    env.finish(conn)


@scenario("c", "4", "TC-26")
def sequence_numbers_wrap(env):
    for iss in (0xFFFFFFF0, 0xFFFFF000, 0x7FFFFFF0):
        conn = env.encrypted("duplex", app={"n": 60000, "seed": 86}, iss=iss)
        data = pattern(87, 60000)
        conn.send_app(data)
        env.check(conn.wait_app(60000) and bytes(conn.rx_app) == pattern(86, 60000), "iss %08x: %d of 60000 bytes came" % (iss, len(conn.rx_app)))
        env.check(conn.wait_acked(), "iss %08x: %d of %d acknowledged" % (iss, conn.una, len(conn.tx)))
        env.finish(conn, data)


@scenario("cs", "4", "TC-23")
def many_small_writes_of_the_host(env):
    conn = env.encrypted("source", app={"n": 3000, "seed": 88, "chunk": 7, "nodelay": True})
    env.check(conn.wait_app(3000, 15) and bytes(conn.rx_app) == pattern(88, 3000), "%d of 3000 bytes came" % len(conn.rx_app))
    env.finish(conn)



def _too_big(env, conn, seg, mtu):
    """The ICMP error of a router behind which the path is narrower."""
    quoted = seg.raw[: 28 if env.family == 4 else 48 + 100]
    if env.family == 4:
        body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
        body = body[:2] + be16(packet.checksum(body)) + body[4:]
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0, conn.local, conn.remote)
        head = head[:10] + be16(packet.checksum(head)) + head[12:]
    else:
        body = struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
        total = packet.checksum(conn.local + conn.remote + struct.pack("!II", len(body), 58) + body)
        body = body[:2] + be16(total) + body[4:]
        head = struct.pack("!IHBB16s16s", 6 << 28, len(body), 58, 64, conn.local, conn.remote)
    conn.stack.send(head + body)


@scenario("cs", "46", "RFC 1191 RFC 8201 TC-27")
def path_mtu_shrinks(env):
    """Segments above 1300 bytes are lost with an ICMP error: the same bytes must come in smaller ones."""
    conn = env.encrypted("source", app={"n": 200000, "seed": 90})
    narrow_path(env, conn, 1300, pattern(90, 200000))


def narrow_path(env, conn, mtu, data):
    told = [0]

    def narrow(seg):
        if len(seg.raw) <= mtu:
            return False
        if told[0] < 20:
            told[0] += 1
            _too_big(env, conn, seg, mtu)
        return True

    _lossy_in(conn, narrow)
    env.check(conn.wait_app(len(data), 20), "%d of %d bytes came through a path of %d bytes (%d ICMP errors sent)" % (len(conn.rx_app), len(data), mtu, told[0]))
    env.check(bytes(conn.rx_app) == data, "other bytes")
    env.finish(conn)


@scenario("c", "4", "RFC 5927")
def forged_icmp_errors(env):
    """ICMP errors whose quoted sequence number is not in flight change nothing."""
    conn = env.encrypted()
    env.echo(conn, pattern(91, 3000))
    for away in (1 << 20, 1 << 30, -(1 << 25)):
        seg = packet.Seg(conn.remote, conn.local, conn.rport, conn.lport, (conn.irs + 1 + len(conn.rx) + away) & packet.MASK, 0, ACK, 100, payload=b"x" * 100)
        seg.raw = packet.build(seg)
        for mtu in (0, 68, 576, 1280):
            _too_big(env, conn, seg, mtu)
    env.pause(0.1)
    at = len(conn.segments)
    env.echo(conn, pattern(92, 20000), "afterwards")
    env.check(max((e - o for o, e, _ in conn.segments[at:]), default=0) > 1200, "RFC 5927: a forged ICMP error made segments small")
    env.finish(conn)


@scenario("cs", "4", "TC-27")
def acknowledgements_inside_frames(env):
    """The peer takes segments only in part and acknowledges in the middle of frames: the host goes on from there."""
    conn = env.encrypted("source", app={"n": 120000, "seed": 93})
    take = conn.take

    def partly(off, data):
        if env.random.random() < 0.15 and len(data) > 1:
            data = data[: env.random.randrange(1, len(data))]
        take(off, data)

    conn.take = partly
    env.check(conn.wait_app(120000, 40), "%d of 120000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(93, 120000), "other bytes")
    env.check(conn.wait_fin(15), "TC-29: no FIN")
    env.finish(conn)


@scenario("cs", "4", "TC-27 TC-29")
def only_the_first_byte_is_taken(env):
    """Of each segment with something new the peer first takes one byte; what comes again it takes whole."""
    conn = env.encrypted("hold", app={"n": 4000, "seed": 94})
    take, top = conn.take, [len(conn.rx)]

    def partly(off, data):
        new = off + len(data) > top[0]
        top[0] = max(top[0], off + len(data))
        take(off, data[:1] if new else data)

    conn.take = partly
    conn.app.go(n=4000)
    env.check(conn.wait_app(4000, 40), "%d of 4000 bytes came" % len(conn.rx_app))
    env.check(conn.wait_fin(15), "TC-29: no FIN")
    env.finish(conn)


@scenario("cs", "4", "TC-29")
def simultaneous_close(env):
    conn = env.encrypted("hold", app={"n": 100, "seed": 95})
    real = conn.receive
    kept = []
    conn.receive = kept.append
    conn.app.go(n=100)
    env.stack.pump(lambda: any(s.flags & packet.FIN for s in kept), 3)
    conn.send_app(pattern(96, 100), fin=True)
    env.pause(0.05)
    conn.receive = real
    for seg in kept:
        real(seg)
    env.check(conn.wait_fin(), "no FIN")
    env.finish(conn, pattern(96, 100))


@scenario("cs", "4", "TC-29 RFC 9293 3.6")
def fin_repeated_after_the_end(env):
    """The last ACK of the host is lost; the host closed first, so TIME-WAIT answers the repeated FIN, in the wire's numbers."""
    conn = env.encrypted("source", app={"n": 500, "seed": 97})
    env.need(conn.wait_fin(), "no FIN")
    env.finish(conn)
    for _ in range(2):
        before = conn.acks_seen
        at = len(conn.tx)
        conn.segment(at - 10, conn.tx[at - 10 : at], ACK | PSH | packet.FIN)
        env.check(conn.wait(lambda: conn.acks_seen > before, 3), "RFC 9293: a repeated FIN after the end is not acknowledged")
        env.pause(0.6)


@scenario("c", "4", "RFC 9293 3.6.1")
def same_ports_again(env):
    """A new connection from the same port right after the end of the old one, three times."""
    port = env.next_port()
    iss = 1000
    for i in range(4):
        server = env.start("server", "echo", port)
        conn = env.make(45678, port, {"iss": iss})
        conn.app = server
        conn.connect()
        env.need(conn.wait_ready(), "round %d: no connection (state %s)" % (i, conn.state))
        env.need(conn.stage == "frames", "round %d: not encrypted" % i)
        data = pattern(98 + i, 3000)
        env.echo(conn, data, "round %d" % i)
        env.finish(conn, data)
        iss += 500000


@scenario("cs", "4", "TC-6 RFC 9293")
def application_closes_with_data_unread(env):
    """The kernel answers with a reset: it must reach the peer with the right number."""
    conn = env.encrypted("stall")
    conn.send_app(pattern(99, 20000))
    env.check(conn.wait_acked(5), "not acknowledged")
    conn.may_reset = True
    conn.app.stop()
    conn.wait(lambda: conn.rst is not None or conn.fin_rx is not None, 3)
    if conn.rst is None:
        conn.send_app(b"more")
        env.check(conn.wait_reset(5), "no RST though the application closed with unread data")


@scenario("s", "4", "ENO-12 TC-4")
def init1_is_lost_and_resent_whole(env):
    """Every repetition of Init1 ends with PSH and has ENO as long as the host has heard no non-SYN segment."""
    def setup(conn):
        conn.o.auto_ack = False
        _lossy_in(conn, lambda seg: len(conn.segments_lost) < 3 and (conn.segments_lost.append(seg) or True))
        conn.segments_lost = []

    conn = env.accept(ready=False, setup=setup)
    env.need(conn.wait(lambda: conn.stage in ("frames", "plain"), 15), "no key exchange")
    for seg in conn.segments_lost:
        env.check(seg.flags & PSH, "TC-4: Init1 without PSH: %s" % seg)
        env.check(seg.count(eno.KIND), "ENO-12: no ENO option: %s" % seg)
    conn.o.auto_ack = True
    env.echo(conn, pattern(100, 100))
    env.finish(conn)


@scenario("c", "4", "TC-4 TC-27")
def init2_is_lost_with_data_behind_it(env):
    """The application speaks first; Init2 and the frames behind it are lost and come again, in whatever segments."""
    lost = []

    def setup(conn):
        def choose(seg):
            # What carries the last byte of Init2 must have PSH, also together with frames (TC-4).
            if conn.offset(seg.seq) < 74 <= conn.offset(seg.seq) + len(seg.payload):
                env.check(seg.flags & PSH, "TC-4: the segment with the last byte of Init2 has no PSH: %s" % seg)
            return len(lost) < 4 and (lost.append(seg) or True)

        _lossy_in(conn, choose)

    conn = env.connect("source", app={"n": 5000, "seed": 101}, ready=False, setup=setup)
    env.need(conn.wait_ready(15), "no key exchange")
    env.check(conn.wait_app(5000, 15) and bytes(conn.rx_app) == pattern(101, 5000), "%d of 5000 bytes came" % len(conn.rx_app))
    env.finish(conn)


@scenario("cs", "4", "TC-23")
def frames_near_the_largest(env):
    """The window always lets a whole frame in, also after rounding by the scale."""
    for size in (65400, 65495, 65500, 65505, 65510, 65517, 65518):
        conn = env.encrypted("sink")
        data = pattern(size, 2 * size)
        conn.send_app(data, frame=size)
        env.need(conn.wait_acked(8), "frames of %d bytes: %d of %d stream bytes acknowledged, window edge %d" % (size, conn.una, len(conn.tx), conn.wnd_edge))
        env.finish(conn, data)


@scenario("cs", "4", "TC-23")
def frame_of_64k_to_a_small_receive_buffer(env):
    """The kernel's window is far smaller than a frame."""
    conn = env.encrypted("sink", app={"rcvbuf": 4096})
    data = pattern(102, 65518 * 3)
    conn.send_app(data, frame=65518)
    env.check(conn.wait_acked(30), "%d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "4", "TC-23")
def frame_of_64k_to_a_closed_window(env):
    """The application reads nothing until a large frame is on its way."""
    conn = env.encrypted("stall", app={"rcvbuf": 4096})
    data = pattern(103, 65518 * 4)
    conn.send_app(data, frame=65518)
    env.pause(2.0)
    conn.app.go()
    env.check(conn.wait_acked(30), "after reading began %d of %d stream bytes acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)
