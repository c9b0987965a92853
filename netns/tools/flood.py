"""Floods of SYNs, for the tests.

    flood.py forged DESTINATION PORT RATE SECONDS eno|bare one|many     as root: SYNs with other sources; prints how many went out
    flood.py local FIRST COUNT                                          without privileges: opens and drops connections that nobody answers
    flood.py genuine HOST PORT SECONDS GAP [LOCAL]                      one connection after the other, and all stay open until stdin ends;
                                                                        prints port, time to connect and to have an echo, of each, as JSON
"""

import ipaddress
import json
import os
import random
import socket
import struct
import sys
import threading
import time

from inet import checksum


def syn(source, destination, port, number, eno):
    option = bytes.fromhex("4504212301010101") if eno else b""
    sport, isn = random.randint(1024, 65000), random.getrandbits(32)
    tcp = struct.pack("!HHIIBBHHH", sport, port, isn, 0, (5 + len(option) // 4) << 4, 2, 64000, 0, 0) + option
    pseudo = source.packed + destination.packed + struct.pack("!II", len(tcp), 6)
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + source.packed + destination.packed + tcp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), number & 0xFFFF, 0, 64, 6, 0) + source.packed + destination.packed
    return head + tcp


def forged(destination, port, rate, seconds, kind, who):
    to = ipaddress.ip_address(destination)
    one = ipaddress.ip_address("10.77.0.9" if to.version == 4 else "fd00:77::9")

    def source():
        if who == "one":
            return one
        if to.version == 4:
            return ipaddress.ip_address((10 << 24) + (77 << 16) + random.getrandbits(16))
        return ipaddress.ip_address((0xFD000077 << 96) + (random.getrandbits(16) << 64) + random.getrandbits(32))

    packets = [syn(source(), to, port, n, kind == "eno") for n in range(min(150_000, int(rate * seconds)))]
    s = socket.socket(socket.AF_INET if to.version == 4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    address = (destination, 0) if to.version == 4 else (destination, 0, 0, 0)
    print("ready", flush=True)
    began, n, sent = time.monotonic(), 0, 0
    while (now := time.monotonic() - began) < seconds:
        due = int(now * rate)
        if due - n > rate // 10:
            n = due - rate // 10  # what could not be sent is not made up for
        while n < due:
            try:
                s.sendto(packets[n % len(packets)], address)
                sent += 1
            except OSError:
                pass
            n += 1
        time.sleep(0.001)
    print(sent, flush=True)


def local(first, count):
    print("ready", flush=True)
    began = time.monotonic()
    for n in range(count):
        s = socket.socket(socket.AF_INET6 if ":" in first else socket.AF_INET)
        s.setblocking(False)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            s.connect((str(ipaddress.ip_address(first) + n % 100), 1000 + n % 50_000))
        except (BlockingIOError, OSError):
            pass
        s.close()
    print(f"{count} connects in {time.monotonic() - began:.1f} s", flush=True)


def genuine(host, port, seconds, gap):
    results, held = [], []

    def one():
        began = time.monotonic()
        result = {"port": None, "connect": None, "echo": None, "error": None}
        results.append(result)
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        held.append(s)
        s.settimeout(8)
        try:
            s.bind(("::" if ":" in host else "0.0.0.0", 0))
            result["port"] = s.getsockname()[1]
            s.connect((host, port))
            result["connect"] = time.monotonic() - began
            s.sendall(b"hello\n")
            while not s.recv(100).endswith(b"\n"):
                pass
            result["echo"] = time.monotonic() - began
        except OSError as error:
            result["error"] = repr(error)

    threads, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        threads.append(threading.Thread(target=one))
        threads[-1].start()
        time.sleep(gap)
    for thread in threads:
        thread.join()
    print(json.dumps(results), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    words = [int(w) if w.isdigit() else float(w) if w.replace(".", "", 1).isdigit() and w.count(".") == 1 else w for w in words]
    try:
        {"forged": forged, "local": local, "genuine": genuine}[command](*words)
    except KeyboardInterrupt:
        os._exit(1)
