"""Wrong usage and missing means: one clear line, exit status 1 or 2, nothing changed."""

import json
import subprocess

from harness import ENOTUN, check, need, note, plain, same, topology

if plain:
    raise SystemExit

net = topology("pair")
a = net.a
me = ("--instance", a.namespace)
before = a.state()


def says(statuses, *argv):
    """Ends by itself with one of the exit statuses; says something, in one line where it is not the usage (2)."""
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=45, check=False)
    note(f"status {done.returncode}; said:\n{done.stdout}{done.stderr}")
    need(done.returncode in statuses, "another exit status")
    return done.stderr != "" and (done.returncode != 1 or done.stderr.count("\n") == 1)


def up(*arguments, before=()):
    return ["ip", "netns", "exec", a.namespace, *before, ENOTUN, "up", *me, *arguments]


check("no command", says, [2], ENOTUN)
check("an unknown command", says, [2], ENOTUN, "frobnicate")
check("an unknown option", says, [2], *up("--frobnicate", "10.1.0.0/24"))
check("a policy that does not exist", says, [2], *up("--policy", "perhaps", "10.1.0.0/24"))
for selector in ("10.1.0.0/33", "10.1.0.0/24:99999", "[fd00::/64", ":", "local:0x50", "a b"):
    check(f"the selector '{selector}'", says, [2], *up(selector))
check("a host name that does not resolve", says, [1], *up("does-not-exist.invalid:80"))
check("a device name that is too long", says, [1, 2], *up("--tun", "a-name-of-more-than-15", "10.1.0.0/24"))
check("a configuration file that is not there", says, [1], *up("--config", "/nonexistent.toml"))
check("a selector to a daemon that does not run", says, [1], ENOTUN, "enable", *me, "10.0.0.0/8")
for word in ("status", "flows", "down"):
    check(f"{word} without a daemon", says, [1], ENOTUN, word, *me)
ENDS = ("10.1.0.1:1", "10.1.0.2:2")
check("session without a daemon", says, [1], ENOTUN, "session", *me, *ENDS)
check("nothing was changed", lambda: same(a.state(), before))

# As root without capabilities; without /dev/net/tun; with the device's name taken.
check("no capability", says, [1], *up("10.1.0.0/24", before=("setpriv", "--bounding-set=-all", "--inh-caps=-all")))
without_tun = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /dev/net && exec "$@"', "sh")
check("no /dev/net/tun", says, [1], *up("10.1.0.0/24", before=without_tun))
for device, name in (("tun0", "the device's name"), ("tun0-w", "the second device's name")):
    a.ip(f"link add {device} type bridge")
    check(f"{name} is in use", says, [1], *up("10.1.0.0/24"))
    a.ip(f"link del {device}")
check("nothing was changed", lambda: same(a.state(), before))

a.start()
running = a.state()
check("a second daemon with the same instance", says, [1], *up("10.1.0.0/24"))
check("a second daemon with the same device", says, [1], "ip", "netns", "exec", a.namespace, ENOTUN, "up", "--instance", f"{a.namespace}-2",
      "--tun", "tun0", "10.1.0.0/24")
check("the first one is not disturbed", lambda: a.alive() and a.enotun("status") and same(a.state(), running))
check("session of a connection that is not there", says, [1], ENOTUN, "session", *me, *ENDS)
check("a wrong selector at run time", says, [2], ENOTUN, "enable", *me, "10.1.0.0/99")
check("status --json is JSON", lambda: isinstance(a.json("status"), dict))
check("flows --json is an array", lambda: isinstance(a.json("flows"), list))
check("doctor --json is JSON", lambda: json.loads(a.run(ENOTUN, "doctor", *me, "--json")) is not None)
a.stop()
check("the host is as before", lambda: same(a.state(), before))
