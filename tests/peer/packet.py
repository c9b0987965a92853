"""IP and TCP packets: building them (also wrong ones) and parsing them without mercy."""

import ipaddress
import struct
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << n for n in range(8))
NAMES = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (URG, "URG"), (ECE, "ECE"), (CWR, "CWR")]
MASK = 0xFFFFFFFF


class Bad(Exception):
    """A packet that no correct host sends."""


def fold(data):
    """The ones' complement sum of data (even length assumed by padding), 1 .. 65535 for non-zero data."""
    if len(data) & 1:
        data += b"\0"
    value = int.from_bytes(data, "big") % 0xFFFF
    return value


def checksum(data):
    return 0xFFFF - fold(data) if any(data) else 0xFFFF


def pseudo(src, dst, length):
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, 6, length)
    return src + dst + struct.pack("!II", length, 6)


def flag_names(flags):
    return "|".join(n for f, n in NAMES if flags & f) or "-"


@dataclass
class Seg:
    src: bytes = b""
    dst: bytes = b""
    sport: int = 0
    dport: int = 0
    seq: int = 0
    ack: int = 0
    flags: int = 0
    wnd: int = 65535
    urg: int = 0
    opts: bytes = b""
    payload: bytes = b""
    ecn: int = 0
    ttl: int = 64
    optlist: list = field(default_factory=list)
    raw: bytes = b""
    problems: list = field(default_factory=list)

    def opt(self, kind):
        for k, data in self.optlist:
            if k == kind:
                return data
        return None

    def count(self, kind):
        return sum(1 for k, _ in self.optlist if k == kind)

    def __str__(self):
        opts = " ".join("%d:%s" % (k, d.hex()) if d else str(k) for k, d in self.optlist if k != 1)
        return "%s seq %d ack %d wnd %d len %d%s [%s]" % (
            flag_names(self.flags), self.seq, self.ack, self.wnd, len(self.payload), " urg %d" % self.urg if self.urg else "", opts)


def pad_options(opts):
    return opts + b"\0" * (-len(opts) % 4)


def build(seg, bad_checksum=False, data_offset=None):
    opts = pad_options(seg.opts)
    words = data_offset if data_offset is not None else 5 + len(opts) // 4
    head = struct.pack("!HHIIBBHHH", seg.sport, seg.dport, seg.seq & MASK, seg.ack & MASK, (words & 15) << 4, seg.flags & 0xFF,
                       seg.wnd, 0, seg.urg) + opts
    length = len(head) + len(seg.payload)
    total = checksum(pseudo(seg.src, seg.dst, length) + head + seg.payload)
    if bad_checksum:
        total ^= 0x5A5A
    head = head[:16] + struct.pack("!H", total) + head[18:]
    if len(seg.src) == 4:
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, seg.ecn, 20 + length, 0, 0x4000, seg.ttl, 6, 0, seg.src, seg.dst)
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    else:
        ip = struct.pack("!IHBB16s16s", (6 << 28) | (seg.ecn << 20), length, 6, seg.ttl, seg.src, seg.dst)
    return ip + head + seg.payload


def parse_options(area, problems):
    """Every option, strictly: [(kind, data)]."""
    out, i = [], 0
    while i < len(area):
        kind = area[i]
        if kind == 0:
            if any(area[i:]):
                problems.append("bytes after end-of-options: %s" % area.hex())
            break
        if kind == 1:
            out.append((1, b""))
            i += 1
            continue
        if i + 1 >= len(area) or area[i + 1] < 2 or i + area[i + 1] > len(area):
            problems.append("malformed option area %s" % area.hex())
            break
        out.append((kind, bytes(area[i + 2 : i + area[i + 1]])))
        i += area[i + 1]
    return out


FIXED = {2: 2, 3: 1, 4: 0, 8: 8}


def parse(raw):
    """A Seg, or None if this is no TCP packet. What is wrong with it is in `problems`."""
    if len(raw) < 20:
        return None
    problems = []
    version = raw[0] >> 4
    if version == 4:
        ihl = (raw[0] & 15) * 4
        total, frag = struct.unpack("!H", raw[2:4])[0], struct.unpack("!H", raw[6:8])[0]
        if raw[9] != 6:
            return None
        if ihl != 20:
            problems.append("IPv4 header of %d bytes" % ihl)
        if total != len(raw):
            problems.append("IPv4 total length %d, packet has %d bytes" % (total, len(raw)))
        if frag & 0x3FFF:
            problems.append("fragment")
        if fold(raw[:ihl]) != 0:
            problems.append("bad IPv4 header checksum")
        src, dst, ttl, ecn, tcp = raw[12:16], raw[16:20], raw[8], raw[1] & 3, raw[ihl:total]
    elif version == 6 and len(raw) >= 60 and raw[6] == 6:
        length = struct.unpack("!H", raw[4:6])[0]
        if length + 40 != len(raw):
            problems.append("IPv6 payload length %d, packet has %d bytes" % (length, len(raw)))
        src, dst, ttl, ecn, tcp = raw[8:24], raw[24:40], raw[7], (raw[1] >> 4) & 3, raw[40 : 40 + length]
    else:
        return None
    if len(tcp) < 20:
        return None
    if fold(pseudo(src, dst, len(tcp)) + tcp) != 0:
        problems.append("bad TCP checksum")
    sport, dport, seq, ack, off, flags, wnd, _, urg = struct.unpack("!HHIIBBHHH", tcp[:20])
    hlen = (off >> 4) * 4
    if off & 15:
        problems.append("reserved TCP header bits set: %02x" % off)
    if hlen < 20 or hlen > len(tcp):
        problems.append("data offset %d" % hlen)
        hlen = min(max(hlen, 20), len(tcp))
    if ttl == 0:
        problems.append("TTL 0")
    seg = Seg(src, dst, sport, dport, seq, ack, flags, wnd, urg, tcp[20:hlen], tcp[hlen:], ecn, ttl, raw=raw, problems=problems)
    seg.optlist = parse_options(seg.opts, problems)
    for kind, data in seg.optlist:
        if kind in FIXED and len(data) != FIXED[kind]:
            problems.append("option %d with %d bytes" % (kind, len(data)))
        if kind not in (1,) and seg.count(kind) > 1:
            problems.append("option %d twice" % kind)
        if kind in (2, 3, 4) and not flags & SYN:
            problems.append("option %d outside a SYN" % kind)
    return seg


def dump(raw, limit=96):
    """A packet for a report: the decoded header and the first bytes."""
    seg = parse(raw)
    text = raw[:limit].hex(" ", 4) + (" ... (%d bytes)" % len(raw) if len(raw) > limit else "")
    return "%s\n    %s" % (seg if seg else "not TCP", text)


def address(text):
    return ipaddress.ip_address(text).packed
