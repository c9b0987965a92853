"""Decrypts a capture with exported keys: an observer that shares no code with enotun.

    decrypt.py --keys FILE [--keys FILE...] --out DIR CAPTURE

FILE is what `enotun up --export-keys` writes (docs/debugging.md). Both streams of every connection in CAPTURE (pcap) whose
SYN-ACK has an ENO option are put together from their segments, cut into frames (RFC 8548, section 4.2) and decrypted, across
rekeys (section 3.8). What the applications sent goes to DIR/CLIENT-SERVER.client and .server; addresses are those of the
capture. One line of JSON for each connection. Exit status 1 if a connection has no keys, a frame does not open, frames are
missing, or one that was closed (FIN) has no FINp. Needs Debian's python3-cryptography.
"""

import argparse
import hashlib
import hmac
import ipaddress
import json
import os
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

FIN, SYN, RST, ACK = 1, 2, 4, 16
ENO = 69
CIPHERS = {1: (16, AESGCM), 2: (32, AESGCM), 16: (32, ChaCha20Poly1305)}
INIT_MAGIC = {"A": bytes.fromhex("15101a0e"), "B": bytes.fromhex("097105e0")}
KEY = {"A": b"\x04", "B": b"\x05"}
REKEY = b"\x03"


class Wrong(Exception):
    """Something in a stream is not as it must be."""


def expand(key, info, length):
    """HKDF-Expand with SHA-256 (RFC 5869, section 2.3)."""
    out, block, count = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + info + bytes([count]), hashlib.sha256).digest()
        out += block
        count += 1
    return out[:length]


def capture(data):
    """IP packets of a pcap file."""
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    skip = {1: 14, 101: 0, 113: 16, 276: 20}[struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF]
    at = 24
    while at + 16 <= len(data):
        size, = struct.unpack_from(order + "I", data, at + 8)
        yield data[at + 16 + skip:at + 16 + size]
        at += 16 + size


def segments(data):
    """(source, destination, sequence number, flags, options, payload) of every TCP segment."""
    for packet in capture(data):
        version = packet[0] >> 4 if packet else 0
        if version == 4 and packet[9] == 6:
            head, length = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 2)[0]
            addresses = [packet[12:16], packet[16:20]]
            tcp = packet[head:length or None]
        elif version == 6 and packet[6] == 6:
            addresses = [packet[8:24], packet[24:40]]
            length = struct.unpack_from("!H", packet, 4)[0]
            tcp = packet[40:40 + length] if length else packet[40:]
        else:
            continue
        if len(tcp) < 20:
            continue
        ports = struct.unpack_from("!HH", tcp)
        seq, = struct.unpack_from("!I", tcp, 4)
        head = (tcp[12] >> 4) * 4
        ends = [(str(ipaddress.ip_address(a)), p) for a, p in zip(addresses, ports)]
        yield ends[0], ends[1], seq, tcp[13], tcp[20:head], tcp[head:]


def has_eno(options):
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if len(options) < 2 or options[1] < 2:
            return False
        if options[0] == ENO:
            return True
        options = options[options[1]:]
    return False


class Stream:
    """One direction, put together again by sequence number; the byte after the SYN is number 0."""

    def __init__(self, isn):
        self.isn = isn
        self.pieces = {}
        self.highest = 0
        self.fin = None
        self.reset = False

    def take(self, seq, flags, payload):
        # The 32 bits nearest to what was seen last: streams are longer than 4 GiB.
        offset = (seq - self.isn - 1) & 0xFFFFFFFF
        offset += (self.highest - offset + (1 << 31)) >> 32 << 32
        if flags & SYN or offset < 0:
            return
        if payload:
            if len(payload) > len(self.pieces.get(offset, b"")):
                self.pieces[offset] = payload
            self.highest = max(self.highest, offset + len(payload))
        if flags & FIN:
            self.fin = offset + len(payload)
        self.reset |= bool(flags & RST)

    def bytes(self):
        """What is there without a gap."""
        out = bytearray()
        for offset in sorted(self.pieces):
            piece = self.pieces[offset]
            if offset > len(out):
                break
            if offset + len(piece) > len(out):
                # What was sent twice was the same both times (TC-27).
                again = out[offset:offset + len(piece)]
                if piece[:len(again)] != bytes(again):
                    raise Wrong("other bytes at offset %d than before" % offset)
                out += piece[len(again):]
        return bytes(out)


class Connection:
    def __init__(self, client, server, isn):
        self.client, self.server = client, server
        self.streams = {client: Stream(isn)}
        self.eno = False
        self.isns = [isn, None]

    def name(self):
        return "%s:%d-%s:%d" % (self.client + self.server)


def connections(data):
    """In order of their SYNs."""
    found, current = [], {}
    for src, dst, seq, flags, options, payload in segments(data):
        if flags & SYN and not flags & ACK:
            known = current.get((src, dst))
            if known is None or known.isns[0] != seq:
                current[src, dst] = Connection(src, dst, seq)
                found.append(current[src, dst])
            continue
        conn = current.get((src, dst)) or current.get((dst, src))
        if conn is None:
            continue
        if flags & SYN:
            if conn.isns[1] != seq:
                conn.isns[1] = seq
                conn.streams[src] = Stream(seq)
                conn.eno = has_eno(options)
            continue
        if src in conn.streams:
            conn.streams[src].take(seq, flags, payload)
    return found


def keys_of(conn, logs):
    """The line that is about this connection: its initial sequence numbers are those of both kernels."""
    for line in logs:
        isns = [line["local_isn"], line["remote_isn"]]
        client_is_local = isns == conn.isns
        if client_is_local or isns[::-1] == conn.isns:
            return line, client_is_local
    return None, None


def open_stream(stream, role, original, line):
    """Decrypts one stream; `role` is its sender's in this connection, `original` that in the first session of the chain."""
    raw = stream.bytes()
    if len(raw) < stream.highest and not stream.reset:
        raise Wrong("%d of %d bytes are in the capture without a gap" % (len(raw), stream.highest))
    size, cipher = CIPHERS[line["aead"]]
    at, frames, generation, finp, urgent = 0, 0, 0, False, 0
    if not line["resumed"]:
        if raw[:4] != INIT_MAGIC[role]:
            raise Wrong("the stream does not begin with an Init message: %s" % raw[:4].hex())
        at, = struct.unpack_from("!I", raw, 4)
    master = bytes.fromhex(line["master_key"])

    def keys():
        material = expand(master, KEY[original], size + 12)
        return cipher(material[:size]), int.from_bytes(material[size:], "big")

    aead, randomizer = keys()
    plain = bytearray()
    while at + 3 <= len(raw):
        control, length = struct.unpack_from("!BH", raw, at)
        if at + 3 + length > len(raw):
            break
        if finp:
            raise Wrong("a frame at %d, after the one with FINp" % at)
        if control & 1:
            master = expand(master, REKEY, 32)
            generation += 1
            aead, randomizer = keys()
        nonce = (randomizer ^ at).to_bytes(12, "big")
        try:
            text = aead.decrypt(nonce, raw[at + 3:at + 3 + length], raw[at:at + 3])
        except InvalidTag:
            raise Wrong("the frame at %d (%d bytes, generation %d) does not open" % (at, length, generation)) from None
        finp = bool(text[0] & 1)
        urgent += text[0] >> 1 & 1
        plain += text[3 if text[0] & 2 else 1:]
        at += 3 + length
        frames += 1
    if not stream.reset:
        if at != len(raw):
            raise Wrong("%d bytes after the last frame" % (len(raw) - at))
        if stream.fin is not None and not finp:
            raise Wrong("FIN without FINp")
        if finp and stream.fin is not None and stream.fin != at:
            raise Wrong("the FIN is not where the frame with FINp ends")
    return bytes(plain), {"frames": frames, "generations": generation, "bytes": len(plain), "finp": finp, "urgent": urgent}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", action="append", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("capture")
    args = parser.parse_args()
    logs = [json.loads(line) for path in args.keys for line in open(path)]
    os.makedirs(args.out, exist_ok=True)
    failed = 0
    with open(args.capture, "rb") as file:
        found = [conn for conn in connections(file.read()) if conn.eno]
    for conn in found:
        report = {"connection": conn.name()}
        line, client_is_local = keys_of(conn, logs)
        try:
            if line is None:
                raise Wrong("no keys")
            report.update(session_id=line["session_id"], resumed=line["resumed"])
            for side, end, is_local in (("client", conn.client, client_is_local), ("server", conn.server, not client_is_local)):
                other = {"A": "B", "B": "A"}
                role, original = line["role"], line["original_role"]
                if not is_local:
                    role, original = other[role], other[original]
                plain, report[side] = open_stream(conn.streams[end], role, original, line)
                with open(os.path.join(args.out, "%s.%s" % (conn.name(), side)), "wb") as file:
                    file.write(plain)
        except Wrong as wrong:
            failed += 1
            report["error"] = str(wrong)
        print(json.dumps(report))
    if not found:
        print("no connection with ENO in %s" % args.capture, file=sys.stderr)
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
