#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Test mmopsctl with the driver: guest.py MMOPSCTL [TEST...], as root, with the modules loaded.

Prints TAP. The tests are the functions test_NAME of the files test_*.py beside this one.
"""

import contextlib
import importlib
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback

# The directory of the sources stays as it is.
sys.dont_write_bytecode = True
from common import Context, Skip  # noqa: E402

# Of a test as a whole: one that waits for what does not come must not take the others with it.
TEST_PATIENCE = 900


def descendants(pid):
    """The processes that a process has started, and those that they have."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8") as stat:
            # The name of the program may have spaces and parentheses.
            parent = int(stat.read().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def give_up(*_):
    """Ends all that the test may wait for, and then the test."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    raise TimeoutError(f"the test did not end within {TEST_PATIENCE} s")


def find_tests():
    """Name and function of each test."""
    for path in sorted(pathlib.Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            if name.startswith("test_"):
                yield name.removeprefix("test_"), function


def main():
    signal.signal(signal.SIGALRM, give_up)
    program = os.path.realpath(sys.argv[1])
    tests = [(name, function) for name, function in find_tests()
             if len(sys.argv) < 3 or name in sys.argv[2:]]
    print("TAP version 13")
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, (name, function) in enumerate(tests, 1):
        # On tmpfs: what the kernel writes back is the subject of other tests.
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            signal.alarm(TEST_PATIENCE)
            started = time.monotonic()
            try:
                function(Context(program, directory))
                print(f"ok {number} {name}", flush=True)
            except Skip as reason:
                print(f"ok {number} {name} # SKIP {reason}", flush=True)
            except Exception:  # any failure of a test is a result
                failed += 1
                for line in traceback.format_exc().splitlines():
                    print(f"# {line}")
                print(f"not ok {number} {name}", flush=True)
            finally:
                signal.alarm(0)
                print(f"# {name} took {time.monotonic() - started:.0f} s", flush=True)
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
