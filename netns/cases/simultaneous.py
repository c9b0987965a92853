"""Both hosts connect at once, and their SYNs cross on a slow link (RFC 9293, section 3.5): encrypted if one of them is B for
it, plain if none is (ENO-7)."""

import errno
import select
import socket
import time

from harness import MARKER, check, need, note, plain, same, sessions_agree, topology

# Seconds on the way: time enough for the other end to connect, too.
DELAY = 0.25
net = topology("emulated", LINK=f"--delay {DELAY * 1000:.0f}")
a, b = net.a, net.b
PATIENCE = 60


class End:
    """A socket of one host, with the port that the other connects to."""

    def __init__(self, node, address, port):
        with node.inside():
            self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.name, self.address, self.got = node.name, (address, port), b""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.address)
        self.socket.setblocking(False)

    def connect(self, other):
        result = self.socket.connect_ex(other.address)
        need(result == errno.EINPROGRESS, f"connect at {self.name}: {errno.errorcode.get(result)}")

    def opened(self):
        _, ready, _ = select.select([], [self.socket], [], PATIENCE)
        need(ready, f"nothing came of the connection at {self.name}")
        result = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.socket.settimeout(PATIENCE)
        return need(result == 0, f"connect at {self.name}: {errno.errorcode.get(result)}")

    def says(self, other):
        """A line from the other end comes here."""
        line = f"{MARKER} from {other.name}\n".encode()
        other.socket.sendall(line)
        return same(self.socket.recv(len(line), socket.MSG_WAITALL), line)


def cross(port, family):
    """Both connect, so shortly one after the other that neither SYN is there before the other is sent. If the machine was busy, both try
    again from other ports."""
    for first in range(port, port + 1000, 100):
        ends = End(a, net.client[family], first), End(b, net.server[family], first + 1000)
        began = time.monotonic()
        ends[0].connect(ends[1])
        ends[1].connect(ends[0])
        if time.monotonic() - began < DELAY / 2:
            return ends
    raise SystemExit("the machine is too busy for two calls")


def lines(one, two):
    return one.opened() and two.opened() and one.says(two) and two.says(one)


def close(one, two):
    """Both see the other's end."""
    for end in (one, two):
        end.socket.shutdown(socket.SHUT_WR)
    for end in (one, two):
        same(end.socket.recv(1), b"")
        end.socket.close()
    return True


def flows(ends):
    """What a and b list of it."""
    return [flow for node, end in zip((a, b), ends) for flow in node.flows(end.address[1])]


def roles(role_a, role_b, ends):
    """Each end has its role and they agree on the session."""
    same([flow["role"] for flow in flows(ends)], [role_a, role_b])
    return sessions_agree(a, b, ends[0].address[1])


def both_syns(wire):
    """A SYN without ACK from both sides comes before the first SYN-ACK."""
    syns = wire.shown("tcp[tcpflags] & tcp-syn != 0").splitlines()
    note("\n".join(syns))
    return all("Flags [S]" in line for line in syns[:2]) and len({line.split()[2] for line in syns[:2]}) == 2


with a.capture() as wire:
    ends = cross(6000, 4)
    check("without enotun: lines go both ways", lines, *ends)
check("the SYNs have crossed", both_syns, wire)
check("and both see the other's end", close, *ends)

if not plain:
    a.start("10.4.2.0/24,role-b", "fd00:a:2::/64,role-b")
    b.start("10.4.1.0/24", "fd00:a:1::/64")
    for port, family in ((6001, 4), (6002, 6)):
        name = f"IPv{family}"
        with a.capture() as wire:
            ends = cross(port, family)
            check(f"{name}, one is B: lines go both ways", lines, *ends)
            check(f"{name}: encrypted, a is B", roles, "B", "A", ends)
        if family == 4:
            check("the SYNs have crossed", both_syns, wire)
        check(f"{name}: no plaintext on the wire", lambda: not wire.has(MARKER))
        check(f"{name}: both see the other's end", close, *ends)
    # B proposes to resume if another TEP has room beside that: not with timestamps in the SYN.
    for node in (a, b):
        node.sysctl("net.ipv4.tcp_timestamps=0")
    ends = cross(6003, 4)
    check("again without timestamps: lines go both ways", lines, *ends)
    check("both have proposed the same secret: resumed (TC-19)",
          lambda: all(flow["resumed"] for flow in flows(ends)) and roles("B", "A", ends))
    check("both see the other's end", close, *ends)

    check("options change at run time", a.enotun, "enable", "10.4.2.0/24")
    ends = cross(6004, 4)
    check("none is B: lines go both ways", lines, *ends)
    check("none is B: plain", lambda: same([flow["state"] for flow in flows(ends)], ["plain"] * 2))
    check("none is B: both see the other's end", close, *ends)
    check("the daemons still run", net.alive)
