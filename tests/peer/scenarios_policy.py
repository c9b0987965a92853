"""A daemon that must never be plain: PEER_POLICY=required tests/peer/run.sh 'required*'."""

import os

from scenario import Skip, pattern, scenario


def _required():
    if os.environ.get("PEER_POLICY") != "required":
        raise Skip("needs PEER_POLICY=required")


def _refused_client(env, conn, why):
    """The peer as client: no plain connection comes about, and nothing reaches the application."""
    conn.may_reset = True
    conn.wait(lambda: conn.state in ("est", "reset"), 2)
    if conn.state == "est":
        if conn.stage == "plain":
            conn.send_app(pattern(601, 500))
        conn.wait(lambda: conn.state == "reset", 3)
    env.check(conn.state == "reset", "%s: not refused with a RST (state %s)" % (why, conn.state))
    state = conn.app.state()
    env.check(state["received"] == 0 and not conn.rx_app, "%s: %d bytes of plain TCP reached the application" % (why, state["received"]))


@scenario("cs", "46", "")
def required_encrypted(env):
    _required()
    conn = env.encrypted()
    data = pattern(600, 5000)
    env.echo(conn, data)
    env.finish(conn, data)


@scenario("c", "46", "ENO-13")
def required_syn_without_eno(env):
    _required()
    for contents in (None, b"", b"\x01\x23", b"\x30", b"\x23\x80"):
        conn = env.connect("echo", ready=False, eno=contents)
        _refused_client(env, conn, "SYN with %s" % (contents.hex() if contents is not None else "no ENO"))


@scenario("c", "4", "ENO-13")
def required_third_segment_without_eno(env):
    _required()
    conn = env.connect("source", app={"n": 500, "seed": 602}, ready=False, third_ack_eno=False)
    _refused_client(env, conn, "third segment without ENO")


@scenario("s", "46", "ENO-13")
def required_syn_ack_without_eno(env):
    """The application is refused, sends nothing, and sees no end-of-file."""
    _required()
    for reply in (None, b"\x01", b"\x23", b"\x01\x30", b"\x01\x80"):
        conn = env.accept("source", app={"n": 500, "seed": 603}, ready=False, eno_reply=reply, setup=lambda c: (setattr(c, "on_plain", True), setattr(c, "may_reset", True)))
        conn.wait(lambda c=conn: c.app.state()["done"], 5)
        state = env.expect_app(conn, eof=False)
        env.check(state["error"] in ("ECONNREFUSED", "ECONNRESET", "EPIPE", "ECONNABORTED"), "application: %s at %s" % (state["error"], state["where"]))
        env.check(not conn.rx_app, "ENO-13: %d bytes of plain TCP on the wire under `required`" % len(conn.rx_app))
        conn.wait(lambda c=conn: c.state == "reset", 1)
        env.check(conn.state == "reset", "the peer was not told (no RST)")
