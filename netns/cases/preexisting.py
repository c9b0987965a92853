"""Connections that are open when enotun comes up go on untouched; those that are encrypted when it goes down end, and do not go
on in plain text."""

from harness import (ECHO, MARKER, Connection, check, check_enotun, echo_server, need, plain, same, sessions_agree, topology, wait_for)

net = topology("pair")
a, b = net.a, net.b
echo_server(b)
old = {family: Connection(a, server) for family, server in net.server.items()}
for family, connection in old.items():
    check(f"before: a connection over IPv{family}", connection.says, "before")
net.start()
with a.capture() as wire:
    for family, connection in old.items():
        check(f"with enotun: the IPv{family} connection goes on", connection.says, f"{MARKER}-old{family}")
for node in (a, b):
    check_enotun(f"{node} lists both as plain, pre-existing",
                 lambda: same([(f["state"], f["reason"]) for f in node.flows(ECHO)], [("plain", "pre-existing")] * 2))
check("it goes on in plain text, as it began", wire.has, f"{MARKER}-old4")
new = [Connection(a, server) for server in net.server.values()]
check("new connections", lambda: all(connection.says("during") for connection in new))
check_enotun("two new connections are encrypted", lambda: same(len(a.sessions(ECHO)), 2) and sessions_agree(a, b, ECHO))

with a.capture() as wire:
    a.stop()
    check("after down: the old connection goes on", old[4].says, "after")
    if not plain:
        for connection in new:
            connection.send(f"{MARKER}-new")
        check("after down: what was encrypted ends with an error", wait_for, 20,
              lambda: new[0].ended() and need(MARKER.encode() not in new[0].buffer, "it went on"))
        check("after down: a new connection is plain", lambda: Connection(a, net.server[4]).says("plain"))
check_enotun("after down: nothing of it is on the wire", lambda: not wire.has(MARKER))
