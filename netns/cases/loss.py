"""Packet loss: 0, 1 and 2 % in each direction, at the router, so that the wire loses packets of at most an MTU. Everything
arrives intact; the capture is of the side before the loss."""

from harness import (ECHO, HTTP, MARKER, Connection, check, check_enotun, fetch, iperf, losing, many, no_offloads, redis_session, scp_copies,
                     serve_all, ssh_says, topology)

net = topology("routed")
a, b, r = net.a, net.b, net.r
no_offloads((a, "eth0"), (b, "eth0"), (r, "ra"), (r, "rb"))
net.start()
serve_all(b)


def lose(percent):
    r.nft(f"""table inet loss
        delete table inet loss
        table inet loss {{
            chain forward {{
                type filter hook forward priority filter
                {losing(percent)}
            }}
        }}""")


for percent in (0, 1, 2):
    lose(percent)
    name = f"{percent} % loss"
    for family, server in net.server.items():
        check(f"{name}, IPv{family}: curl gets 20 MB", fetch, a, server, 20_000_000)
        check(f"{name}, IPv{family}: 300 connections at once", many, a, server, 300, 20_000)
    check(f"{name}: scp copies there and back", scp_copies, a, net.server[6])
    check(f"{name}: ssh runs a command", ssh_says, a, net.server[4])
    check(f"{name}: a redis session", redis_session, a, net.server[4])
    check(f"{name}: iperf3 there", iperf, a, net.server[4], 1)
    check(f"{name}: iperf3 back", iperf, a, net.server[6], 1, "-R")
    check(f"{name}: iperf3 both ways at once", iperf, a, net.server[4], 1, "--bidir")
    held = Connection(a, net.server[4])
    check(f"{name}: an interactive connection", held.says, MARKER)
    check_enotun(f"{name}: it is encrypted", held.encrypted_at, a)
    held.close()

lose(1)
with a.capture() as wire:
    check("1 % loss: curl gets 100 kB, captured", fetch, a, net.server[4], 100_000)
    check("1 % loss: 20 connections, captured", many, a, net.server[6], 20, 50_000)
check("on the wire: ENO, frames, the same bytes when they are sent again, no plaintext", wire.encrypted, HTTP, ECHO, minimum=21)
check("the daemons still run", net.alive)
