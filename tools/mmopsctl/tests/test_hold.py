# SPDX-License-Identifier: GPL-2.0
"""How a process is held, whatever becomes of it meanwhile, and waits that are interrupted."""

import json
import re
import signal
import subprocess
import sys

from common import (
    PATIENCE, Storer, ask, catches_sigint, disturb, end, held, in_ioctl, state_of, until)
from test_leaves import counted, figures

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
                              stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            with held(context, process.pid, "hrh") as holder:
                process.kill()
                until(lambda: state_of(process.pid) == "Z", "it does not end")
                # Of the memory that it had then, all or some has gone meanwhile.
                assert ask(holder, "r") == "Killed"
                # Its parent need not know of who held it, and that one is not to wait for the
                # parent.
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

    # Not to the pipe: it holds 64 KiB, and who waits for it to be read is not in the driver.
    run("notifier-trace", "--json", "-o", context.log, settled=in_ioctl)
    with open(context.log, encoding="utf-8") as log:
        *_, last = map(json.loads, log)
    assert last["event"] == "release", last
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
