"""Sockets with TCP options of their own, for the tests. They know nothing of enotun.

    options.py serve KIND ADDRESS PORT PEER       serves one line after the other: sends back what it gets

`ask` is the other end. KIND: plain, fastopen (data in the SYN, if there is a cookie), mptcp, md5.
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
    """Sends a line: the socket, which is still open, and the reply."""
    s = open_socket(kind, address, address)
    line = text.encode() + b"\n"
    if kind == "fastopen":
        # Blocks until there is a connection, where there is no cookie.
        s.sendto(line, socket.MSG_FASTOPEN, (address, port))
        s.settimeout(60)
    else:
        s.settimeout(60)
        s.connect((address, port))
        s.sendall(line)
    return s, s.makefile("rb").readline().decode(errors="backslashreplace").rstrip()


if __name__ == "__main__":
    try:
        _, _, kind, address, port, peer = sys.argv
        serve(kind, address, int(port), peer)
    except OSError as e:
        print("error", e, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
