"""What can be negotiated, between two real daemons: every TEP and AEAD, what the ends say of the session, resumption switched
off and flushed; and sockets with TCP options of their own: Fast Open, MPTCP, signed segments."""

from harness import MARKER, PYTHON, TOOLS, check, need, note, plain, same, topology
import options

net = topology("pair")
a, b = net.a, net.b
client, server = net.client[4], net.server[4]
PORTS = {"plain": 8000, "fastopen": 8001, "mptcp": 8002, "md5": 8003}
for kind, port in PORTS.items():
    b.serve(port, PYTHON, "-B", TOOLS / "options.py", "serve", kind, server, port, client, log=kind)


class Open:
    """A connection from a to b that stays open. With `with`: until the end of it."""

    def __init__(self, kind):
        self.ends = {}
        try:
            with a.inside():
                self.socket, self.reply = options.ask(kind, server, PORTS[kind], MARKER)
            self.local, self.remote = (f"{host}:{port}" for host, port in (self.socket.getsockname()[:2], (server, PORTS[kind])))
        except OSError as error:
            self.socket, self.reply, self.local, self.remote = None, f"error {error}", "", ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.socket:
            self.socket.close()

    def answered(self):
        return same(self.reply, MARKER)

    def at(self, node):
        """The flow, as that daemon lists it."""
        ends = (self.local, self.remote) if node is a else (self.remote, self.local)
        found = [f for f in node.flows() if (f["local"], f["remote"]) == ends]
        need(len(found) == 1, f"flows of {self.local}: {found}")
        return found[0]

    def has(self, field, at_a, at_b):
        return same((self.at(a)[field], self.at(b)[field]), (at_a, at_b))

    def both(self, field, value):
        return self.has(field, value, value)

    def sessions(self):
        return a.json("session", self.local, self.remote), b.json("session", self.remote, self.local)

    def agree(self, **more):
        """Both ends tell the same of the session, and each its own of what differs (ENO-19)."""
        one, two = self.sessions()
        note(f"{one}\n{two}")
        for field in ("session_id", "transcript", "tep_byte", "aead"):
            same(one[field], two[field])
        for own in ("name", "gopt"):
            same((one[f"self_{own}"], one[f"peer_{own}"]), (two[f"peer_{own}"], two[f"self_{own}"]))
        same((one["role"], two["role"]), ("A", "B"))
        need(all(session[field] == value for session in (one, two) for field, value in more.items()), more)
        return one["self_name"] != one["peer_name"]


def daemons(at_a, at_b):
    """Instead of those that run."""
    a.restart(*at_a.split())
    b.restart(*at_b.split())


def cached(node):
    return len(node.json("cache", "list"))


def flushed(count, *which):
    return same(a.json("cache", "flush", *which)["flushed"], count)


ALL = "10.1.0.0/24"
if not plain:
    for tep, aead in (("P256", "AES-256-GCM"), ("P521", "CHACHA20-POLY1305"), ("Curve25519", "AES-128-GCM"), ("Curve448", "AES-128-GCM")):
        name = f"{tep} with {aead}"
        # The other end offers all, and what is preferred here is not what is there.
        daemons(f"--tep {tep} --aead {aead} {ALL}", f"--tep P521,Curve448,P256,Curve25519 {ALL}")
        with Open("plain") as connection:
            check(f"{name}: an answer", connection.answered)
            check(f"{name}: that is what is negotiated", connection.both, "tep", f"ECDHE-{tep}")
            check(f"{name}: cipher", connection.both, "aead", f"AEAD_{aead.replace('-', '_')}")
            check(f"{name}: the ends agree", connection.agree)
        with Open("plain") as connection:
            check(f"{name}: resumed", connection.both, "resumed", True)
            check(f"{name}: the ends agree about the resumed session", connection.agree)

    daemons(f"--tep Curve25519,P521 {ALL}", f"--tep P521,P256 {ALL}")
    with Open("plain") as connection:
        check("B's order decides among what both have (ENO-10)", connection.both, "tep", "ECDHE-P521")
    daemons(f"--tep Curve448 {ALL}", f"--tep P256 {ALL}")
    with Open("plain") as connection:
        check("nothing in common: an answer", connection.answered)
        check("nothing in common: plain", connection.has, "reason", "peer-no-eno", "no-common-tep")
        check("nothing in common: no session ID, status 1", a.enotun, "session", "--json", connection.local, connection.remote, status=1)

    daemons(f"{ALL},aware", f"{ALL},aware,mandatory-aware")
    with Open("plain") as connection:
        check("application-aware on both sides, mandatory on one: an answer", connection.answered)
        check("it is encrypted, and both know of the other", connection.agree, self_aware=True, peer_aware=True)
    check("mandatory and not aware at the other end", a.enotun, "enable", ALL)
    with Open("plain") as connection:
        check("plain, for that reason", connection.has, "reason", "peer-no-eno", "not-aware")

    daemons(ALL, ALL)
    with Open("plain") as connection:
        check("a session is kept at both ends", lambda: same((cached(a), cached(b)), (1, 1)))
        check("what a connection made is flushed", flushed, 1, "--connection", connection.local, connection.remote)
        check("and is gone there", lambda: same((cached(a), cached(b)), (0, 1)))
    with Open("plain") as connection:
        check("the next one is fresh", connection.both, "resumed", False)
    check("resumption is switched off at run time", b.enotun, "enable", f"{ALL},no-resume")
    with Open("plain") as connection:
        check("then it is refused, at the price of fresh keys", connection.both, "resumed", False)
    check("and on again", b.enotun, "enable", ALL)
    check("a host is flushed", lambda: flushed(cached(a), server) and same(cached(a), 0))

    # Nothing of the application's is in the SYN beside ENO, nor a Fast Open option (ENO-16).
    for node in (a, b):
        node.stop()
for node in (a, b):
    node.sysctl("net.ipv4.tcp_fastopen=3")
with Open("fastopen") as connection:
    check("Fast Open without enotun: a cookie is got", connection.answered)
with a.capture() as wire, Open("fastopen") as connection:
    check("and used", connection.answered)
check("there is data in its SYN", lambda: MARKER in wire.shown("-A", "tcp[tcpflags] == tcp-syn"))
if not plain:
    daemons(ALL, ALL)
    with a.capture() as wire, Open("fastopen") as connection:
        check("Fast Open with enotun: an answer", connection.answered)
        check("Fast Open with enotun: encrypted", connection.both, "state", "encrypted")
    check("nothing of it is on the wire in plain", lambda: not wire.has(MARKER))
    check("and no cookie", lambda: "tfo" not in wire.shown().lower())

    with Open("mptcp") as connection:
        check("MPTCP: an answer", connection.answered)
        check("MPTCP: left alone", lambda: same({f["reason"] for f in a.flows(PORTS["mptcp"])}, {"mptcp"}))
        check("MPTCP: it is MPTCP", lambda: "tcp-ulp-mptcp" in a.run("ss", "-Htni", f"dport = :{PORTS['mptcp']}"))
    with Open("md5") as connection:
        check("signed segments: an answer", connection.answered)
        check("signed segments: left alone", lambda: same(connection.at(a)["reason"], "signed-segments"))
    check("the daemons still run", net.alive)
