# SPDX-License-Identifier: GPL-2.0
"""`watch`."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

from common import PATIENCE, Storer


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
