# SPDX-License-Identifier: GPL-2.0
"""What programs that many use do with their memory and files is not missed: LMDB and others."""

import contextlib
import json
import os
import shutil
import sqlite3
import struct
import subprocess

from common import PAGE, PATIENCE, Skip, end, file_system, state_of, until
from test_snapshot import after_round_1

# Of a virtual machine: its memory, and where its program begins to store.
MEMORY = 32 << 20
FIRST = 1 << 20


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


def replica_of_lmdb(context, mode):
    writer = os.path.join(os.path.dirname(context.program), "lmdb-writer")
    with file_system(context, "ext4", 160) as disk:
        summary = disk.file + ".json"
        with subprocess.Popen([writer, "run", disk.file, "--mode", mode, "--map-size", "32",
                               "--fill", "5000", "--keys", "20000", "--operations", "30000",
                               "--wait", "--summary", summary], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, bufsize=1) as load:
            assert load.stdout.readline() == "loaded\n"
            with disk.replicate("--interval", "20ms", "--verify") as process:
                load.stdin.write("go\n")
                assert load.stdout.readline() == "done\n"
                report = end(process)
            # Closed only now, so that the compare was with the live file.
            load.communicate(timeout=PATIENCE)
        assert report["changes_by"] == "tracker" and report["verify"]["differed"] == 0, report
        assert report["pages"] > 0 and disk.identical(), report
        subprocess.run([writer, "check", disk.replica, "--expect", summary], check=True,
                       stdout=subprocess.DEVNULL)


def test_replica_of_lmdb(context):
    replica_of_lmdb(context, "write-map")


def test_replica_of_lmdb_that_writes(context):
    replica_of_lmdb(context, "write")


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


class VirtualMachine:
    """QEMU with virtual_machine.S, which has stored to all of its memory and goes on."""

    def __init__(self, context, accelerator, backend):
        if accelerator == "kvm" and not os.path.exists("/dev/kvm"):
            raise Skip("no KVM")
        rom, self.passes_made = context.file + ".rom", context.file + ".passes"
        source = os.path.join(os.path.dirname(__file__), "virtual_machine.S")
        subprocess.run(["gcc", "-m32", "-c", f"-DSIZE={MEMORY}", "-o", rom + ".o", source],
                       check=True)
        subprocess.run(["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext=0xffff0000",
                        "-e", "0", "-o", rom, rom + ".o"], check=True)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
             "-accel", "kvm" if accelerator == "kvm" else "tcg,tb-size=8",
             "-machine", "pc,memory-backend=ram", "-m", f"{MEMORY >> 20}",
             "-object", f"{backend},id=ram,size={MEMORY}", "-bios", rom,
             "-debugcon", f"file:{self.passes_made}", "-qmp", "stdio"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self.process.pid
        assert "QMP" in json.loads(self.process.stdout.readline())
        self.execute("qmp_capabilities")
        until(self.passes, "it did not start")

    def execute(self, command):
        self.process.stdin.write(json.dumps({"execute": command}) + "\n")
        # Events come between.
        answer = {"event": None}
        while "event" in answer:
            answer = json.loads(self.process.stdout.readline())
        assert "return" in answer, answer

    def passes(self):
        """Number of passes, so 0 before all of the memory was stored to."""
        return os.path.getsize(self.passes_made) if os.path.exists(self.passes_made) else 0

    def assert_runs(self):
        before = self.passes()
        until(lambda: self.passes() > before + 10, "it does not go on")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def stores_in(memory):
    """The number of stores that memory of a virtual machine has seen since all was stored to."""
    words = [struct.unpack_from("I", memory, address)[0] - address
             for address in range(FIRST, MEMORY, PAGE)]
    lower = (MEMORY // 2 - FIRST) // PAGE
    assert not any(words[lower:]), "pages that do not change did"
    return sum(words[:lower])


def snapshot_of_qemu(context, accelerator):
    directory = context.file + ".snapshot"
    with VirtualMachine(context, accelerator, "memory-backend-ram") as machine:
        command = [context.program, "snapshot", str(machine.pid), directory, "--verify"]
        before = machine.passes()
        with after_round_1(command) as result:
            machine.assert_runs()
        report = result["report"]
        assert result["status"] == 0 and report["verify"]["differed"] == 0, result
        assert report["verify"]["pages"] > MEMORY // PAGE, report
        # A page that is stored to between two rounds is in both.
        assert report["pages"] > report["verify"]["pages"], report
        machine.assert_runs()
        with open(os.path.join(directory, "index.json"), encoding="utf-8") as index:
            contents = [mapping["contents"] for mapping in json.load(index)["mappings"]
                        if int(mapping["end"], 16) - int(mapping["start"], 16) == MEMORY]
        assert len(contents) == 1, contents
        with open(os.path.join(directory, *contents), "rb") as memory:
            assert 64 * (before - 1) <= stores_in(memory.read()) <= 64 * machine.passes()
        context.run("restore-check", directory)
        shutil.rmtree(directory)
        # What is stored between the rounds is what the last one is for.
        with after_round_1([*command, "--rounds", "1", "--lose-last-round"]) as result:
            machine.assert_runs()
        assert result["status"] == 1, result
        assert "differ from the memory" in result["errors"], result
        machine.assert_runs()


def test_snapshot_of_qemu(context):
    snapshot_of_qemu(context, "tcg")


def test_snapshot_of_qemu_with_kvm(context):
    snapshot_of_qemu(context, "kvm")


def replica_of_qemu(context, accelerator):
    with VirtualMachine(context, accelerator, "memory-backend-memfd") as machine:
        descriptors = f"/proc/{machine.pid}/fd"
        context.file, = [os.path.join(descriptors, name) for name in os.listdir(descriptors)
                         if "memfd:" in os.readlink(os.path.join(descriptors, name))]
        with context.replicate("--interval", "50ms", "--verify") as process:
            context.wait_for_step("round", process, number=5)
            machine.assert_runs()
            machine.execute("stop")
            passes = machine.passes()
            report = end(process)
            assert state_of(machine.pid) in "RSD"
        assert report["changes_by"] == "tracker" and report["verify"]["differed"] == 0, report
        assert report["pages"] > 0, report
        with open(context.replica, "rb") as replica:
            assert 64 * (passes - 1) <= stores_in(replica.read()) <= 64 * passes
        machine.execute("cont")
        machine.assert_runs()


def test_replica_of_qemu(context):
    replica_of_qemu(context, "tcg")


def test_replica_of_qemu_with_kvm(context):
    replica_of_qemu(context, "kvm")
