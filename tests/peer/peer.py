#!/usr/bin/python3
"""An independent, strict tcpcrypt/TCP-ENO peer (RFC 8547, RFC 8548) with a user-space TCP of its own.

peer.py list [PATTERN...]
peer.py selftest [PATTERN...] [--vectors DIR] [--bugs]
peer.py run PATTERN... --tun NAME --local ADDR[,ADDR6] --remote ADDR[,ADDR6] --app SOCKET [--out DIR]
        [--enotun PROGRAM --instance NAME]

PATTERN is a scenario's name, or has shell wildcards, or is a name without its suffix. A name ends in .c4, .s4, .c6 or .s6: the peer
is client or server, over IPv4 or IPv6. Exit status 0: all passed, 1: some failed, 2: wrong usage.
"""

import argparse
import fnmatch
import os
import socket
import sys
import time
import traceback

sys.dont_write_bytecode = True

import app
import link
import model
import scenario
import scenarios_basic  # noqa: F401  (registers its scenarios)
import scenarios_hostile  # noqa: F401
import scenarios_negotiation  # noqa: F401
import scenarios_options  # noqa: F401
import scenarios_policy  # noqa: F401
import scenarios_resumption  # noqa: F401
import scenarios_soak  # noqa: F401
import vectors


def select(patterns):
    names = sorted(scenario.ALL, key=list(scenario.ALL).index)
    if not patterns:
        return names
    out = [n for n in names if any(fnmatch.fnmatch(n, p) or n.split(".")[0] == p or fnmatch.fnmatch(n.split(".")[0], p) for p in patterns)]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(n, pattern) or fnmatch.fnmatch(n.split(".")[0], pattern) for n in names):
            sys.exit("peer.py: no scenario %s" % pattern)
    return out


def run_one(name, stack, agent, locals_, hosts, out, control=None):
    """(status, what is wrong, warnings); status is "ok", "FAILED" or "skipped"."""
    function, role, family, _ = scenario.ALL[name]
    number = list(scenario.ALL).index(name)
    index = 0 if family == 4 else 1
    local = locals_[index]
    if not local or not hosts[index]:
        return "skipped", ["no address of this family"], []
    # An address of its own for each scenario: nothing cached for one peer can reach another.
    if family == 4:
        local = "%s.%d.%d" % (local.rsplit(".", 2)[0], 1 + number // 250, 2 + number % 250)
    else:
        local = "%s:%x" % (local.rsplit(":", 1)[0], 0x100 + number)
    stack.trace.clear()
    env = scenario.Env(stack, agent, local, hosts[index], role, family, number, control)
    problems = []
    try:
        function(env)
    except scenario.Skip as why:
        env.cleanup()
        return "skipped", [str(why)], []
    except scenario.Failed as why:
        if str(why) and str(why) not in env.failures:
            problems.append(str(why))
    except Exception:  # a fault of the scenario, or something nobody thought of
        problems.append("exception:\n" + traceback.format_exc())
    problems = env.verdict() + problems
    env.cleanup()
    warnings = sorted({w for c in env.conns for w in c.warnings})
    if problems and out:
        os.makedirs(out, exist_ok=True)
        stack.write_trace(os.path.join(out, name))
    return ("FAILED" if problems else "ok"), problems, warnings


def run_all(names, *args, verbose=True):
    counts = {"ok": 0, "FAILED": 0, "skipped": 0}
    for name in names:
        start = time.monotonic()
        status, problems, warnings = run_one(name, *args)
        counts[status] += 1
        expect = scenario.ALL[name][3]
        print("%-8s %-52s %5.1f s  %s" % (status, name, time.monotonic() - start, expect))
        if verbose:
            for text in problems:
                print("    - " + text.replace("\n", "\n      "))
            for text in warnings:
                print("    ~ " + text)
        sys.stdout.flush()
    print("%d passed, %d failed%s" % (counts["ok"], counts["FAILED"], ", %d skipped" % counts["skipped"] if counts["skipped"] else ""))
    return counts["FAILED"]


def pair(bug=None):
    """A peer's stack and a model host, joined by a pair of sockets."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (one, two):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    near, far = link.Stack(link.Link(one.detach())), link.Stack(link.Link(two.detach()), trace=10)
    return near, model.ModelAgent(far, "10.66.1.1", bug)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="command", required=True)
    one = sub.add_parser("list")
    one.add_argument("pattern", nargs="*")
    one = sub.add_parser("selftest")
    one.add_argument("pattern", nargs="*")
    one.add_argument("--vectors")
    one.add_argument("--bugs", action="store_true", help="only see that each seeded fault of the model is noticed")
    one.add_argument("--out", default="")
    one = sub.add_parser("run")
    one.add_argument("pattern", nargs="*")
    one.add_argument("--tun", required=True)
    one.add_argument("--local", required=True)
    one.add_argument("--remote", required=True)
    one.add_argument("--app", required=True)
    one.add_argument("--out", default="")
    one.add_argument("--enotun", default="")
    one.add_argument("--instance", default="penotun-h")
    args = parser.parse_args()

    names = select(args.pattern)
    if args.command == "list":
        for name in names:
            print("%-52s %s" % (name, scenario.ALL[name][3]))
        return 0
    if args.command == "selftest":
        failed = 0
        if args.vectors:
            count, bad = vectors.check(args.vectors)
            print("vectors: %d checked, %d differ" % (count, len(bad)))
            for text in bad[:20]:
                print("    - " + text)
            failed += len(bad)
        if not args.bugs:
            stack, agent = pair()
            failed += run_all(names, stack, agent, ("10.67.0.2", "fd67::2"), ("10.66.1.1", "fd66:1::1"), args.out)
            agent.stop = True
        if args.bugs or not args.pattern:
            for bug, name in model.BUGS.items():
                stack, agent = pair(bug)
                status, problems, _ = run_one(name, stack, agent, ("10.67.0.2", "fd67::2"), ("10.66.1.1", "fd66:1::1"), "")
                agent.stop = True
                noticed = status == "FAILED" and not any("exception" in p for p in problems)
                failed += not noticed
                print("%-8s fault %-28s %s: %s" % ("noticed" if noticed else "MISSED", bug, name, problems[0].split("\n")[0] if problems else "-"))
                sys.stdout.flush()
        return 1 if failed else 0
    both = [(text.split(",") + [""])[:2] for text in (args.local, args.remote)]
    stack = link.Stack(link.Link(link.open_tun(args.tun)))
    control = scenario.cli_control(args.enotun, args.instance) if args.enotun else None
    return 1 if run_all(names, stack, app.Client(args.app), both[0], both[1], args.out, control) else 0


if __name__ == "__main__":
    sys.exit(main())
