# SPDX-License-Identifier: GPL-2.0
"""`zap`."""

import json
import os
import sys

from common import PAGE, Storer


def test_zap_of_a_process_keeps_what_was_stored(context):
    with Storer(context.file, 100) as storer:
        pid = storer.process.pid
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
            where = [line.split()[0] for line in maps if line.rstrip().endswith(context.file)]
        assert len(where) == 1, where

        def zapped(*arguments):
            result = context.json("zap", "--pid", pid, *arguments)
            assert result["exit_status"] is None, result
            assert len(result["turns"]) == 1, result
            return result["turns"][0]["zapped_pages"]

        storer.store(*range(100))
        assert zapped("--range", where[0]) == 100
        assert zapped("--range", where[0]) == 0
        storer.store(*range(100))
        # By default all shared mappings, of which the interpreter may have its own.
        assert zapped() >= 100
        assert zapped("--range", where[0]) == 0
        storer.store(7)
    with open(context.file, "rb") as file:
        data = file.read()
    assert all(data[page * PAGE + 17] for page in range(100))


# Counts up in each page of a shared mapping for some seconds, and looks whether it is all there.
# Then it waits until none of the pages is mapped any more, and looks once more.
COUNTER = """
import ctypes, mmap, os, struct, sys, time
file = open(sys.argv[1], "w+b")
file.truncate(64 * mmap.PAGESIZE)
view = mmap.mmap(file.fileno(), 0)
first = ctypes.addressof(ctypes.c_char.from_buffer(view)) // mmap.PAGESIZE
pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
turn = 0

def count():
    global turn
    for page in range(64):
        if view[page * mmap.PAGESIZE] != turn % 256:
            sys.exit(3)
        view[page * mmap.PAGESIZE] = (turn + 1) % 256
    turn += 1

def is_mapped():
    entries = struct.unpack("64Q", os.pread(pagemap, 64 * 8, first * 8))
    return any(entry >> 63 for entry in entries)

end = time.monotonic() + 4
while time.monotonic() < end or turn < 3:
    count()
while is_mapped():
    time.sleep(0.001)
count()
"""


def test_zap_of_a_program_that_it_runs(context):
    result = json.loads(context.run("zap", "--json", "--interval", "50ms", "--", sys.executable,
                                    "-c", COUNTER, context.file).stdout)
    assert result["exit_status"] == 0, result
    assert sum(turn["zapped_pages"] for turn in result["turns"]) >= 64, result
    text = context.run("zap", "--", "false", status=1).stderr
    assert "the program ended with" in text, text


def test_zap_errors(context):
    def error(*arguments):
        return context.run("zap", *arguments, status=1).stderr
    assert "cannot run" in error("--", "/nonexistent/program")
    assert "process" in error("--pid", 999999999)
    assert "name a process" in error()
    assert "not mapped" in error("--pid", os.getpid(), "--range", "1000-2000")
