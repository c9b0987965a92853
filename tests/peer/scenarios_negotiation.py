"""What two SYNs can say to each other (RFC 8547): with and without ENO, odd options, lost and repeated segments."""

import eno
import packet
import tcpcrypt as tc
from packet import ACK, SYN
from scenario import Skip, pattern, scenario
from scenarios_basic import narrow_path


def _plain(env, conn, label=""):
    """The connection must be plain TCP and work."""
    env.need(conn.stage == "plain", "%s: not plain but %s" % (label, conn.stage))
    data = pattern(201, 3000)
    env.echo(conn, data, label or "plain echo")
    env.finish(conn, data)


def _as_client(env, contents, why, **more):
    """The peer's SYN has this option; the host must go on as plain TCP."""
    conn = env.connect(eno=contents, **more)
    if conn.host_eno is not None:
        opt = eno.parse(conn.host_eno)
        env.check(opt.vacuous, "%s: the SYN-ACK names TEP %s" % (why, ["%02x" % t for t, _, _ in opt.subs]))
        asks = eno.reply(contents)[0] is not None
        env.check(asks, "ENO-13, reading 13 (%s): an option in answer to a SYN without a usable TEP" % why)
    _plain(env, conn, why)


def _as_server(env, contents, why, **more):
    """The peer's SYN-ACK has this option; the host must go on as plain TCP, without ENO in its third segment."""
    conn = env.accept(eno_reply=contents, setup=lambda c: setattr(c, "on_plain", True), **more)
    first = next((s for s in conn.received if not s.flags & SYN), None)
    env.check(first is not None and not first.count(eno.KIND), "ENO-13 (%s): an ENO option in the third segment" % why)
    _plain(env, conn, why)


@scenario("c", "46", "ENO-11 ENO-13")
def no_eno_from_peer(env):
    conn = env.connect(eno=None)
    env.check(conn.host_eno is None, "ENO-11: an option in answer to a SYN without one")
    _plain(env, conn)


@scenario("s", "46", "ENO-13")
def no_eno_in_syn_ack(env):
    """An option-stripping middlebox on the way back, or a server without ENO."""
    _as_server(env, None, "no ENO in the SYN-ACK")


def _plain_open(env, kind, **more):
    if env.role == "c":
        conn = env.connect(kind, eno=None, **more)
    else:
        conn = env.accept(kind, eno_reply=None, setup=lambda c: setattr(c, "on_plain", True), **more)
    env.need(conn.stage == "plain", "not plain: %s" % conn.stage)
    return conn


@scenario("cs", "46", "ENO-13")
def plain_transfers(env):
    """A peer without ENO: plain TCP, in full, both ways."""
    conn = _plain_open(env, "duplex", app={"n": 500000, "seed": 230})
    data = pattern(231, 500000)
    conn.send_app(data)
    env.check(conn.wait_app(500000, 20) and bytes(conn.rx_app) == pattern(230, 500000), "%d of 500000 bytes came" % len(conn.rx_app))
    env.check(conn.wait_acked(20), "%d of %d acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "4", "ENO-13")
def plain_half_close(env):
    conn = _plain_open(env, "reply", app={"n": 100000, "seed": 232})
    data = pattern(233, 5000)
    conn.send_app(data, fin=True)
    env.check(conn.wait_app(100000) and bytes(conn.rx_app) == pattern(232, 100000), "%d of 100000 bytes came" % len(conn.rx_app))
    env.finish(conn, data)


@scenario("cs", "4", "ENO-13")
def plain_with_losses(env):
    conn = _plain_open(env, "echo")
    real = conn.stack.link.send
    conn.stack.link.send = lambda raw: True if len(raw) > 200 and env.random.random() < 0.1 else real(raw)
    try:
        env.echo(conn, pattern(234, 60000))
    finally:
        conn.stack.link.send = real
    env.finish(conn)


@scenario("cs", "4", "ENO-13")
def plain_zero_window(env):
    conn = _plain_open(env, "stall", app={"rcvbuf": 8192})
    data = pattern(235, 800000)
    conn.send_app(data)
    env.pause(1.5)
    env.check(conn.una < len(conn.tx), "the host took %d bytes for an application that reads nothing" % conn.una)
    conn.app.go()
    env.check(conn.wait_acked(20), "%d of %d acknowledged" % (conn.una, len(conn.tx)))
    env.finish(conn, data)


@scenario("cs", "46", "ENO-13 RFC 1191 RFC 8201")
def plain_path_mtu_shrinks(env):
    conn = _plain_open(env, "source", app={"n": 200000, "seed": 236})
    narrow_path(env, conn, 1300, pattern(236, 200000))


@scenario("cs", "4", "ENO-13")
def plain_resets(env):
    conn = _plain_open(env, "rst")
    conn.may_reset = True
    conn.app.go()
    env.check(conn.wait_reset(3), "no RST on the wire")
    conn = _plain_open(env, "echo")
    env.echo(conn, b"x")
    conn.send_rst()
    conn.state = "reset"
    state = env.expect_app(conn)
    env.check(state["error"] == "ECONNRESET", "application: %s" % state["error"])


@scenario("c", "4", "ENO-11")
def vacuous_syn(env):
    for contents in (b"", b"\x00", b"\x02"):
        _as_client(env, contents, "vacuous SYN %s" % contents.hex())


@scenario("s", "4", "ENO-11 ENO-13")
def vacuous_syn_ack(env):
    for contents in (b"\x01", b"", b"\x0d"):
        _as_server(env, contents, "vacuous SYN-ACK %s" % contents.hex())


@scenario("c", "4", "ENO-7 ENO-13")
def same_b_in_syn(env):
    _as_client(env, b"\x01\x23", "b = 1 in the SYN")


@scenario("s", "4", "ENO-7 ENO-13")
def same_b_in_syn_ack(env):
    for contents in (b"\x23", b"\x00\x23", b"\x00\x01\x23"):
        _as_server(env, contents, "b = 0 in the SYN-ACK (%s)" % contents.hex())


@scenario("s", "4", "ENO-7")
def echoed_option(env):
    """A middlebox that sends unknown options back as they came."""
    def setup(conn):
        conn.on_plain = True
        real = conn.on_syn

        def on_syn(seg):
            if seg.count(eno.KIND):
                conn.o.eno_reply = seg.opt(eno.KIND)
            real(seg)

        conn.on_syn = on_syn

    _plain(env, env.accept(setup=setup), "echoed option")


@scenario("c", "4", "ENO-3")
def two_options_in_syn(env):
    for second in (b"\x45\x03\x23", b"\x45\x02", b"\x45\x03\x24"):
        _as_client(env, b"\x23", "two ENO options", extra=second)


@scenario("s", "4", "ENO-3")
def two_options_in_syn_ack(env):
    conn = env.accept(eno_reply=b"\x01\x23", extra=b"\x45\x04\x01\x23", ready=False, setup=lambda c: setattr(c, "on_plain", True))
    env.need(conn.wait(lambda: conn.state == "est"), "ENO-3: no connection with two ENO options in the SYN-ACK")
    _plain(env, conn, "two ENO options")


ILL_FORMED = (b"\x23\x80", b"\x80", b"\x23\x85\xa4\x01", b"\x80\x23", b"\x23\x80\x00\x00", b"\x9f\x81\xa3\x01\x02", b"\x23\x88\xa4\x01\x02\x03")


@scenario("c", "4", "ENO-5")
def ill_formed_syn(env):
    for contents in ILL_FORMED:
        _as_client(env, contents, "ill-formed %s" % contents.hex())


@scenario("s", "4", "ENO-5 ENO-13")
def ill_formed_syn_ack(env):
    for contents in ILL_FORMED[:4]:
        _as_server(env, b"\x01" + contents, "ill-formed 01%s" % contents.hex())


@scenario("c", "4", "ENO-2 ENO-9 ENO-10")
def unknown_teps_beside(env):
    for contents in (b"\x30\x23\x7f", b"\x84\xb0\x01\x02\x03\x04\x05\x23", b"\x23\xff\x01\x02\x03", b"\x20\x25\x26\x23\x40",
                     b"\x80\xb1\x00\x23\xb2"):
        conn = env.connect(eno=contents)
        env.need(conn.stage == "frames", "ENO-9: not encrypted with the option %s (%s)" % (contents.hex(), conn.outcome.why))
        env.check(conn.outcome.tep == 0x23, "ENO-10: TEP 0x%02x" % conn.outcome.tep)
        env.echo(conn, pattern(202, 500))
        env.finish(conn)


@scenario("s", "4", "ENO-9 ENO-10")
def several_teps_in_syn_ack(env):
    """The last valid one is negotiated; unknown ones and ones not offered do not count."""
    for contents in (b"\x01\x30\x23", b"\x01\x23\x30", b"\x23\x01", b"\x01\x81\xb0\x01\x02\x23", b"\x0d\x23", b"\x01\x23\xb0\x01\x02\x03"):
        conn = env.accept(eno_reply=contents)
        env.need(conn.stage == "frames", "ENO-10: not encrypted with the option %s (%s)" % (contents.hex(), conn.outcome.why))
        env.check(conn.outcome.tep == 0x23, "ENO-10: TEP 0x%02x" % conn.outcome.tep)
        env.echo(conn, pattern(203, 500))
        env.finish(conn)


@scenario("c", "4", "ENO-13")
def only_unknown_teps_in_syn(env):
    _as_client(env, b"\x30\x7f", "unknown TEPs only")


@scenario("s", "4", "ENO-13")
def tep_not_offered_in_syn_ack(env):
    for contents in (b"\x01\x30", b"\x01\x7f", b"\x01\xa3\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a"):
        _as_server(env, contents, "SYN-ACK %s" % contents.hex())


@scenario("c", "4", "ENO-9")
def repeated_tep_in_syn(env):
    _as_client(env, b"\x23\x23", "TEP twice")


@scenario("s", "4", "ENO-9")
def repeated_tep_in_syn_ack(env):
    _as_server(env, b"\x01\x23\x23", "TEP twice")


@scenario("c", "4", "ENO-4")
def z_bits_and_second_global(env):
    for contents in (b"\x0c\x23", b"\x1c\x23", b"\x00\x01\x23", b"\x23\x00"):
        conn = env.connect(eno=contents)
        env.need(conn.stage == "frames", "ENO-4: not encrypted with the option %s (%s)" % (contents.hex(), conn.outcome.why))
        env.echo(conn, pattern(204, 200))
        env.finish(conn)


@scenario("cs", "4", "ENO-8")
def application_aware_bit(env):
    opts = {"eno": b"\x02\x23"} if env.role == "c" else {"eno_reply": b"\x03\x23"}
    conn = env.open(**opts)
    env.need(conn.stage == "frames", "ENO-8: not encrypted (%s)" % conn.outcome.why)
    env.check(not eno.parse(conn.host_eno).a, "ENO-8: a = 1 by default")
    env.echo(conn, pattern(205, 200))
    env.finish(conn)


@scenario("c", "4", "ENO-12 ENO-13")
def third_segment_without_eno(env):
    """The option is stripped from the peer's third segment: plain TCP, and no ENO option any more."""
    conn = env.connect(third_ack_eno=False)
    env.check(conn.host_eno is not None and not eno.parse(conn.host_eno).vacuous, "the SYN-ACK has no TEP")
    _plain(env, conn, "third segment without ENO")


@scenario("c", "4", "ENO-12")
def third_segment_is_lost(env):
    """The host's first ACK segment is then the one with Init1."""
    def setup(conn):
        real = conn.ack

        def once(**over):
            conn.ack = real

        conn.ack = once

    conn = env.connect(setup=setup)
    env.need(conn.stage == "frames", "stage %s" % conn.stage)
    env.echo(conn, pattern(206, 300))
    env.finish(conn)


@scenario("c", "4", "ENO-1 ENO-12")
def non_syn_option_with_contents(env):
    """The contents of the option outside a SYN are ignored, and so is the option later on."""
    conn = env.connect(ready=False, setup=lambda c: setattr(c, "options", _with(c, b"\x45\x05\x80\x00\xff")))
    env.need(conn.wait_ready(), "ENO-1: no connection (stage %s, state %s)" % (conn.stage, conn.state))
    env.need(conn.stage == "frames", "ENO-1: not encrypted")
    env.echo(conn, pattern(207, 3000))
    env.finish(conn)


def _with(conn, option):
    real = conn.options
    return lambda flags, with_eno=None: real(flags, False) + (option if not flags & (SYN | packet.RST) else b"")


@scenario("c", "4", "ENO-13")
def eno_option_on_a_plain_connection(env):
    """ENO options that come later change nothing."""
    conn = env.connect(eno=None)
    conn.options = _with(conn, b"\x45\x02")
    _plain(env, conn, "late ENO options")


@scenario("c", "4", "ENO-16")
def syn_with_data(env):
    """Not acknowledged, discarded, and other bytes may come in its place."""
    conn = env.connect(syn_data=b"early data that must be forgotten")
    env.need(conn.stage == "frames", "not encrypted (%s)" % conn.outcome.why)
    data = pattern(208, 700)
    env.echo(conn, data)
    env.finish(conn, data)


@scenario("c", "4", "ENO-16")
def syn_with_data_and_vacuous_eno(env):
    conn = env.connect(eno=b"", syn_data=b"early data that must be forgotten")
    _plain(env, conn, "SYN data, vacuous ENO")


@scenario("c", "4", "ENO-16")
def fast_open_option_beside_eno(env):
    for extra in (b"\x22\x02", b"\x22\x0a12345678"):
        conn = env.connect(extra=extra, sack=False)
        env.need(conn.stage == "frames", "not encrypted (%s)" % conn.outcome.why)
        env.echo(conn, pattern(209, 300))
        env.finish(conn)


@scenario("c", "4", "ENO-14")
def syn_retransmitted(env):
    conn = env.connect(ready=False)
    conn.send_syn()
    conn.send_syn()
    env.need(conn.wait_ready(), "no connection")
    env.need(conn.stage == "frames", "not encrypted (%s)" % conn.outcome.why)
    env.echo(conn, pattern(210, 300))
    env.finish(conn)


@scenario("c", "4", "ENO-14")
def syn_ack_retransmitted(env):
    """The peer does not hear the first SYN-ACKs: each repetition has the same options."""
    heard = []

    def setup(conn):
        real = conn.on_syn

        def on_syn(seg):
            heard.append(seg)
            if len(heard) < 3:
                conn.syn_at = conn.now() + 10
                conn.check_syn(seg)
                conn.syns.append(seg)
                if len(heard) == 2 and conn.syns[0].opt(eno.KIND) != seg.opt(eno.KIND):
                    conn.bad("ENO-14: retransmitted SYN-ACK with another ENO option", seg)
            else:
                real(seg)

        conn.on_syn = on_syn

    conn = env.connect(ready=False, setup=setup)
    env.need(conn.wait_ready(15), "no connection after %d SYN-ACKs" % len(heard))
    env.need(conn.stage == "frames", "not encrypted (%s)" % conn.outcome.why)
    env.echo(conn, pattern(211, 300))
    env.finish(conn)


@scenario("s", "4", "ENO-14")
def host_syn_retransmitted(env):
    """The first SYNs are lost: repetitions have the same ENO option, or none."""
    seen = []

    def setup(conn):
        real = conn.receive

        def receive(seg):
            seen.append(seg)
            if len(seen) < 3:
                return
            conn.syns.extend(seen[:2])
            conn.receive = real
            real(seg)

        conn.receive = receive

    conn = env.accept(ready=False, setup=setup)
    env.need(conn.wait_ready(15), "no connection after %d SYNs" % len(seen))
    if conn.stage == "plain" and conn.host_eno is None:
        raise Skip("the host dropped the option from a repeated SYN (allowed by ENO-14)")
    env.need(conn.stage == "frames", "not encrypted (%s)" % conn.outcome.why)
    env.echo(conn, pattern(212, 300))
    env.finish(conn)


@scenario("c", "4", "ENO-14")
def second_syn_without_eno(env):
    """Reading 9: the peer gives up ENO in a repeated SYN: no SYN-ACK after that has it, and what follows is plain TCP."""
    conn = env.connect(ready=False)
    conn.own_eno = None
    conn.own_syn = conn.own_syn.replace(b"\x45\x03\x23", b"\x01\x01\x01")
    conn.send_syn()
    conn.o.third_ack_eno = False
    conn.check_syn = lambda seg: seg.opt(eno.KIND)
    real = conn.on_syn

    def on_syn(seg):
        conn.syns.clear()
        real(seg)

    conn.on_syn = on_syn
    env.need(conn.wait_ready(), "no connection")
    conn.outcome.why = "ENO left out of the second SYN"
    _plain(env, conn, "second SYN without ENO")
    with_eno = [bool(seg.count(eno.KIND)) for seg in conn.received if seg.flags & SYN]
    env.check(with_eno == sorted(with_eno, reverse=True), "ENO-13: ENO is on again in a repeated SYN-ACK")


@scenario("s", "4", "ENO-12")
def syn_ack_repeated_by_peer(env):
    """A repeated SYN-ACK is answered with ENO as long as the host has no non-SYN segment from the peer."""
    conn = env.accept(ready=False, auto_init=False)
    env.need(conn.wait(lambda: conn.stage == "init-received"), "no Init1")
    before = len(conn.received)
    conn.stack.send(packet.build(packet.Seg(conn.local, conn.remote, conn.lport, conn.rport, conn.iss, conn.irs + 1, SYN | ACK, 65535, 0, conn.own_syn)))
    env.check(conn.wait(lambda: len(conn.received) > before, 2), "RFC 9293: a repeated SYN-ACK is not answered")
    conn.answer_init1(_init2(conn), 1)
    env.echo(conn, pattern(213, 300))
    env.finish(conn)


def _init2(conn):
    return tc.init2(conn.outcome.tep, tc.AES128, conn.nonce, conn.private.public())


@scenario("s", "4", "ENO-12")
def every_segment_has_eno_until_the_peer_speaks(env):
    """The peer (B) acknowledges nothing for a while: the host's third segment, Init1 and its repetitions all carry the option."""
    conn = env.accept(ready=False, auto_init=False, auto_ack=False)
    env.need(conn.wait(lambda: conn.stage == "init-received"), "no Init1")
    env.pause(1.5)
    nonsyn = lambda: [s for s in conn.received if not s.flags & SYN]
    env.check(conn.wait(lambda: len(nonsyn()) >= 2), "only %d segments" % len(nonsyn()))
    nonsyn = nonsyn()
    env.check(all(s.count(eno.KIND) for s in nonsyn), "ENO-12: a segment without the option before the host heard a non-SYN segment")
    conn.o.auto_ack = True
    conn.answer_init1(_init2(conn), 1)
    env.echo(conn, pattern(214, 300))
    env.finish(conn)


@scenario("c", "4", "ENO-2")
def full_option_space(env):
    """40 bytes of options with ENO among them."""
    conn = env.connect(eno=b"\x30" * 3 + b"\x23" + b"\xb1" + b"\x07" * 14)
    env.need(conn.stage == "frames", "not encrypted (%s)" % conn.outcome.why)
    env.echo(conn, pattern(216, 3000))
    env.finish(conn)


@scenario("c", "4", "TC-16 TC-17")
def resumption_nobody_knows(env):
    """An identifier the host cannot know, and data too short to be one: fresh key exchange."""
    for contents in (b"\xa3" + bytes(range(17)), b"\xa3" + bytes(range(9)), b"\xa3", b"\xa3" + bytes(5), b"\x88\xa3" + bytes(range(9)) + b"\x24"):
        conn = env.connect(eno=contents, ts=len(contents) < 12)
        env.need(conn.stage == "frames", "TC-16: not encrypted with %s (%s)" % (contents.hex(), conn.outcome.why))
        env.check(conn.outcome.result == "fresh", "TC-16: %s" % conn.outcome.result)
        env.echo(conn, pattern(217, 300))
        env.finish(conn)


@scenario("s", "4", "TC-17")
def short_data_in_the_syn_ack(env):
    """Reading 14: v = 1 with less than half an identifier is v = 0 in B's option, too; the session ID has the byte as sent."""
    for data in (b"", bytes(5), bytes(8)):
        conn = env.accept(eno_reply=b"\x01\xa3" + data)
        env.need(conn.stage == "frames", "TC-17: not encrypted%s" % env.why(conn))
        env.check(conn.outcome.result == "fresh" and conn.outcome.tep_byte == 0xA3, "TC-17: %s" % conn.outcome.result)
        env.echo(conn, pattern(217, 300))
        env.finish(conn)


@scenario("s", "4", "TC-18")
def resumption_nobody_asked_for(env):
    _as_server(env, b"\x01\xa3" + bytes(range(17)), "resumption out of nowhere", ts=False)


@scenario("s", "4", "RFC 9293")
def refused_and_silent_handshakes(env):
    """RST in SYN-SENT: believed only if it acknowledges the SYN."""
    client, made = env.accept(wait=False, setup=lambda c: setattr(c, "on_syn", lambda seg: c.syns.append(seg)))
    env.need(env.stack.pump(lambda: made and made[0].syns, 5), "no SYN")
    conn = made[0]
    seg = conn.syns[0]
    for ack in (seg.seq, seg.seq + 5, seg.seq - 100):
        conn.stack.send(packet.build(packet.Seg(conn.local, conn.remote, conn.lport, conn.rport, 0, ack & packet.MASK, packet.RST | ACK)))
    env.pause(0.2)
    env.check(not client.state()["done"], "a forged RST ended the handshake: %s" % client.state()["error"])
    conn.stack.send(packet.build(packet.Seg(conn.local, conn.remote, conn.lport, conn.rport, 0, (seg.seq + 1) & packet.MASK, packet.RST | ACK)))
    env.pause(0.1)
    env.check(client.state(2)["error"] == "ECONNREFUSED", "application: %s" % client.state()["error"])


@scenario("c", "4", "RFC 9293")
def closed_port(env):
    conn = env.make(31234, env.next_port(), {})
    conn.may_reset = True
    conn.connect()
    env.check(conn.wait_reset(3), "no RST from a closed port")

