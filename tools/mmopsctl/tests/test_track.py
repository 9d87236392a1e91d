# SPDX-License-Identifier: GPL-2.0
"""`track`."""

import json
import os
import signal
import subprocess
import sys

from common import PAGE, PATIENCE, Storer, address_of, stopped, until

# Stores once to each page that a line names, of 400 that it has stored to before; and with "exec"
# in the place of pages it becomes another program, that does the same. With LOW in the environment
# there is a page at that address as well.
CHANGER = """
import ctypes, mmap, os, sys
PAGE = mmap.PAGESIZE
if "LOW" in os.environ:
    map_at = ctypes.CDLL(None).mmap
    map_at.argtypes = [ctypes.c_size_t] * 6
    low, fixed = int(os.environ["LOW"], 16), 0x100000
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    map_at.restype = ctypes.c_size_t
    assert map_at(low, PAGE, mmap.PROT_READ, private | fixed, 2**64 - 1, 0) == low
file = open(sys.argv[1], "w+b")
file.truncate(400 * PAGE)
view = mmap.mmap(file.fileno(), 0)
for page in range(400):
    view[page * PAGE] = 1
print("ready", file=sys.stderr, flush=True)
for line in sys.stdin:
    if line == "exec\\n":
        program = open("/proc/self/cmdline").read().split("\\0")[2]
        os.execv(sys.executable, [sys.executable, "-c", program, sys.argv[1]])
    for page in line.split():
        view[int(page) * PAGE] = 2
    print("stored", file=sys.stderr, flush=True)
sys.exit(len(sys.argv) - 2)
"""


class Changed:
    """What `mmopsctl track --json` tells of a program that runs CHANGER."""

    def __init__(self, context, *arguments, before=(), interval="100ms"):
        """With `before`, of a program that says that it is ready as well, and executes this."""
        self.file = context.file
        self.tool = subprocess.Popen(
            [context.program, "track", "--json", "--interval", interval, "--", *before,
             sys.executable, "-c", CHANGER, context.file, *arguments], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.expect("ready")
        self.looks = []
        if before:
            # All of it is tracked, and it does nothing any more.
            while self.look()["pages"] != 0:
                pass
        else:
            self.settle(400)

    def expect(self, word):
        line = self.tool.stderr.readline().strip()
        assert line == word, f"the program said {line!r}"

    def tell(self, line, word="stored"):
        self.tool.stdin.write(line + "\n")
        self.tool.stdin.flush()
        self.expect(word)

    def store(self, pages):
        # A look between the fault of a store and the store itself tells the page, and so does the
        # next one.
        with stopped(self.tool):
            self.tell(" ".join(map(str, pages)))

    def look(self):
        self.looks.append(json.loads(self.tool.stdout.readline()))
        return self.looks[-1]

    def settle(self, wanted):
        """Pages of the file in the looks from now on: `wanted`, and those of two more looks."""
        pages = [0, 0]
        while sum(pages[:-2]) < wanted:
            assert len(pages) < 300, (wanted, pages)
            pages.append(sum(mapping["pages"] for mapping in self.look()["mappings"]
                             if mapping["name"] == self.file))
        return sum(pages)

    def end(self):
        self.tool.stdin.close()
        *looks, total = [json.loads(line) for line in self.tool.stdout]
        self.looks += looks
        errors = self.tool.stderr.read()
        return self.tool.wait(PATIENCE), total, errors


def test_track_tells_each_page_once(context):
    run = Changed(context)
    for pages in [[7], [3, 4, 5, 399], range(400), range(0, 400, 3)]:
        run.store(pages)
        assert run.settle(len(pages)) == len(pages), (pages, run.looks[-3:])
    status, total, errors = run.end()
    assert status == 0 and total["status"] == 0, errors
    assert total["intervals"] == len(run.looks), (total, run.looks)
    assert total["pages"] == sum(look["pages"] for look in run.looks), total
    for look in run.looks:
        pages = sum(mapping["pages"] for mapping in look["mappings"])
        assert look["pages"] == pages == look["written"] + look["changed"], look
        assert look["bytes"] == PAGE * pages and look["kept"] == 0, look


def test_track_follows_an_exec(context):
    run = Changed(context)
    run.store([1, 2])
    assert run.settle(2) == 2
    run.tell("exec", "ready")
    assert run.settle(400) >= 400
    run.store([5])
    assert run.settle(1) == 1
    status, total, errors = run.end()
    assert status == 0, (total, errors)


def test_track_follows_an_exec_to_lower_addresses(context):
    # Without randomization both have their libraries and stack at the same place. The new program
    # has something below all of the old one: the first tracker is of the new one, and the others
    # are of the one that is gone.
    script = 'echo ready >&2; read -r _; export LOW=10000000; exec "$0" "$@"'
    run = Changed(context, before=["setarch", "-R", "sh", "-c", script])
    # It looks when all of that is there.
    with stopped(run.tool):
        run.tell("go", "ready")
    assert run.settle(400) >= 400
    run.store([5])
    assert run.settle(1) == 1, run.looks[-3:]
    status, total, errors = run.end()
    assert status == 0, (total, errors)


def test_track_of_a_process_that_runs(context):
    with Storer(context.file, 100) as storer:
        storer.store(*range(100))
        pid = storer.process.pid
        with subprocess.Popen([context.program, "track", "--json", "--interval", "50ms", str(pid)],
                              text=True, stdout=subprocess.PIPE) as tool:
            # What it has stored before the first interval is not told.
            looks = [json.loads(tool.stdout.readline())]
            # As in Changed.store(), and so that one look has all.
            with stopped(tool):
                storer.store(7, 8, 50)
            while not any(mapping["name"] == context.file for mapping in looks[-1]["mappings"]):
                looks.append(json.loads(tool.stdout.readline()))
            tool.send_signal(signal.SIGINT)
            *more, total = map(json.loads, tool.stdout)
            assert tool.wait(PATIENCE) == 0
        looks += more
        pages = sum(mapping["pages"] for look in looks for mapping in look["mappings"]
                    if mapping["name"] == context.file)
        assert pages == 3 and total["status"] is None, (looks, total)
        assert total["intervals"] == len(looks), total
        *looks, total = context.run("track", "--json", "--interval", "10ms", "--rounds", 3,
                                    pid).stdout.splitlines()
        assert len(looks) == 3 and json.loads(total)["intervals"] == 3, (looks, total)
    # It has ended.
    assert "No such process" in context.error("track", pid)


def lines_of(path):
    with open(path, encoding="utf-8") as log:
        return [json.loads(line) for line in log if line.endswith("\n")]


def test_track_full_sees_a_debugger(context):
    with Storer(context.file, 100) as storer:
        storer.store(*range(100))
        pid = storer.process.pid
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            # The one that takes no permission first: after the other, the next store faults.
            for options in [[], ["--full"]]:
                # A file, so that what was told before the write can be counted.
                with open(context.log, "wb") as log:
                    tool = subprocess.Popen([context.program, "track", "--json", "--interval",
                                             "50ms", *options, str(pid)], stdout=log)
                until(lambda: lines_of(context.log), "it does not look")
                with stopped(tool):
                    before = len(lines_of(context.log))
                    memory.seek(address_of(pid, context.file) + 7 * PAGE)
                    memory.write(b"x")
                # The first look may have been under way, and tell nothing of it.
                until(lambda: len(lines_of(context.log)) >= before + 2, "it does not go on")
                tool.send_signal(signal.SIGINT)
                assert tool.wait(PATIENCE) == 0
                *looks, _ = lines_of(context.log)
                pages = sum(mapping["pages"] for look in looks[before:]
                            for mapping in look["mappings"] if mapping["name"] == context.file)
                assert pages == len(options), (options, looks)


def test_track_as_table_and_picture(context):
    program = ["--", sys.executable, "-c", CHANGER, context.file]
    command = ["track", "--interval", "300ms"]
    lines = context.run(*command, *program, input="1 2 3\n").stdout.splitlines()
    assert lines[0].split() == ["seconds", "pages", "bytes", "most", "in"], lines
    assert "interval" in lines[-1], lines
    picture = os.path.join(os.path.dirname(context.file), "picture.svg")
    context.run(*command, "--output", picture, *program, input="")
    with open(picture, encoding="utf-8") as file:
        assert "pages that changed in each interval" in file.read()
    assert sys.executable in context.error(*command, *program, "fails", input="")
    assert "cannot run /nonexistent" in context.error(*command, "--", "/nonexistent")
    assert "PROGRAM" in context.error(*command, "--rounds", 1, *program, status=2)
