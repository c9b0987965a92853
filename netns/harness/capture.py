"""Captures. What a device carries is taken by a packet socket whose buffer holds more than a case sends, so that nothing is
lost on a busy machine; tcpdump's ring has one slot of 64 KiB for each packet and is full after a burst."""

import ctypes
import random
import socket
import struct
import subprocess
import threading
import time

from harness.checks import Failed, need, note, plain, wait_for, work

ALL = 3
SO_RCVBUFFORCE, SO_ATTACH_FILTER = 33, 26
SOL_PACKET, PACKET_STATISTICS = 263, 6
BUFFER = 1 << 29


def _attach(s, expression):
    """tcpdump's filter, run by the kernel."""
    code = subprocess.run(["tcpdump", "-y", "EN10MB", "-ddd", expression], capture_output=True, text=True, check=True).stdout
    rows = [tuple(map(int, line.split())) for line in code.splitlines()[1:]]
    program = b"".join(struct.pack("HBBI", *row) for row in rows)
    buffer = ctypes.create_string_buffer(program, len(program))
    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(rows), ctypes.addressof(buffer)))


class Capture(threading.Thread):
    """What passes `device` of `node`, or what of it a filter of tcpdump lets through, in a pcap file. With `with`: until the end of it."""

    def __init__(self, node, device, only=""):
        super().__init__(daemon=True)
        self.node, self.device = node, device
        with node.inside():
            # No protocol yet: nothing comes before the filter is there.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        if only:
            _attach(self.socket, f"({only}) or port 9")
        self.socket.bind((device, ALL))
        self.path = work(f"{device}-{random.getrandbits(48):x}.pcap")
        self.end = b"end-of-capture-%x" % random.getrandbits(64)
        self.error, self.over = None, threading.Event()
        self.start()

    def run(self):
        try:
            with open(self.path, "wb") as file:
                file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1))
                buffer = memoryview(bytearray(1 << 18))
                while True:
                    size = self.socket.recv_into(buffer)
                    if self.end in bytes(buffer[:100]):
                        return
                    now = time.time()
                    file.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), size, size))
                    file.write(buffer[:size])
        except OSError as error:
            self.error = error
        finally:
            self.over.set()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()

    def stop(self):
        """A packet with known text is sent over the device last, so the file holds all that came before."""
        def ended():
            self._send_end()
            return self.over.wait(0.2)

        wait_for(20, ended)
        need(self.error is None, f"the capture on {self.device}: {self.error}")
        _, lost = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.socket.close()
        need(lost == 0, f"the capture on {self.device} lost {lost} packets")
        return self

    def _send_end(self):
        udp = struct.pack("!HHHH", 9, 9, 8 + len(self.end), 0) + self.end
        # 192.0.2.0/24 is documentation space, and the destination MAC is nobody's: no host takes it.
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 1, 17, 0, *[socket.inet_aton("192.0.2.9")] * 2)
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
        with self.node.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as s:
            try:
                s.sendto(head + udp, (self.device, 0x0800, 0, 0, b"\x02\0\0\0\0\x09"))
            except OSError as error:
                raise Failed(f"nothing can be sent over {self.device}: {error}") from error

    # ---- what it shows

    def has(self, text):
        return text.encode() in self.path.read_bytes()

    def shown(self, *arguments):
        """What tcpdump says of it."""
        done = subprocess.run(["tcpdump", "-nr", str(self.path), *arguments], capture_output=True, text=True, errors="replace", check=True)
        return done.stdout

    def wire(self, *ports, expect="any", minimum=1, marker=None):
        """netns/tools/wirecheck.py's judgement of the connections to the ports."""
        import wirecheck
        from harness.net import MARKER
        ok, lines = wirecheck.judge(self.path.read_bytes(), ports, expect, MARKER if marker is None else marker, minimum)
        note("\n".join(lines))
        return ok

    def encrypted(self, *ports, minimum=1):
        """Every connection to the ports is ENO and frames, and no plaintext anywhere; in plain mode, that all of it is plain."""
        return self.wire(*ports, expect="plain" if plain else "encrypted", minimum=minimum)
