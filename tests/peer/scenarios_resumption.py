"""Session resumption (RFC 8548 3.5). A host that never resumes is within its rights: the scenarios are then skipped."""

import os

import eno
import tcpcrypt as tc
from scenario import Skip, pattern, scenario


def _ss(conn, i):
    ss = conn.keys.ss
    for _ in range(i):
        ss = tc.cprf(ss, tc.NEXTK, 32)
    return ss


def _secret(first, i=1):
    """Secret i of the chain that `first` began, as the peer holds it."""
    ss = _ss(first, i)
    return eno.Secret(first.outcome.tep, first.cipher, first.outcome.role, ss, tc.cprf(ss, tc.RESUME, 18))


def _first(env, active, **opts):
    """A fresh session; `active`: the peer opens."""
    conn = env.connect(**opts) if active else env.accept(**opts)
    env.need(conn.stage == "frames" and conn.outcome.result == "fresh", "no fresh session: %s %s" % (conn.stage, env.why(conn)))
    env.echo(conn, pattern(400, 300), "first session")
    env.finish(conn)
    return conn


def _again(env, first, i=1, nonce=None, beside=b"", must=True, **opts):
    """The peer opens and proposes secret i."""
    secret = _secret(first, i)
    body = bytes([0x80 | secret.tep]) + secret.own_half() + (os.urandom(8) if nonce is None else nonce)
    conn = env.connect(eno=beside + body, secret=secret, **opts)
    env.need(conn.stage == "frames", "not encrypted: %s" % env.why(conn))
    if conn.outcome.result != "resumed" and must:
        if i == 1 and not getattr(env, "resumed_once", False):
            raise Skip("the host does not resume")
        env.fail("TC-16: secret %d was not resumed" % i)
    env.resumed_once = env.__dict__.get("resumed_once") or conn.outcome.result == "resumed"
    return conn


def _use(env, conn, label):
    env.echo(conn, pattern(401, 5000), label)
    env.check(conn.outcome.result != "resumed" or conn.cipher == conn.o.secret.aead, "TC-15: the cipher of a resumed session")
    env.finish(conn)


def _proposal(conn):
    """(tep, data) of the resumption suboption in the host's SYN, or None."""
    for tep, v, data in eno.parse(conn.host_eno or b"").subs:
        if v and len(data) >= 9:
            return tep, data
    return None


def _chain(first, length=8):
    return tuple(_secret(first, i) for i in range(1, length + 1))


@scenario("c", "46", "TC-12 TC-13 TC-15 TC-16")
def resumption_by_peer(env):
    first = _first(env, True)
    for i in range(1, 4):
        _use(env, _again(env, first, i), "resumed, secret %d" % i)


@scenario("c", "4", "TC-12 TC-15")
def resumption_by_peer_in_the_other_role(env):
    """The host opened the first session; the peer (then B) opens the second and encrypts with k_ba."""
    first = _first(env, False)
    conn = _again(env, first)
    env.check(conn.direction == "ba", "TC-15")
    _use(env, conn, "roles swapped")


@scenario("c", "4", "TC-13")
def resumption_nonces_of_every_length(env):
    first = _first(env, True)
    for i, length in enumerate((8, 0, 1, 5, 7), 1):
        conn = _again(env, first, i, nonce=os.urandom(length))
        data = _peer_sub(conn)
        env.check(data is None or len(data) == 17, "TC-13: the host's nonce has %s bytes, default is 8" % (None if data is None else len(data) - 9))
        _use(env, conn, "nonce of %d bytes" % length)


def _peer_sub(conn):
    for _, v, data in eno.parse(conn.host_eno).subs:
        if v:
            return data
    return None


@scenario("c", "4", "TC-19")
def resumption_secret_is_used_once(env):
    first = _first(env, True)
    _use(env, _again(env, first, 1), "resumed")
    again = _again(env, first, 1, must=False)
    env.check(again.outcome.result == "fresh", "TC-19: a used secret was accepted again")
    _use(env, again, "fresh key exchange after a used secret")


@scenario("c", "4", "TC-19")
def resumption_secret_of_an_abandoned_syn(env):
    """The SYN named secret 1 and the connection never came about; after that secret 2, and 1 no more."""
    first = _first(env, True)
    port = env.next_port()
    env.start("server", "echo", port)
    secret = _secret(first, 1)
    lost = env.make(50123, port, {"eno": bytes([0x80 | secret.tep]) + secret.own_half() + os.urandom(8), "secret": secret})
    lost.may_reset = True
    lost.on_syn = lambda seg: lost.syns.append(seg)
    lost.connect()
    env.need(lost.wait(lambda: lost.syns, 5), "no SYN-ACK")
    lost.irs = lost.syns[0].seq
    lost.state = "est"
    lost.send_rst(0)
    lost.state = "reset"
    named = any(v for _, v, _ in eno.parse(lost.syns[0].opt(eno.KIND) or b"").subs)
    if not named:
        raise Skip("the host does not resume")
    env.resumed_once = True
    _use(env, _again(env, first, 2), "secret 2 after an abandoned SYN")
    conn = _again(env, first, 1, must=False)
    env.check(conn.outcome.result == "fresh", "TC-19: the secret of an abandoned handshake was accepted again")
    _use(env, conn, "fresh")


@scenario("c", "4", "TC-19")
def resumption_identifiers_ahead(env):
    """SYNs with secrets 1 to 4 were lost; 5 is still recognised, and the skipped ones are not."""
    first = _first(env, True)
    conn = _again(env, first, 5, must=False)
    if conn.outcome.result != "resumed":
        _use(env, conn, "fresh")
        _use(env, _again(env, first, 1), "secret 1")  # skips where the host does not resume at all
        conn.warn("secret 5 of a chain at 1 was not recognised")
        return
    _use(env, conn, "secret 5")
    env.resumed_once = True
    late = _again(env, first, 3, must=False)
    env.check(late.outcome.result == "fresh", "TC-19: a skipped secret was accepted")
    _use(env, late, "fresh")


@scenario("c", "4", "TC-16 TC-20")
def resumption_with_other_teps_beside(env):
    """The resumption goes before the other TEPs."""
    first = _first(env, True)
    conn = _again(env, first, 1, nonce=b"", beside=b"\x22\x24", ts=False)
    _use(env, conn, "resumed beside other TEPs")


@scenario("c", "4", "TC-12 TC-16")
def resumption_with_the_wrong_half(env):
    """The host's own half, and the right half with another TEP: no resumption, fresh key exchange."""
    first = _first(env, True)
    secret = _secret(first, 1)
    other = 0x21 if secret.tep != 0x21 else 0x23
    for contents in (bytes([0x80 | secret.tep]) + secret.other_half(), bytes([0x88, 0x80 | other]) + secret.own_half() + bytes([secret.tep])):
        conn = env.connect(eno=contents)
        env.need(conn.stage == "frames", "TC-16: not encrypted: %s" % env.why(conn))
        env.check(conn.outcome.result == "fresh", "TC-16: resumed")
        _use(env, conn, "fresh")
    _use(env, _again(env, first, 1), "the right half afterwards")


@scenario("c", "4", "TC-12")
def resumption_with_too_long_a_nonce(env):
    """More than 17 bytes cannot be a resumption (reading 6)."""
    first = _first(env, True)
    secret = _secret(first, 1)
    conn = env.connect(eno=bytes([0x80 | secret.tep]) + secret.own_half() + bytes(9), ts=False, secret=secret)
    env.check(conn.outcome.result != "resumed", "a nonce of 9 bytes was accepted")
    _use(env, conn, "fresh")


@scenario("c", "4", "TC-14")
def resumption_nonces_of_the_host_differ(env):
    first = _first(env, True)
    seen = set()
    for i in range(1, 6):
        conn = _again(env, first, i)
        data = _peer_sub(conn)
        env.check(data is None or data[9:] not in seen, "TC-14: the host's nonce came twice")
        seen.add(data[9:] if data else None)
        _use(env, conn, "resumed")


@scenario("c", "4", "TC-15")
def resumption_keeps_the_cipher(env):
    for cipher in (tc.AES256, tc.CHACHA):
        first = _first(env, True, ciphers=(cipher,))
        env.resumed_once = False
        conn = _again(env, first, 1)
        env.check(conn.cipher == cipher, "TC-15: cipher 0x%04x" % conn.cipher)
        _use(env, conn, "resumed")


@scenario("c", "4", "TC-15 TC-31")
def resumption_then_rekey(env):
    first = _first(env, True)
    conn = _again(env, first, 1)
    conn.write(conn.seal(b"rekey", rekey=True))
    env.check(conn.wait(lambda: conn.remote_gen == 1, 3), "TC-32: rekey not answered in a resumed session")
    env.check(conn.wait_app(5), "nothing came back")
    _use(env, conn, "after the rekey")


@scenario("c", "4", "TC-12 ENO-16")
def resumption_of_a_big_transfer(env):
    first = _first(env, True)
    secret = _secret(first, 1)
    conn = env.connect("duplex", app={"n": 500000, "seed": 402}, eno=bytes([0x80 | secret.tep]) + secret.own_half() + bytes(8), secret=secret)
    if conn.outcome.result != "resumed":
        raise Skip("the host does not resume")
    data = pattern(403, 500000)
    conn.send_app(data)
    env.check(conn.wait_app(500000, 20) and bytes(conn.rx_app) == pattern(402, 500000), "%d of 500000 bytes came" % len(conn.rx_app))
    env.finish(conn, data)


def _host_again(env, first, must=True, **opts):
    """The host opens again; the peer knows the chain of `first`."""
    conn = env.accept(cache=_chain(first), nonce=opts.pop("nonce", os.urandom(8)), **opts)
    if _proposal(conn) is None:
        raise Skip("the host does not propose resumption")
    env.need(conn.stage == "frames", "not encrypted: %s" % env.why(conn))
    if must:
        env.need(conn.outcome.result == "resumed", "TC-12: the host's proposal %s is not in the chain (1 .. 8)" % conn.host_eno.hex())
    return conn


@scenario("s", "46", "TC-12 TC-13 TC-15 TC-16 TC-19")
def resumption_by_host(env):
    first = _first(env, False)
    for i in range(1, 4):
        conn = _host_again(env, first)
        env.check(conn.o.secret.ss == _ss(first, i), "TC-19: the host proposes another secret than number %d" % i)
        _use(env, conn, "resumed, secret %d" % i)


@scenario("s", "4", "TC-12 TC-15")
def resumption_by_host_in_the_other_role(env):
    """The peer opened the first session, the host opens the second."""
    first = _first(env, True)
    conn = _host_again(env, first)
    env.check(conn.direction == "ab", "TC-15")
    _use(env, conn, "roles swapped")


@scenario("s", "4", "TC-13")
def resumption_by_host_with_nonces_of_every_length(env):
    first = _first(env, False)
    for length in (0, 1, 8, 5):
        conn = _host_again(env, first, nonce=os.urandom(length))
        env.check(len(_proposal(conn)[1]) == 17, "TC-13: the host's nonce has %d bytes, default is 8" % (len(_proposal(conn)[1]) - 9))
        _use(env, conn, "peer's nonce of %d bytes" % length)


@scenario("s", "4", "TC-16 TC-19")
def resumption_by_host_refused(env):
    """The peer has forgotten the secret and asks for fresh key exchange; the host never proposes that secret again."""
    first = _first(env, False)
    seen = set()
    for _ in range(3):
        conn = env.accept()
        found = _proposal(conn)
        if found is None and not seen:
            raise Skip("the host does not propose resumption")
        env.need(conn.stage == "frames", "TC-16: not encrypted: %s" % env.why(conn))
        if found:
            env.check(found[1][:9] not in seen, "TC-19: the same secret proposed twice")
            seen.add(found[1][:9])
        _use(env, conn, "fresh key exchange instead")


@scenario("s", "4", "TC-18 ENO-13")
def resumption_by_host_answered_with_a_wrong_half(env):
    first = _first(env, False)
    secret = _secret(first, 1)
    for half in (bytes(9), secret.other_half()):
        conn = env.accept(eno_reply=bytes([1, 0x80 | secret.tep]) + half + bytes(8), setup=lambda c: setattr(c, "on_plain", True))
        if _proposal(conn) is None:
            raise Skip("the host does not propose resumption")
        env.check(conn.stage == "plain", "TC-18: not plain: %s" % conn.stage)
        env.echo(conn, pattern(404, 500), "plain")
        env.finish(conn)


@scenario("s", "4", "TC-14 TC-19")
def resumption_nonces_differ(env):
    first = _first(env, False)
    nonces, halves = set(), set()
    for _ in range(5):
        conn = _host_again(env, first, must=False)
        data = _proposal(conn)[1]
        env.check(data[9:] not in nonces, "TC-14: the host's nonce came twice")
        env.check(data[:9] not in halves, "TC-19: the same secret proposed twice")
        nonces.add(data[9:])
        halves.add(data[:9])
        _use(env, conn, "resumed")


@scenario("s", "4", "ENO-14 TC-19")
def resumption_syn_retransmitted(env):
    """The SYN that proposes is lost twice: the repetitions name the same secret with the same nonce."""
    first = _first(env, False)
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

    conn = env.accept(ready=False, setup=setup, cache=_chain(first), nonce=bytes(8))
    env.need(conn.wait_ready(15), "no connection after %d SYNs" % len(seen))
    if not any(v for _, v, _ in eno.parse(seen[0].opt(eno.KIND) or b"").subs):
        raise Skip("the host does not propose resumption")
    if conn.stage == "frames":
        _use(env, conn, "resumed after lost SYNs")
    else:
        env.check(conn.host_eno is None, "not encrypted: %s" % env.why(conn))
