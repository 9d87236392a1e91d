#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Test mmopsctl with the driver: guest.py MMOPSCTL [TEST...], as root, with the modules loaded.

Prints TAP. Each test has a process of its own that maps a file shared and stores to it on command.
"""

import contextlib
import fcntl
import itertools
import json
import mmap
import os
import pty
import random
import re
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import xml.etree.ElementTree

PAGE = mmap.PAGESIZE
PATIENCE = 600
# Of a test as a whole: one that waits for what does not come must not take the others with it.
TEST_PATIENCE = 900

# Maps `pages` pages of a file and stores one byte to each page that a line of its input names.
# `+N` makes the file N pages long first; `close` unmaps it.
STORER = """
import mmap, sys
path, pages = sys.argv[1], int(sys.argv[2])
file = open(path, "a+b", buffering=0)
file.truncate(pages * mmap.PAGESIZE)
view = mmap.mmap(file.fileno(), 0)
print("mapped", flush=True)
value = 0
for line in sys.stdin:
    for word in line.split():
        if word == "close":
            view.close()
        elif word.startswith("+"):
            file.truncate(int(word) * mmap.PAGESIZE)
            view.resize(int(word) * mmap.PAGESIZE)
        else:
            value = value % 255 + 1
            view[int(word) * mmap.PAGESIZE + 17] = value
    print("stored", flush=True)
"""


class Storer:
    """A process with a shared mapping of a file."""

    def __init__(self, path, pages):
        self.process = subprocess.Popen([sys.executable, "-c", STORER, path, str(pages)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._expect("mapped")

    def _expect(self, word):
        line = self.process.stdout.readline().strip()
        assert line == word, f"the storer said {line!r}"

    def store(self, *pages):
        self.process.stdin.write(" ".join(map(str, pages)) + "\n")
        self.process.stdin.flush()
        self._expect("stored")

    def grow(self, pages):
        self.store(f"+{pages}")

    def unmap(self):
        self.store("close")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(PATIENCE)


class Context:
    """Files of a test, and the program under test."""

    def __init__(self, program, directory):
        self.program = program
        self.file = os.path.join(directory, "file")
        self.replica = os.path.join(directory, "replica")
        self.log = os.path.join(directory, "log")

    def run(self, *arguments, status=0, **options):
        result = subprocess.run([self.program, *map(str, arguments)], capture_output=True,
                                text=True, timeout=PATIENCE, check=False, **options)
        assert result.returncode == status, f"{arguments}: {result}"
        return result

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)

    def error(self, *arguments, status=1, **options):
        return self.run(*arguments, status=status, **options).stderr

    def harvest(self, *arguments):
        result = self.json("harvest", self.file, *arguments)
        return result["dirty_pages"], result["ranges"]

    @contextlib.contextmanager
    def replicate(self, *arguments):
        """A replication that has made its full copy; killed at the end if it still runs."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.log)  # of the one before
        command = [self.program, "replicate", self.file, self.replica, "--log", self.log, "--json",
                   "--quiet", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            self.wait_for_step("full_copy", process)
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def steps(self):
        with contextlib.suppress(FileNotFoundError), open(self.log, encoding="utf-8") as log:
            return [json.loads(line) for line in log if line.endswith("\n")]
        return []

    def wait_for_step(self, name, process, number=1):
        deadline = time.monotonic() + PATIENCE
        while len([step for step in self.steps() if step["step"] == name]) < number:
            assert process.poll() is None, f"ended before step {name}"
            assert time.monotonic() < deadline, f"no step {name}"
            time.sleep(0.05)

    def identical(self):
        with open(self.file, "rb") as file, open(self.replica, "rb") as replica:
            return file.read() == replica.read()


def end(process, signum=signal.SIGINT, status=0):
    """Ends a replication and returns its report."""
    process.send_signal(signum)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, f"status {process.returncode}"
    return json.loads(output) if output else None


class Skip(Exception):
    """What a test needs is not there."""


def until(condition, what):
    """Waits until the condition holds; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.001)
    return value


def status_of(pid):
    """State and tracer of a process, or of its main thread."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        lines = dict(line.split(":", 1) for line in status)
    return lines["State"].split()[0], int(lines["TracerPid"])


def state_of(pid):
    return status_of(pid)[0]


def in_ioctl(pid):
    """Whether a process waits in an ioctl(2)."""
    with open(f"/proc/{pid}/syscall", encoding="utf-8") as syscall:
        return syscall.read().split()[0] == "16"


def catches_sigint(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        caught, = (line.split()[1] for line in status if line.startswith("SigCgt:"))
    return int(caught, 16) >> (signal.SIGINT - 1) & 1


@contextlib.contextmanager
def held(context, pid):
    """Holds all threads of a process as a debugger does."""
    with subprocess.Popen([context.program, "hold", str(pid)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1) as holder:
        holder.stdin.write("h")
        holder.stdin.flush()
        answer = json.loads(holder.stdout.readline())
        assert answer == "Held" and state_of(pid) == "t", answer
        yield
        holder.stdin.close()


def disturb(context, process, settled=None):
    """All that interrupts a wait without being a reason to end it."""
    def settle():
        until(lambda: settled is None or settled(process.pid), "it does not wait")
    settle()
    process.send_signal(signal.SIGSTOP)
    until(lambda: state_of(process.pid) == "T", "it does not stop")
    process.send_signal(signal.SIGCONT)
    until(lambda: state_of(process.pid) != "T", "it does not go on")
    settle()
    with held(context, process.pid):
        pass
    settle()
    process.send_signal(signal.SIGWINCH)
    settle()
    assert process.poll() is None, process.returncode


def test_info(context):
    info = context.json("info")
    assert info["page_size"] == PAGE, info
    assert info["version"].startswith("1."), info
    assert {"write-protect", "clean-record"} <= set(info["features"]), info
    assert "page size  4096" in context.run("info").stdout


def test_harvest_lists_what_was_stored_to(context):
    with Storer(context.file, 1000) as storer:
        context.harvest()
        storer.store(3, 4, 5, 64, 999)
        assert context.harvest() == (5, [[3, 3], [64, 1], [999, 1]])
        assert context.harvest() == (0, [])
        storer.store(4)
        assert context.harvest() == (1, [[4, 1]])


def test_harvest_of_a_range_leaves_the_rest(context):
    with Storer(context.file, 1000) as storer:
        context.harvest()
        storer.store(9, 10, 19, 20)
        assert context.harvest("--first", 10, "--nr", 10) == (2, [[10, 1], [19, 1]])
        assert context.harvest("--nr", 1 << 40) == (2, [[9, 1], [20, 1]])


def test_harvest_in_words(context):
    with Storer(context.file, 10) as storer:
        context.harvest()
        storer.store(2, 3)
        lines = context.run("harvest", context.file).stdout.splitlines()
        assert lines[0].split() == ["first", "page", "pages", "bytes"], lines
        assert lines[1].split() == ["2", "2", str(2 * PAGE)], lines
        assert lines[2].startswith("2 pages (8.00 KiB) dirty in 1 range"), lines


def test_two_processes_and_one_bit(context):
    with Storer(context.file, 10) as one, Storer(context.file, 10) as two:
        context.harvest()
        one.store(7)
        two.store(7, 8)
        result = context.json("harvest", context.file)
        assert (result["dirty_pages"], result["cleaned"]) == (2, 3), result


def test_memfd_of_a_process(context):
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 8 * PAGE)
    with mmap.mmap(descriptor, 8 * PAGE) as view:
        context.file = f"/proc/{os.getpid()}/fd/{descriptor}"
        context.harvest()
        view[5 * PAGE] = 1
        assert context.harvest() == (1, [[5, 1]])
    os.close(descriptor)


def test_write_protect(context):
    with Storer(context.file, 100) as storer:
        storer.store(*range(20))
        text = context.run("write-protect", context.file, "--first", 5, "--nr", 10).stdout
        assert text.startswith("10 pages"), text
        text = context.run("write-protect", context.file).stdout
        assert text.startswith("10 pages"), text
        storer.store(0)
        text = context.run("write-protect", context.file).stdout
        assert text.startswith("1 page "), text


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
COUNTER = """
import mmap, sys, time
file = open(sys.argv[1], "w+b")
file.truncate(64 * mmap.PAGESIZE)
view = mmap.mmap(file.fileno(), 0)
end = time.monotonic() + 4
turn = 0
while time.monotonic() < end or turn < 3:
    for page in range(64):
        if view[page * mmap.PAGESIZE] != turn % 256:
            sys.exit(3)
        view[page * mmap.PAGESIZE] = (turn + 1) % 256
    turn += 1
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


def test_nothing_mapped_is_explained(context):
    with open(context.file, "wb") as file:
        file.truncate(PAGE)
    for command in ("harvest", "write-protect"):
        assert "no process" in context.run(command, context.file).stderr
    with open(context.file, "r+b") as file, \
            mmap.mmap(file.fileno(), PAGE, mmap.MAP_PRIVATE) as view:
        view[0] = 1
        assert "private mappings are not seen" in context.run("harvest", context.file).stderr


def test_errors_say_what_to_do(context):
    def error(*arguments, **options):
        return context.run(*arguments, status=1, **options).stderr

    assert "name a file" in error("harvest", "/nonexistent")
    assert "the file in it" in error("harvest", "/tmp")
    assert "cannot be mapped shared" in error("harvest", "/dev/null", "--nr", 1)
    with open(context.file, "wb") as file:
        file.truncate(PAGE)
    assert "none from page 1 on" in error("harvest", context.file, "--first", 1)
    assert "more than a file can have" in \
        error("harvest", context.file, "--first", 1, "--nr", (1 << 64) - 1)
    assert "the same file" in error("replicate", context.file, context.file)
    os.chmod(os.path.dirname(context.file), 0o755)
    # Where another user can execute it.
    program, context.program = context.program, shutil.copy(context.program, context.replica)
    assert "root alone" in error("info", user=65534)
    context.program = program
    assert "invalid value" in context.run("harvest", context.file, "--nr", 0, status=2).stderr


def test_replica_after_sigint(context):
    with Storer(context.file, 500) as storer:
        storer.store(*range(100))
        with context.replicate("--interval", "1h", "--no-verify") as process:
            # No round comes before the signal: it is the last one that has to see these.
            storer.store(1, 99, 100, 499)
            report = end(process)
        assert report["by_signal"] and report["verify"] is None, report
        assert [r["dirty_pages"] for r in report["per_round"]] == [4], report
        assert report["pages"] == 4 and report["bytes"] == 4 * PAGE, report
        assert context.identical()


def test_replica_after_sigterm(context):
    with Storer(context.file, 50) as storer:
        with context.replicate("--interval", "10ms", "--verify") as process:
            for page in range(50):
                storer.store(page)
                time.sleep(0.005)
            context.wait_for_step("round", process, number=2)
            report = end(process, signal.SIGTERM)
        assert report["verify"]["differed"] == 0, report
        assert report["rounds"] == len(report["per_round"]) > 1, report
        assert sum(r["dirty_pages"] for r in report["per_round"]) >= 50, report
        assert context.identical()
        steps = [step["step"] for step in context.steps()]
        assert steps == ["start", "full_copy"] + ["round"] * report["rounds"] + ["verify", "end"]


def test_rounds_end_the_replication(context):
    with Storer(context.file, 50) as storer:
        storer.store(3)
        arguments = ("--rounds", "3", "--interval", "10ms", "--quiet")
        report = context.json("replicate", context.file, context.replica, *arguments)
        assert report["rounds"] == 3 and not report["by_signal"], report
        # What was dirty before is in the full copy, and not in the first round.
        assert [r["dirty_pages"] for r in report["per_round"]] == [0, 0, 0], report
        assert context.identical()


def test_file_that_grows_and_shrinks(context):
    with Storer(context.file, 10) as storer:
        with context.replicate("--interval", "20ms", "--no-verify") as process:
            storer.store(2, 9)
            storer.grow(300)
            storer.store(10, 298)
            context.wait_for_step("round", process, number=20)
            storer.grow(40)
            storer.store(39)
            context.wait_for_step("round", process, number=40)
            end(process)
        assert os.path.getsize(context.replica) == 40 * PAGE
        assert context.identical()


def found_and_missed(context, change, *options):
    """Pages that the last round copied, and that the compare found, of what changed before it."""
    with Storer(context.file, 50) as storer:
        storer.store(*range(50))
        with context.replicate("--interval", "1h", *options) as process:
            change(storer)
            report = end(process)
    assert report["changes_by"] == ("harvests" if "--harvest" in options else "tracker"), report
    assert context.identical()
    return report["pages"], report["verify"]["differed"]


def test_unmapped_before_the_last_round(context):
    def change(storer):
        storer.store(4, 5)
        storer.unmap()

    result = found_and_missed(context, change, "--verify")
    assert result == (2, 0), result
    # The dirty bits went with the mapping: the compare must find the pages.
    result = found_and_missed(context, change, "--harvest")
    assert result == (0, 2), result


@contextlib.contextmanager
def file_system(context, kind, mebibytes):
    """A context on a file system of its own, on a loop device in memory."""
    with open("/proc/filesystems", encoding="utf-8") as kinds:
        if kind not in [line.split()[-1] for line in kinds]:
            raise Skip(f"the kernel has no {kind}")
    if not shutil.which(f"mkfs.{kind}"):
        raise Skip(f"no mkfs.{kind}")
    directory = os.path.dirname(context.file)
    image, mount = os.path.join(directory, "image"), os.path.join(directory, "mount")
    os.mkdir(mount)
    with open(image, "xb") as file:
        file.truncate(mebibytes << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    subprocess.run(["mount", "-t", kind, "-o", "loop", image, mount], check=True)
    try:
        yield Context(context.program, mount)
    finally:
        subprocess.run(["umount", mount], check=True)


def test_written_back_before_the_last_round(context):
    with file_system(context, "ext4", 64) as disk:
        def change(storer):
            storer.store(4, 5)
            with open(disk.file, "rb") as file:
                os.fsync(file.fileno())

        result = found_and_missed(disk, change, "--verify")
        # And perhaps others of the same large folio.
        assert result[0] >= 2 and result[1] == 0, result
        # Writeback took the dirty bits.
        result = found_and_missed(disk, change, "--harvest")
        assert result == (0, 2), result


# Changes a file in all ways until a line comes, and then says so.
FILE_CHANGER = """
import ctypes, mmap, os, random, select, sys, time
path, pages, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PAGE = mmap.PAGESIZE
random.seed(seed)
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_uint]
fd = os.open(path, os.O_RDWR)
view = mmap.mmap(fd, pages * PAGE)
size = pages * PAGE

def store(view, count):
    for _ in range(count):
        view[random.randrange(size)] = random.randrange(256)

print("mapped", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    what = random.random()
    if what < 0.5:
        store(view, 3)
    elif what < 0.6:
        start = random.randrange(pages * PAGE - 5 * PAGE)
        end = start + random.randrange(1, 5 * PAGE)
        os.pwrite(fd, random.randbytes(1) * (end - start), start)
        size = max(size, end)
    elif what < 0.7:
        # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        length = random.randrange(1, 30 * PAGE)
        if libc.fallocate(fd, 3, random.randrange(pages * PAGE), length):
            raise OSError(ctypes.get_errno(), "fallocate")
    elif what < 0.75:
        os.ftruncate(fd, random.randrange(size // 2, size) + 1)
        if random.random() < 0.7:
            os.ftruncate(fd, pages * PAGE)
        size = os.fstat(fd).st_size
    elif what < 0.8:
        view.close()
        os.ftruncate(fd, pages * PAGE)
        size = pages * PAGE
        view = mmap.mmap(fd, size)
    elif what < 0.83:
        if not (child := os.fork()):
            with mmap.mmap(fd, os.fstat(fd).st_size) as own:
                store(own, 2)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    elif what < 0.92:
        # SYNC_FILE_RANGE_WRITE
        libc.sync_file_range(fd, 0, 0, 2)
    else:
        os.fsync(fd)
print("stopped", flush=True)
sys.stdin.read()
"""


def miss_nothing(context):
    pages, rounds = 2000, 60
    with open(context.file, "xb") as file:
        file.write(os.urandom(pages * PAGE))
    command = [sys.executable, "-c", FILE_CHANGER, context.file, str(pages), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          bufsize=1) as changer:
        assert changer.stdout.readline() == "mapped\n"
        with context.replicate("--interval", "50ms", "--verify") as process:
            context.wait_for_step("round", process, number=rounds)
            changer.stdin.write("stop\n")
            assert changer.stdout.readline() == "stopped\n"
            report = end(process)
        subprocess.run(["cmp", context.file, context.replica], check=True)
        changer.stdin.close()
        assert changer.wait(PATIENCE) == 0
    assert report["changes_by"] == "tracker" and report["verify"]["differed"] == 0, report
    assert report["pages"] > 0, report
    # Holes stay holes.
    file, replica = os.stat(context.file), os.stat(context.replica)
    assert replica.st_blocks <= file.st_blocks + file.st_size // 512 // 20, (file, replica)


def test_tracker_misses_nothing_on_tmpfs(context):
    miss_nothing(context)


def test_tracker_misses_nothing_on_ext4(context):
    with file_system(context, "ext4", 64) as disk:
        miss_nothing(disk)


def test_tracker_misses_nothing_on_xfs(context):
    with file_system(context, "xfs", 400) as disk:
        miss_nothing(disk)


def test_replica_of_sqlite(context):
    with file_system(context, "ext4", 64) as disk:
        with contextlib.closing(sqlite3.connect(disk.file, isolation_level=None)) as database:
            database.execute("pragma mmap_size = 67108864")
            database.execute("create table item (key integer primary key, value blob)")
            with disk.replicate("--interval", "20ms", "--verify") as process:
                for key in range(300):
                    database.execute("insert into item values (?, randomblob(5000))", (key,))
                    database.execute("delete from item where key = ?", (key * 7 % 300,))
                    if key % 100 == 99:
                        database.execute("vacuum")
                disk.wait_for_step("round", process, number=5)
                report = end(process)
            contents = database.execute("select * from item order by key").fetchall()
        assert report["changes_by"] == "tracker" and report["verify"]["differed"] == 0, report
        assert contents and disk.identical()
        with contextlib.closing(sqlite3.connect(disk.replica)) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert database.execute("select * from item order by key").fetchall() == contents


@contextlib.contextmanager
def directory_of_the_host():
    """A directory on 9p, whose files the kernel does not tell the changes of."""
    with open("/proc/mounts", encoding="utf-8") as mounts:
        fields = [line.split() for line in mounts]
    for path in [mount[1] for mount in fields if mount[2] == "9p"]:
        try:
            directory = tempfile.TemporaryDirectory(dir=path)
        except OSError:
            continue
        with directory as path:
            yield path
        return
    raise Skip("no 9p that can be written to")


def test_harvests_without_a_tracker(context):
    with directory_of_the_host() as directory:
        file = os.path.join(directory, "file")
        with open(file, "xb") as new:
            new.write(b"x" * 10 * PAGE)
        arguments = ("replicate", file, context.replica, "--rounds", "1", "--interval", "10ms",
                     "--json")
        result = context.run(*arguments)
        report = json.loads(result.stdout)
        assert report["changes_by"] == "harvests", report
        assert report["verify"]["differed"] == 0 and report["verify"]["pages"] == 10, report
        line, = [line for line in result.stderr.splitlines() if "no tracker for" in line]
        assert "it is compared at the end" in line, line
        result = context.run(*arguments, "--no-verify")
        assert json.loads(result.stdout)["verify"] is None, result
        assert "which do not tell everything" in result.stderr, result


def test_options_for_harvests(context):
    with Storer(context.file, 50):
        arguments = ("replicate", context.file, context.replica, "--rounds", "1", "--interval",
                     "10ms")
        assert "give --harvest as well" in context.error(*arguments, "--split")
        context.run(*arguments, "--split", "--harvest")
        assert "harvest " in context.run(*arguments, "--harvest").stdout
        result = context.run(*arguments)
        assert "not needed" in result.stdout and "harvest" not in result.stderr, result
        assert "none of" in context.run(*arguments, "--verify").stdout
        context.error(*arguments, "--verify", "--no-verify", status=2)


class Stream:
    """The stream of a replication, read by another reader than apply."""

    def __init__(self):
        self.bytes = bytearray()
        self.end = 12  # of the last whole frame
        self.state = bytearray()
        self.rounds = []  # where each ends, and what the replica is then
        self.frames = [self.end]

    def feed(self, part):
        self.bytes += part
        while self.end + 8 <= len(self.bytes):
            kind, length = struct.unpack_from("<II", self.bytes, self.end)
            if self.end + 8 + length + 32 > len(self.bytes):
                break
            payload = self.bytes[self.end + 8:self.end + 8 + length]
            self.end += 8 + length + 32
            self.frames.append(self.end)
            self._frame(kind, payload)

    def _frame(self, kind, payload):
        if kind == 1:
            assert len(payload) == 56, payload
            return
        first, second = struct.unpack_from("<QQ", payload.ljust(16, b"\0"))
        if kind == 2:
            assert first == len(self.rounds), payload
            self.state = self.state[:second].ljust(second, b"\0")
        elif kind == 3:
            assert first + len(payload) - 8 <= len(self.state), payload[:8]
            self.state[first:first + len(payload) - 8] = payload[8:]
        elif kind == 4:
            assert first + second <= len(self.state), payload
            self.state[first:first + second] = bytes(second)
        elif kind == 5:
            assert first == len(self.rounds), payload
            self.rounds.append((self.end, bytes(self.state)))
        else:
            assert kind == 6 and first == len(self.rounds), (kind, payload)


@contextlib.contextmanager
def streaming(context, *arguments, output=None):
    """A replication to a stream that has written its first round."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(context.log)
    command = [context.program, "replicate", context.file, "-", "--log", context.log, "--json",
               "--quiet", *arguments]
    process = subprocess.Popen(command, stdout=output or subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        if output:
            context.wait_for_step("full_copy", process)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextlib.contextmanager
def applying(context, *arguments):
    """An apply that reads a pipe."""
    command = [context.program, "apply", "-", context.replica, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        process.wait()


def error_of(process, status):
    """What a process that has no more input said at its end."""
    text = process.stderr.read().decode()
    assert process.wait(PATIENCE) == status, (process.returncode, text)
    return text


def end_stream(process):
    """Ends a replication to a stream and returns its report."""
    process.send_signal(signal.SIGINT)
    return json.loads(error_of(process, 0).splitlines()[-1])


def state_of_replica(context):
    try:
        with open(context.replica + ".mmops/state.json", encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def changing(context, pages):
    """A new file that is changed in all ways; what is yielded stops that."""
    with open(context.file, "xb") as file:
        file.write(os.urandom(pages * PAGE))
    command = [sys.executable, "-c", FILE_CHANGER, context.file, str(pages), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          bufsize=1) as changer:
        assert changer.stdout.readline() == "mapped\n"

        def stop():
            changer.stdin.write("stop\n")
            assert changer.stdout.readline() == "stopped\n"

        yield stop
        changer.stdin.close()
        assert changer.wait(PATIENCE) == 0


def users_of_the_driver():
    with open("/sys/module/mmops_test/refcnt", encoding="utf-8") as count:
        return int(count.read())


def by_a_pipe_that_breaks(context):
    pages = 2000
    users = users_of_the_driver()
    with changing(context, pages) as stop:
        with applying(context) as apply, \
                streaming(context, "--interval", "20ms", output=apply.stdin) as process:
            apply.stdin.close()
            context.wait_for_step("round", process, number=10)
            assert users_of_the_driver() > users
            apply.kill()
            apply.wait()
            text = error_of(process, 3)
            assert "--resume STATE" in text, text
        assert users_of_the_driver() == users
        context.run("apply", "--recover", context.replica)
        broken = state_of_replica(context)
        assert broken["round"] > 0 and not broken["is_pending"], broken
        state = subprocess.run([context.program, "apply", "--state", context.replica], check=True,
                               stdout=subprocess.PIPE).stdout
        with open(context.replica + ".state", "xb") as file:
            file.write(state)
        with applying(context, "--json") as apply, \
                streaming(context, "--interval", "20ms", "--resume", context.replica + ".state",
                          output=apply.stdin) as process:
            apply.stdin.close()
            context.wait_for_step("round", process, number=30)
            stop()
            report = end_stream(process)
            result = json.loads(apply.stdout.read())
            assert apply.wait(PATIENCE) == 0, apply.stderr.read()
    # 0 pages differ.
    subprocess.run(["cmp", context.file, context.replica], check=True)
    assert report["changes_by"] == "tracker" and report["by_signal"], report
    assert report["rounds"] == result["rounds"] - 1 == result["round"], (report, result)
    assert result["stream"] != broken["stream"], result
    # The first state is of no use any more.
    with open(os.devnull, "rb") as nothing:
        process = subprocess.run([context.program, "replicate", context.file, "-", "--quiet",
                                  "--rounds", "1", "--resume", context.replica + ".state"],
                                 stdin=nothing, capture_output=True, check=True)
    with open(context.log + ".stream", "xb") as file:
        file.write(process.stdout)
    text = context.error("apply", context.log + ".stream", context.replica)
    assert "take its state anew" in text, text
    subprocess.run(["cmp", context.file, context.replica], check=True)
    file, replica = os.stat(context.file), os.stat(context.replica)
    # Holes stay holes, but in blocks that were sent as a whole.
    assert replica.st_blocks <= file.st_blocks * 2 + 1024, (file, replica)


def test_stream_that_breaks_on_tmpfs(context):
    by_a_pipe_that_breaks(context)


def test_stream_that_breaks_on_ext4(context):
    with file_system(context, "ext4", 128) as disk:
        by_a_pipe_that_breaks(disk)


def stream_misses_nothing(context):
    with changing(context, 2000) as stop:
        with applying(context, "--json") as apply, \
                streaming(context, "--interval", "50ms", output=apply.stdin) as process:
            apply.stdin.close()
            context.wait_for_step("round", process, number=60)
            stop()
            report = end_stream(process)
            result = json.loads(apply.stdout.read())
            assert apply.wait(PATIENCE) == 0, apply.stderr.read()
    subprocess.run(["cmp", context.file, context.replica], check=True)
    assert report["changes_by"] == "tracker" and report["pages"] > 0, report
    assert result["round"] == report["rounds"], (report, result)
    file, replica = os.stat(context.file), os.stat(context.replica)
    assert replica.st_blocks <= file.st_blocks + file.st_size // 512 // 20, (file, replica)


def test_stream_misses_nothing_on_tmpfs(context):
    stream_misses_nothing(context)


def test_stream_misses_nothing_on_ext4(context):
    with file_system(context, "ext4", 128) as disk:
        stream_misses_nothing(disk)


def recorded(context, pages, rounds):
    """The stream of a file that is changed."""
    stream = Stream()
    with changing(context, pages) as stop:
        with streaming(context, "--interval", "10ms") as process:
            while len(stream.rounds) < rounds:
                part = process.stdout.read1()
                assert part, process.stderr.read()
                stream.feed(part)
            process.send_signal(signal.SIGINT)
            while part := process.stdout.read1():
                stream.feed(part)
            error_of(process, 0)
        stop()
    assert stream.end == len(stream.bytes), "there is something behind its end"
    return stream


def test_stream_cut_and_apply_killed(context):
    stream = recorded(context, 200, 12)
    # Within frames, and where a frame or a round ends, from a fixed seed.
    rng = random.Random(1)
    cuts = [rng.randrange(len(stream.bytes)) for _ in range(8)]
    cuts += [end + step for end, _ in rng.sample(stream.rounds, 3) for step in (-1, 0, 1)]
    cuts += rng.sample(stream.frames[:-1], 4)
    between = 0
    for number, cut in enumerate(cuts):
        shutil.rmtree(context.replica + ".mmops", ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.remove(context.replica)
        whole = sum(end <= cut for end, _ in stream.rounds)
        with applying(context) as apply:
            apply.stdin.write(stream.bytes[:cut])
            apply.stdin.flush()
            if number % 2:
                # All of it was read, and perhaps not made.
                until(lambda: fcntl.ioctl(apply.stdin, termios.FIONREAD, bytes(4)) == bytes(4),
                      "it does not read")
                apply.kill()
                apply.wait()
                context.run("apply", "--recover", context.replica,
                            status=0 if os.path.isdir(context.replica + ".mmops") else 1)
            else:
                apply.stdin.close()
                text = error_of(apply, 3)
                assert "ends before its end" in text, text
        state = state_of_replica(context)
        if state is None:
            assert not os.path.exists(context.replica)
            assert number % 2 or whole == 0, (cut, whole)
            continue
        assert number % 2 or state["round"] == whole - 1, (state, whole)
        assert state["round"] < whole, (state, whole)
        with open(context.replica, "rb") as file:
            assert file.read() == stream.rounds[state["round"]][1], (cut, state)
        # The control: all frames that are there, made at once.
        control = Stream()
        control.feed(stream.bytes[:cut])
        between += bytes(control.state) != stream.rounds[whole - 1][1]
    assert between > 3, between
    # A change is told, and leaves a whole round.
    for at in (rng.randrange(len(stream.bytes)) for _ in range(8)):
        with open(context.log + ".stream", "wb") as file:
            file.write(stream.bytes[:at] + bytes([stream.bytes[at] ^ 4]) + stream.bytes[at + 1:])
        before = state_of_replica(context)
        result = subprocess.run([context.program, "apply", context.log + ".stream",
                                 context.replica], capture_output=True, check=False)
        # A length that is changed may reach past the end.
        assert result.returncode in (1, 3), result
        whole = sum(end <= at for end, _ in stream.rounds)
        state = state_of_replica(context)
        if whole == 0:
            assert state == before, (state, before)
            continue
        assert state["round"] == whole - 1, (at, whole, state)
        with open(context.replica, "rb") as file:
            assert file.read() == stream.rounds[whole - 1][1], at


def test_stream_and_signals(context):
    with Storer(context.file, 50) as storer:
        storer.store(*range(50))
        with applying(context) as apply, \
                streaming(context, "--interval", "1h", output=apply.stdin) as process:
            apply.stdin.close()
            until(lambda: (state_of_replica(context) or {}).get("is_pending") is False, "no round")
            # As Ctrl-C does, in the order that is worse.
            storer.store(3, 4)
            apply.send_signal(signal.SIGINT)
            line = apply.stderr.readline()
            while b"waits for the end" not in line:
                assert line, "it does not wait"
                line = apply.stderr.readline()
            report = end_stream(process)
            assert apply.wait(PATIENCE) == 0
        assert report["pages"] == 2 and context.identical(), report
        first = state_of_replica(context)
        with applying(context) as apply, \
                streaming(context, "--interval", "1h", output=apply.stdin) as process:
            apply.stdin.close()
            until(lambda: state_of_replica(context) != first and
                  not state_of_replica(context)["is_pending"], "no round")
            storer.store(5, 6)
            apply.terminate()
            text = error_of(apply, 130)
            assert "is round 0 of stream" in text, text
            process.send_signal(signal.SIGINT)
            assert "whoever read the stream has gone" in error_of(process, 3)
        assert not context.identical()
        assert sorted(os.listdir(context.replica + ".mmops")) == ["journal", "lock", "state.json"]


def test_stream_to_a_full_disk(context):
    pages = 512
    with open(context.file, "xb") as file:
        file.write(os.urandom(pages * PAGE))
    directory = os.path.join(os.path.dirname(context.file), "small")
    os.mkdir(directory)
    size = f"size={pages * PAGE * 3 // 2}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", directory], check=True)
    try:
        context.replica = os.path.join(directory, "replica")
        with applying(context) as apply, \
                streaming(context, "--interval", "1h", output=apply.stdin) as process:
            apply.stdin.close()
            until(lambda: (state_of_replica(context) or {}).get("is_pending") is False, "no round")
            assert context.identical()
            with open(context.file, "rb") as file:
                before = file.read()
            with open(context.file, "r+b") as file:
                file.write(os.urandom(pages * PAGE))
            process.send_signal(signal.SIGINT)
            text = error_of(apply, 1)
            assert "No space left" in text and "is round 0 of" in text, text
            error_of(process, 3)
        with open(context.replica, "rb") as file:
            assert file.read() == before
        assert os.path.getsize(context.replica + ".mmops/journal") == 0
    finally:
        subprocess.run(["umount", directory], check=True)


def test_stream_refusals(context):
    with open(context.file, "xb") as file:
        file.write(b"x" * 10 * PAGE)
    master, slave = pty.openpty()
    text = subprocess.run([context.program, "replicate", context.file, "-"], stdout=slave,
                          stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    assert text.returncode == 1 and "no text for a terminal" in text.stderr, text
    text = context.error("apply", "-", context.replica, stdin=slave)
    assert "not from a terminal" in text, text
    os.close(slave)
    os.close(master)
    assert "leave --verify out" in context.error("replicate", context.file, "-", "--verify")
    assert "--no-verify sends" in context.error("replicate", context.file, "-", "--harvest")
    text = context.error("replicate", context.file, context.replica, "--resume", context.file)
    assert "name - as the replica" in text, text
    text = context.error("replicate", context.file, "-", "--resume", context.file)
    assert "this is not a state" in text, text
    text = context.error("apply", context.file, context.replica)
    assert "not a stream of mmopsctl" in text, text
    assert "there is no such" not in text and not os.path.exists(context.replica + ".mmops")
    assert "is no replica" in context.error("apply", "--state", context.replica)
    assert "is no replica" in context.error("apply", "--recover", context.replica)
    context.error("apply", context.file, status=2)
    # A file that was copied otherwise is gone on from; nothing of it is sent again.
    shutil.copy(context.file, context.replica)
    state = subprocess.run([context.program, "apply", "--state", context.replica], check=True,
                           stdout=subprocess.PIPE).stdout
    stream = subprocess.run([context.program, "replicate", context.file, "-", "--quiet", "--json",
                             "--rounds", "1", "--interval", "1ms", "--resume", "/dev/stdin"],
                            input=state, capture_output=True, check=True)
    report = json.loads(stream.stderr)
    assert report["full_copy"]["pages"] == 0 and report["replica"] == "-", report
    with subprocess.Popen([context.program, "apply", "-", context.replica, "--json", "--quiet"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as apply:
        result = json.loads(apply.communicate(stream.stdout)[0])
        assert apply.returncode == 0 and result["bytes"] == 0, result
    assert context.identical()


def test_second_signal_ends_at_once(context):
    pages = 16384
    with Storer(context.file, pages) as storer:
        storer.store(*range(pages))
        with context.replicate("--interval", "1h", "--verify") as process:
            # Both come before the last round and the compare can be done.
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            output, _ = process.communicate(timeout=PATIENCE)
            assert (process.returncode, output) == (130, ""), process.returncode


def data_of(path):
    """The parts of a file that are no hole: pairs of offset and bytes."""
    parts = []
    with open(path, "rb") as file:
        offset = 0
        with contextlib.suppress(OSError):
            while True:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
                offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                parts.append((start, os.pread(file.fileno(), offset - start, start)))
    return parts


def is_sparse_copy(context, pages):
    data = data_of(context.file)
    assert sum(len(part) for _, part in data) == pages * PAGE, [start for start, _ in data]
    file, replica = os.stat(context.file), os.stat(context.replica)
    return (file.st_size, data) == (replica.st_size, data_of(context.replica)) and \
        replica.st_blocks * 512 <= pages * PAGE


def test_sparse_file_costs_what_is_stored(context):
    pages = (16 << 40) // PAGE
    with Storer(context.file, pages) as storer:
        result = context.json("harvest", context.file)
        assert (result["calls"], result["nr"], result["dirty_pages"]) == (0, pages, 0), result
        stored = [0, pages // 3, pages - 1]
        storer.store(*stored)
        result = context.json("harvest", context.file)
        assert result["ranges"] == [[page, 1] for page in stored], result
        assert result["calls"] == 3, result
        storer.store(*stored)
        with context.replicate("--interval", "1h", "--verify") as process:
            # One is a hole until then.
            storer.store(pages // 3, pages // 2)
            report = end(process)
        assert report["full_copy"]["pages"] == 3, report
        assert [(r["harvest_calls"], r["dirty_pages"], r["pages"], r["data_pages"])
                for r in report["per_round"]] == [(4, 2, 2, 4)], report
        assert (report["verify"]["pages"], report["verify"]["differed"]) == (4, 0), report
        assert is_sparse_copy(context, 4)
        lines = context.run("watch", context.file, "--interval", "1ms", "--rounds", 2).stdout
        assert len(lines.splitlines()) == 2, lines


def test_sparse_file_on_disk(context):
    if not os.path.ismount(disk := os.environ.get("MMOPS_DISK", "")):
        raise Skip("no scratch disk")
    pages = (1 << 40) // PAGE
    with tempfile.TemporaryDirectory(dir=disk) as directory:
        context = Context(context.program, directory)
        with Storer(context.file, pages) as storer:
            stored = [5, pages // 3, pages - 1]
            # No block is allocated yet, but they are no holes.
            storer.store(*stored)
            result = context.json("harvest", context.file)
            assert result["calls"] == 3, result
            with context.replicate("--interval", "1h", "--verify") as process:
                storer.store(*stored, pages // 2)
                report = end(process)
            assert [r["harvest_calls"] for r in report["per_round"]] == [4], report
            assert report["verify"]["pages"] == 4, report
            assert is_sparse_copy(context, 4)


def test_watch_in_lines(context):
    with Storer(context.file, 1000) as storer:
        storer.store(0)
        result = context.run("watch", context.file, "--interval", "50ms", "--rounds", 3)
        lines = result.stdout.splitlines()
        assert len(lines) == 3, lines
        assert "1 page (4.00 KiB)" in lines[0] and "@" in lines[0], lines
        assert "0 pages (0 B)" in lines[2], lines
        assert "3 harvests" in result.stderr, result


def test_watch_on_a_terminal(context):
    with Storer(context.file, 1000) as storer:
        storer.store(0)
        pid, terminal = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
            os.execve(context.program, [context.program, "watch", context.file, "--interval",
                                        "50ms"], dict(os.environ, TERM="xterm-256color"))
        output = b""
        deadline = time.monotonic() + PATIENCE
        while "█".encode() not in output and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                output += os.read(terminal, 65536)
        if "█".encode() in output:
            os.write(terminal, b"q")
        else:
            os.kill(pid, signal.SIGKILL)
        # Its last words must be read, else it cannot end.
        with contextlib.suppress(OSError):
            while data := os.read(terminal, 65536):
                output += data
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        assert status == 0 and "█".encode() in output, (status, output[-500:])
        assert b"1,000" in output and b" stored to" in output, output[-500:]


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
        run.tell(" ".join(map(str, pages)))
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
    run.tell("1 2")
    assert run.settle(2) == 2
    run.tell("exec", "ready")
    assert run.settle(400) >= 400
    run.tell("5")
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
    run.tool.send_signal(signal.SIGSTOP)
    run.tell("go", "ready")
    run.tool.send_signal(signal.SIGCONT)
    assert run.settle(400) >= 400
    run.tell("5")
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


def address_of(pid, path):
    """Where a process has mapped a file."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return next(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(path))


def test_track_full_sees_a_debugger(context):
    with Storer(context.file, 100) as storer:
        storer.store(*range(100))
        pid = storer.process.pid
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            # The one that takes no permission first: after the other, the next store faults.
            for options in [[], ["--full"]]:
                with subprocess.Popen(
                        [context.program, "track", "--json", "--interval", "50ms", *options,
                         str(pid)], text=True, stdout=subprocess.PIPE) as tool:
                    looks = [json.loads(tool.stdout.readline()) for _ in range(3)]
                    memory.seek(address_of(pid, context.file) + 7 * PAGE)
                    memory.write(b"x")
                    looks = [json.loads(tool.stdout.readline()) for _ in range(5)]
                    tool.send_signal(signal.SIGINT)
                    looks += list(map(json.loads, tool.stdout))[:-1]
                    assert tool.wait(PATIENCE) == 0
                pages = sum(mapping["pages"] for look in looks for mapping in look["mappings"]
                            if mapping["name"] == context.file)
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


# Leaves its number in a file, and with run() a count that goes on.
SHARED = """
import ctypes, mmap, os, signal, struct, sys, threading
file = open(sys.argv[1], "w+b")
file.truncate(mmap.PAGESIZE)
shared = mmap.mmap(file.fileno(), 0)
count = 0

def run(store=lambda: None):
    global count
    while True:
        count += 1
        store()
        struct.pack_into("QQ", shared, 0, count, os.getpid())

struct.pack_into("QQ", shared, 0, 0, os.getpid())
"""

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


STOPPED = SHARED + """
os.kill(os.getpid(), signal.SIGSTOP)
sys.stdin.readline()
"""


def test_soft_dirty_run_leaves_a_stopped_program_stopped(context):
    with SoftDirtyRun(context, STOPPED, "10ms") as run:
        until(lambda: state_of(run.pid) == "T", "it does not stop")
        looks = run.wait_for_looks(20)
        assert [look["pages"] for look in looks] == [0] * 19, looks
        # Now and then it is held.
        assert state_of(run.pid) in "tT"
        until(lambda: state_of(run.pid) == "T", "it is held for ever")
        os.kill(run.pid, signal.SIGCONT)
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


# Stores at random to memory of each kind, and maps, moves, grows and unmaps some, in two threads,
# until the end of its input.
SNAPSHOT = SHARED + """
import random
PAGE = mmap.PAGESIZE
path = sys.argv[1]
descriptor = os.memfd_create("snapshot")
os.ftruncate(descriptor, 300 * PAGE)
with open(path + ".mapped", "wb") as mapped:
    mapped.write(b"x" * 200 * PAGE)
mapped = open(path + ".mapped", "r+b")
views = [
    mmap.mmap(-1, 1000 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    mmap.mmap(-1, 100 * PAGE),
    mmap.mmap(descriptor, 300 * PAGE),
    mmap.mmap(mapped.fileno(), 100 * PAGE),
    mmap.mmap(mapped.fileno(), 100 * PAGE, mmap.MAP_PRIVATE, offset=100 * PAGE),
]
# Most of it is never used.
sparse = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
sparse.madvise(mmap.MADV_NOHUGEPAGE)
moved = []

def change():
    view = random.choice(views)
    at = random.randrange(len(view))
    # One more zero in a page that may have nothing else.
    view[at] = random.choice((0, random.randrange(256)))
    if count % 50:
        return
    kind = random.randrange(5)
    if kind == 0:
        moved.append(mmap.mmap(-1, random.randrange(1, 20) * PAGE,
                               mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        moved[-1][0] = 1
    elif moved and kind == 1:
        moved.pop(random.randrange(len(moved))).close()
    elif moved and kind == 2:
        view = random.choice(moved)
        view.resize(random.randrange(1, 40) * PAGE)
        view[len(view) - 1] = 2
    elif kind == 3:
        page = random.randrange(1000)
        views[0].madvise(mmap.MADV_DONTNEED, page * PAGE, min(20, 1000 - page) * PAGE)
    else:
        sparse[random.randrange(100) * 1000 * PAGE] = 3
    while len(moved) > 20:
        moved.pop().close()

lock = threading.Lock()

def store():
    with lock:
        change()

for _ in range(1000):
    store()
threading.Thread(target=run, args=[store], daemon=True).start()
threading.Thread(target=run, args=[store], daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
"""


class Subject:
    """A process that changes its memory, and goes on with that."""

    def __init__(self, context, program=SNAPSHOT):
        self.context, self.directory = context, context.file + ".snapshot"
        self.process = subprocess.Popen([sys.executable, "-c", program, context.file],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        assert self.process.stdout.readline() == b"ready\n"

    def count(self):
        with open(self.context.file, "rb") as file:
            return struct.unpack("QQ", file.read(16))[0]

    def assert_runs(self):
        state, tracer = until(lambda: status_of(self.pid) if status_of(self.pid)[0] in "RSD"
                              else None, "it does not go on")
        assert tracer == 0, (state, tracer)
        before = self.count()
        until(lambda: self.count() > before + 1000, "it does not store")

    def command(self, *arguments):
        return [self.context.program, "snapshot", str(self.pid), self.directory, *arguments]

    def remove(self):
        shutil.rmtree(self.directory)

    def snapshot(self, *arguments, status=0):
        result = self.context.run(*self.command("--json", "--verify", *arguments)[1:],
                                  status=status)
        report = json.loads(result.stdout)
        assert report["pid"] == self.pid and report["rounds"] == len(report["per_round"]), report
        assert report["pages"] == sum(seen["pages"] for seen in report["per_round"]), report
        # It is held once, at the end.
        assert [seen["is_last"] for seen in report["per_round"]] == \
            [False] * (report["rounds"] - 1) + [True], report
        assert report["rounds"] > 1 and report["pause_seconds"] > 0, report
        return report, result.stderr

    def index(self):
        with open(os.path.join(self.directory, "index.json"), encoding="utf-8") as file:
            return json.load(file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self.process.stdin.close()
        self.process.kill()
        self.process.wait(PATIENCE)
        shutil.rmtree(self.directory, ignore_errors=True)


def pages_that_differ(subject):
    """Reads the memory of a process that has stopped: pages that a snapshot has, and has wrong."""
    pages, differ = 0, []
    with open(f"/proc/{subject.pid}/mem", "rb", buffering=0) as memory:
        for mapping in subject.index()["mappings"]:
            start, end = int(mapping["start"], 16), int(mapping["end"], 16)
            holes = {page for hole in mapping["unreadable"]
                     for page in range(int(hole["start"], 16), int(hole["end"], 16), PAGE)}
            path = os.path.join(subject.directory, mapping["contents"])
            assert os.path.getsize(path) == end - start, mapping
            with open(path, "rb") as contents:
                # The rest of the one that is large was never used: the compare of the tool is
                # enough for it, and to read it would take long.
                step = PAGE if end - start < 1 << 28 else 4099 * PAGE
                for page in range(start, end, step):
                    contents.seek(page - start)
                    stored = contents.read(PAGE)
                    if page in holes:
                        assert not any(stored), (mapping, page)
                        continue
                    memory.seek(page)
                    try:
                        there = memory.read(PAGE)
                    except OSError:
                        # Behind the end of a file: a hole, that has nothing to be read.
                        there = bytes(PAGE)
                    pages += 1
                    if there != stored:
                        differ.append(f"{page:x}")
    return pages, differ


def pages_with_data(subject):
    """Pages of a snapshot that are not of zeros alone."""
    pages = 0
    for mapping in subject.index()["mappings"]:
        with open(os.path.join(subject.directory, mapping["contents"]), "rb") as contents:
            while page := contents.read(PAGE):
                pages += page != bytes(PAGE)
    return pages


def test_snapshot_is_what_the_memory_is(context):
    with Subject(context) as subject:
        for options in [[], ["--trust-files"], ["--rounds", "1"], ["--fast"]]:
            report, errors = subject.snapshot(*options)
            assert report["verify"]["differed"] == 0, report
            assert report["verify"]["pages"] > 1000, report
            assert report["mode"] == ("fast" if "--fast" in options else "full"), report
            assert errors.count(", held") == 1, errors
            subject.assert_runs()
            index = subject.index()
            assert (index["format"], index["version"]) == ("mmops-snapshot", 1), index
            assert index["pid"] == subject.pid and index["page_size"] == PAGE, index
            assert len(index["mappings"]) == report["mappings"], (report, index)
            names = {mapping["contents"] for mapping in index["mappings"]} | {"index.json"}
            assert set(os.listdir(subject.directory)) == names
            left_out = {left_out["path"] for left_out in index["left_out"]}
            assert {"[vdso]", "[vvar]"} <= left_out, left_out
            assert os.stat(subject.directory).st_mode & 0o777 == 0o700
            # Of 1 GiB, few pages were used.
            # It may be one with others beside it.
            large = max(index["mappings"],
                        key=lambda mapping: int(mapping["end"], 16) - int(mapping["start"], 16))
            assert int(large["end"], 16) - int(large["start"], 16) >= 1 << 30, index
            path = os.path.join(subject.directory, large["contents"])
            assert os.stat(path).st_blocks * 512 < 1 << 28, large
            whole = context.json("restore-check", subject.directory)
            assert whole["mappings"] == report["mappings"], (report, whole)
            assert whole["unreadable"] == report["unreadable"], (report, whole)
            subject.remove()


def test_snapshot_by_another_reader(context):
    """The process stops between two rounds and stays so: its memory is what was copied."""
    with Subject(context) as subject:
        with after_round_1(subject) as result:
            os.kill(subject.pid, signal.SIGSTOP)
            until(lambda: state_of(subject.pid) == "T", "it does not stop")
        assert result["status"] == 0 and result["report"]["verify"] is None, result
        # What was stored between the rounds is a part of it.
        assert [seen["pages"] > 0 for seen in result["report"]["per_round"][:2]] == [True] * 2
        until(lambda: status_of(subject.pid) == ("T", 0), "it was let go")
        pages, differ = pages_that_differ(subject)
        assert pages > 1500 and differ == [], (pages, differ)
        # The reader can tell.
        with open(f"/proc/{subject.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(int(subject.index()["mappings"][0]["start"], 16))
            byte = memory.read(1)
            memory.seek(-1, os.SEEK_CUR)
            memory.write(bytes([byte[0] ^ 1]))
            assert len(pages_that_differ(subject)[1]) == 1
            memory.seek(-1, os.SEEK_CUR)
            memory.write(byte)
        os.kill(subject.pid, signal.SIGCONT)
        subject.assert_runs()


def test_snapshot_without_its_last_round(context):
    with Subject(context) as subject:
        report, errors = subject.snapshot("--lose-last-round", status=1)
        assert report["verify"]["differed"] > 0, report
        assert f"{report['verify']['differed']} of " in errors, errors
        assert "differ from the memory" in errors and "there is no snapshot" in errors, errors
        assert not os.path.exists(subject.directory)
        subject.assert_runs()


# Has memory that it does not change, private and shared. The file tells the address of the former.
QUIET = """
import ctypes, mmap, os, struct, sys
descriptor = os.memfd_create("quiet")
os.ftruncate(descriptor, 64 * mmap.PAGESIZE)
views = [mmap.mmap(-1, 64 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
         mmap.mmap(descriptor, 64 * mmap.PAGESIZE)]
for view in views:
    for page in range(64):
        view[page * mmap.PAGESIZE] = 1
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("QQ", ctypes.addressof(ctypes.c_char.from_buffer(views[0])), 0))
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def after_round_1(subject, *options):
    """A snapshot that waits between its first round and the next one, since nobody takes what it
    says. It yields the tool, and once that has ended its report, status and what it said."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(PAGE))
    os.set_blocking(writer, True)
    tool = subprocess.Popen(subject.command("--json", "--pause-pages", "0", *options),
                            stdout=subprocess.PIPE, stderr=writer, text=True)
    os.close(writer)

    def waits():
        assert tool.poll() is None, "it has ended"
        with open(f"/proc/{tool.pid}/syscall", encoding="utf-8") as syscall:
            return syscall.read().split()[:2] == ["1", "0x2"]

    result = {"tool": tool}
    with open(reader, encoding="utf-8") as messages:
        until(waits, "it does not wait")
        yield result
        result["errors"] = messages.read().lstrip("\0")
    output, _ = tool.communicate(timeout=PATIENCE)
    result["status"], result["report"] = tool.returncode, json.loads(output) if output else None
    assert "round 1: " in result["errors"], result


def verified(subject, change, *options):
    """The report of a snapshot in the middle of which something is done."""
    with after_round_1(subject, "--verify", *options) as result:
        change()
    report = result["report"]
    assert result["status"] == (report["verify"]["differed"] != 0), result
    assert os.path.exists(subject.directory) == (result["status"] == 0), result
    if result["status"] == 0:
        subject.remove()
    return report


def test_snapshot_sees_what_a_debugger_stores(context):
    with Subject(context, QUIET) as subject, \
            open(f"/proc/{subject.pid}/mem", "r+b", buffering=0) as memory:
        start = subject.count()
        value = 1

        def change():
            nonlocal value
            value += 1
            for page in range(64):
                memory.seek(start + page * PAGE + 99)
                memory.write(bytes([value]))

        # The one that takes no permission first: after the other, the next store faults.
        missed = verified(subject, change, "--fast")
        assert missed["verify"]["differed"] > 0, missed
        seen = verified(subject, change)
        assert seen["verify"]["differed"] == 0, seen


def test_snapshot_reads_files_that_others_change(context):
    with Subject(context, QUIET) as subject:
        links = f"/proc/{subject.pid}/fd"
        # The mapping has a descriptor of its own.
        number = next(fd for fd in os.listdir(links) if "quiet" in os.readlink(f"{links}/{fd}"))
        with open(f"{links}/{number}", "r+b", buffering=0) as file:
            value = 1

            def change():
                nonlocal value
                value += 1
                for page in range(5, 15):
                    file.seek(page * PAGE)
                    file.write(bytes([value]))

            missed = verified(subject, change, "--trust-files")
            assert missed["verify"]["differed"] == 10, missed
            seen = verified(subject, change)
            assert seen["verify"]["differed"] == 0, seen
            assert [made["reread"] for made in seen["per_round"]][-1] == 10, seen


def stop_while_held(tool, pid):
    """Stops the tool when it holds the process; none if it has ended before that was seen."""
    while True:
        tool.send_signal(signal.SIGSTOP)
        until(lambda: state_of(tool.pid) in "TZ", "the tool does not stop")
        if state_of(tool.pid) == "Z":
            return None
        state, tracer = status_of(pid)
        # One that sleeps has no command to let go, and none can come.
        if state == "t" and tracer and state_of(tracer) == "S":
            return tracer
        tool.send_signal(signal.SIGCONT)


def stopped_snapshot(subject):
    """The tool, which has stopped while it holds the process."""
    while True:
        tool = subprocess.Popen(subject.command("--verify", "--rounds", "1"), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert tool.stderr.readline().startswith("round 1: ")
        if stop_while_held(tool, subject.pid):
            assert "index.json" not in os.listdir(subject.directory)
            return tool
        # It was faster: once more.
        _, errors = tool.communicate(timeout=PATIENCE)
        assert tool.returncode == 0, errors
        subject.remove()


def test_snapshot_interrupted(context):
    with Subject(context) as subject:
        with after_round_1(subject) as result:
            result["tool"].send_signal(signal.SIGINT)
        assert result["status"] == 1 and result["report"] is None, result
        assert "interrupted: there is no snapshot" in result["errors"], result
        assert ", held" not in result["errors"], result
        assert not os.path.exists(subject.directory), os.listdir(subject.directory)
        subject.assert_runs()

        tool = stopped_snapshot(subject)
        tool.send_signal(signal.SIGINT)
        tool.send_signal(signal.SIGCONT)
        _, errors = tool.communicate(timeout=PATIENCE)
        assert tool.returncode == 1 and "interrupted: there is no snapshot" in errors, errors
        assert not os.path.exists(subject.directory), os.listdir(subject.directory)
        subject.assert_runs()


def test_snapshot_killed_while_it_holds(context):
    with Subject(context) as subject:
        tool = stopped_snapshot(subject)
        tool.kill()
        tool.communicate(timeout=PATIENCE)
        subject.assert_runs()
        assert "index.json" not in os.listdir(subject.directory)


# Gives half of a mapping back when it is told to. No other mapping goes on where this one ends.
SHRINKING = """
import ctypes, mmap, struct, sys
view = mmap.mmap(-1, 64 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
view.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(64):
    view[page * mmap.PAGESIZE] = 1
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("QQ", ctypes.addressof(ctypes.c_char.from_buffer(view)), 0))
print("ready", flush=True)
sys.stdin.readline()
view.resize(32 * mmap.PAGESIZE)
print("shrunk", flush=True)
sys.stdin.read()
"""


def test_snapshot_of_memory_that_shrinks(context):
    with Subject(context, SHRINKING) as subject:
        with after_round_1(subject) as result:
            subject.process.stdin.write(b"\n")
            subject.process.stdin.flush()
            assert subject.process.stdout.readline() == b"shrunk\n"
        assert result["status"] == 0, result
        mapping, = [mapping for mapping in subject.index()["mappings"]
                    if int(mapping["start"], 16) == subject.count()]
        assert int(mapping["end"], 16) == subject.count() + 32 * PAGE, mapping
        path = os.path.join(subject.directory, mapping["contents"])
        assert os.path.getsize(path) == 32 * PAGE, os.path.getsize(path)
        context.run("restore-check", subject.directory)


def segments_of(core):
    """Offset, address and size of each segment of an ELF core file, and its note of the files."""
    with open(core, "rb") as file:
        header = struct.unpack("<16sHHIQQQIHHHHHH", file.read(64))
        # ET_CORE and EM_X86_64.
        assert header[0].startswith(b"\x7fELF\2\1") and header[1:3] == (4, 62), header
        offset, size, count = header[5], header[9], header[10]
        file.seek(offset)
        segments = list(struct.iter_unpack("<IIQQQQQQ", file.read(size * count)))
        # PT_NOTE and PT_LOAD.
        assert [segment[0] for segment in segments] == [4] + [1] * (count - 1), segments
        assert all(segment[5] == segment[6] for segment in segments[1:]), segments
        file.seek(segments[0][2])
        note = file.read(segments[0][5])
    # NT_FILE.
    name_size, note_size, kind = struct.unpack("<III", note[:12])
    assert (note[12:12 + name_size], kind) == (b"CORE\0", 0x46494c45), note[:32]
    return [(segment[2], segment[3], segment[5]) for segment in segments[1:]], \
        note[20:20 + note_size]


def assert_is_core_of(subject, core):
    """Every mapping at its address, and what is known of the memory is there."""
    mappings = subject.index()["mappings"]
    ranges = [(int(mapping["start"], 16), int(mapping["end"], 16)) for mapping in mappings]
    segments, note = segments_of(core)
    assert [(start, start + size) for _, start, size in segments] == ranges, segments
    files = [(*addresses, mapping["offset"] // PAGE, mapping["path"])
             for addresses, mapping in zip(ranges, mappings)
             if mapping["path"] and mapping["path"][0] != "["]
    numbers = [len(files), PAGE, *itertools.chain(*(file[:3] for file in files))]
    names = "".join(file[3] + "\0" for file in files)
    assert note == struct.pack(f"<{len(numbers)}Q", *numbers) + names.encode(), note
    with open(f"/proc/{subject.pid}/maps", encoding="utf-8") as maps:
        shared, = [int(line.split("-")[0], 16) for line in maps if "memfd:quiet" in line]
    with open(f"/proc/{subject.pid}/mem", "rb", buffering=0) as memory, open(core, "rb") as file:
        for view in (subject.count(), shared):
            offset, start, _ = next(one for one in segments if one[1] + one[2] > view)
            memory.seek(view)
            file.seek(offset + view - start)
            there = memory.read(64 * PAGE)
            assert there == file.read(64 * PAGE) and any(there), f"{view:x} differs"


def test_restore_check(context):
    core = context.file + ".core"
    with Subject(context, QUIET) as subject:
        report, _ = subject.snapshot()
        mappings = subject.index()["mappings"]
        whole = context.json("restore-check", subject.directory, "--core", core)
        sizes = [int(mapping["end"], 16) - int(mapping["start"], 16) for mapping in mappings]
        pages = pages_with_data(subject)
        assert whole == {
            "dir": subject.directory, "pid": subject.pid, "page_size": PAGE,
            "mappings": len(mappings), "left_out": len(subject.index()["left_out"]),
            "unreadable": report["unreadable"], "size": sum(sizes), "pages": pages,
            "bytes": pages * PAGE, "core": core}, whole
        assert_is_core_of(subject, core)
        # The pages with data, and what says where they are.
        assert os.stat(core).st_blocks * 512 <= (pages + 32) * PAGE, os.stat(core)
        text = context.error("restore-check", subject.directory, "--core", core)
        assert "is there already" in text, text
        os.unlink(core)
        text = context.run("restore-check", subject.directory).stdout
        assert f"snapshot of process {subject.pid} is whole" in text, text
        # One byte of the private memory.
        start, mapping = next((int(mapping["start"], 16), mapping) for mapping in mappings
                              if int(mapping["end"], 16) > subject.count())
        with open(os.path.join(subject.directory, mapping["contents"]), "r+b") as contents:
            contents.seek(subject.count() - start + 5 * PAGE)
            contents.write(b"\2")
        text = context.error("restore-check", subject.directory, "--core", core)
        assert mapping["contents"] + " was changed" in text, text
        assert not os.path.exists(core) and not os.path.exists(core + ".part")
        assert f"{mapping['start']}-{mapping['end']}" in text, text
        os.unlink(os.path.join(subject.directory, "index.json"))
        text = context.error("restore-check", subject.directory)
        assert f"{subject.directory} is no snapshot" in text, text
    assert "cannot read the directory" in context.error("restore-check", context.file + ".none")
    assert "DIR" in context.error("restore-check", status=2)


def test_snapshot_errors(context):
    directory = context.file + ".snapshot"
    with Subject(context, QUIET) as subject:
        # Not empty, and it stays as it is.
        os.mkdir(directory)
        with open(os.path.join(directory, "mine"), "w", encoding="utf-8"):
            pass
        assert "is not empty" in context.error("snapshot", subject.pid, directory)
        assert os.listdir(directory) == ["mine"]
        os.unlink(os.path.join(directory, "mine"))
        # Empty: it is taken, and stays when it fails.
        with held(context, subject.pid):
            text = context.error("snapshot", subject.pid, directory)
            assert "cannot be held" in text and "has a tracer" in text, text
        assert os.listdir(directory) == []
        os.rmdir(directory)
        os.chmod(os.path.dirname(context.file), 0o755)
        # Where another user can execute it.
        program, context.program = context.program, shutil.copy(context.program, context.replica)
        text = context.error("snapshot", subject.pid, "/tmp/mmops-snapshot", user=65534)
        assert "root alone" in text, text
        context.program = program
    text = context.error("snapshot", subject.pid, directory)
    assert f"process {subject.pid}: No such process" in text, text
    assert "has no memory to copy" in context.error("snapshot", 2, directory)
    assert "cannot write to the directory" in \
        context.error("snapshot", os.getpid(), "/nonexistent/directory")
    assert "PID" in context.error("snapshot", "self", directory, status=2)
    assert "DIR" in context.error("snapshot", os.getpid(), status=2)
    assert "invalid value" in \
        context.error("snapshot", os.getpid(), directory, "--rounds", 0, status=2)
    assert not os.path.exists(directory)


def test_snapshot_of_redis(context):
    # The package of the server would start one on this machine. That of its tools has the same
    # program, by the name under which it checks a file.
    program = shutil.which("redis-check-rdb")
    assert program and shutil.which("redis-benchmark"), "no redis-tools"
    socket, directory = context.file + ".socket", context.file + ".snapshot"
    with subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", socket, "--save", ""],
                          executable=program, stdout=subprocess.DEVNULL) as server:
        try:
            until(lambda: os.path.exists(socket), "no socket")
            with subprocess.Popen(["redis-benchmark", "-s", socket, "-t", "set", "-r", "10000",
                                   "-n", "100000000"], stdout=subprocess.DEVNULL) as load:
                try:
                    report = json.loads(context.run("snapshot", server.pid, directory, "--json",
                                                    "--verify").stdout)
                    assert load.poll() is None
                finally:
                    load.kill()
        finally:
            server.kill()
    assert report["verify"]["differed"] == 0, report
    assert report["verify"]["pages"] > 100 and report["rounds"] > 1, report


# Has as many threads, all of which sleep, and says so.
SLEEPERS = """
import sys, threading, time
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=time.sleep, args=(3600,)).start()
print("asleep", flush=True)
time.sleep(3600)
"""


def test_process_killed_while_it_is_held(context):
    for threads in (1, 3):
        with subprocess.Popen([sys.executable, "-c", SLEEPERS, str(threads)], text=True,
                              stdout=subprocess.PIPE) as process, \
                subprocess.Popen([context.program, "hold", str(process.pid)], text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            def ask(command):
                holder.stdin.write(command)
                holder.stdin.flush()
                return json.loads(holder.stdout.readline())

            process.stdout.readline()
            assert [ask("h"), ask("r"), ask("h")] == ["Held", "Released", "Held"]
            process.kill()
            until(lambda: state_of(process.pid) == "Z", "it does not end")
            assert ask("r") in ("Released", "ReleasedByEnd")
            # Its parent need not know of who held it, and that one is not to wait for the parent.
            assert process.wait(PATIENCE) == -signal.SIGKILL


# Its main thread ends; another one stores to the pages that a line names.
LEADERLESS = """
import ctypes, mmap, os, sys, threading
SYS_EXIT = 60

def work():
    file = open(sys.argv[1], "w+b")
    file.truncate(100 * mmap.PAGESIZE)
    view = mmap.mmap(file.fileno(), 0)
    for line in sys.stdin:
        for page in line.split():
            view[int(page) * mmap.PAGESIZE] = 1
        print(os.getpid(), file=sys.stderr, flush=True)
    os._exit(0)

threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(SYS_EXIT, 0)
"""


def test_main_thread_has_ended(context):
    with subprocess.Popen([sys.executable, "-c", LEADERLESS, context.file], text=True,
                          stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        def store(pages):
            process.stdin.write(pages + "\n")
            process.stdin.flush()
            assert int(process.stderr.readline()) == process.pid

        store("1 2 3")
        until(lambda: state_of(process.pid) == "Z", "the main thread does not end")
        assert context.harvest() == (3, [[1, 3]])
        result = context.run("harvest", context.file)
        assert "0 pages" in result.stdout and result.stderr == "", result

        _, pte = counted(context.json("leaves", process.pid), context.file)
        assert figures(pte)[0] == 3, pte
        assert "cleared" in context.run("soft-dirty", "clear", process.pid).stdout
        turn, = context.json("zap", "--pid", process.pid)["turns"]
        assert turn["zapped_pages"] >= 3, turn
        assert all(m["name"] != context.file for m in context.json("leaves", process.pid))
        process.stdin.close()
        assert process.wait(PATIENCE) == 0

    # As a program that the tool runs. Its end is waited for in any case.
    with subprocess.Popen([context.program, "soft-dirty", "run", "--json", "--interval", "50ms",
                           "--", sys.executable, "-c", LEADERLESS, context.file], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as tool:
        tool.stdin.write("1\n")
        tool.stdin.flush()
        pid = int(until(lambda: re.match("[0-9]+$", tool.stderr.readline()), "no number")[0])
        until(lambda: state_of(pid) == "Z", "the main thread does not end")
        tool.stdin.write("2\n")
        tool.stdin.flush()
        looks = [json.loads(tool.stdout.readline())]
        while len(looks) < 300 and not any(mapping["name"] == context.file
                                           for mapping in looks[-1]["mappings"]):
            looks.append(json.loads(tool.stdout.readline()))
        tool.stdin.close()
        looks += map(json.loads, tool.stdout)
        errors = tool.stderr.read()
        assert tool.wait(PATIENCE) == 0, errors
    assert looks[-1]["status"] == 0, looks[-1]
    assert any(mapping["name"] == context.file for look in looks[:-1]
               for mapping in look["mappings"]), looks


TRACED = """
import mmap, os
view = mmap.mmap(-1, 300 * mmap.PAGESIZE)
view[0] = 1
view.close()
"""


def test_notifier_trace(context):
    context.run("notifier-trace", "--json", "--ends", "-o", context.log, "--",
                sys.executable, "-c", TRACED)
    with open(context.log, encoding="utf-8") as log:
        events = [json.loads(line) for line in log]
    assert [e for e in events if e["event"] == "unmap" and e["pages"] == 300], "no unmap"
    assert events[-1]["event"] == "release", events[-1]
    starts = [e for e in events if not e["is_end"] and e["event"] != "release"]
    assert len(starts) == len([e for e in events if e["is_end"]]), "starts without ends"

    table = context.run("notifier-trace", "--", sys.executable, "-c", TRACED)
    assert "EVENT" in table.stdout and "protection-vma" in table.stdout, table.stdout[-500:]
    assert "mmopsctl: unmap:" in table.stderr, table.stderr
    missing = context.run("notifier-trace", "--", "/nonexistent", status=1)
    assert "cannot run /nonexistent" in missing.stderr, missing.stderr


def test_waits_go_on_after_a_stop(context):
    program = [sys.executable, "-c", "import sys; sys.stdin.readline()"]

    def run(*arguments, settled=None):
        with subprocess.Popen([context.program, *arguments, "--", *program], text=True,
                              stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdout=subprocess.PIPE) as process:
            disturb(context, process, settled)
            output, errors = process.communicate("\n", timeout=PATIENCE)
            assert process.returncode == 0, (arguments, process.returncode, errors)
            return output

    events = run("notifier-trace", "--json", settled=in_ioctl).splitlines()
    assert json.loads(events[-1])["event"] == "release", events[-1]
    *intervals, total = run("soft-dirty", "run", "--json", "--interval", "1h").splitlines()
    assert not intervals and json.loads(total)["status"] == 0, total
    *intervals, total = run("track", "--json", "--interval", "1h").splitlines()
    assert not intervals and json.loads(total)["status"] == 0, total
    report = json.loads(run("zap", "--json", "--interval", "1h"))
    assert report["turns"] == [] and report["exit_status"] == 0, report

    with Storer(context.file, 50) as storer:
        with subprocess.Popen([context.program, "track", "--json", "--interval", "1h",
                               str(storer.process.pid)],
                              text=True, stdout=subprocess.PIPE) as process:
            disturb(context, process, settled=catches_sigint)
            process.send_signal(signal.SIGINT)
            *intervals, total = process.communicate(timeout=PATIENCE)[0].splitlines()
        assert not intervals and json.loads(total)["intervals"] == 0, total
        assert process.returncode == 0, process.returncode

        with context.replicate("--interval", "1h") as process:
            storer.store(3)
            disturb(context, process)
            report = end(process)
        assert report["by_signal"] and report["rounds"] == 1, report
        assert context.identical()
        with subprocess.Popen([context.program, "watch", context.file, "--interval", "1h"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
            lines = watch.stdout.readline()
            disturb(context, watch)
            watch.send_signal(signal.SIGINT)
            more, errors = watch.communicate(timeout=PATIENCE)
            assert watch.returncode == 0 and "1 harvest " in errors, (lines, more, errors)


def test_notifier_trace_interrupted(context):
    with subprocess.Popen([context.program, "notifier-trace", "-o", context.log, "--", "cat"],
                          stdin=subprocess.PIPE) as process:
        until(lambda: in_ioctl(process.pid), "it does not wait")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT


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
    assert not os.path.exists(f"/proc/{pid}"), "the program was left behind"


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
    assert not os.path.exists(f"/proc/{pid}"), "the program was left behind"


def test_leaves_errors(context):
    text = context.error("leaves", "--after", "1h", "--", "false")
    assert "false has ended before it was looked at (exit status: 1): see --after" in text, text
    assert "cannot run /nonexistent" in context.error("leaves", "--", "/nonexistent")
    assert "process 999999999: No such process" in context.error("leaves", 999999999)
    assert "required" in context.error("leaves", status=2)
    assert "cannot be used with" in context.error("leaves", 1, "--", "true", status=2)
    assert "cannot draw /nonexistent/picture" in \
        context.error("leaves", os.getpid(), "-o", "/nonexistent/picture")


def changed(ptes, split_pmds=0):
    return (f"leaves changed: {ptes} of 4K, 0 of 2M, 0 of 1G; "
            f"split: {split_pmds} of 2M, 0 of 1G\n")


def test_protect(context):
    with Storer(context.file, 100) as storer:
        pid = storer.process.pid
        storer.store(*range(100))

        def leaves():
            mapping, pte = counted(context.json("leaves", pid), context.file)
            assert mapping["absent"] == 0, mapping
            return figures(pte)

        mapping, _ = counted(context.json("leaves", pid), context.file)
        area = f"{mapping['start']:x}-{mapping['end']:x}"

        def protect(access, where=area):
            return context.run("protect", pid, where, access).stdout

        assert leaves() == (100, 100, 100)
        assert protect("r") == changed(100)
        assert leaves() == (100, 0, 100)
        storer.store(7)
        assert leaves() == (100, 1, 100)
        # Only the one has anything to lose, and all of them get it back.
        assert protect("r") == changed(1)
        assert protect("rw") == changed(100)
        assert leaves() == (100, 100, 100)
        assert protect("r", f"0x{mapping['start'] + PAGE:x}+{10 * PAGE:x}") == changed(10)
        assert leaves() == (100, 90, 100)
        assert protect("none") == changed(100)
        assert leaves() == (100, 0, 100)
        storer.store(8, 9)
        assert leaves() == (100, 2, 100)
    with open(context.file, "rb") as file:
        data = file.read()
    values = [*range(1, 8), 101, 102, 103, *range(11, 101)]
    assert [data[page * PAGE + 17] for page in range(100)] == values


def test_protect_splits_a_huge_leaf(context):
    with running_mapper(context) as pid:
        huge, = filter(is_huge, context.json("leaves", pid))
        text = context.run("protect", pid, f"{huge['start'] + PAGE:x}+{PAGE:x}", "r").stdout
        assert text == changed(1, split_pmds=1), text
        huge, = filter(is_huge, context.json("leaves", pid))
        assert figures(huge["pmd"]) == (2, 2, 2), huge
        assert figures(huge["pte"]) == (512, 511, 512), huge


def test_protect_errors(context):
    with Storer(context.file, 10) as storer:
        pid = storer.process.pid
        storer.store(*range(10))
        before, _ = counted(context.json("leaves", pid), context.file)
        start = before["start"]
        area = f"{start:x}-{before['end']:x}"
        assert "not mapped" in context.error("protect", pid, "1000-2000", "r")
        assert "not of whole pages" in context.error("protect", pid, f"{start:x}+800", "r")
        assert "a mapping allows less" in context.error("protect", pid, area, "rwx")
        assert "with or without w" in context.error("protect", pid, area, "w")
        assert "process 999999999: No such process" in \
            context.error("protect", 999999999, area, "r")
        assert "none of r, w and x" in context.error("protect", pid, area, "rq", status=2)
        assert "made of r, w and x" in context.error("protect", pid, area, "", status=2)
        assert "START-END" in context.error("protect", pid, f"{start:x}", "r", status=2)
        assert "not above the start" in context.error("protect", pid, "2000-1000", "r", status=2)
        assert "hexadecimal" in context.error("protect", pid, "x-y", "r", status=2)
        assert "ACCESS" in context.error("protect", pid, area, status=2)
        after, _ = counted(context.json("leaves", pid), context.file)
        assert figures(before["pte"]) == figures(after["pte"]) == (10, 10, 10), (before, after)


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


def main():
    signal.signal(signal.SIGALRM, give_up)
    program = os.path.realpath(sys.argv[1])
    tests = [(name[5:], function) for name, function in globals().items()
             if name.startswith("test_") and (len(sys.argv) < 3 or name[5:] in sys.argv[2:])]
    print("TAP version 13")
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, (name, function) in enumerate(tests, 1):
        # On tmpfs: what the kernel writes back is the subject of other tests.
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            signal.alarm(TEST_PATIENCE)
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
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
