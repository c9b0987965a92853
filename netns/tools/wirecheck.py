"""Says what a capture shows of TCP-ENO and tcpcrypt: an observer that shares no code with enotun.

    wirecheck.py FILE --port P [--port P...] --marker TEXT [--expect encrypted|plain] [--syn-only] [--min N]

Every connection to the ports is put together again from its segments. `encrypted` means:
ENO (kind 69) in the SYN, the SYN-ACK and the active opener's first other segment (ENO-12), both
streams begin with Init1 and Init2 (or the session is resumed) and are frames from there to
their end (TC-23), a byte once sent is never sent with another value (TC-27), and the marker is
nowhere. A capture that lacks bytes of a stream is not as expected.
`plain` means: no ENO in the SYN-ACK and no Init message. Exit status 1 if any
connection is not as expected, or if there are fewer than --min (1) of them.
"""

import argparse
import collections
import struct
import sys

ENO = 69
INIT1, INIT2 = bytes.fromhex("15101a0e"), bytes.fromhex("097105e0")
FIN, SYN, RST, ACK = 1, 2, 4, 16


def packets(data):
    """The packets of a pcap file, each from its network header on."""
    endian = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    linktype = struct.unpack(endian + "I", data[20:24])[0] & 0xFFFF
    at = 24
    while at + 16 <= len(data):
        captured, = struct.unpack(endian + "I", data[at + 8:at + 12])
        packet = data[at + 16:at + 16 + captured]
        at += 16 + captured
        if linktype == 1:  # Ethernet
            if packet[12:14] in (b"\x08\x00", b"\x86\xdd"):
                yield packet[14:]
        elif linktype == 276:  # Linux cooked v2
            yield packet[20:]
        elif linktype == 113:  # Linux cooked
            yield packet[16:]
        else:  # raw IP
            yield packet


Segment = collections.namedtuple("Segment", "src dst flags seq options payload")


def segment(p):
    """The TCP segment in an IP packet, or None."""
    if not p:
        return None
    if p[0] >> 4 == 4:
        if p[9] != 6 or struct.unpack("!H", p[6:8])[0] & 0x1FFF:
            return None
        total = struct.unpack("!H", p[2:4])[0] or len(p)
        src, dst, tcp = p[12:16], p[16:20], p[(p[0] & 15) * 4:total]
    elif p[0] >> 4 == 6:
        if p[6] != 6:
            return None
        length = struct.unpack("!H", p[4:6])[0]
        src, dst, tcp = p[8:24], p[24:40], p[40:40 + length] if length else p[40:]
    else:
        return None
    if len(tcp) < 20:
        return None
    sport, dport, seq, _, offset, flags = struct.unpack("!HHIIBB", tcp[:14])
    end = (offset >> 4) * 4
    return Segment((src, sport), (dst, dport), flags, seq, options(tcp[20:end]), tcp[end:])


def options(raw):
    found = []
    while raw and raw[0] != 0:
        if raw[0] == 1:
            raw = raw[1:]
            continue
        if len(raw) < 2 or raw[1] < 2 or raw[1] > len(raw):
            break
        found.append((raw[0], raw[2:raw[1]]))
        raw = raw[raw[1]:]
    return found


def eno(seg):
    found = [data for kind, data in seg.options if kind == ENO]
    return found[0] if found else None


def names_a_session(contents):
    """Whether a SYN-ACK's ENO option accepts a resumption: its TEP (ENO-10: there is one) has v = 1 and data."""
    for b in contents:
        # Global suboptions and length bytes stand before it (ENO-2).
        if b >= 0xA0 or 0x20 <= b < 0x80:
            return b >= 0xA0
    return False


class Stream:
    """One direction's bytes."""

    def __init__(self):
        self.isn = None
        self.data = bytearray()
        self.have = bytearray()
        self.changed = 0
        self.fin = None

    def add(self, seg):
        if self.isn is None:
            return
        at = (seg.seq - self.isn - 1) & 0xFFFFFFFF
        # Streams in tests stay below 2 GiB: what seems further on is a keep-alive's old byte.
        if at >= 1 << 31:
            return
        end = at + len(seg.payload)
        if seg.flags & FIN:
            self.fin = end
        if not seg.payload:
            return
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
            self.have.extend(bytes(end - len(self.have)))
        known = self.have[at:end]
        if any(known):
            old = self.data[at:end]
            if any(k and o != n for k, o, n in zip(known, old, seg.payload)):
                self.changed += 1
                return
        self.data[at:end] = seg.payload
        self.have[at:end] = b"\x01" * len(seg.payload)

    def contiguous(self):
        """The bytes up to the first that is missing, and whether one is: before others, or at the end before the FIN."""
        gap = self.have.find(0)
        whole = gap < 0 and (self.fin is None or self.fin <= len(self.data))
        return bytes(self.data if gap < 0 else self.data[:gap]), not whole


class Connection:
    def __init__(self, syn):
        self.syn = syn
        self.synack = None
        self.third = None
        self.streams = {syn.src: Stream(), syn.dst: Stream()}
        self.streams[syn.src].isn = syn.seq
        self.reset = False

    def add(self, seg):
        if seg.flags & SYN and seg.flags & ACK:
            self.synack = self.synack or seg
            self.streams[seg.src].isn = seg.seq
            return
        if seg.flags & RST:
            self.reset = True
            return
        if seg.flags & SYN:
            return
        if seg.src == self.syn.src and self.third is None:
            self.third = seg
        self.streams[seg.src].add(seg)

    def problems(self, expect):
        """What is not as expected."""
        if expect == "plain":
            if self.synack is not None and eno(self.synack) is not None:
                yield "the SYN-ACK has an ENO option"
            for stream in self.streams.values():
                if stream.contiguous()[0][:4] in (INIT1, INIT2):
                    yield "there is an Init message"
            return
        if eno(self.syn) is None:
            yield "no ENO option in the SYN"
        if eno(self.synack) is None:
            yield "no ENO option in the SYN-ACK"
            return
        if self.third is None:
            return
        if eno(self.third) is None:
            yield "no ENO option in the first segment after the SYN"
        resumed = names_a_session(eno(self.synack))
        for source, magic in ((self.syn.src, INIT1), (self.syn.dst, INIT2)):
            stream = self.streams[source]
            who = "client" if source == self.syn.src else "server"
            if stream.changed:
                yield f"{who}: {stream.changed} segments resend bytes with another value (TC-27)"
            yield from (f"{who}: {p}" for p in self.frames(stream, magic, resumed))

    @staticmethod
    def frames(stream, magic, resumed):
        data, gap = stream.contiguous()
        if gap:
            yield f"the capture lacks bytes from {len(data)} on"
        at = 0
        if not resumed and data:
            if data[:4] != magic[:len(data)]:
                yield f"the stream begins with {data[:4].hex()}, not an Init message"
                return
            if len(data) < 8:
                return
            at = struct.unpack("!I", data[4:8])[0]
        count = 0
        while at + 3 <= len(data):
            control, clen = data[at], struct.unpack("!H", data[at + 1:at + 3])[0]
            if control & 0xFE or clen < 17:
                yield f"offset {at} is no frame: {data[at:at + 8].hex()}"
                return
            at += 3 + clen
            count += 1
        if stream.fin is not None and not gap and at != stream.fin:
            yield f"FIN at {stream.fin}, the last frame ends at {at}"


def judge(data, ports, expect="any", marker="", minimum=1, syn_only=False):
    """Whether all is as expected, and lines that say what was seen."""
    connections, done = {}, []
    for packet in packets(data):
        seg = segment(packet)
        if seg is None or (ports and seg.src[1] not in ports and seg.dst[1] not in ports):
            continue
        key = frozenset((seg.src, seg.dst))
        if seg.flags & SYN and not seg.flags & ACK:
            old = connections.get(key)
            if old is None or old.syn.seq != seg.seq:
                connections[key] = Connection(seg)
                done.append(connections[key])
        elif key in connections:
            connections[key].add(seg)

    lines = []
    established = [c for c in done if c.synack is not None and c.third is not None]
    if syn_only:
        for c in established:
            c.streams = {end: Stream() for end in c.streams}
    for c in established:
        lines += [f"client port {c.syn.src[1]}: {problem}" for problem in ([] if expect == "any" else c.problems(expect))]
    bad = len(lines)
    seen = max(data.count(marker.encode()), sum(bytes(s.data).count(marker.encode()) for c in done for s in c.streams.values())) \
        if marker else 0
    with_eno = sum(eno(c.syn) is not None and eno(c.synack) is not None for c in established)
    lines = lines[:10] + [f"{len(established)} connections, {with_eno} with ENO in SYN and SYN-ACK; "
                          f"marker seen {seen} times; {bad} problems"]
    return not bad and len(established) >= minimum and not (expect == "encrypted" and seen), lines


def main():
    p = argparse.ArgumentParser()
    p.add_argument("file")
    p.add_argument("--port", type=int, action="append", default=[])
    p.add_argument("--marker", default="")
    p.add_argument("--expect", choices=["encrypted", "plain", "any"], default="any")
    p.add_argument("--min", type=int, default=1)
    p.add_argument("--syn-only", action="store_true", help="only look at the handshakes' options")
    a = p.parse_args()
    with open(a.file, "rb") as file:
        ok, lines = judge(file.read(), a.port, a.expect, a.marker, a.min, a.syn_only)
    print(*lines, sep="\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
