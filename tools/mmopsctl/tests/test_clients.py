# SPDX-License-Identifier: GPL-2.0
"""What programs that many use do with their memory and files is not missed: redis, SQLite, QEMU."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess

from common import end, file_system, until


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
