"""Runs the cases: netns/run.sh [CASE...]   (all of netns/cases without arguments)

One line per check; the last line is 'N passed, N failed'. As root. JOBS cases run side by side (3). Set KEEP=1 to keep
captures and logs, ENOTUN_MODE=plain to run without enotun.
"""

import concurrent.futures
import os
import pathlib
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback

CASES = pathlib.Path(__file__).resolve().parent.parent / "cases"
# Those that take longest begin first.
LONGEST = ("hostile-paths", "loss", "reorder")
LIMIT = int(os.environ.get("CASE_LIMIT", "1200"))
turn = threading.Lock()


def ended(process):
    """What it has printed. When its time is over it is told to end, and takes down what it has built."""
    for limit, end in ((LIMIT, process.terminate), (60, process.kill)):
        try:
            return process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            end()
    return process.communicate()[0]


def one(name):
    """A case in a process of its own, with a limit on its time; what it printed appears as a whole when it ends."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-B", "-m", "harness", "--this", CASES / f"{name}.py"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    output = ended(process).splitlines()
    counted = re.fullmatch(rf"# {name} (\d+) (\d+)", output[-1]) if output else None
    passed, failed = map(int, counted.groups()) if counted else (0, 1)
    lines = output[:-1] if counted else [*output, f"not ok - {name}: ended with status {process.returncode} before its end"]
    with turn:
        print(*lines, f"   ({name}: {time.monotonic() - began:.0f} s)", sep="\n", flush=True)
    return passed, failed


def this(path):
    """The case, in this process."""
    from harness import checks, net
    case = checks.case
    case.name = name = pathlib.Path(path).stem

    def interrupted(number, _):
        raise SystemExit(f"interrupted by signal {number}")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        runpy.run_path(path)
    except SystemExit as end:
        if end.code:
            case.failed += 1
            print(f"not ok - {name}: {end.code}")
    except BaseException:
        case.failed += 1
        lines = traceback.format_exc().splitlines()
        print(f"not ok - {name}: ended before its end", *(f"    {line}" for line in [*lines, *case.notes]), sep="\n")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if case.failed:
        for log in sorted(checks.work().glob("*.log")):
            if text := log.read_text(errors="replace").splitlines()[-25:]:
                print(f"    --- {log.name}, last lines:", *(f"    {line}" for line in text), sep="\n")
    net.down()
    if os.environ.get("KEEP"):
        print(f"    kept: {checks.work()}")
    else:
        case.leftovers.append(checks.work())
    for path in case.leftovers:
        shutil.rmtree(path, ignore_errors=True)
    print(f"# {name} {case.passed} {case.failed}", flush=True)
    # Sockets that are still open, threads that still read: none of that is waited for.
    os._exit(case.failed > 0)


def main():
    names = sys.argv[1:]
    if names[:1] == ["--this"]:
        this(names[1])
    if os.geteuid():
        sys.exit("netns/run.sh: must be root (it makes network namespaces)")
    there = sorted((path.stem for path in CASES.glob("*.py")), key=lambda name: (name not in LONGEST, name))
    for name in names:
        if name not in there:
            print(f"netns/run.sh: no case {name}", file=sys.stderr)
            sys.exit(2)
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS", "3"))) as jobs:
        counts = list(jobs.map(one, names or there))
    passed, failed = map(sum, zip(*counts))
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
