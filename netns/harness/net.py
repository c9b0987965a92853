"""Topologies, their nodes, the daemons and programs that run there."""

import contextlib
import ctypes
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

from harness.capture import Capture
from harness.checks import Failed, case, need, note, plain, wait_for, work

NETNS = pathlib.Path(__file__).resolve().parent.parent
TOOLS = NETNS / "tools"
sys.path.insert(0, str(TOOLS))
PYTHON = "/usr/bin/python3"
# The same text in every test file: what must never be seen on an encrypted wire.
MARKER = "THIS-IS-PLAINTEXT-THAT-MUST-NOT-BE-ON-THE-WIRE"
PREFIX = os.environ.get("PREFIX", f"en{os.getpid()}")


def _program():
    built = [NETNS.parent / "target" / profile / "enotun" for profile in ("release", "debug")]
    return os.environ.get("ENOTUN") or str(next((path for path in built if os.access(path, os.X_OK)), built[-1]))


ENOTUN = _program()

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(descriptor):
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def bracket(address):
    return f"[{address}]" if ":" in address else address


def command(*argv, input=None, timeout=120, status=0, shown=2000):
    """Runs a program to its end: its output. Fails if its exit status is another one (None: any will do). So much of what it prints is shown
    if the check fails."""
    argv = [str(word) for word in argv]
    note("$ " + shlex.join(argv))
    try:
        done = subprocess.run(argv, input=input, capture_output=True, text=True, errors="surrogateescape", timeout=timeout,
                              stdin=subprocess.DEVNULL if input is None else None, check=False)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{shlex.join(argv)}: not done in {timeout} s") from late
    note(done.stdout[-shown:] + done.stderr[-shown:])
    need(status is None or done.returncode == status, f"exit status {done.returncode} of {shlex.join(argv)}: {done.stderr[-2000:]}")
    return done.stdout


def no_offloads(*devices):
    """Packets of at most an MTU there, so that each is lost or kept alone."""
    for node, device in devices:
        node.run("ethtool", "-K", device, *"tso off gso off gro off".split())


def losing(percent, what="meta l4proto tcp"):
    """nftables' rules for a hook where so much is lost. SYNs are lost by turns: a connection of which three in a row are lost goes plain."""
    if not percent:
        return ""
    return f"""{what} tcp flags & syn == 0 numgen random mod 100 < {percent} drop
        {what} tcp flags & syn != 0 numgen inc mod {100 // percent} == 0 drop"""


class Node:
    """A host: a network namespace, and the enotun in it."""

    def __init__(self, net, name):
        self.net, self.name, self.namespace = net, name, f"{PREFIX}-{name}"
        self.daemon = None
        self.log = work(f"{name}.log")

    def __str__(self):
        return self.name

    @contextlib.contextmanager
    def inside(self):
        """Sockets that are made meanwhile are of this host."""
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            yield
        finally:
            _enter(_home)
            os.close(there)

    def run(self, *argv, **named):
        """A program to its end: its output."""
        return command("ip", "netns", "exec", self.namespace, *argv, **named)

    def tool(self, name, *arguments, **named):
        """A program of netns/tools."""
        return self.run(PYTHON, "-B", TOOLS / name, *arguments, **named)

    def spawn(self, *argv, log=None, **named):
        """A program that goes on; it ends with its host. Its output goes to a log."""
        log = work(f"{log or pathlib.Path(str(argv[0])).name}.log")
        with open(log, "ab") as out:
            named = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out} | named
            return subprocess.Popen(["ip", "netns", "exec", self.namespace, *map(str, argv)], **named)

    def serve(self, port, *argv, **named):
        """A server: when it listens."""
        process = self.spawn(*argv, **named)

        def listens():
            need(process.poll() is None, f"{argv[0]} has ended")
            return self.listening(port)

        wait_for(10, listens)
        return process

    def listening(self, port):
        return self.run("ss", "-Hltn", f"sport = :{port}") != ""

    def ip(self, words):
        return command("ip", "-n", self.namespace, *words.split())

    def nft(self, rules):
        return self.run("nft", "-f", "-", input=rules)

    def sysctl(self, *settings):
        return self.run("sysctl", "-qw", *settings)

    def ping(self, address, count=1, interval=0.2):
        return self.run("ping", "-q", f"-c{count}", f"-i{interval}", "-W1", address)

    def capture(self, device="eth0", only=""):
        return Capture(self, device, only)

    def state(self):
        """Everything that enotun may change."""
        return self.run(TOOLS / "hoststate")

    def path(self):
        return self.net.path(self)

    # ---- its daemon

    def enotun(self, *words, **named):
        """A command of enotun to the daemon of this host: its output."""
        return command(ENOTUN, *words, "--instance", self.namespace, **named)

    def json(self, *words, **named):
        told = json.loads(self.enotun(*words, "--json", shown=1, **named))
        note(json.dumps(told)[:1000])
        return told

    def start(self, *arguments):
        """`enotun up`, with the topology's arguments unless others are given; when it is ready."""
        if plain:
            return
        arguments = arguments or self.net.arguments[self.name]
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, ENOTUN, "up", "--tun", "tun0", "--instance", self.namespace, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def ready():
            if self.daemon.poll() is not None:
                raise SystemExit(f"enotun at {self} has ended with status {self.daemon.returncode}")
            return self.enotun("status")

        wait_for(10, ready)
        self.net.call("after_daemon", self.name)

    def alive(self):
        return plain or (self.daemon is not None and self.daemon.poll() is None)

    def ended(self):
        """The daemon has, by itself or told to. It is forgotten."""
        if self.daemon.poll() is None:
            return False
        self.daemon = None
        return True

    def stop(self):
        """`enotun down`, and the process has ended."""
        if not plain:
            self.enotun("down")
            wait_for(10, self.ended)
        return True

    def kill(self, number=signal.SIGKILL):
        if not plain:
            self.daemon.send_signal(number)
            wait_for(10, self.ended)
        return True

    def restart(self, *arguments):
        if self.daemon is not None:
            self.stop()
        self.start(*arguments)

    def counter(self, name):
        return self.json("status")["counters"][name]

    def flows(self, port=None):
        """The table, or what of it has that local or remote port."""
        flows = self.json("flows")
        return [f for f in flows if port is None or any(f[end].endswith(f":{port}") for end in ("local", "remote"))]

    def flows_are(self, port, state):
        """There are flows with that port and all are in `state`, those aside that are closed."""
        if plain:
            return True
        return same_states({f["state"] for f in self.flows(port)} - {"closed"}, {state})

    def sessions(self, port):
        """Session IDs of the encrypted flows with that port."""
        return sorted(f["session_id"] for f in self.flows(port) if f["state"] == "encrypted")


def same_states(found, wanted):
    return need(found == wanted, f"the states are {sorted(found)}")


def sessions_agree(one, two, port):
    """Both tables hold the same IDs, at least one."""
    if plain:
        return True
    ids = one.sessions(port), two.sessions(port)
    return need(ids[0] and ids[0] == ids[1] and all(ids[0]), f"{ids[0]} and {ids[1]}")


class Net:
    """A topology that is up."""

    def __init__(self, name, **environment):
        self.name = name
        self.environment = os.environ | {"ENOTUN": ENOTUN, "PREFIX": PREFIX} | environment
        described = dict(line.partition(" ")[::2] for line in self._script("describe").splitlines())
        self.nodes = {name: Node(self, name) for name in described["NODES"].split()}
        self.client_node, self.server_node = (self.nodes[described[key]] for key in ("CLIENT", "SERVER"))
        self.addresses = described
        self.client, self.server = ({4: described[f"{end}4"], 6: described[f"{end}6"]} for end in ("CLIENT", "SERVER"))
        self.daemons = [self.nodes[name] for name in described["DAEMONS"].split()]
        self.arguments = {str(node): described[f"arguments-{node}"].split() for node in self.daemons}
        self.wire_node, _, self.wire_device = described["WIRE"].partition(":")
        self._script("up", "--prefix", PREFIX)

    def _script(self, action, *arguments):
        try:
            return subprocess.run([NETNS / "topology.sh", action, self.name, *arguments], env=self.environment, check=True,
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"topology.sh {action} {self.name}: {error.stderr}") from error

    def __getattr__(self, name):
        try:
            return self.nodes[name]
        except KeyError:
            raise AttributeError(name) from None

    def add(self, name):
        """A host that the topology does not have, and no link yet."""
        command("ip", "netns", "add", f"{PREFIX}-{name}")
        node = self.nodes[name] = Node(self, name)
        node.ip("link set lo up")
        return node

    def call(self, function, *arguments):
        """A function of the topology's."""
        return self._script("call", "--prefix", PREFIX, function, *arguments)

    def start(self):
        for node in self.daemons:
            node.start()

    def capture(self, only=""):
        """On the wire."""
        return self.nodes[self.wire_node].capture(self.wire_device, only)

    def alive(self):
        return all(node.alive() for node in self.daemons)


_nets = []


def topology(name, **environment):
    """Builds one; both ends reach each other."""
    _nets.append(Net(name, **environment))
    return _nets[-1]


def down():
    """Stops what runs in the topology, and removes it. A daemon that panicked is a failure of its own."""
    while _nets:
        net = _nets.pop()
        for node in net.nodes.values():
            if node.log.exists() and "panicked at" in node.log.read_text(errors="replace"):
                case.failed += 1
                print(f"not ok - {case.name}: enotun at {node} panicked")
        net._script("down", "--prefix", PREFIX)
        for node in net.nodes.values():
            if node.daemon is not None:
                node.daemon.wait()
