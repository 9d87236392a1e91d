# SPDX-License-Identifier: GPL-2.0
"""`notifier-trace`."""

import json
import signal
import subprocess
import sys

from common import PATIENCE, in_ioctl, until

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


def test_notifier_trace_interrupted(context):
    with subprocess.Popen([context.program, "notifier-trace", "-o", context.log, "--", "cat"],
                          stdin=subprocess.PIPE) as process:
        until(lambda: in_ioctl(process.pid), "it does not wait")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
