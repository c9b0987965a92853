"""What scripts/demo shows, when enotun is built."""

import re
import subprocess

from harness import (HTTP, MARKER, SSH, check, down, fetch, nginx, same, scp_copies, sessions_agree, ssh_options, sshd, topology,
                     wait_for, work)
from harness.net import PREFIX

SIZE = 100_000


def say(text):
    print(f"\n\033[1m== {text}\033[0m", flush=True)


say("Two hosts, one link")
net = topology("pair")
a, b = net.a, net.b
address = net.server[4]
print(f"a {net.client[4]}  ──── wire ────  b {address}   (namespaces {a.namespace} and {b.namespace})")
nginx(b)
sshd(b)
file = work("www", str(SIZE))
print(f"The file: {file.read_text().partition(chr(10))[0]} ... ({SIZE} bytes)")


def transfers(name):
    """Fetches the file with curl and copies it with scp, both captured."""
    with a.capture() as wire:
        check(f"{name}: curl fetches the file from nginx, intact", fetch, a, address, SIZE)
        check(f"{name}: scp copies it, intact", scp_copies, a, address, SIZE)
    return wire


say("Without enotun")
without = transfers("plain")

say("With enotun: 'enotun up' at both hosts, HTTP selected; then the ssh port is enabled too")
a.start(f":{HTTP}")
b.start(f"local:{HTTP}")
for node, selector in ((a, f":{SSH}"), (b, f"local:{SSH}")):
    print(f"{node}# enotun enable {selector}", flush=True)
    node.enotun("enable", selector)
with_it = transfers("enotun")

say("What the wire shows (tcpdump): without enotun on the left, with it on the right")


def shown(wire):
    """Handshake options and the first data of the HTTP connection."""
    lines = wire.shown(f"tcp port {HTTP} and tcp[tcpflags] & tcp-syn != 0").splitlines()
    lines = [re.sub(r"^.*(?=Flags)|, (length|seq|ack|win) [^,]*|(?<=TS) val \d+ ecr \d+", "", line) for line in lines]
    data = wire.shown("-A", f"tcp src port {HTTP} and greater 500")
    data = re.sub(r"[^ -~\n]", ".", data)
    return (lines + [line[at:at + 70] for line in data.splitlines() if " IP " not in line for at in range(0, len(line), 70)])[:24]


left, right = shown(without), shown(with_it)
for number in range(max(len(left), len(right))):
    columns = [column[number] if number < len(column) else "" for column in (left, right)]
    print(f"{columns[0][:74]:<75}{columns[1][:74]}".rstrip())
times = [wire.path.read_bytes().count(MARKER.encode()) for wire in (without, with_it)]
print(f"\nThe text {MARKER} is in the capture without enotun: {times[0]} times; with enotun: {times[1]} times")
check("the text is on the wire without enotun", lambda: times[0] > 0)
check("the text is not on the wire with enotun", same, times[1], 0)
check("the SYNs carry TCP-ENO (option kind 69), the streams are tcpcrypt's", with_it.encrypted, HTTP, SSH, minimum=2)

say("The connections as both ends list them")
# One over HTTP and one over ssh that stay open meanwhile.
a.spawn("curl", "-sS", "--limit-rate", "100K", "-o", "/dev/null", f"http://{address}/20000000")
a.spawn("ssh", *ssh_options(), "-p", SSH, address, "sleep 30")
for node in (a, b):
    check(f"both connections are encrypted at {node}", wait_for, 10,
          lambda: node.flows_are(HTTP, "encrypted") and node.flows_are(SSH, "encrypted"))
for node in (a, b):
    print(f"{node}# enotun flows\n{node.enotun('flows')}", flush=True)
check("the session IDs of the HTTP connection agree", sessions_agree, a, b, HTTP)
check("the session IDs of the ssh connection agree", sessions_agree, a, b, SSH)

# What is encrypted ends with `enotun down`: it does not go on in plain text.
say("Clean up: 'enotun down', namespaces removed")
for node in (a, b):
    check(f"enotun down at {node}", node.stop)
down()
namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
check("nothing is left", lambda: f"{PREFIX}-" not in namespaces)
