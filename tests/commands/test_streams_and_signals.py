"""Standard output that is closed or full, and signals: real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ran_deploy.commands.bench import bench
from ran_deploy.commands.common import run_command
from ran_deploy.commands.doctor import doctor

BIN = Path(sys.executable).parent
SLOW_IMPORT = """
import signal, os, sys
import ran_deploy.commands.export as export
from ran_deploy.errors import ConversionError

def swallow(*arguments, **options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except BaseException as exc:
        raise ConversionError("something else") from exc

export.config_from_options = swallow
sys.argv = ["ran-export", "x.pth", "-o", "x.ran"]
export.main()
"""


def with_closed_stdout(*arguments):
    command = 'exec "$0" "$@" >&-'
    return subprocess.run(["sh", "-c", command, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("command", ["ran-export", "ran-infer"])
def test_results_that_cannot_be_printed_are_an_error(command, demo, tmp_path):
    arguments = {"ran-export": ["--list"], "ran-infer": [demo.bundle, demo.images, "--cache-dir", demo.cache]}[command]
    done = with_closed_stdout(BIN / command, *arguments)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == f"{command}: cannot write any further (Bad file descriptor)."


def test_results_that_go_elsewhere_need_no_standard_output(demo, tmp_path):
    output = tmp_path / "results.csv"
    done = with_closed_stdout(
        BIN / "ran-infer", demo.bundle, demo.images, "--cache-dir", demo.cache, "--output", output
    )
    assert done.returncode == 0, done.stderr
    assert len(output.read_text().splitlines()) == 11


def test_an_interrupt_that_became_another_error_still_counts():
    done = subprocess.run([sys.executable, "-c", SLOW_IMPORT], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (130, "ran-export: interrupted\n")


@pytest.mark.parametrize(
    ("command", "error", "line"),
    [
        (doctor, MemoryError(), "ran-doctor: not enough memory."),
        (bench, MemoryError("9 GiB"), "ran-bench: not enough memory (9 GiB). Choose a smaller --batch."),
    ],
)
def test_a_lack_of_memory_names_only_options_that_the_command_has(command, error, line, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(command, "callback", fail)
    monkeypatch.setattr(sys, "argv", [command.name, "x.ran"])
    with pytest.raises(SystemExit, match="2"):
        run_command(command)
    assert capsys.readouterr().err == line + "\n"
