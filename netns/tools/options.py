"""Sockets with TCP options of their own, for the tests. They know nothing of enotun.

    options.py serve KIND ADDRESS PORT PEER       serves one line after the other: sends back what it gets
    options.py ask KIND ADDRESS PORT TEXT         sends a line and prints the reply; stays open until stdin ends

KIND: plain, fastopen (data in the SYN, if there is a cookie), mptcp, md5.
"""

import os
import socket
import struct
import sys

TCP_MD5SIG = 14
IPPROTO_MPTCP = 262
KEY = b"signed segments"


def sign(s, peer):
    """TCP-MD5 with `peer`."""
    if ":" in peer:
        address = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, peer), 0)
    else:
        address = struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(peer))
    s.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, address.ljust(128, b"\0") + struct.pack("=BBHi", 0, 0, len(KEY), 0) + KEY.ljust(80, b"\0"))


def open_socket(kind, address, peer):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP if kind == "mptcp" else 0)
    if kind == "md5":
        sign(s, peer)
    return s


def serve(kind, address, port, peer):
    s = open_socket(kind, address, peer)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == "fastopen":
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    s.bind((address, port))
    s.listen(16)
    print("ready", flush=True)
    while True:
        c, _ = s.accept()
        if os.fork() == 0:
            with c, c.makefile("rb") as lines:
                for line in lines:
                    c.sendall(line)
            os._exit(0)
        c.close()


def ask(kind, address, port, text):
    s = open_socket(kind, address, address)
    line = text.encode() + b"\n"
    if kind == "fastopen":
        s.sendto(line, socket.MSG_FASTOPEN, (address, port))
        s.settimeout(20)
    else:
        s.settimeout(20)
        s.connect((address, port))
        s.sendall(line)
    print(s.makefile("rb").readline().decode(errors="backslashreplace").rstrip(), *s.getsockname()[:2], flush=True)
    sys.stdin.read()


def main():
    command, kind, address, port, more = sys.argv[1:]
    {"serve": serve, "ask": ask}[command](kind, address, int(port), more)


if __name__ == "__main__":
    try:
        main()
    except OSError as e:
        print("error", e, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
