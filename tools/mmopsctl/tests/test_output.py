# SPDX-License-Identifier: GPL-2.0
"""Standard output and standard error that cannot be written, and logs that nobody reads."""

import os
import subprocess

from common import PATIENCE, Storer, unread
from test_snapshot import Subject


def status_of(command, **files):
    return subprocess.run(command, timeout=PATIENCE, check=False, **files).returncode


def test_result_that_cannot_be_written(context):
    command = [context.program, "info", "--json"]
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True,
                                timeout=PATIENCE, check=False)
        assert result.returncode == 1, result
        assert "cannot write to standard output: No space left" in result.stderr, result
        # Nobody can be told why.
        assert status_of(command, stdout=full, stderr=full) == 1
    with unread() as pipe:
        result = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=PATIENCE,
                                check=False)
        assert (result.returncode, result.stderr) == (0, b""), result


def test_notes_that_nobody_reads(context):
    with Subject(context) as subject, unread() as pipe:
        assert status_of(subject.command(), stdout=subprocess.DEVNULL, stderr=pipe) == 0
        context.run("restore-check", subject.directory)


def test_log_that_nobody_reads_any_more(context):
    os.mkfifo(context.log)
    with Storer(context.file, 100) as storer:
        storer.store(*range(100))
        command = [context.program, "replicate", context.file, context.replica, "--quiet",
                   "--interval", "10ms", "--log", context.log]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            with open(context.log, encoding="utf-8") as log:
                log.readline()
            _, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 1 and "Broken pipe" in errors, errors
