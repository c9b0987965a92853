"""Exported keys decrypt a capture: both daemons export, the wire loses packets, sessions are resumed and rekeyed, urgent data
is sent; netns/tools/decrypt.py, which shares no code with enotun, gives what the applications sent. Keys go to memory only
(TC-21), and only if asked for."""

import hashlib
import json
import subprocess

from harness import (ECHO, ENOTUN, MARKER, PYTHON, TOOLS, Connection, check, command, echo_server, fails, fetch, losing, many, need,
                     nginx, no_offloads, plain, same, temporary, topology, wait_for, work)

if plain:  # nothing to decrypt
    raise SystemExit

KEYS = temporary("/dev/shm")
NETS = ("10.1.0.0/24", "fd00:1::/64")
net = topology("pair")
a, b = net.a, net.b
no_offloads((a, "eth0"), (b, "eth0"))
nginx(b)
echo_server(b)


def up(path, selector, **named):
    return a.run(ENOTUN, "up", "--instance", a.namespace, "--export-keys", path, selector, **named)


def refused_on_disk():
    here = TOOLS / f"keys.{a.namespace}"
    if command("stat", "-f", "-c", "%T", TOOLS).strip() in ("tmpfs", "ramfs"):
        return True
    done = subprocess.run(["ip", "netns", "exec", a.namespace, ENOTUN, "up", "--instance", a.namespace, "--export-keys", here, NETS[0]],
                          capture_output=True, text=True, timeout=60, check=False)
    need(done.returncode == 1 and "not in memory" in done.stderr and not here.exists(), done)
    return fails(a.ip, "link show tun0")


def says_so(node):
    return (f"KEYS OF ALL CONNECTIONS to {KEYS / str(node)}" in node.enotun("status")
            and f"keys of every connection are written to {KEYS / str(node)}" in node.log.read_text())


check("keys are not exported to a disk", refused_on_disk)
(KEYS / "old").touch()
check("nor to a file that is there already", fails, up, KEYS / "old", ":80")
for node in (a, b):
    node.start("--export-keys", str(KEYS / str(node)), *NETS)
    check(f"{node}: status and log say that keys are exported", says_so, node)
check("only the owner can read them", lambda: same((KEYS / "a").stat().st_mode & 0o777, 0o600))

with a.capture() as wire:
    for node in (a, b):
        node.nft(f"""table inet loss {{
            chain ingress {{
                type filter hook prerouting priority raw - 10
                {losing(1, 'iifname "eth0" meta l4proto tcp')}
            }}
        }}""")
    for family, server in net.server.items():
        name = f"IPv{family}"
        check(f"{name}: curl gets 100 kB over a wire that loses 1 %", fetch, a, server, 100_000)
        check(f"{name}: 30 connections at once", many, a, server, 30, 30_000)
        held = Connection(a, server)
        check(f"{name}: a connection", held.says, f"{MARKER}-1")
        check(f"{name}: rekeyed by the client", a.enotun, "rekey", held.local, held.remote)
        check(f"{name}: goes on", held.says, f"{MARKER}-2")
        check(f"{name}: rekeyed by the server", b.enotun, "rekey", held.remote, held.local)
        check(f"{name}: goes on still", held.says, f"{MARKER}-3")
        held.close()
    check("curl gets 1448 bytes", fetch, a, net.server[4], 1448)
    for node in (a, b):
        node.nft("delete table inet loss")
    check("all connections are closed", wait_for, 15, lambda: not {f["state"] for f in a.flows(ECHO)} - {"closed"})


def decrypt(keys, out, **named):
    """What decrypt.py reports of each connection; the streams are in files of work(out)."""
    output = command(PYTHON, "-B", TOOLS / "decrypt.py", "--keys", keys, "--out", work(out), wire.path, **named)
    return [json.loads(line) for line in output.splitlines()]


def streams(out, pattern):
    return {path.name: path.read_bytes() for path in sorted(work(out).glob(pattern))}


def decrypts(name):
    global report
    report = decrypt(KEYS / name, name)
    return True


report = []
ENDS = ("client", "server")
check("the marker is not on the wire", lambda: not wire.has(MARKER))
check("the client's keys decrypt all of it", decrypts, "a")
check("65 connections, both streams of each to their FINp",
      lambda: same(len(report), 65) and all(r.get("error") is None and r["client"]["finp"] and r["server"]["finp"] for r in report))
check("some of them resumed", lambda: sum(r["resumed"] for r in report) > 5)
check("those that were rekeyed reached generation 2 both ways",
      lambda: same(sum(all(r[end]["generations"] >= 2 for end in ENDS) for r in report), 2))
for size, name in ((100_000, "100 kB"), (1448, "1448 bytes")):
    check(f"what curl got is what nginx sent: {name}",
          lambda: any(text.partition(b"\r\n\r\n")[2] == work(f"www/{size}").read_bytes() for text in streams("a", "*:80.server").values()))


def echoes():
    """Of each family 30 connections sent what `tcp.py many` sends, and the same came back."""
    sent = sorted((hashlib.sha256(b"%d" % n).digest() * 1000)[:30_000] for n in range(30))
    found = [sorted(text for text in streams("a", f"{start}*:{ECHO}.{end}").values() if len(text) == 30_000)
             for start in ("10.", "*fd00") for end in ENDS]
    return all(need(texts == sent, f"{len(texts)} streams") for texts in found)


def rekeyed():
    lines = "".join(f"{MARKER}-{n}\n" for n in (1, 2, 3)).encode()
    found = [text for end in ENDS for text in streams("a", f"*.{end}").values() if MARKER.encode() + b"-1" in text]
    return same(found, [lines] * 4)


check("what the 60 connections sent, and got back", echoes)
check("what the connection that was rekeyed said", rekeyed)
check("the server's keys are the same", decrypts, "b")
check("and give the same", lambda: need(streams("a", "*") == streams("b", "*"), "the streams differ"))


def exported(name):
    return [json.loads(line) for line in (KEYS / name).read_text().splitlines()]


check("of every session", lambda: same(*(sorted((key["session_id"], key["master_key"]) for key in exported(name)) for name in "ab")))

# The same with one digit of each key changed: what does not authenticate is noticed.
(KEYS / "wrong").write_text("".join(
    json.dumps(key | {"master_key": "01"[key["master_key"].startswith("0")] + key["master_key"][1:]}) + "\n" for key in exported("a")))


def decrypts_nothing():
    global report
    report = decrypt(KEYS / "wrong", "wrong", status=1)
    return True


check("other keys decrypt nothing", decrypts_nothing)
check("of no connection", lambda: same(len(report), 65) and all(r.get("error") is not None for r in report))

a.stop()
check("the file stays after down", lambda: (KEYS / "a").stat().st_size > 0)
a.start(NETS[0])
check("without being asked, no keys are exported",
      lambda: "KEYS" not in a.enotun("status") and same(sorted(path.name for path in KEYS.iterdir()), ["a", "b", "old", "wrong"]))
