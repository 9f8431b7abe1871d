"""Standard output that is closed or full, and signals: real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ran_deploy.commands.bench import bench
from ran_deploy.commands.doctor import doctor
from ran_deploy.commands.running import run_command

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

SLOW_LOADING = """
import os, signal, sys
import ran_deploy.workflows.engines.loading as loading
from ran_deploy.commands.infer import main

def stopped(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

loading.load_engine = stopped
main()
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


def test_a_service_manager_that_stops_a_command_leaves_nothing_half_written(demo, tmp_path):
    arguments = [demo.bundle, demo.images, "--output", tmp_path / "results.jsonl"]
    done = subprocess.run([sys.executable, "-c", SLOW_LOADING, *arguments], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (130, "ran-infer: interrupted\n")
    assert list(tmp_path.iterdir()) == []


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


def test_a_machine_without_a_temporary_folder_is_told_of_tmpdir(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "no")])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(doctor, "callback", lambda **options: tempfile.mkdtemp())
    monkeypatch.setattr(sys, "argv", ["ran-doctor", "x.ran"])
    with pytest.raises(SystemExit, match="2"):
        run_command(doctor)
    told = f"No usable temporary directory found in ['{tmp_path}/no']: set TMPDIR to a folder that can be written to."
    assert capsys.readouterr().err == f"ran-doctor: {told}\n"


@pytest.mark.parametrize("command", ["ran-doctor", "ran-infer", "ran-bench", "ran-validate", "ran-build"])
def test_a_bundle_whose_name_is_no_unicode_serves_every_command(command, demo, tmp_path):
    bundle = os.fsencode(tmp_path) + b"/caf\xe9.ran"
    Path(os.fsdecode(bundle)).symlink_to(demo.bundle)
    arguments = {
        "ran-infer": [demo.images / "bag.png"],
        "ran-bench": ["--seconds", "0.05", "--batch", "1"],
        "ran-build": ["--backend", "onnxruntime"],
    }.get(command, [])
    done = subprocess.run(
        [BIN / command, bundle, *map(str, arguments), "--cache-dir", demo.cache, "--json"], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))


def test_an_export_may_have_a_name_that_is_no_unicode(demo, tmp_path):
    output = os.fsencode(tmp_path) + b"/caf\xe9.ran"
    options = ["--precision", "fp32", "--backend", "onnxruntime", "-o", output]
    done = subprocess.run([BIN / "ran-export", demo.checkpoint, *options], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(Path(os.fsdecode(output), "manifest.json").read_bytes())["name"] == r"caf\udce9"


@pytest.mark.parametrize(("options", "expected"), [(["--json"], "猫.png".encode()), ([], rb"\u732b.png")])
def test_what_the_encoding_of_standard_output_lacks_is_escaped(options, expected, demo, tmp_path):
    image = tmp_path / "猫.png"
    image.symlink_to(demo.images / "bag.png")
    done = subprocess.run(
        [BIN / "ran-infer", demo.bundle, image, "--cache-dir", demo.cache, *options],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
