"""Clones a running virtual machine with enotun in it, and shows that its copies share no key.

    clone.py --enotun FILE --kernel FILE --initramfs FILE --work DIR [--blind]

Run in a network namespace of its own with a tap device tap0 (10.77.0.1/24). A guest is booted, sessions are made with enotun
here, in both roles, and one connection stays open. Then the guest is written to a file while it runs, and restored from it
twice with its VM generation left the same, and twice with a new one. Each copy opens a connection from the same port, and is
connected to. What was in SYNs and SYN-ACKs is read off the tap; session IDs and hashes of keys are asked for at both ends.
`--blind`: the guest's kernel has no driver for the VM generation, so a new one goes unnoticed.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../netns/tools"))
import wirecheck  # noqa: E402

HOST, GUEST = "10.77.0.1", "10.77.0.2"
HERE, THERE, KEPT, SAME = 4000, 4001, 40000, 40001
GENERATIONS = {"same": "11111111-2222-3333-4444-555555555555", "new": "auto"}
PATIENCE = 90

passed = failed = 0


def check(text, ok):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"{'ok' if ok else 'not ok'} - {text}", flush=True)


def until(condition, what, patience=PATIENCE):
    """What `condition` gives once that is true."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.1)
    raise SystemExit(f"vm-clone: gave up waiting for {what}")


def resumption(contents):
    """Half and nonce of the resumption suboption in an ENO option, or None (ENO-2, TC-12)."""
    at = 0
    while at < len(contents):
        byte = contents[at]
        if 0x80 <= byte < 0xA0:
            length = (byte & 31) + 1
            tep, data, at = contents[at + 1:at + 2], contents[at + 2:at + 2 + length], at + 2 + length
        elif byte >= 0xA0:
            tep, data, at = contents[at:at + 1], contents[at + 1:], len(contents)
        else:
            at += 1
            continue
        if tep and tep[0] >= 0xA0 and len(data) >= 9:
            return data[:9], data[9:]
    return None


class Capture(threading.Thread):
    """What SYNs on the tap propose, and SYN-ACKs accept."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = []
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("tap0", 0))

    def run(self):
        while True:
            frame = self.socket.recv(65535)
            segment = wirecheck.segment(frame[14:]) if frame[12:14] == b"\x08\x00" else None
            if segment and segment.flags & wirecheck.SYN:
                self.seen.append(segment)

    def of(self, client, server, since):
        """ENO contents of the last SYN and SYN-ACK of a connection among those after the first `since`."""
        both = []
        for (src, dst), ack in (((client, server), 0), ((server, client), wirecheck.ACK)):
            src, dst = [(socket.inet_aton(address), port) for address, port in (src, dst)]
            found = [s for s in self.seen[since:]
                     if (s.src, s.dst) == (src, dst) and s.flags & wirecheck.ACK == ack]
            both.append((wirecheck.eno(found[-1]) if found else None) or b"")
        return both


class Echo(threading.Thread):
    """A service that sends back what it gets."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server((HOST, HERE))

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    @staticmethod
    def serve(connection):
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            pass
        connection.close()


class Guest:
    """A virtual machine, booted or restored from a file."""

    def __init__(self, args, generation, restored=None):
        self.work = args.work
        self.sockets = {name: os.path.join(args.work, name) for name in ("qmp", "shell")}
        command = [
            "qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-m", "192", "-nodefaults", "-no-user-config",
            # No random numbers from the processor, and no device for them: the copies have nothing that the original lacks.
            "-cpu", "qemu64", "-display", "none", "-kernel", args.kernel, "-initrd", args.initramfs,
            "-append", "console=ttyS0 quiet panic=-1", "-serial", f"file:{args.work}/console",
            "-serial", f"unix:{self.sockets['shell']},server=on,wait=off",
            "-qmp", f"unix:{self.sockets['qmp']},server=on,wait=off",
            "-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", f"vmgenid,guid={GENERATIONS[generation]}",
        ]
        if restored:
            command += ["-incoming", f"exec:cat {restored}"]
        for path in self.sockets.values():
            if os.path.exists(path):
                os.unlink(path)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.control = self.connect("qmp").makefile("rw")
        self.control.readline()
        self.qmp("qmp_capabilities")
        if restored:
            until(lambda: self.qmp("query-status")["status"] == "paused", "the guest to be restored")
            self.qmp("cont")
        self.shell = self.connect("shell")
        self.shell.settimeout(PATIENCE)
        if not restored:
            self.answer()

    def connect(self, name):
        def attempt():
            if self.process.poll() is not None:
                raise SystemExit(f"vm-clone: QEMU ended with status {self.process.returncode}")
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self.sockets[name])
            except OSError:
                return None
            return connection
        return until(attempt, "QEMU")

    def qmp(self, command, **arguments):
        self.control.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.control.flush()
        while True:
            reply = json.loads(self.control.readline())
            if "error" in reply:
                raise SystemExit(f"vm-clone: QEMU refuses {command}: {reply['error']}")
            if "return" in reply:
                return reply["return"]

    def answer(self):
        """What a command has printed, and its status."""
        got = b""
        while True:
            lines = got.split(b"\n")
            if len(lines) >= 2 and lines[-1] == b"" and lines[-2].startswith(b"@@ "):
                return b"\n".join(lines[:-2]).decode().strip(), int(lines[-2][3:])
            piece = self.shell.recv(65536)
            if not piece:
                raise SystemExit("vm-clone: the guest is gone")
            got += piece.replace(b"\r", b"")

    def run(self, command):
        self.shell.sendall(command.encode() + b"\n")
        return self.answer()

    def enotun(self, *arguments):
        """The JSON that `enotun` in the guest prints, or None."""
        text, status = self.run("enotun " + " ".join(arguments) + " --json 2>/dev/null")
        return json.loads(text) if status == 0 else None

    def save(self, path):
        self.shell.close()
        self.qmp("stop")
        self.qmp("migrate", uri=f"exec:cat >{path}")
        until(lambda: self.qmp("query-migrate")["status"] == "completed", "the guest to be written")

    def end(self):
        self.qmp("quit")
        self.process.wait()


class Trial:
    """The daemon here, the services, the capture."""

    def __init__(self, args):
        self.args = args
        self.log = open(os.path.join(args.work, "enotun.log"), "w")
        self.daemon = subprocess.Popen(
            [args.enotun, "up", "--instance", args.instance, "--policy", "required", f"{GUEST}/32"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(lambda: self.enotun("status"), "enotun here")
        Echo().start()
        self.capture = Capture()
        self.capture.start()
        self.rows = []

    def enotun(self, *arguments):
        done = subprocess.run([self.args.enotun, *arguments, "--instance", self.args.instance, "--json"],
                              capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def end(self):
        subprocess.run([self.args.enotun, "down", "--instance", self.args.instance], capture_output=True, check=False)
        self.daemon.wait(30)

    def session(self, guest, guest_port, host_port):
        """What both ends say of a connection. They agree, or there is none."""
        def both():
            here = self.enotun("session", f"{HOST}:{host_port}", f"{GUEST}:{guest_port}")
            there = guest.enotun("session", f"{GUEST}:{guest_port}", f"{HOST}:{host_port}")
            return here and there and (here, there)
        here, there = until(both, "the connection to be encrypted")
        keys = ("session_id", "key_fingerprint", "resumed")
        if [here[key] for key in keys] != [there[key] for key in keys]:
            raise SystemExit(f"vm-clone: the two ends disagree: {here} and {there}")
        return here

    def note(self, name, role, session, client, server, since):
        """A row of the table."""
        syn, syn_ack = map(resumption, self.capture.of(client, server, since))
        by_guest, by_host = (syn, syn_ack) if role == "client" else (syn_ack, syn)
        self.rows.append({**session, "copy": name, "guest is": role, "guest": by_guest, "host": by_host})

    def from_guest(self, guest, name, port):
        """The guest connects, from `port`."""
        since = len(self.capture.seen)
        # busybox's nc does not choose the port; the kernel does, from a range of one.
        guest.run(f"rm -f /tmp/out; echo {port} {port} >/proc/sys/net/ipv4/ip_local_port_range")
        guest.run(f"(echo hello from {name}; exec sleep 600) | nc {HOST} {HERE} >/tmp/out 2>&1 &")
        # The newest one.
        guest.run("pidof sleep | cut -d ' ' -f 1 >/tmp/open")
        until(lambda: f"hello from {name}" in guest.run("cat /tmp/out")[0], f"an echo to {name}")
        session = self.session(guest, port, HERE)
        self.note(name, "client", session, (GUEST, port), (HOST, HERE), since)

    def hang_up(self, guest, port):
        """The guest closes its connection from `port`, so that the next copy can use the port."""
        guest.run("kill $(cat /tmp/open)")
        state = lambda: [f["state"] for f in self.enotun("flows") if f["remote"] == f"{GUEST}:{port}"]
        until(lambda: state() in ([], ["closed"]), "the connection to be closed")

    def to_guest(self, guest, name):
        """The guest is connected to."""
        since = len(self.capture.seen)
        with socket.create_connection((GUEST, THERE), timeout=PATIENCE) as connection:
            text = f"hello to {name}\n".encode()
            connection.sendall(text)
            got = b""
            while got != text:
                piece = connection.recv(1000)
                if not piece:
                    raise SystemExit(f"vm-clone: {name} does not echo")
                got += piece
            port = connection.getsockname()[1]
            session = self.session(guest, THERE, port)
        self.note(name, "server", session, (HOST, port), (GUEST, THERE), since)


def boot(trial, args):
    """The original: sessions in both roles, one connection left open."""
    began = time.monotonic()
    guest = Guest(args, "same")
    guest.run(f"enotun up --policy required {HOST}/32 >/tmp/enotun.log 2>&1 &")
    until(lambda: guest.enotun("status"), "enotun in the guest")
    guest.run(f"nc -ll -p {THERE} -e cat >/dev/null 2>&1 &")
    print(f"# booted, enotun up ({time.monotonic() - began:.0f} s)", flush=True)
    trial.from_guest(guest, "the original", KEPT)
    trial.to_guest(guest, "the original")
    return guest


def copy(trial, args, state, generation, number):
    """A copy, restored from the file."""
    name = f"{generation}/{number}"
    began = time.monotonic()
    guest = Guest(args, generation, restored=state)
    kernel = guest.run("head -c 8 /dev/urandom | hexdump -ve '1/1 \"%02x\"'")[0]
    told = None
    if generation == "new" and not args.blind:
        told = until(lambda: guest.enotun("status")["last_disruption"], "the new generation to be noticed")
    flows = guest.enotun("flows")
    kept = next((flow for flow in flows if flow["local"] == f"{GUEST}:{KEPT}"), {"state": "gone"})
    trial.from_guest(guest, name, SAME)
    trial.to_guest(guest, name)
    print(f"# copy {name} restored and connected both ways ({time.monotonic() - began:.0f} s)", flush=True)
    return guest, {"kernel": kernel, "told": told, "kept": kept}


def table(rows):
    text = lambda found: found[1].hex() if found else "-"
    print("\ngeneration/copy  guest is  session  nonce of guest    nonce of host     session ID          key fingerprint")
    for row in rows:
        print(f"{row['copy']:<16} {row['guest is']:<9} {'resumed' if row['resumed'] else 'fresh':<8} {text(row['guest']):<17} "
              f"{text(row['host']):<17} {row['session_id'][:18]}… {row['key_fingerprint'][:16]}…")
    print(flush=True)


def verdict(trial, args, copies):
    rows = trial.rows
    copied = [row for row in rows if "/" in row["copy"]]
    differ = lambda values: len(set(values)) == len(values)
    check(f"{len(rows)} session IDs, all different", differ([row["session_id"] for row in rows]))
    check(f"{len(rows)} key fingerprints, all different", differ([row["key_fingerprint"] for row in rows]))
    for end in ("guest", "host"):
        nonces = [row[end][1] for row in rows if row[end]]
        check(f"{len(nonces)} nonces of the {end}, all different", differ(nonces))
    clients = {row["copy"]: row for row in copied if row["guest is"] == "client"}
    servers = {row["copy"]: row for row in copied if row["guest is"] == "server"}
    one, two = clients["same/1"]["guest"], clients["same/2"]["guest"]
    check("generation the same: both copies proposed the same secret (they are copies), with different nonces",
          one and two and one[0] == two[0] and one[1] != two[1])
    check("generation the same: the first copy's proposal is accepted, the second's refused (TC-19)",
          clients["same/1"]["resumed"] and not clients["same/2"]["resumed"])
    check("generation the same: both copies resume as servers",
          servers["same/1"]["resumed"] and servers["same/2"]["resumed"])
    if args.blind:
        print("# the guest's kernel has no driver for the VM generation: a new one goes unnoticed")
        return
    new = [copies["new/1"], copies["new/2"]]
    check("generation new: both copies notice", all(c["told"]["sign"] == "vm-generation" for c in new))
    check("generation new: the cache is erased, so the copies propose nothing",
          all(c["told"]["sessions_flushed"] == 1 for c in new)
          and not any(clients[name]["guest"] or clients[name]["resumed"] for name in ("new/1", "new/2")))
    check("generation new: the connection that was open is aborted",
          all(c["kept"]["state"] == "closed" and c["told"]["connections_aborted"] >= 1 for c in new))
    same = copies["same/1"]["kernel"] == copies["same/2"]["kernel"]
    print(f"# the kernel's random generator gave both copies of the same generation {'the same' if same else 'different'} "
          f"first bytes; those of new generations "
          f"{'the same' if new[0]['kernel'] == new[1]['kernel'] else 'different ones'}")


def clocks(guest):
    """Steps of the guest's wall clock: by one second, and by an hour."""
    count = lambda: guest.enotun("status")["counters"]["disruptions"]
    before = count()
    guest.run("date -s @$(($(date +%s) + 1))")
    time.sleep(1)
    check("a step of the guest's clock by a second is no sign", count() == before)
    guest.run("date -s @$(($(date +%s) + 3600))")
    until(lambda: count() > before, "the step of the clock to be noticed")
    last = guest.enotun("status")["last_disruption"]
    check("a step by an hour is, and what is open rekeys",
          last["sign"] == "clock-step" and last["connections_rekeyed"] >= 1 and last["connections_aborted"] == 0)


def main():
    parser = argparse.ArgumentParser()
    for name in ("enotun", "kernel", "initramfs", "work", "instance"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--blind", action="store_true")
    args = parser.parse_args()
    state = os.path.join(args.work, "state")
    trial = Trial(args)
    guest = None
    try:
        guest = boot(trial, args)
        guest.save(state)
        guest.end()
        copies = {}
        for generation in GENERATIONS:
            for number in (1, 2):
                guest, copies[f"{generation}/{number}"] = copy(trial, args, state, generation, number)
                if (generation, number) == ("new", 2):
                    clocks(guest)
                trial.hang_up(guest, SAME)
                guest.end()
        guest = None
        table(trial.rows)
        verdict(trial, args, copies)
    finally:
        if guest and guest.process.poll() is None:
            guest.process.kill()
            guest.process.wait()
        trial.end()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
