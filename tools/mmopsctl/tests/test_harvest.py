# SPDX-License-Identifier: GPL-2.0
"""`info`, `harvest` and `write-protect`, and what the errors of all commands say."""

import mmap
import os
import shutil
import subprocess
import sys

from common import PAGE, PATIENCE, Storer


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
        assert (result["dirty_pages"], result["ranges"]) == (2, [[7, 2]]), result
        # The harvest holds the page that both have when it comes to the second. Where that process
        # has ever pinned memory the page counts as pinned then, and not as cleaned: its entry stays
        # dirty, and the page is there again.
        assert result["cleaned"] in (2, 3), result
        again = (0, []) if result["cleaned"] == 3 else (1, [[7, 1]])
        assert context.harvest() == again, result


def test_memfd_of_a_process(context):
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 8 * PAGE)
    with mmap.mmap(descriptor, 8 * PAGE) as view:
        context.file = f"/proc/{os.getpid()}/fd/{descriptor}"
        context.harvest()
        view[5 * PAGE] = 1
        assert context.harvest() == (1, [[5, 1]])
    os.close(descriptor)


# Maps three pages of a file, stores to the second, and has a ring of io_uring pin that.
PINNER = """
import ctypes, mmap, sys
PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
with open(sys.argv[1], "w+b") as file:
    file.truncate(3 * PAGE)
    view = mmap.mmap(file.fileno(), 0)
view[PAGE] = 1
ring = libc.syscall(425, 1, ctypes.create_string_buffer(120))
address = ctypes.addressof(ctypes.c_char.from_buffer(view))
vector = (ctypes.c_size_t * 2)(address + PAGE, PAGE)
if ring < 0 or libc.syscall(427, ring, 0, vector, 1):
    raise OSError(ctypes.get_errno(), "io_uring")
print("pinned", flush=True)
sys.stdin.read()
"""


def test_harvest_lists_pages_that_are_pinned(context):
    with subprocess.Popen([sys.executable, "-c", PINNER, context.file], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "pinned\n"
        # Each time, since it is stored to at any time and no entry tells.
        for _ in range(3):
            assert context.harvest() == (1, [[1, 1]]), context.harvest()
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


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
