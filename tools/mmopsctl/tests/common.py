# SPDX-License-Identifier: GPL-2.0
"""What the tests of mmopsctl share: a process to look at, the program under test, and waits."""

import contextlib
import ctypes
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time


PAGE = mmap.PAGESIZE
PATIENCE = 600

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


def unread():
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "wb")


def punch_hole(path, offset, length):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    with open(path, "r+b") as file:
        # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        if libc.fallocate(file.fileno(), 3, offset, length):
            raise OSError(ctypes.get_errno(), "fallocate")


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


def system_call(pid):
    """Number and first argument of the system call that a process, or its main thread, waits in;
    else something else."""
    with open(f"/proc/{pid}/syscall", encoding="utf-8") as syscall:
        return syscall.read().split()[:2]


def in_ioctl(pid):
    """Whether a process waits in an ioctl(2)."""
    return system_call(pid)[0] == "16"


def fill(pipe):
    """Has who writes to a pipe wait until somebody reads it."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(PAGE))
    os.set_blocking(pipe, True)


def catches_sigint(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        caught, = (line.split()[1] for line in status if line.startswith("SigCgt:"))
    return int(caught, 16) >> (signal.SIGINT - 1) & 1


@contextlib.contextmanager
def stopped(process):
    """A process does nothing meanwhile. What it was about goes on where it was."""
    process.send_signal(signal.SIGSTOP)
    until(lambda: state_of(process.pid) == "T", "it does not stop")
    yield
    process.send_signal(signal.SIGCONT)


def ask(holder, command):
    """The answer of what holds a process."""
    holder.stdin.write(command)
    holder.stdin.flush()
    return json.loads(holder.stdout.readline())


@contextlib.contextmanager
def held(context, pid, commands="h"):
    """Holds all threads of a process as a debugger does, after commands that end with that; what
    does it."""
    def hold():
        holder = subprocess.Popen([context.program, "hold", str(pid)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        for command in commands:
            answer = ask(holder, command)
            if "Waits" in answer:
                # On a busy machine a thread may not run in the time that it is given.
                holder.communicate(timeout=PATIENCE)
                return None
            assert answer == {"h": "Held", "r": "Released"}[command], answer
        return holder
    with until(hold, "it cannot be held") as holder:
        assert state_of(pid) == "t"
        yield holder


def disturb(context, process, settled=None):
    """All that interrupts a wait without being a reason to end it."""
    def settle():
        until(lambda: settled is None or settled(process.pid), "it does not wait")
    settle()
    with stopped(process):
        pass
    until(lambda: state_of(process.pid) != "T", "it does not go on")
    settle()
    with held(context, process.pid):
        pass
    settle()
    process.send_signal(signal.SIGWINCH)
    settle()
    assert process.poll() is None, process.returncode


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


def address_of(pid, path):
    """Where a process has mapped a file."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return next(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(path))


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
