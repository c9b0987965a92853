"""A link with delay, jitter, reordering, duplicates, loss, and a slow one with a short queue: everything arrives intact."""

from harness import (HTTP, MARKER, Connection, check, check_enotun, down, fetch, iperf, many, redis_session, serve_all, ssh_says,
                     topology)

for link in ("--delay 20 --jitter 5",
             "--delay 10 --reorder 2",
             "--delay 5 --reorder 20 --duplicate 2",
             "--delay 10 --reorder 2 --loss 1 --duplicate 1",
             "--delay 5 --rate 50 --queue 50"):
    net = topology("emulated", LINK=link)
    a, b = net.a, net.b
    net.start()
    serve_all(b)
    size = 100_000 if "--loss" in link else 20_000_000
    with a.capture(only=f"port {HTTP}") as wire:
        for family, server in net.server.items():
            check(f"{link}: IPv{family}: curl gets {size} bytes", fetch, a, server, size)
    # A short queue loses SYNs when too many come at once, and after three lost ones opportunistic connections go plain.
    count = 40 if "--queue" in link else 300
    check(f"{link}: {count} connections at once", many, a, net.server[4], count, 10_000)
    check(f"{link}: ssh runs a command", ssh_says, a, net.server[6])
    check(f"{link}: a redis session", redis_session, a, net.server[4])
    check(f"{link}: iperf3 both ways at once", iperf, a, net.server[4], 1, "--bidir")
    held = Connection(a, net.server[4])
    check(f"{link}: an interactive connection", held.says, MARKER)
    check_enotun(f"{link}: it is encrypted", held.encrypted_at, a)
    check_enotun(f"{link}: resent bytes are the same bytes, and no plaintext", wire.encrypted, HTTP)
    check(f"{link}: the daemons still run", net.alive)
    held.close()
    down()
