"""Checks, counted and printed one a line, and conditions that are waited for."""

import collections
import inspect
import os
import pathlib
import tempfile
import time
import traceback

# ENOTUN_MODE=plain: nothing is started, topologies and cases run over ordinary TCP (to test the tests).
plain = os.environ.get("ENOTUN_MODE", "enotun") == "plain"
# A busy machine has three times as long as one that has the time.
PATIENCE = 3


class Failed(Exception):
    """Something is not as it must be."""


class Case:
    """The case of this process: its name, what has been counted, and what is to be undone at its end."""

    name = ""
    passed = failed = 0
    # What happened during the check at hand, for when it fails.
    notes = collections.deque(maxlen=30)
    # What else goes at its end.
    leftovers = []


case = Case()
_work = []


def work(*name):
    """A file of the case's own directory, which goes at its end."""
    if not _work:
        _work.append(pathlib.Path(tempfile.mkdtemp(prefix=f"enotun-{case.name}.")))
    return _work[0].joinpath(*name)


def temporary(directory):
    """A directory of the case's elsewhere, which goes at its end, too."""
    case.leftovers.append(tempfile.mkdtemp(prefix=f"enotun-{case.name}.", dir=directory))
    return pathlib.Path(case.leftovers[-1])


def note(text):
    """Shown if the check at hand fails."""
    case.notes.extend(str(text).rstrip("\n").split("\n"))


def _holds(value):
    """A condition is true or false, or a command that ended well. Anything else is a mistake in the case."""
    if isinstance(value, str):
        return True  # the output of a command: had it failed, that would have been raised
    if isinstance(value, bool):
        return value
    raise TypeError(f"a condition gave {value!r}, neither true nor false")


def check(text, condition, *arguments, **named):
    """One line: `condition` holds if it gives True or the output of a command and raises nothing."""
    case.notes.clear()
    try:
        ok, why = _holds(condition(*arguments, **named)), None
    except Failed as failure:
        ok, why = False, str(failure)
    except Exception:  # a fault of the case: it must not end the others
        ok, why = False, traceback.format_exc()
    if ok:
        case.passed += 1
        print(f"ok - {case.name}: {text}", flush=True)
        return True
    case.failed += 1
    lines = [f"{_said(condition)} {' '.join(map(str, arguments))}", *case.notes, *(why or "it is not so").split("\n")]
    print(f"not ok - {case.name}: {text}", *(f"    {line}" for line in lines), sep="\n", flush=True)
    return False


def _said(condition):
    if getattr(condition, "__name__", "") != "<lambda>":
        return getattr(condition, "__qualname__", repr(condition))
    try:
        return inspect.getsource(condition).strip()
    except OSError:
        return "lambda"


def check_enotun(text, condition, *arguments, **named):
    """A check that plain mode leaves out."""
    if not plain:
        check(text, condition, *arguments, **named)


def fails(condition, *arguments, **named):
    """Holds if `condition` does not, or fails. A mistake in the case is not taken for that."""
    try:
        return not _holds(condition(*arguments, **named))
    except Failed as failure:
        note(failure)
        return True


def need(truth, text):
    if not truth:
        raise Failed(text)
    return True


def same(one, two):
    return need(one == two, f"{one!r} is not {two!r}")


def wait_for(seconds, condition, *arguments, **named):
    """Until `condition` holds. The seconds are what it may take on a machine that has the time."""
    deadline = time.monotonic() + PATIENCE * seconds
    while True:
        late, why = time.monotonic() > deadline, "it is not so"
        try:
            if _holds(condition(*arguments, **named)):
                return True
        except Failed as failure:
            why = str(failure)
        if late:
            raise Failed(f"not in {PATIENCE * seconds} s: {_said(condition)} {' '.join(map(str, arguments))}: {why}")
        time.sleep(0.05)
