"""What can be asked for single connections: roles in a simultaneous open, application-aware, resumption and its cache."""

import contextlib
import json

import eno
import packet
from packet import ACK, SYN
from scenario import Skip, pattern, scenario
from scenarios_negotiation import _plain
from scenarios_resumption import _again, _first, _proposal, _use


@contextlib.contextmanager
def selected(env, options):
    """The peer's address is selected with these options, until the end of the block."""
    if env.control is None:
        raise Skip("needs the daemon's command line")
    status, text = env.control("enable", env.local_text + options)
    env.need(status == 0, "enable: %s" % text.strip())
    try:
        yield
    finally:
        env.control("disable", env.local_text)


def flow(env, conn, command="flows"):
    """What the daemon says of the connection."""
    ends = ["%s:%d" % (env.host_text, conn.rport), "%s:%d" % (env.local_text, conn.lport)]
    if env.family == 6:
        ends = ["[%s]:%d" % (env.host_text, conn.rport), "[%s]:%d" % (env.local_text, conn.lport)]
    if command != "flows":
        return env.control(command, *ends, "--json")
    status, text = env.control("flows", "--json")
    env.need(status == 0, "flows: %s" % text.strip())
    return next((f for f in json.loads(text) if [f["local"], f["remote"]] == ends), None)


# ---- simultaneous open


def _cross(own, answer="both"):
    """The peer answers the host's SYN with a SYN of its own, with the option `own`. Of its answer to the host's SYN-ACK only
    the SYN-ACK arrives, or only the acknowledgement behind it, or both; `late`: its SYN is lost, and the SYN-ACK comes."""

    def send(conn, flags, ack):
        conn.adv_edge = max(conn.adv_edge, 65535)
        conn.stack.send(packet.build(packet.Seg(conn.local, conn.remote, conn.lport, conn.rport, conn.iss, ack, flags, 65535, 0, conn.own_syn)))

    def est(conn):
        conn.state = "est"
        if answer in ("both", "syn-ack", "late"):
            send(conn, SYN | ACK, conn.irs + 1)
        if answer in ("both", "ack"):
            conn.ack()
        conn.begin()

    def setup(conn):
        def on_syn(seg):
            conn.syns.append(seg)
            if conn.state == "est":
                if answer != "late":
                    conn.ack()
                return
            if not seg.flags & ACK:
                if conn.state == "crossing":
                    return
                conn.host_eno = conn.check_syn(seg)
                conn.irs = seg.seq
                conn.host_syn_opts = conn.read_syn_options(seg)
                conn.host_mss, conn.host_ws = conn.host_syn_opts["mss"], conn.host_syn_opts["ws"] or 0
                if conn.host_syn_opts["ts"] is not None:
                    conn.ts_recent = conn.last_tsval = conn.host_syn_opts["ts"][0]
                conn.own_eno = own
                conn.own_syn = conn.syn_options(conn.own_eno)
                conn.edge = conn.wnd_edge = seg.wnd
                conn.outcome = eno.negotiate(conn.own_eno, conn.host_eno, True)
                conn.state = "crossing"
                if answer == "late":
                    est(conn)
                else:
                    send(conn, SYN, 0)
                return
            if seg.count(eno.KIND) and seg.opt(eno.KIND) != conn.host_eno:
                conn.bad("ENO-14: the SYN-ACK of a simultaneous open has another ENO option (%s, SYN %s)" % (seg.opt(eno.KIND), conn.host_eno), seg)
            if seg.count(eno.KIND) == 0:
                conn.outcome = eno.Outcome("plain", why="SYN-ACK of the simultaneous open without ENO")
                conn.on_plain = True
            if seg.payload:
                conn.bad("ENO-16: data in a SYN-ACK", seg)
            est(conn)

        conn.on_syn = on_syn

    return setup


def _crossed(env, own, role, answer="both", **opts):
    conn = env.accept(ready=False, setup=_cross(own, answer), **opts)
    env.need(conn.wait(lambda: conn.state == "est", 5), "RFC 9293 3.5: no SYN-ACK in a simultaneous open")
    env.need(conn.wait_ready(), "%s: no key exchange (stage %s)%s" % (answer, conn.stage, env.why(conn)))
    env.need(conn.stage == "frames", "ENO-7: not encrypted%s" % env.why(conn))
    env.check(conn.outcome.role == role, "role %s" % conn.outcome.role)
    env.echo(conn, pattern(215, 3000), "after the %s" % answer)
    env.finish(conn)


@scenario("s", "46", "ENO-7 ENO-14 ENO-15")
def simultaneous_open(env):
    """The peer has b = 1."""
    for answer in ("both", "syn-ack", "ack"):
        _crossed(env, b"\x01\x23", "B", answer)


@scenario("s", "46", "ENO-7 ENO-14 ENO-15")
def simultaneous_open_as_b(env):
    """The host was told to be B; the peer has b = 0."""
    with selected(env, ",role-b"):
        for answer in ("both", "syn-ack", "ack", "late"):
            _crossed(env, b"\x21\x23\x24", "A", answer, host_b=True)


@scenario("s", "4", "ENO-7 ENO-13")
def simultaneous_open_with_the_same_b(env):
    for options, own in (("", b"\x23"), (",role-b", b"\x01\x23")):
        with selected(env, options):
            conn = env.accept(ready=False, setup=_cross(own), host_b=bool(options))
            env.need(conn.wait(lambda c=conn: c.state == "est", 5), "RFC 9293 3.5: no SYN-ACK in a simultaneous open")
            env.need(conn.wait_ready(), "no plain connection (stage %s)" % conn.stage)
            env.check((flow(env, conn) or {}).get("reason") == "same-role", "reason in %s" % flow(env, conn))
            _plain(env, conn, "simultaneous open with the same b")


@scenario("s", "4", "ENO-7")
def role_b_with_a_passive_peer(env):
    """B asks one who waits for connections: nobody is A."""
    with selected(env, ",role-b"):
        conn = env.accept(host_b=True, setup=lambda c: setattr(c, "on_plain", True))
        _plain(env, conn, "b = 1 on both sides")


# ---- application-aware


def _open(env, aware, **more):
    glob = 2 if aware else 0
    if env.role == "c":
        return env.connect(eno=(bytes([glob]) if glob else b"") + b"\x23", **more)
    return env.accept(eno_reply=bytes([glob | 1, 0x23]), **more)


@scenario("cs", "46", "ENO-8")
def application_aware_option(env):
    """a = 1 as asked for, and the peer's bit can be read."""
    with selected(env, ",aware"):
        for aware in (False, True):
            conn = _open(env, aware)
            env.need(conn.stage == "frames", "ENO-8: not encrypted%s" % env.why(conn))
            env.check(eno.parse(conn.host_eno).a, "ENO-8: a = 0 although it was asked for")
            env.echo(conn, pattern(205, 200))
            said = flow(env, conn)
            env.check(said and said["self_gopt"] & 2 and bool(said["peer_gopt"] & 2) == aware, "ENO-8: %s" % said)
            status, text = flow(env, conn, "session")
            env.need(status == 0, "session: %s" % text.strip())
            said = json.loads(text)
            env.check(said["self_aware"] and said["peer_aware"] == aware, "ENO-8: %s" % text.strip())
            env.finish(conn)


@scenario("cs", "46", "ENO-8 ENO-13")
def mandatory_application_aware(env):
    with selected(env, ",mandatory-aware"):
        conn = _open(env, True)
        env.need(conn.stage == "frames", "ENO-8: not encrypted with a = 1%s" % env.why(conn))
        env.echo(conn, pattern(206, 200))
        env.finish(conn)
        # Without: plain TCP, and no option from a passive host (reading 13).
        env.check(eno.parse(conn.host_eno).a, "ENO-8: mandatory mode says a = 0 itself")
        conn = _open(env, False, setup=lambda c: setattr(c, "on_plain", True))
        if env.role == "c":
            env.check(conn.host_eno is None, "ENO-13: answer %s" % conn.host_eno)
        said = flow(env, conn)
        env.check(said and said["state"] == "plain" and said["reason"] == "not-aware", "ENO-8: %s" % said)
        _plain(env, conn, "a = 0 in mandatory application-aware mode")


# ---- resumption (TC-22)


@scenario("c", "4", "TC-22")
def resumption_switched_off(env):
    """`no-resume`: what is known is refused, with fresh keys, and not forgotten by that."""
    first = _first(env, True)
    with selected(env, ",no-resume"):
        conn = _again(env, first, must=False)
        env.check(conn.outcome.result == "fresh", "TC-22: resumed although it is switched off")
        _use(env, conn, "no-resume")
    conn = _again(env, first)
    env.check(conn.outcome.result == "resumed", "TC-22: the session is gone")
    _use(env, conn, "again")


@scenario("s", "4", "TC-22")
def no_proposals_with_resumption_switched_off(env):
    _first(env, False)
    with selected(env, ",no-resume"):
        conn = env.accept()
        env.check(_proposal(conn) is None, "TC-22: the host proposes although it is switched off")
        env.echo(conn, pattern(402, 300))
        env.finish(conn)


@scenario("c", "4", "TC-22")
def nothing_is_cached(env):
    with selected(env, ",no-cache"):
        first = _first(env, True)
    conn = _again(env, first, must=False)
    env.check(conn.outcome.result == "fresh", "TC-22: a session that was not to be cached was resumed")
    _use(env, conn, "no-cache")


@scenario("c", "46", "TC-22")
def cache_is_flushed(env):
    """By connection while it is open, by peer, and all of it."""
    if env.control is None:
        raise Skip("needs the daemon's command line")
    env.control("cache", "flush")
    sessions = lambda: json.loads(env.control("cache", "list", "--json")[1])

    conn = env.connect()
    env.echo(conn, pattern(403, 300))
    kept = sessions()
    env.need(len(kept) == 1 and kept[0]["peer"] == env.local_text and kept[0]["original_role"] == "B", "TC-22: %s" % kept)
    local, remote = ("[%s]:%d" if env.family == 6 else "%s:%d") % (env.host_text, conn.rport), \
        ("[%s]:%d" if env.family == 6 else "%s:%d") % (env.local_text, conn.lport)
    status, text = env.control("cache", "flush", "--connection", local, remote, "--json")
    env.need(status == 0 and json.loads(text) == {"flushed": 1}, "TC-22: %s" % text.strip())
    env.check(sessions() == [], "TC-22: %s" % sessions())
    env.echo(conn, pattern(404, 300), "the connection goes on")
    env.finish(conn)
    again = _again(env, conn, must=False)
    env.check(again.outcome.result == "fresh", "TC-22: what was flushed for a connection was resumed")
    _use(env, again, "after the flush of a connection")

    for arguments in ((env.local_text,), ()):
        env.check(len(sessions()) == 1, "TC-22: %s" % sessions())
        env.check(env.control("cache", "flush", "192.0.2.1", "--json")[1].split() == ["{", '"flushed":', "0", "}"], "TC-22: another peer")
        status, text = env.control("cache", "flush", *arguments, "--json")
        env.check(status == 0 and json.loads(text) == {"flushed": 1}, "TC-22: %s" % text.strip())
        after = _again(env, again, must=False)
        env.check(after.outcome.result == "fresh", "TC-22: what was flushed was resumed")
        _use(env, after, "after a flush")
        again = after
