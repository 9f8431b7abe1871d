"""A journal outlives kills, several writers and damage; what it holds is never measured again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ran_deploy.journal import Journal


class Counted:
    def __init__(self, *values: float) -> None:
        self.values, self.calls = values, 0

    def __call__(self) -> tuple[float, ...]:
        self.calls += 1
        return self.values


@pytest.fixture
def path(tmp_path):
    return tmp_path / "searches" / "abc.jsonl"


def test_what_was_measured_is_recalled_bit_for_bit_by_the_next_process(path):
    measure = Counted(0.1, 1 / 3, 5e-324)
    assert Journal(path).recall("a", measure) == [0.1, 1 / 3, 5e-324]
    later = Journal(path)
    assert (len(later), later.recall("a", measure), measure.calls) == (1, [0.1, 1 / 3, 5e-324], 1)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_measured_again_and_hurts_no_other(path, cut):
    journal = Journal(path)
    journal.recall("a", Counted(1))
    journal.recall("b", Counted(2))
    path.write_bytes(path.read_bytes()[:-cut])
    again = Counted(2)
    torn = Journal(path)
    assert torn.recall("b", again) == [2.0]
    assert again.calls == 1
    whole = Journal(path)
    assert [whole.recall(key, Counted(9)) for key in ("a", "b")] == [[1.0], [2.0]]


def test_lines_that_are_no_measurement_are_passed_over(path):
    path.parent.mkdir()
    path.write_bytes(b'\xff\xfe\n{"key": 1}\n[]\n\n{"key": "a", "values": [3]}\n')
    assert Journal(path).recall("a", Counted(9)) == [3.0]


def test_two_journals_of_one_file_share_what_either_measures_and_the_first_record_counts(path):
    one, other = Journal(path), Journal(path)
    one.recall("a", Counted(1))
    late = Counted(2)
    assert other.recall("a", late) == [1.0]
    assert late.calls == 0


def test_a_measurement_that_fails_leaves_no_record(path):
    def fail() -> list[float]:
        raise ValueError("lost")

    journal = Journal(path)
    with pytest.raises(ValueError, match="lost"):
        journal.recall("a", fail)
    assert journal.recall("a", Counted(4)) == [4.0]


def test_without_a_place_to_write_it_warns_once_and_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    journal = Journal(tmp_path / "file" / "x.jsonl")
    assert [journal.recall(key, Counted(1)) for key in ("a", "b")] == [[1.0], [1.0]]
    assert caplog.text.count("cannot be resumed") == 1


WRITER = """
import sys
from pathlib import Path
from ran_deploy.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    journal.recall(f"{sys.argv[2]}{number}", lambda: [float(number)])
"""


def test_processes_at_once_and_a_kill_in_between_damage_nothing(path):
    def start(name: str, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    endless, first, second = start("x", 10**9), start("a", 50), start("b", 50)
    assert endless.stdout is not None
    endless.stdout.readline()
    while not path.exists():
        time.sleep(0.01)
    os.kill(endless.pid, signal.SIGKILL)
    assert endless.wait(30) == -signal.SIGKILL
    assert (first.wait(60), second.wait(60)) == (0, 0)
    journal = Journal(path)
    for name in "ab":
        assert [journal.recall(f"{name}{n}", Counted(-1)) for n in range(50)] == [[float(n)] for n in range(50)]
