# SPDX-License-Identifier: GPL-2.0
"""`soft-dirty`."""

import contextlib
import itertools
import json
import os
import signal
import struct
import subprocess
import sys

from common import PATIENCE, SHARED, Storer, state_of, status_of, until

# Stores to each of 400 pages, and then to the first 50 as often as asked for; and waits each time
# until somebody has looked, and cleared the soft-dirty bits.
TOUCHER = """
import ctypes, mmap, os, struct, sys, time
PAGE = mmap.PAGESIZE
view = mmap.mmap(-1, 400 * PAGE)
first = ctypes.addressof(ctypes.c_char.from_buffer(view)) // PAGE
pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)

def is_soft_dirty(page):
    entry, = struct.unpack("Q", os.pread(pagemap, 8, (first + page) * 8))
    return entry >> 55 & 1

for pages in [400] + [50] * int(sys.argv[1]):
    for page in range(pages):
        view[page * PAGE] = 1
    while is_soft_dirty(pages - 1):
        time.sleep(0.001)
sys.exit(int(sys.argv[2]))
"""


def test_soft_dirty_run_tells_pages_of_each_interval(context):
    output = context.run("soft-dirty", "run", "--json", "--interval", "500ms", "--",
                         sys.executable, "-c", TOUCHER, 4, 0).stdout
    *intervals, total = [json.loads(line) for line in output.splitlines()]
    seen = [mapping["pages"] for interval in intervals for mapping in interval["mappings"]
            if mapping["name"].startswith("/dev/zero")]
    # An interval may end within a pass over the pages, but none sees two passes. The store that it
    # ends at can be counted on both sides: a fault marks the page before the store is done.
    sums = list(itertools.accumulate(seen))
    for stored in range(400, 601, 50):
        assert any(stored <= found < stored + len(seen) for found in sums), seen
    assert 600 <= sums[-1] < 600 + len(seen), seen
    assert total["status"] == 0 and total["intervals"] == len(intervals), total
    assert total["pages"] == sum(interval["pages"] for interval in intervals), total


def test_soft_dirty_run_as_table_and_picture(context):
    command = ["soft-dirty", "run", "--interval", "300ms"]
    lines = context.run(*command, "--", sys.executable, "-c", TOUCHER, 1, 0).stdout.splitlines()
    assert lines[0].split() == ["seconds", "pages", "bytes", "most", "in"], lines
    assert len(lines) >= 3 and "interval" in lines[-1], lines
    picture = os.path.join(os.path.dirname(context.file), "picture.svg")
    context.run(*command, "--output", picture, "--", sys.executable, "-c", TOUCHER, 1, 0)
    with open(picture, encoding="utf-8") as file:
        assert "pages stored to in each interval" in file.read()


def test_soft_dirty_run_fails_with_its_program(context):
    for program in [[sys.executable, "-c", TOUCHER, "0", "3"], ["/nonexistent"]]:
        result = subprocess.run([context.program, "soft-dirty", "run", "--", *program],
                                capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert result.returncode == 1 and program[0] in result.stderr, result


def test_soft_dirty_clear(context):
    with Storer(context.file, 100) as storer:
        pid = storer.process.pid
        storer.store(*range(100))
        assert "cleared" in context.run("soft-dirty", "clear", pid).stdout
        storer.store(7, 8)
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            area = next(line.split()[0] for line in maps if context.file in line)
        output = context.run("soft-dirty", "clear", "--range", area, pid).stdout
        assert output.startswith("2 pages"), output
        assert context.run("soft-dirty", "clear", "--range", area, pid).stdout.startswith("0 ")


# Stores to memory of its own in two threads.
SUBJECT = SHARED + """
view = mmap.mmap(-1, 4096 * mmap.PAGESIZE)
for page in range(4096):
    view[page * mmap.PAGESIZE] = 1

def store():
    view[count % 4096 * mmap.PAGESIZE] = 1

threading.Thread(target=run, args=[store]).start()
run(store)
"""


class SoftDirtyRun:
    """`soft-dirty run` of a Python program that leaves its number in a file, and what it says."""

    def __init__(self, context, program, interval):
        self.file, self.log = context.file, context.log
        with open(self.log, "wb") as log, open(self.log + ".errors", "wb") as errors:
            # A pipe would fill up, and the tool wait.
            self.tool = subprocess.Popen(
                [context.program, "soft-dirty", "run", "--json", "--interval", interval, "--",
                 sys.executable, "-c", program, context.file],
                stdin=subprocess.PIPE, stdout=log, stderr=errors)
        self.pid = until(lambda: self.read()[1], "it does not run")

    def read(self):
        """The count of the program, and its number."""
        with contextlib.suppress(FileNotFoundError), open(self.file, "rb") as file:
            data = file.read(16)
            if len(data) == 16:
                return struct.unpack("QQ", data)
        return 0, 0

    def lines(self):
        """What the tool has told."""
        with open(self.log, encoding="utf-8") as log:
            return [json.loads(line) for line in log if line.endswith("\n")]

    def errors(self):
        with open(self.log + ".errors", encoding="utf-8") as errors:
            return errors.read()

    def wait_for_looks(self, number):
        """The last ones of as many more looks, of which the first may have begun already."""
        before = len(self.lines())
        return until(lambda: self.lines()[before + 1:before + number] if
                     len(self.lines()) >= before + number else None, "no more intervals")

    def stop_tool_while_held(self):
        """Stops the tool when it holds the program; the process that does it."""
        while True:
            self.tool.send_signal(signal.SIGSTOP)
            until(lambda: state_of(self.tool.pid) == "T", "the tool does not stop")
            state, tracer = status_of(self.pid)
            # One that sleeps has no command to let go, and none can come.
            if tracer and state_of(tracer) == "S" and status_of(self.pid) == ("t", tracer):
                return tracer
            self.tool.send_signal(signal.SIGCONT)

    def assert_others_run(self):
        before, _ = self.read()
        until(lambda: self.read()[0] > before, "it does not go on")

    def assert_runs(self):
        until(lambda: state_of(self.pid) in "RSD", "it does not go on")
        self.assert_others_run()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tool.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.tool.communicate()
        for path in (self.file, self.log, self.log + ".errors"):
            os.unlink(path)


def test_soft_dirty_run_killed_lets_its_program_go(context):
    for signum in (signal.SIGKILL, signal.SIGTERM):
        with SoftDirtyRun(context, SUBJECT, "1ms") as run:
            run.stop_tool_while_held()
            run.tool.send_signal(signum)
            run.tool.send_signal(signal.SIGCONT)
            assert run.tool.wait(PATIENCE) == -signum
            run.assert_runs()
            assert status_of(run.pid)[1] == 0


def test_soft_dirty_run_goes_on_when_its_helper_is_killed(context):
    with SoftDirtyRun(context, SUBJECT, "1ms") as run:
        os.kill(run.stop_tool_while_held(), signal.SIGKILL)
        run.assert_runs()
        run.tool.send_signal(signal.SIGCONT)
        run.wait_for_looks(3)
        run.assert_runs()
        os.kill(run.pid, signal.SIGKILL)
        assert run.tool.wait(PATIENCE) == 1
        assert run.lines()[-1]["status"] is None, run.lines()[-1]


# Counts what it does after its stop.
STOPPED = SHARED + """
os.kill(os.getpid(), signal.SIGSTOP)
struct.pack_into("QQ", shared, 0, 1, os.getpid())
sys.stdin.readline()
"""


def test_soft_dirty_run_leaves_a_stopped_program_stopped(context):
    with SoftDirtyRun(context, STOPPED, "10ms") as run:
        until(lambda: state_of(run.pid) == "T", "it does not stop")
        looks = run.wait_for_looks(20)
        assert [look["pages"] for look in looks] == [0] * 19, looks
        # Now and then it is held, and runs in the kernel from there back to its stop.
        until(lambda: state_of(run.pid) == "T", "it is held for ever")
        assert run.read() == (0, run.pid)
        os.kill(run.pid, signal.SIGCONT)
        until(lambda: run.read() == (1, run.pid), "it does not go on")
        run.tool.communicate(b"\n", timeout=PATIENCE)
        assert run.tool.returncode == 0, run.errors()


# Its main thread waits for a child of vfork(2), which runs until it is killed, and another thread
# counts. No signal ends that wait, and no debugger.
VFORK = SHARED + """
CLONE_VM, CLONE_VFORK = 0x100, 0x4000
libc = ctypes.CDLL(None)
threading.Thread(target=run, daemon=True).start()
stack = ctypes.create_string_buffer(65536)
top = ctypes.c_void_p(ctypes.addressof(stack) + 65536 & ~15)
child = libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top,
                   CLONE_VM | CLONE_VFORK | signal.SIGCHLD, None)
os.waitpid(child, 0)
sys.stdin.readline()
os._exit(0)
"""


def test_soft_dirty_run_does_not_wait_for_vfork(context):
    with SoftDirtyRun(context, VFORK, "1ms") as run:
        def children():
            with open(f"/proc/{run.pid}/task/{run.pid}/children", encoding="utf-8") as file:
                return [int(child) for child in file.read().split()]

        child, = until(children, "no child")
        until(lambda: status_of(run.pid)[1], "nobody tries to hold it")
        until(lambda: not status_of(run.pid)[1], "it waits for the child as well")
        assert children() == [child] and state_of(run.pid) == "D"
        run.assert_others_run()
        until(lambda: "waits in the kernel, as for a child of vfork" in run.errors(), "no note")
        os.kill(child, signal.SIGKILL)
        # From now on it can be held.
        until(lambda: state_of(run.pid) != "D", "it still waits for its child")
        run.wait_for_looks(3)
        run.tool.communicate(b"\n", timeout=PATIENCE)
        assert run.tool.returncode == 0, run.errors()


def test_soft_dirty_run_follows_an_exec(context):
    output = context.run("soft-dirty", "run", "--json", "--interval", "50ms", "--", "sh", "-c",
                         'exec "$@"', "sh", sys.executable, "-c", TOUCHER, 1, 0).stdout
    *intervals, total = [json.loads(line) for line in output.splitlines()]
    seen = sum(mapping["pages"] for interval in intervals for mapping in interval["mappings"]
               if mapping["name"].startswith("/dev/zero"))
    assert 450 <= seen < 450 + len(intervals), (seen, total)
