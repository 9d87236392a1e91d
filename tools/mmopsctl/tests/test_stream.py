# SPDX-License-Identifier: GPL-2.0
"""`replicate` to a stream, and `apply`."""

import contextlib
import fcntl
import json
import os
import pty
import random
import shutil
import signal
import struct
import subprocess
import termios
import threading

from common import PAGE, PATIENCE, Storer, changing, file_system, punch_hole, until


class Stream:
    """The stream of a replication, read by another reader than apply."""

    def __init__(self):
        self.bytes = bytearray()
        self.end = 12  # of the last whole frame
        self.state = bytearray()
        self.rounds = []  # where each ends, and what the replica is then
        self.within = []  # frames that leave what is the state after no whole round

    def feed(self, part):
        self.bytes += part
        while self.end + 8 <= len(self.bytes):
            kind, length = struct.unpack_from("<II", self.bytes, self.end)
            if self.end + 8 + length + 32 > len(self.bytes):
                break
            payload = self.bytes[self.end + 8:self.end + 8 + length]
            self.end += 8 + length + 32
            self._frame(kind, payload)
            if self.rounds and self.state != self.rounds[-1][1]:
                self.within.append(self.end)

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
            # What was written and not read is not made.
            until(lambda: (state_of_replica(context) or {}).get("round", 0) >= 3, "no rounds")
            assert users_of_the_driver() > users
            apply.kill()
            apply.wait()
            text = error_of(process, 3)
            assert "--resume STATE" in text, text
        assert users_of_the_driver() == users
        context.run("apply", "--recover", context.replica)
        broken = state_of_replica(context)
        assert broken["round"] >= 3 and not broken["is_pending"], broken
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


def recorded(context, pages, rounds, within):
    """The stream of a file that is changed, with so many frames within rounds but the first."""
    stream = Stream()
    with changing(context, pages) as stop:
        with streaming(context, "--interval", "10ms") as process:
            while len(stream.rounds) < rounds or len(stream.within) < within:
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
    stream = recorded(context, 200, 12, 40)
    # Within frames, and where a frame or a round ends, from a fixed seed; few of them in the first
    # round, which leaves no replica.
    rng = random.Random(1)
    others = range(stream.rounds[0][0], len(stream.bytes))
    cuts = [rng.randrange(others.start) for _ in range(2)] + [rng.choice(others) for _ in range(6)]
    cuts += [end + step for end, _ in rng.sample(stream.rounds, 3) for step in (-1, 0, 1)]
    # Who makes the frames that are there sees what these leave, and half of them are not killed.
    cuts += rng.sample(stream.within, 8)
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
    # A change is told, and leaves a whole round.
    for at in [rng.randrange(others.start)] + [rng.choice(others) for _ in range(7)]:
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


def test_stream_of_data_that_is_a_hole_by_then(context):
    """Data of a part of the file that is all hole when a round looks, before and after, was copied
    in between."""
    pages, far, first = (130 << 30) // PAGE, (100 << 30) // PAGE, 512
    with contextlib.ExitStack() as stack:
        storer = stack.enter_context(Storer(context.file, pages))
        storer.store(*range(first))
        apply = stack.enter_context(applying(context))
        process = stack.enter_context(streaming(context, "--interval", "1h"))
        # More than its head, so the full copy has begun; it waits for a reader of the rest.
        apply.stdin.write(process.stdout.read(64 << 10))
        storer.store(far)
        pump = threading.Thread(target=shutil.copyfileobj, args=(process.stdout, apply.stdin))
        pump.start()
        context.wait_for_step("full_copy", process)
        copied, = [step for step in context.steps() if step["step"] == "full_copy"]
        assert copied["pages"] == first + 1, copied
        punch_hole(context.file, far * PAGE, PAGE)
        end_stream(process)
        pump.join()
        apply.stdin.close()
        assert apply.wait(PATIENCE) == 0, apply.stderr.read()
    with open(context.replica, "rb") as replica:
        assert os.pread(replica.fileno(), PAGE, 0)[17] == 1
        assert os.pread(replica.fileno(), PAGE, far * PAGE) == bytes(PAGE)


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
