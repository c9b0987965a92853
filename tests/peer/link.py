"""Where packets come from and go to, and who they are for."""

import collections
import errno
import fcntl
import os
import select
import struct
import time

import packet

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000


def open_tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


# What is waited for has three times as long as on a machine that has the time.
PATIENCE = 3


class Link:
    """Whole IP packets through a descriptor (a TUN, or one end of a datagram socket pair)."""

    def __init__(self, fd):
        self.fd = fd
        os.set_blocking(fd, False)

    def recv(self, timeout):
        if timeout:
            select.select([self.fd], [], [], timeout)
        try:
            return os.read(self.fd, 70000)
        except BlockingIOError:
            return None

    def send(self, raw):
        for _ in range(200):
            try:
                os.write(self.fd, raw)
                return True
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    return False  # EINVAL: the kernel will not take so broken a packet
                select.select([], [self.fd], [], 0.01)
        return False


class Stack:
    """One link, its connections, and a trace of everything that went through."""

    def __init__(self, link, trace=20000):
        self.link = link
        self.conns = {}
        self.listeners = {}
        self.strays = []
        self.on_other = None  # function(packet) for what is not TCP
        self.trace = collections.deque(maxlen=trace)
        self.start = time.monotonic()

    def send(self, raw):
        self.trace.append((time.monotonic() - self.start, ">", raw))
        return self.link.send(raw)

    def deliver(self, raw):
        seg = packet.parse(raw)
        if seg is None:
            if self.on_other is not None:
                self.on_other(raw)
            return
        self.trace.append((time.monotonic() - self.start, "<", raw))
        conn = self.conns.get((seg.dst, seg.dport, seg.src, seg.sport))
        if conn is not None:
            conn.receive(seg)
            return
        make = self.listeners.get((seg.dst, seg.dport))
        if make is not None and seg.flags & packet.SYN and not seg.flags & packet.ACK:
            conn = make(seg)
            if conn is not None:
                conn.receive(seg)
                return
        self.strays.append(seg)

    def step(self, timeout):
        """Handles what is there; waits up to `timeout` seconds for the first packet."""
        got, deadline = 0, time.monotonic() + timeout
        while got < 64:
            raw = self.link.recv(max(0, deadline - time.monotonic()) if not got else 0)
            if raw is None:
                break
            got += 1
            self.deliver(raw)
        for conn in list(self.conns.values()):
            conn.tick()
        return got

    def pump(self, until=None, timeout=5.0):
        """Runs until `until()` holds (True) or the time is over (False)."""
        deadline = time.monotonic() + timeout * (PATIENCE if until else 1)
        while True:
            if until is not None and until():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.step(min(left, 0.02))

    def write_trace(self, path, limit=400):
        with open(path + ".txt", "w", encoding="ascii") as file:
            rows = list(self.trace)
            if len(rows) > limit:
                file.write("(last %d of %d packets; all kept ones are in the pcap)\n" % (limit, len(rows)))
            for when, way, raw in rows[-limit:]:
                file.write("%9.4f %s %s\n" % (when, "peer>host" if way == ">" else "host>peer", packet.dump(raw, 140)))
        with open(path + ".pcap", "wb") as file:
            file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101))
            for when, _, raw in self.trace:
                file.write(struct.pack("<IIII", int(when), int(when % 1 * 1e6), len(raw), len(raw)) + raw)
