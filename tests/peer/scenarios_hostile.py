"""Peers and attackers that break the rules: the connection lives, or ends with an error; never wrong data, never end-of-file."""

import functools
import struct

import packet
import tcpcrypt as tc
from packet import ACK, FIN, PSH, RST, SYN
from scenario import Failed, Skip, be16, pattern, scenario


def _held(conn, data, **more):
    """A genuine frame in the stream, not sent yet: (offset, bytes)."""
    conn.hold = True
    at = len(conn.tx)
    conn.write(conn.seal(data, **more))
    return at, bytes(conn.tx[at:])


def _release(conn):
    conn.nxt = max(conn.nxt, conn.una)
    conn.hold = False
    conn.rto_at = None
    conn.output()


def _came_back(env, conn, total, label):
    env.check(conn.wait_app(len(total), 8) and bytes(conn.rx_app) == total,
              "%s: %d of %d bytes came back (state %s)" % (label, len(conn.rx_app), len(total), conn.state))


# ---- forged and damaged frames: the connection lives


@scenario("cs", "4", "TC-28")
def forged_length_then_the_genuine_frame(env):
    """A forged segment at a frame's start announces a long frame; then the genuine one comes."""
    conn = env.encrypted()
    total = pattern(301, 100)
    env.echo(conn, total)
    for forged in (b"\x00\xff\xff" + bytes(100), b"\x00\x80\x00", b"\x00\xff\xff" + bytes(1000), b"\x01\x40\x00" + bytes(50), b"\x00", b"\x00\xff"):
        piece = pattern(302, 300)
        at, _ = _held(conn, piece)
        conn.segment(at, forged, ACK | PSH)
        env.pause(0.05)
        _release(conn)
        total += piece
        _came_back(env, conn, total, "TC-28: forged header %s" % forged[:3].hex())
    env.echo(conn, pattern(303, 5000), "afterwards")
    env.finish(conn)


@scenario("cs", "4", "TC-28")
def forged_segment_after_part_of_the_genuine_frame(env):
    """The first half is genuine, the second half comes forged first and genuine afterwards."""
    conn = env.encrypted()
    total = b""
    for _ in range(5):
        piece = pattern(304, 1000)
        at, frame = _held(conn, piece)
        conn.segment(at, frame[:400], ACK | PSH)
        conn.segment(at + 400, bytes(300), ACK | PSH)
        conn.segment(at + 700, bytes(len(frame) - 700), ACK | PSH)
        env.pause(0.05)
        _release(conn)
        total += piece
        _came_back(env, conn, total, "TC-28")
    env.finish(conn)


@scenario("cs", "4", "TC-28")
def forged_segment_behind_a_gap(env):
    """Forged out-of-order data, then everything genuine."""
    conn = env.encrypted()
    total = b""
    for _ in range(3):
        piece = pattern(305, 2000)
        at, frame = _held(conn, piece)
        conn.segment(at + 1000, bytes(500), ACK | PSH)
        conn.segment(at + 700, b"\xff" * 900, ACK | PSH)
        env.pause(0.05)
        _release(conn)
        total += piece
        _came_back(env, conn, total, "TC-28")
    env.finish(conn)


@scenario("cs", "4", "TC-28")
def corrupted_frame_then_clean_retransmission(env):
    conn = env.encrypted()
    total = b""
    for where in (0, 1, 2, 3, 50, -1):
        piece = pattern(306, 400)
        at, frame = _held(conn, piece)
        wrong = bytearray(frame)
        wrong[where] ^= 0x10
        conn.segment(at, bytes(wrong), ACK | PSH)
        env.pause(0.1)
        env.check(conn.una <= at or where in (1, 2), "TC-28: a frame that does not decrypt was acknowledged (byte %d changed)" % where)
        _release(conn)
        total += piece
        _came_back(env, conn, total, "TC-28: byte %d changed" % where)
    env.finish(conn, total)


@scenario("cs", "4", "TC-28")
def corrupted_frame_in_the_middle_of_a_burst(env):
    conn = env.encrypted()
    data = pattern(307, 20000)
    conn.hold = True
    start = len(conn.tx)
    conn.send_app(data)
    conn.hold = True
    for i, at in enumerate(range(start, len(conn.tx), 1000)):
        piece = bytearray(conn.tx[at : at + 1000])
        if i == 5:
            piece[500] ^= 1
        conn.segment(at, bytes(piece), ACK | PSH)
    env.pause(0.1)
    conn.nxt = conn.una
    _release(conn)
    env.check(conn.wait_app(len(data), 10) and bytes(conn.rx_app) == data, "TC-28: %d of %d bytes came back (state %s)" % (len(conn.rx_app), len(data), conn.state))
    env.finish(conn, data)


@scenario("cs", "4", "TC-28 TC-31")
def forged_rekey_bit(env):
    conn = env.encrypted()
    piece = pattern(308, 300)
    at, frame = _held(conn, piece)
    conn.segment(at, bytes([frame[0] | 1]) + frame[1:], ACK | PSH)
    env.pause(0.2)
    env.check(conn.remote_gen == 0, "TC-32: the host answered a forged rekey")
    _release(conn)
    _came_back(env, conn, piece, "TC-28: forged rekey bit")
    # And a rekey bit taken away.
    more = pattern(309, 300)
    at, frame = _held(conn, more, rekey=True)
    conn.segment(at, bytes([frame[0] & 0xFE]) + frame[1:], ACK | PSH)
    env.pause(0.1)
    _release(conn)
    _came_back(env, conn, piece + more, "TC-28: rekey bit removed")
    env.check(conn.wait(lambda: conn.remote_gen == 1, 3), "TC-32: rekey not answered")
    env.finish(conn)


@scenario("cs", "4", "TC-26 TC-28")
def replayed_frame_at_another_offset(env):
    conn = env.encrypted()
    first = pattern(310, 200)
    old_at = len(conn.tx)
    env.echo(conn, first)
    old = bytes(conn.tx[old_at:])
    more = pattern(311, 200)
    at, _ = _held(conn, more)
    conn.segment(at, old, ACK | PSH)
    env.pause(0.1)
    _release(conn)
    _came_back(env, conn, first + more, "TC-26: replayed frame")
    env.finish(conn, first + more)


@scenario("cs", "4", "ENO-15 TC-28")
def plaintext_injected(env):
    conn = env.encrypted("sink")
    for text in (b"GET / HTTP/1.0\r\n\r\n", b"A" * 1000, bytes(1000)):
        conn.segment(len(conn.tx), text, ACK | PSH)
    env.pause(0.3)
    env.check(conn.app.state()["received"] == 0, "ENO-15: %d raw bytes reached the application" % conn.app.state()["received"])
    data = pattern(312, 3000)
    conn.send_app(data)
    env.check(conn.wait_acked(), "%d of %d acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "4", "TC-29")
def forged_fin(env):
    """A FIN that no frame with FINp ends, from an attacker: wait for the genuine bytes, or abort; never end-of-file."""
    conn = env.encrypted("sink")
    data = pattern(313, 500)
    conn.send_app(data)
    conn.wait_acked()
    conn.may_reset = True
    conn.segment(len(conn.tx), b"", ACK | FIN)
    conn.fin_sent = True
    env.pause(0.5)
    env.check(not conn.app.state()["eof"], "TC-29: end-of-file without FINp")
    if conn.state != "reset":
        conn.fin_sent = False
        env.check(conn.last_ack <= len(conn.tx), "TC-29: a FIN without FINp was acknowledged, and no abort")
        conn.may_reset = False
        more = pattern(314, 500)
        conn.send_app(more)
        env.check(conn.wait_acked(), "TC-29: after a forged FIN %d of %d acknowledged" % (conn.una, len(conn.tx)))
        env.finish(conn, data + more)
    else:
        env.expect_abort(conn)


@scenario("cs", "4", "RFC 9293")
def bad_checksums_are_ignored(env):
    conn = env.encrypted()
    piece = pattern(315, 500)
    at, frame = _held(conn, piece)
    for _ in range(3):
        conn.segment(at, bytes(len(frame)), ACK | PSH, bad_checksum=True)
        conn.segment(at, frame, ACK | PSH, bad_checksum=True)
    conn.segment(at, flags=RST | ACK, bad_checksum=True)
    env.pause(0.2)
    env.check(conn.una <= at, "a segment with a bad TCP checksum was acknowledged")
    env.check(not conn.rx_app, "a segment with a bad TCP checksum was taken")
    _release(conn)
    _came_back(env, conn, piece, "bad checksums")
    env.finish(conn)


@scenario("cs", "4", "RFC 5961")
def segments_far_outside_the_window(env):
    conn = env.encrypted()
    env.echo(conn, pattern(316, 100))
    for away in (1 << 20, 1 << 24, 1 << 30, -(1 << 20), -(1 << 30), (1 << 31) - 1):
        conn.segment(0, b"X" * 100, ACK | PSH, seq=(conn.iss + 1 + len(conn.tx) + away) & packet.MASK)
    env.pause(0.2)
    env.echo(conn, pattern(317, 1000), "afterwards")
    env.finish(conn)


@scenario("cs", "4", "RFC 5961")
def acks_of_unsent_data(env):
    conn = env.encrypted()
    env.echo(conn, pattern(318, 100))
    for away in (1, 100, 60000, 1 << 20, 1 << 30):
        conn.segment(len(conn.tx), b"", ACK, ack=(conn.ack_number() + away) & packet.MASK)
    env.pause(0.2)
    env.echo(conn, pattern(319, 1000), "afterwards")
    env.finish(conn)


@scenario("cs", "4", "RFC 9293")
def window_games(env):
    """The peer takes its right edge back, announces nothing, jumps; the stream must arrive all the same."""
    conn = env.encrypted("source", app={"n": 400000, "seed": 320})
    steps = [0]
    real = conn.window

    def window():
        value = real()
        steps[0] += 1
        return env.random.choice((value, value, 0, 1, 3, value // 2, 65535))

    conn.window = window
    conn.adv_edge = 1 << 40
    conn.wait_app(200000, 10)
    conn.window = real
    conn.adv_edge = 0
    conn.o.rcv_wnd = 1 << 22
    conn.ack()
    env.check(conn.wait_app(400000, 20), "%d of 400000 bytes came" % len(conn.rx_app))
    env.check(bytes(conn.rx_app) == pattern(320, 400000), "other bytes")
    env.finish(conn)


@scenario("cs", "4", "RFC 2018")
def sack_games(env):
    """SACK blocks for what was never sent, turned round, reneged."""
    conn = env.encrypted("source", app={"n": 200000, "seed": 321})

    def blocks():
        base = conn.ack_number()
        out = []
        for _ in range(env.random.randrange(1, 4)):
            a = (base + env.random.choice((-100000, -50, 0, 100, 1000, 5000, 100000, 1 << 30))) & packet.MASK
            b = (a + env.random.choice((-10, 0, 1, 1000, 20000, 1 << 31))) & packet.MASK
            out.append(struct.pack("!II", a, b))
        return b"\x05" + bytes([2 + 8 * len(out)]) + b"".join(out)

    real = conn.options
    conn.options = lambda flags, with_eno=None: real(flags, with_eno)[:12] + (blocks() if conn.stage == "frames" and env.random.random() < 0.3 else b"")
    conn.wait_app(150000, 10)
    conn.options = real
    conn.ack()
    env.check(conn.wait_app(200000, 20), "%d of 200000 bytes came (state %s)" % (len(conn.rx_app), conn.state))
    env.check(bytes(conn.rx_app) == pattern(321, 200000), "other bytes")
    env.finish(conn)


@scenario("cs", "4", "")
def malformed_segments(env):
    """Truncated headers, impossible options and flags, random bytes: the connection and the daemon live."""
    conn = env.encrypted()
    env.echo(conn, pattern(322, 100))
    base = packet.Seg(conn.local, conn.remote, conn.lport, conn.rport, conn.iss + 1 + len(conn.tx), conn.ack_number(), ACK, 1000)
    rnd = env.random

    def send(raw):
        conn.stack.send(raw)

    for _ in range(150):
        seg = packet.Seg(**{k: getattr(base, k) for k in ("src", "dst", "sport", "dport", "seq", "ack", "flags", "wnd")})
        what = rnd.randrange(7)
        if what == 0:  # impossible option areas
            seg.opts = bytes(rnd.randrange(256) for _ in range(4 * rnd.randrange(1, 10)))
        elif what == 1:  # data offset wrong
            send(packet.build(seg, data_offset=rnd.choice((0, 1, 4, 6, 15))))
            continue
        elif what == 2:  # cut anywhere
            raw = packet.build(seg)
            raw = raw[: rnd.randrange(1, len(raw))]
            send(raw)
            if len(raw) >= 20:
                raw = raw[:2] + struct.pack("!H", len(raw)) + raw[4:10] + b"\0\0" + raw[12:]
                send(raw[:10] + struct.pack("!H", packet.checksum(raw[:20])) + raw[12:])
            continue
        elif what == 3:  # flags that make no sense
            seg.flags = rnd.choice((0, 0xFF, SYN | FIN, FIN, PSH, packet.URG, 0xC0))
            seg.seq += rnd.choice((1 << 20, 1 << 28))
        elif what == 4:  # option with a wrong length
            seg.opts = rnd.choice((b"\x08\x09" + bytes(8), b"\x05\x0a" + bytes(6), b"\x05\x05" + bytes(3), b"\x45\x00\x00\x00", b"\x45\x28\x00\x00", b"\x02\x00\x00\x00", b"\x08\x01\x00\x00"))
        elif what == 5:  # wrong IP lengths
            raw = bytearray(packet.build(seg))
            raw[2:4] = struct.pack("!H", rnd.choice((0, 10, 20, 30, 39, 200, 65535)))
            raw[10:12] = b"\0\0"
            raw[10:12] = struct.pack("!H", packet.checksum(bytes(raw[:20])))
            send(bytes(raw))
            continue
        else:  # a fragment
            raw = bytearray(packet.build(seg))
            raw[6:8] = struct.pack("!H", rnd.choice((0x2000, 0x2001, 0x0005, 0x1FFF)))
            raw[10:12] = b"\0\0"
            raw[10:12] = struct.pack("!H", packet.checksum(bytes(raw[:20])))
            send(bytes(raw))
            continue
        send(packet.build(seg))
    env.pause(0.3)
    env.echo(conn, pattern(323, 1000), "afterwards")
    env.finish(conn)
    env.still_alive()


@scenario("c", "4", "ENO-5")
def malformed_syns(env):
    """SYNs with every kind of option area; no answer may be wrong, and the daemon lives."""
    port = env.next_port()
    server = env.start("server", "many", port)
    rnd = env.random
    for i in range(120):
        opts = bytes(rnd.randrange(256) for _ in range(rnd.randrange(0, 41)))
        if i % 2:
            body = bytes(rnd.choice((0x23, 0x80, 0xA3, 0x01, 0x00, 0x9F, rnd.randrange(256))) for _ in range(rnd.randrange(0, 30)))
            opts = (b"\x02\x04\x05\xb4\x45" + bytes([rnd.choice((len(body) + 2, rnd.randrange(40)))]) + body)[:40]
        seg = packet.Seg(env.local, env.host, 20000 + i, port, rnd.randrange(1 << 32), 0, SYN | rnd.choice((0, 0, PSH, FIN, 0xC0)), 1000, 0, opts,
                         b"x" * rnd.choice((0, 0, 5)))
        env.stack.send(packet.build(seg))
    env.pause(0.3)
    for seg in env.stack.strays:
        env.check(not seg.problems, "a malformed answer: %s %s" % (seg, seg.problems))
        if seg.flags & SYN and seg.flags & ACK:
            env.stack.send(packet.build(packet.Seg(seg.dst, seg.src, seg.dport, seg.sport, seg.ack, 0, RST)))
    env.stack.strays.clear()
    server.go()
    env.still_alive()


@scenario("c", "4", "")
def syn_flood(env):
    port = env.next_port()
    server = env.start("server", "many", port)
    for i in range(3000):
        src = env.local[:2] + bytes([200, 1 + i % 250])
        seg = packet.Seg(src, env.host, 1024 + i, port, i * 7919, 0, SYN, 65535, 0, b"\x02\x04\x05\xb4\x45\x03\x23")
        env.stack.send(packet.build(seg))
        if i % 50 == 0:
            env.stack.step(0)
    env.still_alive()
    env.check(len(env.stack.strays) > 0, "no SYN-ACK at all")
    for seg in env.stack.strays[:3000]:
        if seg.flags & SYN and seg.flags & ACK:
            env.stack.send(packet.build(packet.Seg(seg.dst, seg.src, seg.dport, seg.sport, seg.ack, 0, RST)))
    env.stack.strays.clear()
    server.go()
    env.pause(0.2)


# ---- violations: abort, with an error at the application, and nobody else is touched


def beside_others(function):
    """Runs an abort between two uses of another encrypted connection, which must not notice, and opens a new one at last."""

    @functools.wraps(function)
    def run(env):
        other = env.encrypted()
        before, after = pattern(350, 700), pattern(351, 9000)
        env.echo(other, before, "the bystander, before")
        function(env)
        env.echo(other, after, "the bystander, after the abort")
        env.finish(other, before + after)
        env.still_alive()

    return run


def _init_stage(env, kind="sink", **opts):
    conn = env.open(kind, ready=False, auto_init=False, **opts)
    want = "init" if env.role == "c" else "init-received"
    env.need(conn.wait(lambda: conn.stage == want), "no handshake (state %s, stage %s%s)" % (conn.state, conn.stage, env.why(conn)))
    conn.may_reset = True
    return conn


def _init_message(conn, pub=None, cipher=tc.AES128, ciphers=(tc.AES128,), **more):
    pub = conn.private.public() if pub is None else pub
    if conn.outcome.role == "A":
        return tc.init1(conn.outcome.tep, ciphers, conn.nonce, pub, **more)
    return tc.init2(conn.outcome.tep, cipher, conn.nonce, pub, **more)


def _bad_init(env, eno=None, eno_reply=None, **more):
    opts = {name: value for name, value in (("eno", eno), ("eno_reply", eno_reply)) if value is not None}
    conn = _init_stage(env, **opts)
    conn.write(_init_message(conn, **more))
    env.expect_abort(conn)


@scenario("cs", "4", "TC-5 TC-6")
@beside_others
def wrong_magic(env):
    for magic in (b"\0\0\0\0", b"HTTP", tc.INIT2_MAGIC if env.role == "c" else tc.INIT1_MAGIC):
        _bad_init(env, magic=magic)


@scenario("s", "4", "TC-5 TC-6")
@beside_others
def cipher_not_offered(env):
    for cipher in (0x0000, 0x7A7A, 0xFFFF):
        _bad_init(env, cipher=cipher)


@scenario("c", "4", "TC-5 TC-6")
@beside_others
def no_common_cipher(env):
    _bad_init(env, ciphers=(0x7A7A, 0xFFFF))
    _bad_init(env, ciphers=())


@scenario("cs", "4", "TC-1 TC-6")
@beside_others
def all_zero_public_key(env):
    """Every X25519 public key of low order (RFC 7748, section 7; also those that are not reduced): the secret is all zero."""
    p = 2**255 - 19
    small = 325606250916557431795983626356110631294008115727848805560023387167927233504
    for point in (0, 1, p - 1, p, p + 1, small, 39382357235489614581723060781553021112529911719440698176882885853963445705823):
        _bad_init(env, pub=point.to_bytes(32, "little"))
    _bad_init(env, pub=bytes(31) + b"\x80")  # 0 with the unused bit set


@scenario("cs", "4", "TC-1 TC-6")
@beside_others
def all_zero_x448_secret(env):
    opts = {"eno": bytes([tc.X448])} if env.role == "c" else {"eno_reply": bytes([1, tc.X448])}
    _needs(env, **opts)
    p = 2**448 - 2**224 - 1
    for point in (0, 1, p - 1, p, p + 1):
        _bad_init(env, pub=point.to_bytes(56, "little"), **opts)


@scenario("cs", "4", "TC-1 TC-2 TC-6")
@beside_others
def bad_p256_points(env):
    _bad_points(env, tc.P256, 35)


@scenario("cs", "4", "TC-1 TC-2 TC-6")
@beside_others
def bad_p521_points(env):
    _bad_points(env, tc.P521, 69)


def _bad_points(env, tep, whole):
    """x beyond the field, x of no point, uncompressed, infinity, wrong lengths (`whole` is that with its two length bytes)."""
    opts = {"eno": bytes([tep])} if env.role == "c" else {"eno_reply": bytes([1, tep])}
    _needs(env, **opts)
    good = tc.PrivateKey(tep).public()
    length, bare = good[:2], whole - 2
    for point in (b"\x02" + b"\xff" * (bare - 1), _no_point(tep, bare), b"\x04" + good[3:], bytes(bare), b"\x05" + good[3:]):
        _bad_init(env, pub=length + point, **opts)
    for wrong in (whole - 1, whole + 1, 1, 0xFFFF):
        _bad_init(env, pub=be16(wrong) + good[2:], **opts)


def _no_point(tep, bare):
    """A compressed point whose x belongs to no point of the curve."""
    for x in range(1, 100):
        raw = b"\x02" + x.to_bytes(bare - 1, "big")
        try:
            tc.ec.EllipticCurvePublicKey.from_encoded_point(tc.CURVES[tep][0](), raw)
        except ValueError:
            return raw
    raise Failed("every x is a point")


def _needs(env, **opts):
    # With a session to resume, a SYN may have no room for anything else.
    if env.control:
        status, output = env.control("cache", "flush")
        env.check(status == 0, "cache flush: %s" % output)
    conn = env.open("sink", **opts)
    if conn.stage == "plain":
        raise Skip("the host does not do that TEP")
    env.finish(conn)


@scenario("c", "4", "TC-2")
def bare_length_before_a_p256_point(env):
    """Both readings of the length are accepted (TC-2)."""
    _needs(env, eno=bytes([tc.P256]))
    conn = env.connect("echo", ready=False, auto_init=False, eno=bytes([tc.P256]))
    env.need(conn.wait(lambda: conn.stage == "init"), "no handshake")
    conn.send_init(_init_message(conn, pub=b"\x00\x21" + conn.private.public()[2:]))
    env.need(conn.wait_ready(), "TC-2: no key exchange with the bare point length (state %s)" % conn.state)
    env.echo(conn, pattern(330, 300))
    env.finish(conn)


@scenario("cs", "4", "TC-3 TC-6")
@beside_others
def message_len_too_large(env):
    for length in (0xFFFFFFFF, 0x80000000, 1 << 20):
        _bad_init(env, message_len=length)


@scenario("cs", "4", "TC-3 TC-6")
@beside_others
def message_len_too_small(env):
    for length in (0, 7, 8, 20, 70):
        _bad_init(env, message_len=length)


@scenario("c", "4", "TC-3 TC-6")
@beside_others
def nciphers_beyond_the_message(env):
    conn = _init_stage(env)
    message = bytearray(_init_message(conn))
    message[8] = 255
    conn.write(bytes(message))
    env.expect_abort(conn)


def _insist(env, conn, at, payload, received=None):
    """A FIN that no FINp goes with, repeated as a TCP repeats it: the host may drop it and wait for a clean one (TC-29), but a peer
    that insists must not leave the application waiting for ever."""
    conn.may_reset = True
    conn.hold = True
    for _ in range(30):
        if conn.state == "reset":
            break
        conn.segment(at, payload, ACK | PSH | FIN)
        conn.max_sent, conn.fin_sent = at + len(payload), True
        env.pause(0.4)
        env.check(not conn.app.state()["eof"], "TC-29: end-of-file without FINp")
    if not env.check(conn.state == "reset", "TC-29: FIN without FINp, repeated 30 times in 12 s (acknowledged %d of %d): neither aborted nor "
                     "reported; the application waits" % (conn.last_ack, at + len(payload) + 1)):
        return
    state = env.expect_app(conn)
    env.check(not state["eof"] and state["error"] == "ECONNRESET", "TC-29: application error %s, end-of-file %s; expected ECONNRESET" % (state["error"], state["eof"]))
    if received is not None:
        env.check(state["received"] == received, "%d bytes received, %d expected" % (state["received"], received))


@scenario("cs", "4", "TC-29 TC-6")
@beside_others
def fin_in_the_key_exchange(env):
    conn = _init_stage(env)
    _insist(env, conn, 0, _init_message(conn)[:30])


@scenario("cs", "4", "TC-29 TC-6")
@beside_others
def fin_without_finp(env):
    conn = env.encrypted("sink")
    conn.send_app(pattern(331, 2000))
    conn.wait_acked()
    _insist(env, conn, len(conn.tx), b"", 2000)


@scenario("cs", "4", "TC-29 TC-6")
@beside_others
def fin_in_the_middle_of_a_frame(env):
    conn = env.encrypted("sink")
    at, frame = _held(conn, pattern(332, 1000))
    _insist(env, conn, at, frame[:500], 0)


@scenario("cs", "4", "TC-24 TC-6")
@beside_others
def authentic_frame_without_flags_byte(env):
    conn = env.encrypted("sink")
    conn.may_reset = True
    conn.write(conn.seal(plain=b""))
    env.expect_abort(conn)


@scenario("cs", "4", "TC-24 TC-6")
@beside_others
def authentic_frame_with_half_an_urgent_field(env):
    for plain in (b"\x02", b"\x02\x00"):
        conn = env.encrypted("sink")
        conn.may_reset = True
        conn.write(conn.seal(plain=plain))
        env.expect_abort(conn)


@scenario("cs", "4", "TC-28 TC-6")
@beside_others
def bad_tag_again_and_again(env):
    """The clean frame never comes: the application sees an error in the end, never end-of-file and no data."""
    conn = env.encrypted("sink")
    conn.may_reset = True
    at, frame = _held(conn, pattern(333, 500))
    wrong = frame[:-1] + bytes([frame[-1] ^ 1])
    for _ in range(40):
        if conn.state == "reset":
            break
        conn.segment(at, wrong, ACK | PSH)
        env.pause(0.03)
    conn.segment(at, wrong, ACK | PSH | FIN)
    env.pause(0.3)
    state = conn.app.state()
    env.check(not state["eof"], "TC-28/TC-29: end-of-file")
    env.check(state["received"] == 0, "TC-28: %d bytes that did not authenticate reached the application" % state["received"])
    if conn.state != "reset":
        env.check(conn.last_ack <= at, "TC-28: bytes of the bad frame were acknowledged, and no abort")
        conn.send_rst(conn.last_ack)
        conn.state = "reset"
    state = env.expect_app(conn)
    env.check(state["error"] == "ECONNRESET", "TC-6: application error %s" % state["error"])


@scenario("cs", "4", "TC-28 TC-6")
@beside_others
def bad_large_frame_that_had_to_be_acknowledged(env):
    """A 64 KiB frame through a small congestion window must be acknowledged in part; if its tag is wrong: abort."""
    conn = env.encrypted("sink", cwnd=14600)
    conn.may_reset = True
    frame = bytearray(conn.seal(pattern(334, 65000)))
    frame[-1] ^= 1
    conn.write(bytes(frame))
    env.expect_abort(conn, 15)


@scenario("cs", "4", "TC-31 TC-32 TC-6")
@beside_others
def forged_rekey_bit_that_had_to_be_acknowledged(env):
    """As above, but the tag is right for the old keys, and the forged bit asks for new ones."""
    conn = env.encrypted("sink", cwnd=14600)
    conn.may_reset = True
    frame = bytearray(conn.seal(pattern(337, 65000)))
    frame[0] |= 1
    conn.write(bytes(frame))
    env.expect_abort(conn, 15)
    env.check(conn.remote_gen == 0, "TC-32: the host answered a forged rekey")


@scenario("cs", "4", "TC-29")
def data_after_finp(env):
    """Nothing behind the frame with FINp is data: not delivered."""
    conn = env.encrypted("sink")
    conn.may_reset = True
    data = pattern(335, 300)
    conn.hold = True
    conn.write(conn.seal(data, fin=True))
    conn.write(conn.seal(pattern(336, 300)))
    conn.hold = False
    conn.fin_at = len(conn.tx)
    conn.output()
    env.pause(0.5)
    state = conn.app.state()
    env.check(state["received"] in (0, 300), "TC-29: %d bytes received, 300 before FINp" % state["received"])
    if conn.state != "reset":
        conn.warn("a frame behind the one with FINp: not aborted")


@scenario("cs", "4", "TC-32")
def rekey_storm(env):
    """Hundreds of rekeys in empty frames: answered (each answer is a frame), bounded, alive."""
    conn = env.encrypted()
    for _ in range(6):
        conn.hold = True
        for _ in range(50):
            conn.write(conn.seal(b"", rekey=True))
        conn.hold = False
        conn.output()
        env.pause(0.1)
    env.check(conn.wait(lambda: conn.remote_gen == 300, 10), "TC-32: host at generation %d, expected 300" % conn.remote_gen)
    env.echo(conn, pattern(337, 2000), "afterwards")
    env.finish(conn)


@scenario("cs", "4", "")
def handshake_then_silence(env):
    """The peer never sends its Init message and goes away: no data, an error."""
    conn = env.open("source", app={"n": 5000, "seed": 338}, ready=False, auto_init=False)
    env.need(conn.wait(lambda: conn.stage.startswith("init")), "no handshake")
    env.pause(1.0)
    conn.send_rst()
    conn.state = "reset"
    state = env.expect_app(conn)
    env.check(state["error"] in ("ECONNRESET", "EPIPE") and not state["eof"], "application: %s, end-of-file %s" % (state["error"], state["eof"]))


@scenario("cs", "4", "RFC 5961")
def syn_in_an_established_connection(env):
    conn = env.encrypted()
    env.echo(conn, pattern(339, 100))
    for seq in (conn.iss, conn.iss + 1 + len(conn.tx), conn.iss + 5000, 12345):
        conn.segment(0, b"", SYN, seq=seq & packet.MASK, opts=b"\x02\x04\x05\xb4\x45\x03\x23", mark=False)
    env.pause(0.2)
    env.echo(conn, pattern(340, 100), "afterwards")
    env.finish(conn)


@scenario("c", "4", "ENO-15")
def plain_segments_before_init1(env):
    """After a successful negotiation raw payload is never handed on: wrong magic, so an abort."""
    conn = _init_stage(env)
    conn.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    env.expect_abort(conn)
    env.check(conn.app.state()["received"] == 0, "ENO-15: raw bytes reached the application")


@scenario("cs", "4", "TC-3 TC-28")
def forged_init_then_the_genuine_one(env):
    """A forged first segment of the Init message with other bytes: the genuine one may still win, or the connection aborts;
    it must not hang or deliver anything."""
    conn = env.open("echo", ready=False, auto_init=False)
    env.need(conn.wait(lambda: conn.stage.startswith("init")), "no handshake")
    conn.may_reset = True
    message = _init_message(conn)
    conn.segment(0, message[:4] + b"\x00\x00\xf0\x00", ACK | PSH)
    env.pause(0.1)
    if conn.stage == "init":
        conn.send_init(message)
    else:
        conn.answer_init1(message, tc.AES128)
    env.pause(0.5)
    if conn.state == "reset":
        return
    if conn.outcome.role == "A" and conn.stage != "frames":
        conn.warn("a forged start of Init1 stalls the key exchange")
        return
    conn.send_app(pattern(341, 300))
    if not conn.wait_app(300, 3):
        conn.warn("a forged start of the Init message stalls the connection")


@scenario("cs", "4", "TC-28")
def forged_segment_before_every_genuine_one(env):
    """An attacker on the path who races each segment with other bytes of the same length."""
    conn = env.encrypted("sink")
    data = pattern(350, 60000)
    conn.hold = True
    start = len(conn.tx)
    conn.send_app(data)
    conn.hold = True
    marks = list(range(start, len(conn.tx), 1419)) + [len(conn.tx)]
    for a, b in zip(marks, marks[1:]):
        conn.segment(a, bytes(env.random.randrange(256) for _ in range(b - a)), ACK | PSH)
        conn.segment(a, conn.tx[a:b], ACK | PSH)
        env.stack.step(0)
    env.pause(0.1)
    conn.nxt = conn.una
    _release(conn)
    env.check(conn.wait_acked(15), "TC-28: %d of %d acknowledged (state %s)" % (conn.una, len(conn.tx), conn.state))
    env.finish(conn, data)


@scenario("cs", "4", "TC-28")
def garbage_fills_the_window(env):
    """Forged bytes from the next but one to the right edge; then the genuine stream."""
    conn = env.encrypted("sink")
    total = b""
    for round_ in range(3):
        data = pattern(351 + round_, 30000)
        at = len(conn.tx)
        conn.hold = True
        conn.send_app(data)
        conn.hold = True
        edge = min(conn.wnd_edge, at + 300000)
        pos = at + 1
        while pos < edge:
            n = min(1400, edge - pos)
            conn.segment(pos, bytes([round_]) * n, ACK, mark=False)
            pos += n
        # SACK blocks may name what the attacker sent in the peer's name.
        conn.sent.add(at + 1, edge)
        conn.forged_top = edge
        env.pause(0.05)
        conn.nxt = conn.una
        _release(conn)
        total += data
        env.check(conn.wait_acked(20), "TC-28: round %d: %d of %d acknowledged (state %s)" % (round_, conn.una, len(conn.tx), conn.state))
    env.finish(conn, total)


@scenario("cs", "4", "TC-28")
def bogus_length_filled_by_the_attacker(env):
    """The attacker announces a long frame and sends some of it, again and again, while the genuine sender only retransmits."""
    conn = env.encrypted()
    piece = pattern(352, 300)
    at, frame = _held(conn, piece)
    for i in range(12):
        conn.segment(at + 1000 * i, (b"\x00\xf0\x00" if i == 0 else b"") + bytes(1000 if i else 997), ACK | PSH, mark=False)
    conn.sent.add(at, at + 12000)
    conn.forged_top = at + 12000
    env.pause(0.2)
    _release(conn)
    _came_back(env, conn, piece, "TC-28: bogus length with filler")
    env.finish(conn)
