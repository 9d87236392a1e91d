# SPDX-License-Identifier: GPL-2.0
"""`snapshot` and `restore-check`."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys

from common import (
    PAGE, PATIENCE, SHARED, Skip, fill, held, state_of, status_of, system_call, until)

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

    def snapshot(self, *arguments):
        result = self.context.run(*self.command("--json", "--verify", *arguments)[1:])
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


def pages_of(subject):
    """The pages of a snapshot."""
    for mapping in subject.index()["mappings"]:
        with open(os.path.join(subject.directory, mapping["contents"]), "rb") as contents:
            while page := contents.read(PAGE):
                yield page


def pages_with_data(subject):
    """Pages of a snapshot that are not of zeros alone."""
    return sum(page != bytes(PAGE) for page in pages_of(subject))


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
        with after_round_1(subject.command()) as result:
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
        command = subject.command("--verify", "--rounds", "1", "--lose-last-round")
        with after_round_1(command) as result:
            # What it stores now is for the last round.
            subject.assert_runs()
        differed, errors = result["report"]["verify"]["differed"], result["errors"]
        assert result["status"] == 1 and differed > 0, result
        assert f"{differed} of " in errors and ", held" in errors, errors
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
def after_round_1(command):
    """A snapshot that waits between its first round and the next one, since nobody takes what it
    says. It yields the tool, and once that has ended its report, status and what it said."""
    reader, writer = os.pipe()
    fill(writer)
    tool = subprocess.Popen([*command, "--json", "--pause-pages", "0"], stdout=subprocess.PIPE,
                            stderr=writer, text=True)
    os.close(writer)

    def waits():
        assert tool.poll() is None, "it has ended"
        return system_call(tool.pid) == ["1", "0x2"]

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
    with after_round_1(subject.command("--verify", *options)) as result:
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


# Stores to private and shared memory, to that of System V and to a huge page; and once more when a
# line comes. All but the huge page is on swap after that.
SWAPPED = """
import ctypes, mmap, os, struct, sys
PAGE, SIZE, HUGE = mmap.PAGESIZE, 64 * mmap.PAGESIZE, 2 << 20
MADV_PAGEOUT, MAP_HUGETLB, IPC_RMID, CLONE_NEWIPC = 21, 0x40000, 0, 0x8000000
# A page is swapped out when it is on a list, to which it comes by the CPU that made it.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
descriptor = os.memfd_create("swapped")
os.ftruncate(descriptor, SIZE)
# The first has number 0, which /proc has as the inode of its mapping, as where there is no file.
if libc.unshare(CLONE_NEWIPC):
    sys.exit("unshare failed")
segments = [libc.shmget(0, SIZE, 0o600) for _ in range(2)]
private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
swapped = [(ctypes.c_ubyte * SIZE).from_buffer(mmap.mmap(-1, SIZE, private)),
           (ctypes.c_ubyte * SIZE).from_buffer(mmap.mmap(descriptor, SIZE)),
           *((ctypes.c_ubyte * SIZE).from_address(libc.shmat(segment, None, 0))
             for segment in segments)]
for segment in segments:
    libc.shmctl(segment, IPC_RMID, None)
huge = (ctypes.c_ubyte * HUGE).from_buffer(mmap.mmap(-1, HUGE, private | MAP_HUGETLB))

def is_there(view):
    entries = os.pread(pagemap, SIZE // PAGE * 8, ctypes.addressof(view) // PAGE * 8)
    return any(entry >> 63 for entry, in struct.iter_unpack("Q", entries))

for value in 1, 2:
    for view in *swapped, huge:
        for at in range(0, len(view), PAGE):
            view[at] = value
    for view in swapped:
        while is_there(view):
            if libc.madvise(ctypes.addressof(view), SIZE, MADV_PAGEOUT):
                sys.exit("madvise failed")
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def swap(context):
    """Some swap, on a loop device."""
    if not os.path.exists("/proc/swaps") or not shutil.which("mkswap"):
        raise Skip("no swap")
    with open(context.file + ".swap", "xb") as image:
        image.truncate(16 << 20)
    device = subprocess.run(["losetup", "--find", "--show", image.name], check=True, text=True,
                            stdout=subprocess.PIPE).stdout.strip()
    try:
        subprocess.run(["mkswap", device], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["swapon", device], check=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", device], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def huge_page():
    """A page for hugetlbfs."""
    def reserve(number):
        with open("/proc/sys/vm/nr_hugepages", "w", encoding="utf-8") as pages:
            pages.write(str(number))
        with open("/proc/sys/vm/nr_hugepages", encoding="utf-8") as pages:
            return int(pages.read())
    if not os.path.exists("/proc/sys/vm/nr_hugepages") or not reserve(1):
        raise Skip("no huge page")
    try:
        yield
    finally:
        reserve(0)


def test_snapshot_of_swap_and_hugetlbfs(context):
    with swap(context), huge_page(), Subject(context, SWAPPED) as subject:
        with after_round_1(subject.command()) as result:
            subject.process.stdin.write(b"\n")
            subject.process.stdin.flush()
            assert subject.process.stdout.readline() == b"ready\n"
        assert result["status"] == 0, result
        stored = sum(page == b"\2" + bytes(PAGE - 1) for page in pages_of(subject))
        assert stored == 4 * 64 + (2 << 20) // PAGE, (stored, result)
        _, differ = pages_that_differ(subject)
        assert differ == [], differ


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


def interrupt(tool):
    """Sends a signal that is taken before the main thread goes on: by a thread that takes the place
    of the main thread on their CPU as soon as the handler has woken it."""
    cpu = min(os.sched_getaffinity(tool.pid))
    for thread in map(int, os.listdir(f"/proc/{tool.pid}/task")):
        os.sched_setaffinity(thread, {cpu})
        if thread != tool.pid:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
    tool.send_signal(signal.SIGINT)


def test_snapshot_interrupted(context):
    with Subject(context) as subject:
        with after_round_1(subject.command()) as result:
            interrupt(result["tool"])
        assert result["status"] == 1 and result["report"] is None, result
        assert "interrupted: there is no snapshot" in result["errors"], result
        assert ", held" not in result["errors"], result
        assert not os.path.exists(subject.directory), os.listdir(subject.directory)
        subject.assert_runs()

        tool = stopped_snapshot(subject)
        interrupt(tool)
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


def test_snapshot_that_is_stopped_again_and_again(context):
    """A stop interrupts calls that have done nothing yet."""
    with Subject(context) as subject:
        tool = subprocess.Popen(subject.command("--rounds", "1", "--quiet"), text=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(200):
            tool.send_signal(signal.SIGSTOP)
            until(lambda: state_of(tool.pid) in "TZ", "the tool does not stop")
            tool.send_signal(signal.SIGCONT)
        _, errors = tool.communicate(timeout=PATIENCE)
        assert tool.returncode == 0, errors
        context.run("restore-check", subject.directory)
        subject.assert_runs()


# Attaches shared memory of System V that its child has stored to, without a look at it. The first
# such memory in a namespace has the number 0.
SYSTEM_V = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x08000000):  # CLONE_NEWIPC
    raise OSError(ctypes.get_errno(), "unshare")
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
size = 64 << 12
number = libc.shmget(0, size, 0o600)
if os.fork() == 0:
    ctypes.memset(libc.shmat(number, None, 0), 7, size)
    os._exit(0)
os.wait()
address = libc.shmat(number, None, 0)
libc.shmctl(number, 0, None)
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("QQ", address, number))
print("ready", flush=True)
sys.stdin.read()
"""


def test_snapshot_of_shared_memory_of_system_v(context):
    with Subject(context, SYSTEM_V) as subject:
        with open(context.file, "rb") as file:
            address, number = struct.unpack("QQ", file.read(16))
        assert number == 0, number
        subject.snapshot()
        mapping, = [mapping for mapping in subject.index()["mappings"]
                    if int(mapping["start"], 16) == address]
        with open(os.path.join(subject.directory, mapping["contents"]), "rb") as contents:
            assert contents.read() == b"\7" * (64 << 12), mapping
        context.run("restore-check", subject.directory)


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
        with after_round_1(subject.command()) as result:
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
