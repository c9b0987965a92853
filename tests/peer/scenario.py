"""What scenarios are made of: a registry, and the environment a scenario runs in."""

import hashlib
import os
import random
import struct
import subprocess

import app as application
import packet
from conn import Conn, Opts

ALL = {}


class Skip(Exception):
    """The scenario cannot be run here."""


class Failed(Exception):
    """No sense in going on with this scenario."""


def scenario(roles="c", families="4", expect=""):
    """Registers a scenario under its function's name with a suffix for each role of the peer (c: the peer opens actively, s:
    passively) and family. `expect`: the requirements it stands for."""

    def register(function):
        for role in roles:
            for family in families:
                ALL["%s.%s%s" % (function.__name__, role, family)] = (function, role, int(family), expect)
        return function

    return register


class App:
    """An application at the host."""

    def __init__(self, agent, ident):
        self.agent, self.ident = agent, ident

    def state(self, timeout=0.0):
        return self.agent.request({"op": "wait", "id": self.ident, "timeout": timeout})

    def go(self, **args):
        return self.agent.request({"op": "go", "id": self.ident, **args})

    def stop(self):
        return self.agent.request({"op": "stop", "id": self.ident})


class Env:
    def __init__(self, stack, agent, local, host, role, family, number, control=None):
        self.stack, self.agent, self.role, self.family = stack, agent, role, family
        self.local, self.host = packet.address(local), packet.address(host)
        self.local_text, self.host_text = local, host
        self.port = 20000 + (number * 37) % 20000
        self.conns, self.apps, self.failures = [], [], []
        self.random = random.Random(number)
        self.control = control  # function(arguments) -> (exit status, output) of the daemon's command line, or None

    # ---- judging

    def fail(self, text):
        self.failures.append(text)

    def check(self, condition, text):
        if not condition:
            self.fail(text)
        return condition

    def need(self, condition, text):
        if not condition:
            self.fail(text)
            raise Failed(text)

    def verdict(self):
        out = list(self.failures)
        for conn in self.conns:
            seen = set()
            for text, dump in conn.violations:
                if text not in seen and len(seen) < 8:
                    seen.add(text)
                    out.append(text + ("\n    " + dump if dump else ""))
        return out

    # ---- opening

    def next_port(self):
        self.port += 1
        return self.port

    def start(self, role, kind, port, **spec):
        anywhere = "::" if self.family == 6 else "0.0.0.0"
        answer = self.agent.request({"op": "start", "role": role, "kind": kind, "port": port, "family": self.family,
                                     "addr": anywhere if role == "server" else self.local_text, **spec})
        if role == "server" and answer.get("error"):
            raise Failed("application: %s" % answer["error"])
        app = App(self.agent, answer["id"])
        self.apps.append(app)
        return app

    def make(self, lport, rport, opts):
        opts.setdefault("mss", 1440 if self.family == 6 else 1460)
        iss = opts.pop("iss", None)
        conn = Conn(self.stack, self.local, lport, self.host, rport, Opts(**opts), iss)
        self.stack.conns[conn.local, lport, conn.remote, rport] = conn
        self.conns.append(conn)
        return conn

    def connect(self, kind="echo", app=None, ready=True, setup=None, **opts):
        """The peer opens to an application of `kind` at the host."""
        port = self.next_port()
        server = self.start("server", kind, port, **(app or {}))
        conn = self.make(self.random.randrange(30000, 60000), port, opts)
        conn.app = server
        if setup:
            setup(conn)
        conn.connect()
        if ready:
            self.need(conn.wait_ready(), "no connection: state %s, stage %s%s" % (conn.state, conn.stage, self.why(conn)))
        return conn

    def accept(self, kind="echo", app=None, ready=True, setup=None, wait=True, **opts):
        """An application of `kind` at the host opens to the peer."""
        port = self.next_port()
        made = []

        def factory(seg):
            if made:
                return None
            conn = self.make(port, seg.sport, dict(opts))
            made.append(conn)
            if setup:
                setup(conn)
            return conn

        self.stack.listeners[self.local, port] = factory
        client = self.start("client", kind, port, **(app or {}))
        if not wait:
            return client, made
        self.need(self.stack.pump(lambda: made, 5), "no SYN from the host")
        conn = made[0]
        conn.app = client
        if ready:
            self.need(conn.wait_ready(), "no connection: state %s, stage %s%s" % (conn.state, conn.stage, self.why(conn)))
        return conn

    def why(self, conn):
        return " (negotiation: %s %s)" % (conn.outcome.result, conn.outcome.why) if conn.outcome else ""

    def open(self, kind="echo", **more):
        return self.connect(kind, **more) if self.role == "c" else self.accept(kind, **more)

    def encrypted(self, kind="echo", **more):
        conn = self.open(kind, **more)
        self.need(conn.stage == "frames", "not encrypted: %s%s" % (conn.stage, self.why(conn)))
        return conn

    # ---- common courses

    def expect_app(self, conn, data=None, eof=None, error="any", timeout=10.0, what="application"):
        """Waits for the application's end and compares: data it received, whether it saw end-of-file, its errno."""
        self.stack.pump(lambda: conn.app.state()["done"], timeout)
        state = conn.app.state()
        self.check(state["done"], "%s has not finished: %s" % (what, state))
        if data is not None:
            self.check(state["received"] == len(data) and state["sha"] == hashlib.sha256(data).hexdigest(),
                       "%s received %d bytes, %d expected (or other bytes); begins %s" % (what, state["received"], len(data), state["head"][:64]))
        if eof is not None:
            self.check(state["eof"] == eof, "%s: end-of-file %s, expected %s (error %s)" % (what, state["eof"], eof, state["error"]))
        if error != "any":
            self.check(state["error"] == error, "%s: error %s, expected %s" % (what, state["error"], error))
        return state

    def echo(self, conn, data, label="echo"):
        """Sends data and expects it back."""
        at = len(conn.rx_app)
        conn.send_app(data)
        ok = conn.wait_app(at + len(data))
        self.check(ok and bytes(conn.rx_app[at : at + len(data)]) == data,
                   "%s: %d of %d bytes came back (state %s, stage %s, acknowledged %d of %d)"
                   % (label, len(conn.rx_app) - at, len(data), conn.state, conn.stage, conn.una, len(conn.tx)))
        return ok

    def finish(self, conn, data=None, first=True):
        """An orderly end, the peer first; the application must see end-of-file and no error."""
        if conn.state == "reset":
            return self.fail("the connection was reset")
        if not conn.sealed_fin and conn.fin_at is None:
            conn.close()
        self.check(conn.wait_fin(), "TC-29: the host's FIN has not come (state %s, stage %s)" % (conn.state, conn.stage))
        self.check(conn.wait_acked(), "the peer's FIN was not acknowledged")
        if conn.stage == "frames":
            self.check(conn.rx_fin, "TC-29: no frame with FINp")
        self.expect_app(conn, data, eof=True, error=None)

    def expect_abort(self, conn, timeout=8.0):
        """TC-6: RST on the wire and ECONNRESET at the application, never end-of-file."""
        conn.may_reset = True
        self.check(conn.wait_reset(timeout), "TC-6: no RST from the host")
        state = self.expect_app(conn, timeout=timeout)
        self.check(not state["eof"], "TC-6/TC-29: the application saw end-of-file")
        self.check(state["error"] == "ECONNRESET", "TC-6: application error %s (at %s), expected ECONNRESET" % (state["error"], state["where"]))

    def still_alive(self):
        """A new connection works (the daemon is alive)."""
        conn = self.connect("echo")
        self.echo(conn, pattern(77, 500), "a new connection afterwards")
        self.finish(conn)

    def pause(self, seconds):
        self.stack.pump(None, seconds)

    def cleanup(self):
        for conn in self.conns:
            if conn.state in ("est", "syn-rcvd") and conn.irs is not None and not (conn.fin_acked and conn.fin_taken):
                conn.may_reset = True
                conn.send_rst()
        for app in self.apps:
            app.stop()
        self.stack.pump(None, 0.02)
        self.stack.conns.clear()
        self.stack.listeners.clear()


pattern = application.pattern


def cli_control(program, instance):
    def run(*arguments):
        done = subprocess.run([program, *arguments, "--instance", instance], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    return run if program and os.path.exists(program) else None


def be16(value):
    return struct.pack("!H", value)
