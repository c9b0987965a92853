"""kill -9 of a daemon: no plaintext of an encrypted connection reaches the wire, no ciphertext reaches an application;
afterwards `up` and `down` find their way back."""

from harness import (ECHO, MARKER, PYTHON, TOOLS, Connection, check, echo_server, plain, same, topology, wait_for, work)

if plain:
    raise SystemExit

SINK = 7778
net = topology("pair")
a, b = net.a, net.b
before = a.state()
net.start()
echo_server(b)
a.serve(SINK, PYTHON, "-B", TOOLS / "tcp.py", "sink", SINK, work("sunk"))
out = [Connection(a, server) for server in net.server.values()]
for family, connection in zip(net.server, out):
    check(f"a connection over IPv{family}", connection.says, "before")
into = Connection(b, net.client[4], SINK)
into.send("first")
check("a connection from b", wait_for, 10, lambda: work("sunk").exists() and "first" in work("sunk").read_text())
check("all are encrypted", lambda: a.flows_are(ECHO, "encrypted") and a.flows_are(SINK, "encrypted"))

with b.capture() as wire:
    a.kill()
    for connection in (*out, into):
        connection.send(MARKER)
    # Long enough for several retransmissions.
    a.ping(net.server[4], count=16, interval=0.25)
check("no plaintext of them is on the wire", lambda: not wire.has(MARKER))
check("the application at a got nothing but plaintext", lambda: same(work("sunk").read_bytes(), b"first\n"))
check("the applications' output is clean", lambda: all(same(connection.got(), b"before\n") for connection in out))

with b.capture() as wire:
    a.start()
    again = [Connection(a, server) for server in net.server.values()]
    for family, connection in zip(net.server, again):
        check(f"up again: a new connection over IPv{family}", connection.says, MARKER)
    check("up again: they are encrypted", wait_for, 5, a.flows_are, ECHO, "encrypted")
check("up again: no plaintext is on the wire", lambda: not wire.has(MARKER))

a.kill()
check("down cleans up after a crash", a.enotun, "down")
check("the host is as before", lambda: same(a.state(), before))
check("and speaks plain TCP", Connection(a, net.server[4]).says, "text")
