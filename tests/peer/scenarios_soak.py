"""Everything at once, from a seed: losses, duplicates, reordering, odd segments and frames, rekeys, windows."""

import os
import random

import tcpcrypt as tc
from scenario import pattern, scenario


class Noise:
    """A bad network around a link, in both directions. Rates per packet."""

    def __init__(self, link, seed, drop=0.03, double=0.02, delay=0.05):
        self.link, self.random = link, random.Random(seed)
        self.drop, self.double, self.delay = drop, double, delay
        self.out, self.back = [], []
        self.fd = link.fd

    def _spread(self, raw, held):
        """What goes on now of a packet: it, nothing, or it with others that were held."""
        now = []
        for item in list(held):
            item[0] -= 1
            if item[0] <= 0:
                held.remove(item)
                now.append(item[1])
        luck = self.random.random()
        if luck < self.drop:
            return now
        if luck < self.drop + self.delay:
            held.append([self.random.randrange(1, 8), raw])
            return now
        if luck < self.drop + self.delay + self.double:
            now.append(raw)
        return [raw] + now

    def send(self, raw):
        for packet in self._spread(raw, self.out):
            self.link.send(packet)
        return True

    def recv(self, timeout):
        if self.back and self.back[0][0] <= 0:
            return self.back.pop(0)[1]
        raw = self.link.recv(timeout)
        if raw is None:
            return None
        got = self._spread(raw, [])
        if not got:
            return self.recv(0)
        for more in got[1:]:
            self.back.insert(0, [0, more])
        return got[0]


def _soak(env, seed):
    rnd = random.Random(seed)
    link = env.stack.link
    env.stack.link = Noise(link, seed)
    if env.role == "c":
        extra = {"eno": rnd.choice((b"\x23", b"\x24\x23", b"\x21\x22\x24\x23"))}
    else:
        extra = {}
    opts = dict(extra, mss=rnd.choice((536, 1000, 1220, 1460 if env.family == 4 else 1440)), ws=rnd.choice((None, 0, 2, 7)), sack=rnd.random() < 0.8, ts=rnd.random() < 0.8,
                rcv_wnd=rnd.choice((5000, 20000, 65535, 1 << 18)), frame=rnd.choice((1, 100, 1000, 1400, 8000, 65518)), cwnd=rnd.choice((6000, 20000, 1 << 17)),
                ciphers=rnd.choice(((tc.AES128,), (tc.AES256, tc.AES128), (tc.CHACHA, tc.AES128))), ack_every=rnd.choice((1, 2, 4)))
    size = 60000 if opts["frame"] > 1 else 800
    conn = env.encrypted("duplex", app={"n": 60000, "seed": seed}, **opts)
    note = "seed %d, %s" % (seed, {k: v for k, v in opts.items() if k != "eno"})
    if rnd.random() < 0.5:
        conn.cut = lambda off: rnd.choice((1, 19, 100, 536, 1000, 1447, 1460))
    data = pattern(seed + 1, size)
    sent, rekeys = 0, 0
    while sent < size:
        step = rnd.randrange(1, 12000)
        conn.send_app(data[sent : sent + step])
        sent += step
        if rnd.random() < 0.3:
            conn.write(conn.seal(b"", rekey=True))
            rekeys += 1
        env.pause(rnd.choice((0, 0.01, 0.05)))
    ok = conn.wait_app(60000, 40)
    env.check(ok, "%d of 60000 bytes came (state %s, stage %s) %s" % (len(conn.rx_app), conn.state, conn.stage, note))
    env.check(bytes(conn.rx_app) == pattern(seed, 60000) or not ok, "other bytes; %s" % note)
    env.check(conn.wait_acked(40), "%d of %d acknowledged; %s" % (conn.una, len(conn.tx), note))
    env.stack.link = link
    if ok:
        conn.send_app(b"", fin=True)
        env.check(conn.wait_fin(20), "TC-29: no FIN; %s" % note)
        env.expect_app(conn, data, eof=True, error=None)
        # A host whose FINp was sealed before it heard of a rekey stays at its generation (reading 11).
        env.check(conn.remote_gen <= rekeys, "TC-31: %d rekeys, host at generation %d" % (rekeys, conn.remote_gen))


def _seeds(function_name, seeds):
    def run(env):
        for seed in seeds:
            link = env.stack.link
            try:
                _soak(env, seed)
            finally:
                env.stack.link = link
            if env.failures or any(c.violations for c in env.conns):
                env.fail("seed %d" % seed)
                return

    run.__name__ = function_name
    return run


# SOAK=N: that many more of them, from other seeds.
for number in range(6 + int(os.environ.get("SOAK", "0"))):
    scenario("cs", "46" if number == 0 else "4", "TC-23 .. TC-35")(_seeds("soak_%d" % number, range(1000 + 10 * number, 1003 + 10 * number)))


@scenario("cs", "4", "TC-26")
def many_connections(env):
    """Forty at once, all echoing."""
    conns = [env.encrypted() for _ in range(40)]
    want = []
    for i, conn in enumerate(conns):
        data = pattern(500 + i, 8000 + 13 * i)
        conn.send_app(data)
        want.append(data)
    for conn, data in zip(conns, want):
        env.check(conn.wait_app(len(data)) and bytes(conn.rx_app) == data, "%d of %d bytes came back" % (len(conn.rx_app), len(data)))
    ids = {conn.keys.session_id() for conn in conns}
    env.check(len(ids) == len(conns), "TC-10: session IDs repeat")
    for conn in conns:
        env.finish(conn)
