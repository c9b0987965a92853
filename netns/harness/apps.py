"""Real applications: nginx and curl, OpenSSH, redis, iperf3, many connections at once, and one that stays open."""

import errno
import json
import os
import select
import socket
import time

from harness.checks import Failed, PATIENCE, check, check_enotun, fails, need, note, plain, same, wait_for, work
from harness.net import MARKER, PYTHON, TOOLS, bracket, command, sessions_agree

HTTP, SSH, REDIS, IPERF, ECHO = 80, 2222, 6379, 5201, 7777
SIZES = (0, 1, 1000, 1448, 100_000, 20_000_000)


# ---- servers


def nginx(node):
    """Serves a file of each of SIZES; every line of them is another one and has the marker."""
    if not work("www").exists():
        work("www").mkdir()
        lines = (f"{MARKER} {n:012d}\n" for n in range(max(SIZES) // (len(MARKER) + 14) + 1))
        text = "".join(lines).encode()
        for size in SIZES:
            work("www", str(size)).write_bytes(text[:size])
    paths = "".join(f"{what}_temp_path {work(what)};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    work("nginx.conf").write_text(f"""
user root;
daemon off;
master_process off;
pid {work("nginx.pid")};
error_log {work("nginx.log")};
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {paths}
    sendfile on;
    server {{ listen 80; listen [::]:80; root {work("www")}; }}
}}
""")
    return node.serve(HTTP, "nginx", "-c", work("nginx.conf"))


def sshd(node):
    work("ssh").mkdir(exist_ok=True)
    os.makedirs("/run/sshd", exist_ok=True)
    for key in ("host", "user"):
        if not work("ssh", key).exists():
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work("ssh", key))
    work("ssh/sshd_config").write_text(f"""
Port {SSH}
HostKey {work("ssh/host")}
PidFile none
AuthorizedKeysFile {work("ssh/user.pub")}
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
Subsystem sftp internal-sftp
""")
    return node.serve(SSH, "/usr/sbin/sshd", "-D", "-e", "-f", work("ssh/sshd_config"))


def ssh_options():
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=30")
    return ["-q", "-F", "none", "-i", work("ssh/user"), *(word for option in options for word in ("-o", option))]


def redis(node):
    return node.serve(REDIS, "redis-server", "--port", REDIS, "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "",
                      "--dir", work())


def echo_server(node, port=ECHO):
    return node.serve(port, PYTHON, "-B", TOOLS / "tcp.py", "echo", port, log="echo")


def serve_all(node):
    for server in (nginx, sshd, redis, echo_server):
        server(node)


# ---- clients


def is_file(path, size):
    return need(path.read_bytes() == work("www", str(size)).read_bytes(), f"{path} is not the file of {size} bytes")


def fetch(node, address, size):
    """A file over HTTP is what it was."""
    node.run("curl", "-sS", "--fail", "--max-time", 60 * PATIENCE, "-o", work("fetched"), f"http://{bracket(address)}/{size}",
             timeout=70 * PATIENCE)
    return is_file(work("fetched"), size)


def fetch_kept_alive(node, address):
    """All files over one connection, twice."""
    files = [(work(f"kept-{turn}-{size}"), size) for turn in (1, 2) for size in SIZES]
    words = [word for path, size in files for word in ("-o", path, f"http://{bracket(address)}/{size}")]
    opened = node.run("curl", "-sS", "--fail", "--max-time", 60 * PATIENCE, "-w", "%{num_connects}\n", *words, timeout=300 * PATIENCE)
    same(sum(map(int, opened.split())), 1)
    return all(is_file(path, size) for path, size in files)


def ssh_says(node, address):
    """A command's output and exit status come through."""
    said = node.run("ssh", *ssh_options(), "-p", SSH, address, "cat; exit 7", input="hello\n", status=7)
    return same(said, "hello\n")


def scp_copies(node, address, size=20_000_000):
    """There and back."""
    there, back = work("copied"), work("copied-back")
    for path in (there, back):
        path.unlink(missing_ok=True)
    scp = ["scp", *ssh_options(), "-P", SSH]
    node.run(*scp, work("www", str(size)), f"{bracket(address)}:{there}", timeout=60 * PATIENCE)
    node.run(*scp, f"{bracket(address)}:{there}", back, timeout=60 * PATIENCE)
    return is_file(back, size)


def redis_session(node, address):
    """A large value, many small commands in one pipeline."""
    def cli(*words, **named):
        return node.run("redis-cli", "-h", address, "-p", REDIS, *words, timeout=60 * PATIENCE, **named)

    value = work("www/100000").read_text()
    same(cli("FLUSHALL"), "OK\n")
    same(cli("-x", "SET", "file", input=value), "OK\n")
    need(cli("--raw", "GET", "file")[:100_000] == value, "another value came back")
    cli("--pipe", input="".join(f"INCRBY counter {n}\r\n" for n in range(10_000)))
    return same(cli("GET", "counter").strip(), "49995000")


def many(node, address, count, size, port=ECHO):
    """So many connections open at once, that many bytes there and back on each."""
    return node.tool("tcp.py", "many", address, port, count, size, timeout=100 * PATIENCE)


def iperf(node, address, seconds, *options):
    """Bytes arrived in each direction asked for, and all of its connections were encrypted at both ends. Each run has a server of its own:
    one that goes on refuses, or resets, who comes while it makes itself ready for the next."""
    def listed():
        return {(str(daemon), f["local"], f["remote"]): f for daemon in node.net.daemons for f in daemon.flows(IPERF)}

    before = {} if plain else listed()
    server = node.net.server_node.serve(IPERF, "iperf3", "-s", "-1", "-p", IPERF)
    try:
        output = node.run("iperf3", "-c", address, "-p", IPERF, "-t", seconds, "-J", *options, timeout=60 * PATIENCE, status=None)
    finally:
        server.kill()
        server.wait()
    report = json.loads(output)
    need("error" not in report, report.get("error"))
    if not plain:
        # Those that are over are listed for a minute.
        new = {ends: f["session_id"] for ends, f in listed().items() if ends not in before}
        for daemon in node.net.daemons:
            need(sum(ends[0] == str(daemon) for ends in new) >= 2, f"{daemon} has not listed its connections: {new}")
        need(all(new.values()), f"not all of its connections were encrypted: {new}")
    got = [report["end"][key] for key in ("sum_received", "sum_received_bidir_reverse") if key in report["end"]]
    note(", ".join(f"{sum['bits_per_second'] / 1e6:.0f} Mbit/s" for sum in got))
    return need(all(sum["bytes"] > 100_000 for sum in got), f"bytes: {[sum['bytes'] for sum in got]}")


class Connection:
    """One to a server that echoes, which stays open. If it does not open, what uses it fails."""

    def __init__(self, node, address, port=ECHO, local=None):
        self.buffer, self.end, self.socket = b"", None, None
        try:
            with node.inside():
                self.socket = socket.create_connection((address, port), 15 * PATIENCE, (local, 0) if local else None)
            self.socket.settimeout(15 * PATIENCE)
            self.local, self.remote = (f"{bracket(end[0])}:{end[1]}" for end in (self.socket.getsockname(), self.socket.getpeername()))
            self.address, self.port = self.socket.getsockname()[:2]
        except OSError as error:
            self.end = errno.errorcode.get(error.errno, repr(error))
            self.local = self.remote = self.address = self.port = None

    def send(self, text):
        """Whether it could be given to the kernel is not looked at: `ended` tells."""
        try:
            if self.socket:
                self.socket.sendall(text.encode() + b"\n")
        except OSError as error:
            self.end = errno.errorcode.get(error.errno, repr(error))

    def got(self, wait=0.0):
        """Everything that has come so far."""
        while self.end is None and select.select([self.socket], [], [], wait)[0]:
            try:
                piece = self.socket.recv(1 << 16)
                self.buffer += piece
                if not piece:
                    self.end = "end of file"
            except OSError as error:
                self.end = errno.errorcode.get(error.errno, repr(error))
        return self.buffer

    def comes(self, text, seconds=15):
        """The line comes back."""
        line = b"\n" + text.encode() + b"\n"
        deadline = time.monotonic() + seconds * PATIENCE
        while line not in b"\n" + self.got(0.05):
            need(self.end is None, f"the connection has ended: {self.end}; it got {self.buffer[-200:]!r}")
            need(time.monotonic() < deadline, f"not in {seconds * PATIENCE} s; it got {self.buffer[-200:]!r}")
        return True

    def says(self, text, seconds=15):
        """A line goes to the server and comes back."""
        self.send(text)
        return self.comes(text, seconds)

    def ended(self):
        """With an error, or the end of what the server sends."""
        self.got()
        return self.end is not None

    def encrypted_at(self, node):
        """As the daemon there lists it; nobody may have translated its addresses."""
        return plain or same([f["state"] for f in node.flows() if {self.local, self.remote} == {f["local"], f["remote"]}], ["encrypted"])

    def close(self):
        if self.socket:
            self.socket.close()


# ---- all of it


def suite(net):
    """From the client to the server over both families, then a look at the capture."""
    serve_all(net.server_node)
    client = net.client_node
    with net.capture(f"not port {IPERF}") as wire:
        for family, server in net.server.items():
            name = f"IPv{family}"
            for size in SIZES:
                check(f"{name}: curl gets {size} bytes from nginx", fetch, client, server, size)
            check(f"{name}: curl gets all of them over one connection", fetch_kept_alive, client, server)
            check(f"{name}: ssh runs a command", ssh_says, client, server)
            check(f"{name}: scp copies there and back", scp_copies, client, server)
            check(f"{name}: a redis session", redis_session, client, server)
            check(f"{name}: 300 connections at once", many, client, server, 300, 20_000)
            check(f"{name}: iperf3 forward", iperf, client, server, 2)
            check(f"{name}: iperf3 reverse", iperf, client, server, 2, "-R")
            check(f"{name}: iperf3 both ways at once, 3 streams", iperf, client, server, 2, "--bidir", "-P", 3)
            held = Connection(client, server)
            check(f"{name}: a connection that stays open", held.says, MARKER)
            for daemon in net.daemons:
                check_enotun(f"{name}: {daemon} lists it as encrypted", daemon.flows_are, ECHO, "encrypted")
            check_enotun(f"{name}: both ends have the same session IDs", wait_for, 5, sessions_agree, *net.daemons, ECHO)
            held.close()
    if plain:
        check("the capture is of plain TCP", wire.wire, HTTP, ECHO, expect="plain")
        check("the capture shows the data", fails, wire.wire, HTTP, ECHO, expect="encrypted")
    else:
        check("on the wire: ENO in every SYN, frames, no plaintext", wire.encrypted, HTTP, SSH, REDIS, ECHO, minimum=630)
    for daemon in net.daemons:
        check(f"the daemon of {daemon} still runs", daemon.alive)
