"""The ordinary application beside the daemon: small servers and clients on real sockets, run on request.

`python3 app.py SOCKET` serves requests (one JSON object a line) on a Unix socket:
  {"op": "start", "role": "server"|"client", "kind": KIND, "family": 4|6, "addr": A, "port": P, "n": N, "seed": S, ...} -> {"id": I}
  {"op": "wait", "id": I, "timeout": T} -> its state (see `Job.state`)
  {"op": "go", "id": I, ...}            -> lets a waiting application go on
  {"op": "stop", "id": I}
Kinds: see `Job.run`."""

import errno
import hashlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time


def pattern(seed, n):
    """n bytes whose every 64 begin with a text that must never be seen on the wire."""
    out = bytearray()
    i = 0
    while len(out) < n:
        out += b"PLAINTEXT-%08x-%010d-" % (seed & 0xFFFFFFFF, i) + bytes(97 + (seed + i + k) % 26 for k in range(34))
        i += 1
    return bytes(out[:n])


class Job:
    def __init__(self, spec):
        self.spec = spec
        self.kind = spec["kind"]
        self.error = None
        self.where = None
        self.connected = self.eof = self.done = False
        self.received = 0
        self.digest = hashlib.sha256()
        self.head = b""
        self.sent = 0
        self.oob = b""
        self.accepted = 0
        self.go = threading.Event()
        self.args = {}
        self.ready = threading.Event()
        self.over = threading.Event()
        self.sock = self.listener = None
        self.thread = threading.Thread(target=self.main, daemon=True)
        self.thread.start()

    def state(self):
        return {"connected": self.connected, "eof": self.eof, "error": self.error, "where": self.where, "received": self.received,
                "sha": self.digest.copy().hexdigest(), "head": self.head.hex(), "sent": self.sent, "oob": self.oob.hex(),
                "done": self.done, "accepted": self.accepted}

    def main(self):
        try:
            self.open()
            self.connected = True
            self.accepted += 1
            self.where = "run"
            self.run()
        except OSError as error:
            self.error = errno.errorcode.get(error.errno, str(error)) if error.errno else type(error).__name__
        except Exception as error:  # report, whatever it is
            self.error = repr(error)
        finally:
            self.ready.set()
            self.done = True
            if self.kind != "rst":
                for sock in (self.sock, self.listener):
                    if sock is not None:
                        sock.close()
            self.over.set()

    def open(self):
        spec = self.spec
        family = socket.AF_INET6 if spec.get("family") == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if spec.get("rcvbuf"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, spec["rcvbuf"])
        if spec.get("keepalive"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        if spec["role"] == "server":
            self.where = "accept"
            self.listener = sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((spec["addr"], spec["port"]))
            sock.listen(128)
            sock.settimeout(spec.get("accept_timeout", 60))
            self.ready.set()
            self.sock, _ = sock.accept()
            if self.kind != "many":
                sock.close()
                self.listener = None
        else:
            self.where = "connect"
            self.sock = sock
            sock.settimeout(spec.get("connect_timeout", 15))
            self.ready.set()
            if spec.get("source"):
                sock.bind((spec["source"], 0))
            sock.connect((spec["addr"], spec["port"]))
        self.sock.settimeout(120)
        if spec.get("nodelay"):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def note(self, data):
        self.received += len(data)
        self.digest.update(data)
        if len(self.head) < 64:
            self.head += data[: 64 - len(self.head)]

    def drain(self):
        while True:
            data = self.sock.recv(65536)
            if not data:
                self.eof = True
                return
            self.note(data)

    def send(self, data):
        chunk = self.spec.get("chunk") or 65536
        for i in range(0, len(data), chunk):
            piece = data[i : i + chunk]
            self.sock.sendall(piece)
            self.sent += len(piece)
            if self.spec.get("pause"):
                time.sleep(self.spec["pause"])

    def run(self):
        """echo: sends back what comes. sink: reads to the end. source: sends n bytes, ends its stream, reads to the end. reply:
        reads to the end, sends n bytes. duplex: source and sink at once. stall: reads nothing until `go`, then as sink.
        hold: as source, but only after `go`. rst: resets on `go`. oob: n bytes, one urgent byte, n bytes. urgent: sink that
        picks urgent bytes out. many: accepts and closes connections until `stop`."""
        spec, n, seed = self.spec, self.spec.get("n", 0), self.spec.get("seed", 1)
        if self.kind == "echo":
            while True:
                data = self.sock.recv(65536)
                if not data:
                    self.eof = True
                    break
                self.note(data)
                self.sock.sendall(data)
                self.sent += len(data)
            self.sock.shutdown(socket.SHUT_WR)
        elif self.kind == "sink":
            self.drain()
        elif self.kind in ("source", "hold"):
            if self.kind == "hold":
                self.go.wait(60)
                n = self.args.get("n", n)
            self.send(pattern(seed, n))
            self.sock.shutdown(socket.SHUT_WR)
            self.drain()
        elif self.kind == "reply":
            self.drain()
            self.send(pattern(seed, n))
            self.sock.shutdown(socket.SHUT_WR)
        elif self.kind == "duplex":
            failure = []

            def writer():
                try:
                    self.send(pattern(seed, n))
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError as error:
                    failure.append(error)

            thread = threading.Thread(target=writer)
            thread.start()
            self.drain()
            thread.join()
            if failure:
                raise failure[0]
        elif self.kind == "stall":
            self.go.wait(60)
            self.drain()
        elif self.kind == "rst":
            self.go.wait(60)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
        elif self.kind == "oob":
            self.send(pattern(seed, n))
            self.sock.send(b"!", socket.MSG_OOB)
            self.send(pattern(seed, n))
            self.sock.shutdown(socket.SHUT_WR)
            self.drain()
        elif self.kind == "urgent":
            while True:
                ready, _, urgent = select.select([self.sock], [], [self.sock], 30)
                if urgent and not self.oob:
                    self.oob += self.sock.recv(1, socket.MSG_OOB)
                if ready:
                    data = self.sock.recv(65536)
                    if not data:
                        self.eof = True
                        return
                    self.note(data)
        elif self.kind == "many":
            self.sock.close()
            while not self.go.is_set():
                try:
                    self.listener.settimeout(0.2)
                    sock, _ = self.listener.accept()
                    self.accepted += 1
                    sock.close()
                except TimeoutError:
                    pass


class Agent:
    """The applications of this process; `Client` has the same methods at a distance."""

    def __init__(self):
        self.jobs = []

    def request(self, req):
        op = req["op"]
        if op == "start":
            job = Job(req)
            job.ready.wait(5)
            self.jobs.append(job)
            return {"id": len(self.jobs) - 1, "error": job.error}
        job = self.jobs[req["id"]]
        if op == "wait":
            job.over.wait(req.get("timeout", 0))
        elif op == "go":
            job.args = req
            job.go.set()
        elif op == "stop":
            job.go.set()
            for sock in (job.sock, job.listener):
                if sock is not None:
                    try:
                        sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                    sock.close()
        return job.state()


class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.file = self.sock.makefile("rw")

    def request(self, req):
        self.file.write(json.dumps(req) + "\n")
        self.file.flush()
        return json.loads(self.file.readline())


def serve(path):
    agent = Agent()
    if os.path.exists(path):
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(8)

    def handle(client):
        with client, client.makefile("rw") as file:
            for line in file:
                file.write(json.dumps(agent.request(json.loads(line))) + "\n")
                file.flush()

    while True:
        client, _ = server.accept()
        threading.Thread(target=handle, args=(client,), daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1])
