# SPDX-License-Identifier: GPL-2.0
"""`protect`."""

from common import PAGE, Storer
from test_leaves import counted, figures, is_huge, running_mapper


def changed(ptes, split_pmds=0):
    return (f"leaves changed: {ptes} of 4K, 0 of 2M, 0 of 1G; "
            f"split: {split_pmds} of 2M, 0 of 1G\n")


def test_protect(context):
    with Storer(context.file, 100) as storer:
        pid = storer.process.pid
        storer.store(*range(100))

        def leaves():
            mapping, pte = counted(context.json("leaves", pid), context.file)
            assert mapping["absent"] == 0, mapping
            return figures(pte)

        mapping, _ = counted(context.json("leaves", pid), context.file)
        area = f"{mapping['start']:x}-{mapping['end']:x}"

        def protect(access, where=area):
            return context.run("protect", pid, where, access).stdout

        assert leaves() == (100, 100, 100)
        assert protect("r") == changed(100)
        assert leaves() == (100, 0, 100)
        storer.store(7)
        assert leaves() == (100, 1, 100)
        # Only the one has anything to lose, and all of them get it back.
        assert protect("r") == changed(1)
        assert protect("rw") == changed(100)
        assert leaves() == (100, 100, 100)
        assert protect("r", f"0x{mapping['start'] + PAGE:x}+{10 * PAGE:x}") == changed(10)
        assert leaves() == (100, 90, 100)
        assert protect("none") == changed(100)
        assert leaves() == (100, 0, 100)
        storer.store(8, 9)
        assert leaves() == (100, 2, 100)
    with open(context.file, "rb") as file:
        data = file.read()
    values = [*range(1, 8), 101, 102, 103, *range(11, 101)]
    assert [data[page * PAGE + 17] for page in range(100)] == values


def test_protect_splits_a_huge_leaf(context):
    with running_mapper(context) as pid:
        huge, = filter(is_huge, context.json("leaves", pid))
        text = context.run("protect", pid, f"{huge['start'] + PAGE:x}+{PAGE:x}", "r").stdout
        assert text == changed(1, split_pmds=1), text
        huge, = filter(is_huge, context.json("leaves", pid))
        assert figures(huge["pmd"]) == (2, 2, 2), huge
        assert figures(huge["pte"]) == (512, 511, 512), huge


def test_protect_errors(context):
    with Storer(context.file, 10) as storer:
        pid = storer.process.pid
        storer.store(*range(10))
        before, _ = counted(context.json("leaves", pid), context.file)
        start = before["start"]
        area = f"{start:x}-{before['end']:x}"
        assert "not mapped" in context.error("protect", pid, "1000-2000", "r")
        assert "not of whole pages" in context.error("protect", pid, f"{start:x}+800", "r")
        assert "a mapping allows less" in context.error("protect", pid, area, "rwx")
        assert "with or without w" in context.error("protect", pid, area, "w")
        assert "process 999999999: No such process" in \
            context.error("protect", 999999999, area, "r")
        assert "none of r, w and x" in context.error("protect", pid, area, "rq", status=2)
        assert "made of r, w and x" in context.error("protect", pid, area, "", status=2)
        assert "START-END" in context.error("protect", pid, f"{start:x}", "r", status=2)
        assert "not above the start" in context.error("protect", pid, "2000-1000", "r", status=2)
        assert "hexadecimal" in context.error("protect", pid, "x-y", "r", status=2)
        assert "ACCESS" in context.error("protect", pid, area, status=2)
        after, _ = counted(context.json("leaves", pid), context.file)
        assert figures(before["pte"]) == figures(after["pte"]) == (10, 10, 10), (before, after)
