# SPDX-License-Identifier: GPL-2.0
"""`leaves`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

from common import PAGE, PATIENCE

# Maps known leaves: of the file and of FILE.private, and three of 2 MiB, which may take some
# attempts. Then it says so in FILE.ready, and waits to be killed.
MAPPER = """
import mmap, os, re, signal, sys
MADV_GUARD_INSTALL = 102
path, PAGE = sys.argv[1], mmap.PAGESIZE

def map_file(path, pages, flags):
    with open(path, "w+b") as file:
        file.truncate(pages * PAGE)
        return mmap.mmap(file.fileno(), 0, flags=flags)

huge = mmap.mmap(-1, 6 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
huge.madvise(mmap.MADV_HUGEPAGE)
for attempt in range(100):
    for page in range(0, len(huge), PAGE):
        huge[page] = 1
    with open("/proc/self/smaps") as smaps:
        if re.search("AnonHugePages: +6144 kB", smaps.read()):
            break
    huge.madvise(mmap.MADV_DONTNEED)
private = map_file(path + ".private", 40, mmap.MAP_PRIVATE)
for page in range(10):
    private[page * PAGE] = 1
for page in range(20, 25):
    private[page * PAGE]
shared = map_file(path, 100, mmap.MAP_SHARED)
shared.madvise(MADV_GUARD_INSTALL, 90 * PAGE, 3 * PAGE)
for page in range(50, 70):
    shared[page * PAGE]
for page in range(50):
    shared[page * PAGE] = 1
with open(path + ".pid", "w") as file:
    file.write(str(os.getpid()))
os.rename(path + ".pid", path + ".ready")
signal.pause()
"""

NO_LEAVES = {"leaves": 0, "writable": 0, "dirty": 0, "young": 0, "soft_dirty": 0, "userfaultfd": 0,
             "special": 0}


def mapper(context):
    """The command to run MAPPER."""
    with open("/sys/kernel/mm/transparent_hugepage/enabled", "w", encoding="utf-8") as enabled:
        enabled.write("madvise")
    return [sys.executable, "-c", MAPPER, context.file]


def wait_for_mapper(context):
    """Until all is mapped; the process."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError), \
                open(context.file + ".ready", encoding="utf-8") as ready:
            return int(ready.read())
        time.sleep(0.05)
    raise AssertionError("MAPPER is not ready")


@contextlib.contextmanager
def running_mapper(context):
    process = subprocess.Popen(mapper(context))
    try:
        assert wait_for_mapper(context) == process.pid
        yield process.pid
    finally:
        process.kill()
        process.wait()


def is_huge(mapping):
    return mapping["name"] == "" and mapping["end"] - mapping["start"] == 6 << 20


def counted(mappings, name):
    """The mapping of this name, and the leaves of one size that it has."""
    mapping, = [m for m in mappings if m["name"] == name]
    assert mapping["pud"] == NO_LEAVES and mapping["pmd"] == NO_LEAVES, mapping
    return mapping, mapping["pte"]


def figures(count):
    """Those that the kernel does not change for reasons of its own."""
    assert count["young"] <= count["leaves"], count
    assert count["dirty"] <= count["soft_dirty"] <= count["leaves"], count
    assert count["userfaultfd"] == count["special"] == 0, count
    return count["leaves"], count["writable"], count["dirty"]


def assert_is_mapper(context, mappings):
    mapping, pte = counted(mappings, context.file)
    assert (mapping["protection"], mapping["end"] - mapping["start"]) == ("rw-s", 100 * PAGE)
    # A load maps a page of shared memory so that a store to it takes no fault.
    assert figures(pte) == (70, 70, 50) and mapping["absent"] == 3, mapping
    mapping, pte = counted(mappings, context.file + ".private")
    assert (mapping["protection"], mapping["absent"]) == ("rw-p", 0), mapping
    assert figures(pte) == (15, 10, 10), mapping
    mapping, = filter(is_huge, mappings)
    assert mapping["pud"] == mapping["pte"] == NO_LEAVES, mapping
    assert figures(mapping["pmd"]) == (3, 3, 3) and mapping["absent"] == 0, mapping


def test_leaves_of_a_process(context):
    with running_mapper(context) as pid:
        mappings = context.json("leaves", pid)
        assert_is_mapper(context, mappings)
        starts = [mapping["start"] for mapping in mappings]
        assert starts == sorted(starts), starts

        header, *lines = context.run("leaves", pid).stdout.splitlines()
        assert header.split() == ["addresses", "prot", "1G", "2M", "4K", "writable", "dirty",
                                  "young", "softdirt", "absent", "name"], header
        assert len(lines) == len(mappings), lines
        mapping, pte = counted(mappings, context.file)
        line, = [line.split() for line in lines if line.endswith(context.file)]
        assert line[:2] == [f"{mapping['start']:x}-{mapping['end']:x}", "rw-s"], line
        assert line[2:7] == ["0", "0", "70", "70", "50"], line
        assert line[8:] == [str(pte["soft_dirty"]), "3", context.file], line


def test_leaves_as_picture(context):
    picture = context.file + ".svg"
    with running_mapper(context) as pid:
        result = context.run("leaves", pid, "--json", "-o", picture)
    assert result.stderr == picture + "\n", result.stderr
    mappings = json.loads(result.stdout)
    assert_is_mapper(context, mappings)
    space = "{http://www.w3.org/2000/svg}"
    root = xml.etree.ElementTree.parse(picture).getroot()
    assert root.tag == space + "svg", root.tag
    words = [element.text.strip() for element in root.iter(space + "text")]
    assert words[:4] == ["leaves of 1G", "leaves of 2M", "leaves of 4K", "pale: not writable"]
    names = [f"{m['start']:x} {m['protection']} {m['name'].rpartition('/')[2]}".strip()
             for m in mappings]
    assert words[4:] == names, words
    bars = sum((count["writable"] > 0) + (count["leaves"] > count["writable"])
               for m in mappings for count in (m["pud"], m["pmd"], m["pte"]))
    # The background, and the colours' legend.
    assert len(list(root.iter(space + "rect"))) == 1 + 3 + bars, bars


def is_left(context, pid):
    """Whether there is the mapper yet, and not another process that has got its number."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
            open(f"/proc/{pid}/cmdline", encoding="utf-8") as command:
        return context.file in command.read()
    return False


def test_leaves_of_a_program_that_it_runs(context):
    # How long it takes to start is not known.
    for after in (1, 4, 16, 64, 256):
        output = context.run("leaves", "--json", "--after", f"{after}s", "--",
                             *mapper(context)).stdout
        with contextlib.suppress(FileNotFoundError), \
                open(context.file + ".ready", encoding="utf-8") as ready:
            pid = int(ready.read())
            # It may have come to its end after it was looked at.
            if after == 256 or any(m["name"] == context.file and m["pte"]["dirty"] == 50
                                   for m in json.loads(output)):
                break
    assert_is_mapper(context, json.loads(output))
    assert not is_left(context, pid), "the program was left behind"


def test_json_is_apart_from_what_a_program_prints(context):
    def report(*command):
        result = context.run(*command, "--json", "--", "echo", "noise")
        assert "noise" in result.stderr.splitlines(), (command, result)
        return result.stdout
    assert json.loads(report("zap"))["exit_status"] == 0
    for command in (["notifier-trace"], ["soft-dirty", "run", "--interval", "100ms"]):
        assert [json.loads(line) for line in report(*command).splitlines()], command
    result = context.run("notifier-trace", "--json", "-o", context.log, "--", "echo", "noise")
    assert result.stdout == "noise\n", result

    # How long it takes to start is not known.
    for after in (1, 4, 16, 64, 256):
        result = context.run("leaves", "--json", "--after", f"{after}s", "--",
                             "sh", "-c", "echo noise; exec sleep infinity")
        assert json.loads(result.stdout), result
        if "noise" in result.stderr.splitlines():
            break
    assert "noise" in result.stderr.splitlines(), result


def test_leaves_interrupted(context):
    process = subprocess.Popen([context.program, "leaves", "--after", "1h", "--",
                                *mapper(context)], stderr=subprocess.PIPE, text=True)
    try:
        pid = wait_for_mapper(context)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 1 and "interrupted before" in text, (process.returncode, text)
    assert not is_left(context, pid), "the program was left behind"


def test_leaves_errors(context):
    text = context.error("leaves", "--after", "1h", "--", "false")
    assert "false has ended before it was looked at (exit status: 1): see --after" in text, text
    assert "cannot run /nonexistent" in context.error("leaves", "--", "/nonexistent")
    assert "process 999999999: No such process" in context.error("leaves", 999999999)
    assert "required" in context.error("leaves", status=2)
    assert "cannot be used with" in context.error("leaves", 1, "--", "true", status=2)
    assert "cannot draw /nonexistent/picture" in \
        context.error("leaves", os.getpid(), "-o", "/nonexistent/picture")
