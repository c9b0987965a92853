"""Another gateway takes over (VRRP, or a route that moves) in the middle of encrypted connections: with policy `required` it refuses
what it does not know, so that nothing of it is on the outer network in plain, and both ends learn at once, also the one that
only waits. What a plain router does in its place is shown beside it."""

import socket

from harness import ECHO, MARKER, PATIENCE, Connection, check, check_enotun, echo_server, need, plain, same, topology, wait_for

# Seconds from the move of the route, or from what is written first after it.
AT_ONCE = 1

net = topology("failover")
a, b, g1, g2 = net.a, net.b, net.g1, net.g2
net.start()
echo_server(b)
with b.inside():
    ends = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
PORT = ends.getsockname()[1]


def held(address):
    """A connection, and its end at the server."""
    connection = Connection(a, address, PORT)
    server, _ = ends.accept()
    server.settimeout(20)
    connection.send(f"{MARKER} before")
    need(server.recv(1000).endswith(b"before\n"), "the first line")
    server.sendall(b"ready\n")
    connection.comes("ready")
    return connection, server


def received(server):
    try:
        return server.recv(1000)
    except (BlockingIOError, ConnectionResetError):
        return b""


def learns(connection):
    wait_for(AT_ONCE, connection.ended)
    return same(connection.end, "ECONNRESET")


def server_learns(server):
    server.settimeout(AT_ONCE * PATIENCE)
    try:
        return need(server.recv(1) is None, "it got something")
    except ConnectionResetError:
        return True


with net.capture() as wire:
    for family, server in net.server.items():
        name = f"IPv{family}"
        net.call("through", "g1")
        writes, other_end = held(server)
        reads, source = held(server)
        check_enotun(f"{name}: through g1 they are encrypted", g1.flows_are, PORT, "encrypted")
        net.call("through", "g2")
        writes.send(f"{MARKER} after")
        if plain:
            check(f"{name}: plain TCP goes on", lambda: other_end.recv(1000).endswith(b"after\n"))
            continue
        check(f"{name}: a client that writes is reset at once", learns, writes)
        check(f"{name}: and its server, which says nothing", server_learns, other_end)
        source.sendall(b"more\n")
        check(f"{name}: a client that only reads is reset at once when its server writes", learns, reads)
        check(f"{name}: and that server", server_learns, source)
        anew = Connection(a, server)
        check(f"{name}: a new connection works", anew.says, f"{MARKER} anew")
        check(f"{name}: through g2, encrypted", g2.flows_are, ECHO, "encrypted")
        anew.close()
if not plain:
    check("nothing of it was on the outer network in plain", lambda: not wire.has(MARKER))

    # A plain router in that place sends on what it gets, and the data is in plain where it was not to be; docs/operating.md says so.
    net.call("through", "g1")
    writes, other_end = held(net.server[4])
    g2.stop()
    with net.capture() as wire:
        net.call("through", "g2")
        writes.send(f"{MARKER} after")
        a.ping(net.server[4], 5)
    check("a plain router lets the client's data out", wire.has, MARKER)
    other_end.setblocking(False)
    check("which the server's enotun does not deliver", lambda: need(not received(other_end), "it is delivered"))
    anew = Connection(a, net.server[4])
    check("a new connection works", anew.says, "anew")
    check("in plain", b.flows_are, ECHO, "plain")
for node in net.daemons:
    check(f"the daemon of {node} still runs", lambda: node is g2 or node.alive())
