# SPDX-License-Identifier: GPL-2.0
"""`replicate` to a file, by a tracker and by harvests."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time

from common import (
    PAGE, PATIENCE, Context, Skip, Storer, changing, end, file_system, fill, system_call, unread,
    until)


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


def miss_nothing(context):
    with changing(context, 2000) as stop:
        with context.replicate("--interval", "50ms", "--verify") as process:
            context.wait_for_step("round", process, number=60)
            stop()
            report = end(process)
        subprocess.run(["cmp", context.file, context.replica], check=True)
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


def second_signal(context, stderr):
    """Of a replication that the first signal has not ended: its exit status, output and errors."""
    command = [context.program, "replicate", context.file, context.replica, "--log", context.log,
               "--json", "--quiet", "--interval", "1h"]
    with Storer(context.file, 50), \
            subprocess.Popen(command, text=True, stdout=subprocess.PIPE,
                             stderr=stderr) as process, \
            open(context.log, "r+b", buffering=0) as log:
        steps = [json.loads(log.readline())["step"] for _ in range(2)]
        assert steps == ["start", "full_copy"], steps
        # The last round, which the first signal begins, cannot be told, and so does not end.
        fill(log.fileno())
        process.send_signal(signal.SIGINT)
        until(lambda: system_call(process.pid)[0] == "1", "no last round")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, output, errors


def test_second_signal_ends_at_once(context):
    os.mkfifo(context.log)
    status, output, errors = second_signal(context, subprocess.PIPE)
    assert (status, output) == (130, ""), status
    assert "ended at once: the replica is not complete" in errors, errors
    # Also where nobody can be told.
    with unread() as pipe:
        assert second_signal(context, pipe) == (130, "", None)


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
