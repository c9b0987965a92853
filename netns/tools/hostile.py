"""Sends malformed packets into a device: hostile.py DEVICE COUNT CLIENT4 SERVER4 CLIENT6 SERVER6

The ends are address:port of connections that are open: many of the packets pretend to be
theirs, but are broken so that no TCP may believe them (checksum, lengths, options, out-of-window
sequence numbers). Random from a fixed seed.
"""

import random
import socket
import struct
import sys

from inet import checksum

device, count = sys.argv[1], int(sys.argv[2])
c4, s4, c6, s6 = (end.rpartition(":")[::2] for end in sys.argv[3:7])
rng = random.Random(8547)


def end(e, family):
    return socket.inet_pton(family, e[0]), int(e[1])


def options():
    kind = rng.randrange(8)
    if kind == 0:
        return b""
    if kind == 1:
        return bytes([69, rng.randrange(256)]) + rng.randbytes(rng.randrange(20))
    if kind == 2:
        return bytes([69, 4, rng.randrange(256), rng.randrange(256)]) * rng.randrange(1, 5)
    if kind == 3:
        return bytes([8, 10]) + rng.randbytes(8) + bytes([5, rng.choice([0, 1, 2, 9, 10, 200])])
    if kind == 4:
        return bytes([2, 4, 0, rng.randrange(3), 3, 3, 255, 1])
    return rng.randbytes(rng.randrange(41))


def tcp(src, dst, good_checksum):
    opts = options()[:40]
    opts += b"\1" * (-len(opts) % 4)
    payload = rng.choice([b"", rng.randbytes(rng.randrange(100)), b"\x15\x10\x1a\x0e" + b"\xff" * 4])
    offset = rng.choice([5 + len(opts) // 4] * 4 + [0, 4, 15])
    segment = struct.pack("!HHIIBBHHH", src[1], dst[1], rng.getrandbits(32), rng.getrandbits(32), offset << 4,
                          rng.choice([0, 0x10, 0x18, 0x3F, 0x02, 0x12, 0x11, 0x29, 0xFF]),
                          rng.getrandbits(16), 0, rng.getrandbits(16)) + opts + payload
    pseudo = src[0] + dst[0] + struct.pack("!IBBBB", len(segment), 0, 0, 0, 6)
    value = checksum(pseudo + segment) if good_checksum else rng.getrandbits(16)
    return segment[:16] + struct.pack("!H", value) + segment[18:]


def packet():
    v6 = rng.random() < 0.5
    family = socket.AF_INET6 if v6 else socket.AF_INET
    ends = [end(c6, family), end(s6, family)] if v6 else [end(c4, family), end(s4, family)]
    rng.shuffle(ends)
    src, dst = ends
    # With a good checksum only for connections that do not exist: a segment that is right in
    # every way but its sequence number is TCP's own matter, and tested elsewhere.
    good = rng.random() < 0.5
    if good:
        src, dst = (src[0], rng.randrange(1024, 65536)), (dst[0], rng.randrange(20000, 65536))
    segment = tcp(src, dst, good)
    if v6:
        length = rng.choice([len(segment)] * 5 + [0, 1, 65535])
        p = struct.pack("!IHBB", 6 << 28, length, rng.choice([6, 6, 6, 0, 44, 59, 60]), 64) + src[0] + dst[0] + segment
    else:
        total = rng.choice([20 + len(segment)] * 5 + [0, 19, 65535])
        ihl = rng.choice([5] * 6 + [0, 4, 6, 15])
        p = struct.pack("!BBHHHBBH", 4 << 4 | ihl, 0, total, rng.getrandbits(16),
                        rng.choice([0, 0, 0, 0x4000, 0x2000, 0x00FF]), 64, 6, 0) + src[0] + dst[0]
        p = p[:10] + struct.pack("!H", checksum(p)) + p[12:] + segment
    cut = rng.randrange(10)
    if cut == 0:
        p = p[:rng.randrange(1, len(p))]
    elif cut == 1:
        p = rng.randbytes(rng.randrange(1, 200))
    elif cut == 2:
        at = rng.randrange(len(p))
        p = p[:at] + rng.randbytes(1) + p[at + 1:] if v6 or at >= 20 else p
    return p


sent = 0
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as s:
    mac = b"\xff" * 6
    for _ in range(count):
        p = packet()
        protocol = 0x86DD if p[0] >> 4 == 6 else 0x0800
        try:
            s.sendto(p, (device, protocol, 0, 0, mac))
            sent += 1
        except OSError as e:
            if e.errno not in (22, 90, 105):  # what the kernel itself will not send, or has no room for
                raise
print(sent, "sent")
sys.exit(0 if sent > count // 2 else 1)
