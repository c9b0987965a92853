"""How connections end, as applications see it. The same program is run with and without enotun,
and what it prints must be the same.

    closes.py server BASE-PORT            serves until stdin ends, then prints what it saw
    closes.py client HOST BASE-PORT       runs all scenarios at once, prints what it saw

Each scenario has a port of its own, BASE-PORT + its number. `refused` has no listener; the
case that runs this drops what comes to the port of `unanswered` and rejects that of
`prohibited` (see PORTS below), and the server cuts connections of the `dead_*` scenarios with nft.
"""

import errno
import hashlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

LARGE = 2_000_000
QUICK = 0.5  # seconds: longer than any exchange here takes, shorter than what is waited for


def pattern(size):
    return hashlib.sha256(b"pattern").digest() * (size // 32 + 1)


def data_of(size):
    return pattern(size)[:size]


def read_to_end(s):
    """Everything up to end-of-file or an error; how it ended."""
    h, n = hashlib.sha256(), 0
    while True:
        try:
            d = s.recv(65536)
        except OSError as e:
            return f"{n} bytes then {name(e)}"
        if not d:
            good = "intact" if h.digest() == hashlib.sha256(data_of(n)).digest() else "DAMAGED"
            return f"{n} bytes {good} then end of file"
        h.update(d)
        n += len(d)


def read_exactly(s, size):
    got = b""
    while len(got) < size:
        d = s.recv(size - len(got))
        if not d:
            raise EOFError
        got += d
    return got


def name(e):
    return errno.errorcode.get(e.errno, repr(e))


def linger(s, seconds):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


def attempt(action, *args):
    try:
        action(*args)
        return "ok"
    except OSError as e:
        return name(e)


def timed(action, *args):
    start = time.monotonic()
    result = attempt(action, *args)
    return result, time.monotonic() - start


def wait_readable(s):
    select.select([s], [], [], 20)


def wait_reset(s):
    """Until a RST has arrived; the next call on the socket tells."""
    poll = select.poll()
    poll.register(s, 0)
    poll.poll(20_000)


def wait_urgent(s):
    select.select([], [], [s], 20)


def wait_for_event(s, seconds=8):
    """What the next read brings, however long it takes."""
    s.settimeout(seconds)
    try:
        return f"{len(s.recv(100))} bytes"
    except OSError as e:
        return name(e)


def cut(port):
    """From now on nothing that a client sends to the port arrives here."""
    subprocess.run(["nft", "add", "rule", "inet", "closes", "cut", "tcp", "dport", str(port), "drop"],
                   check=True)


# ---- scenarios: name -> (client, server); each gets a socket and says what it saw -----------


class Scenarios:
    # The client ends its direction first, then gets a large answer.
    def half_close_client_c(s):
        s.sendall(data_of(1000))
        s.shutdown(socket.SHUT_WR)
        return read_to_end(s)

    def half_close_client_s(s):
        saw = read_to_end(s)
        s.sendall(data_of(LARGE))
        s.close()
        return saw

    # The server ends its direction first, then gets a large upload.
    def half_close_server_c(s):
        saw = read_to_end(s)
        s.sendall(data_of(LARGE))
        s.close()
        return saw

    def half_close_server_s(s):
        s.sendall(data_of(1000))
        s.shutdown(socket.SHUT_WR)
        return read_to_end(s)

    # Both end their direction at the same time.
    def both_close_c(s):
        read_exactly(s, 1)
        s.sendall(data_of(100_000))
        s.shutdown(socket.SHUT_WR)
        return read_to_end(s)

    def both_close_s(s):
        s.sendall(data_of(1))
        s.shutdown(socket.SHUT_WR)
        return read_to_end(s)

    # No data at all.
    def empty_c(s):
        s.close()
        return "closed"

    def empty_s(s):
        return read_to_end(s)

    def empty_by_server_c(s):
        return read_to_end(s)

    def empty_by_server_s(s):
        s.close()
        return "closed"

    # SO_LINGER 0: reset instead of FIN.
    def linger_zero_client_c(s):
        s.sendall(b"x")
        read_exactly(s, 1)
        linger(s, 0)
        return attempt(s.close)

    def linger_zero_client_s(s):
        s.sendall(read_exactly(s, 1))
        return read_to_end(s)

    def linger_zero_server_c(s):
        s.sendall(b"x")
        return read_to_end(s)

    def linger_zero_server_s(s):
        read_exactly(s, 1)
        linger(s, 0)
        return attempt(s.close)

    # Reset right after the handshake; the client does it three times, the server looks at the first that it gets.
    def linger_zero_at_once_c(s):
        linger(s, 0)
        return attempt(s.close)

    def linger_zero_at_once_s(s):
        return read_to_end(s)

    # SO_LINGER with time enough: close returns when the peer has taken everything, not before.
    def linger_timed_c(s):
        s.settimeout(20)
        s.sendall(data_of(300_000))
        linger(s, 15)
        s.setblocking(True)
        _, took = timed(s.close)
        return "close waited for the peer" if 0.4 < took < 15 else f"close took {took:.1f} s"

    def linger_timed_s(s):
        wait_readable(s)
        # The client may be slow to begin to close.
        time.sleep(4)
        return read_to_end(s)

    # SO_LINGER that expires: close returns, the rest still arrives.
    def linger_expires_c(s):
        linger(s, 1)
        s.sendall(data_of(300_000))
        _, took = timed(s.close)
        # The peer takes nothing for 6 s.
        return "close gave up in time" if 0.8 < took < 5.8 else f"close took {took:.1f} s"

    def linger_expires_s(s):
        wait_readable(s)
        time.sleep(6)
        return read_to_end(s)

    # Closing with unread data: reset.
    def unread_c(s):
        s.sendall(data_of(5000))
        read_exactly(s, 1)
        return read_to_end(s)

    def unread_s(s):
        s.recv(5000, socket.MSG_PEEK | socket.MSG_WAITALL)
        s.sendall(b"x")
        # The client is to have read that when the reset comes.
        time.sleep(4 * QUICK)
        s.close()
        return "closed"

    # Writing to one who has closed: first ok, then reset, then EPIPE.
    def write_after_close_c(s):
        read_exactly(s, 1)
        first = s.recv(1)
        saw = [f"read {len(first)}", attempt(s.sendall, b"one")]
        wait_reset(s)
        saw.append(attempt(s.sendall, b"two"))
        saw.append(attempt(s.sendall, b"three"))
        return " ".join(saw)

    def write_after_close_s(s):
        s.sendall(b"x")
        s.close()
        return "closed"

    # The reader does nothing for a while: window zero, probes, then everything arrives.
    def zero_window_c(s):
        s.sendall(data_of(LARGE))
        s.shutdown(socket.SHUT_WR)
        return read_to_end(s)

    def zero_window_s(s):
        time.sleep(2)
        saw = read_to_end(s)
        s.close()
        return saw

    # Keep-alives while both live: nothing happens.
    def keepalive_c(s):
        keepalive(s)
        s.sendall(b"x")
        read_exactly(s, 1)
        time.sleep(4)
        s.sendall(b"y")
        return read_exactly(s, 1).decode()

    def keepalive_s(s):
        s.sendall(read_exactly(s, 1))
        s.sendall(read_exactly(s, 1))
        return read_to_end(s)

    # Keep-alives unanswered.
    def dead_keepalive_c(s):
        s.sendall(b"x")
        read_exactly(s, 1)
        keepalive(s)
        return wait_for_event(s)

    def dead_keepalive_s(s):
        read_exactly(s, 1)
        cut(s.getsockname()[1])
        s.sendall(b"x")
        time.sleep(6)
        return "cut"

    # Data unanswered for longer than TCP_USER_TIMEOUT.
    def dead_user_timeout_c(s):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000)
        s.sendall(b"x")
        read_exactly(s, 1)
        s.sendall(b"y")
        return wait_for_event(s, 15)

    def dead_user_timeout_s(s):
        read_exactly(s, 1)
        cut(s.getsockname()[1])
        s.sendall(b"x")
        time.sleep(6)
        return "cut"

    # One byte out of band among others.
    def urgent_c(s):
        s.sendall(b"abc")
        time.sleep(QUICK)
        s.send(b"!", socket.MSG_OOB)
        time.sleep(QUICK)
        s.sendall(b"def")
        s.shutdown(socket.SHUT_WR)
        return read_to_end(s)

    def urgent_s(s):
        wait_urgent(s)
        try:
            oob = s.recv(1, socket.MSG_OOB).decode()
        except OSError as e:
            oob = name(e)
        got = b""
        while d := s.recv(100):
            got += d
        return f"urgent {oob} data {got.decode()}"


def keepalive(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)


NAMES = [n[:-2] for n in vars(Scenarios) if n.endswith("_c")]
# Scenarios that never get a connection come after those that do.
REFUSED, UNANSWERED, PROHIBITED = (len(NAMES) + i for i in range(3))
SMALL_BUFFERS = {"linger_timed", "linger_expires", "zero_window"}


def sockets_for(scenario, s):
    if scenario in SMALL_BUFFERS:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    if scenario.startswith("linger_"):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    return s


def run(side, scenario, s, report):
    try:
        saw = vars(Scenarios)[f"{scenario}_{side[0]}"](s)
    except EOFError:
        saw = "unexpected end of file"
    except OSError as e:
        saw = name(e)
    report[f"{scenario} {side}"] = saw
    try:
        s.close()
    except OSError:
        pass


def server(base):
    report, threads = {}, []
    listeners = []
    for i, scenario in enumerate(NAMES):
        listener = sockets_for(scenario, socket.socket(socket.AF_INET6))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", base + i))
        listener.listen(8)
        listeners.append(listener)

    def serve(scenario, listener):
        s, _ = listener.accept()
        report[f"{scenario} server"] = "STILL RUNNING"
        run("server", scenario, s, report)

    for scenario, listener in zip(NAMES, listeners):
        t = threading.Thread(target=serve, args=(scenario, listener), daemon=True)
        t.start()
        threads.append(t)
    print("ready", flush=True)
    sys.stdin.read()
    deadline = time.monotonic() + 10
    for t in threads:
        t.join(max(0, deadline - time.monotonic()))
    for scenario in NAMES:
        print(f"{scenario} server: {report.get(scenario + ' server', 'STILL WITHOUT A CONNECTION')}")


def client(host, base):
    report = {}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def one(scenario, port):
        # Packets may change places: a RST that comes before the handshake's last acknowledgement ends what the server has not heard of.
        for left in reversed(range(3 if scenario == "linger_zero_at_once" else 1)):
            s = sockets_for(scenario, socket.socket(family))
            try:
                s.connect((host, port))
            except OSError as e:
                report[f"{scenario} client"] = "connect: " + name(e)
                return
            run("client", scenario, s, report)
            time.sleep(QUICK if left else 0)

    def no_connection(scenario, port):
        s = socket.socket(family)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        result, took = timed(s.connect, (host, port))
        # An ICMP error that comes while connect() still holds the socket, as over a veth, is acted
        # on only when the SYN is not answered again: when it is, says nothing. The second SYN is sent after 1 s.
        when = "" if scenario == "prohibited" else " at once" if took < 0.9 else " later"
        report[f"{scenario} client"] = f"connect: {result}{when}"

    # Before the others keep this process busy: how long it takes counts.
    no_connection("refused", base + REFUSED)
    threads = [threading.Thread(target=one, args=(n, base + i), daemon=True) for i, n in enumerate(NAMES)]
    for scenario, number in (("unanswered", UNANSWERED), ("prohibited", PROHIBITED)):
        threads.append(threading.Thread(target=no_connection, args=(scenario, base + number), daemon=True))
    for t in threads:
        t.start()
    deadline = time.monotonic() + 40
    for t in threads:
        t.join(max(0, deadline - time.monotonic()))
    for scenario in NAMES + ["refused", "unanswered", "prohibited"]:
        print(f"{scenario} client: {report.get(scenario + ' client', 'STILL RUNNING')}")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        server(int(sys.argv[2]))
    elif sys.argv[1] == "client":
        client(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "ports":
        # last port with a connection, refused, unanswered, prohibited
        base = int(sys.argv[2])
        print(base + len(NAMES) - 1, base + REFUSED, base + UNANSWERED, base + PROHIBITED)
    sys.stdout.flush()
    os._exit(0)
