"""The check of the runtime, whole on stand-ins, and the command around it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_libcuda import StandInLibcuda
from stand_in_pycuda import stand_in_pycuda

from ran_deploy.runtime.cuda.binding import BINDINGS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_runtime_check.py"
GAINS = ("copies beside kernels", "gain of CUDA graphs", "gain of a second slot")


@pytest.mark.parametrize("api", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("integrated", [False, True])
def test_all_is_right_on_the_stand_ins_and_what_cannot_run_says_why(checks, gpu, api, integrated):
    names = gpu("gpu_runtime_check").CHECKS
    found, _ = checks(*(name for name in names if name not in GAINS), api=api, integrated=integrated)
    gains, _ = checks(*GAINS, api=api, integrated=integrated, steady=True, delay_s=0.01)
    found |= gains
    not_run = {name: check.reason for name, check in found.items() if check.outcome.value == "not run"}
    expected = {}
    if api == "pycuda":
        expected |= dict.fromkeys(("CUDA graphs", "gain of CUDA graphs"), "this binding cannot capture CUDA graphs")
    if integrated:
        expected["copies beside kernels"] = "an integrated GPU makes no copies"
    assert not_run == expected
    assert {name: check.reason for name, check in found.items() if check.outcome.value == "wrong"} == {}
    assert list(found) == list(names)


def test_one_gpu_is_no_place_to_look_at_another(checks):
    found, _ = checks("another GPU", "missing GPU", count=1)
    assert {name: (check.outcome.value, check.reason) for name, check in found.items()} == {
        "another GPU": ("not run", "it takes two GPUs, and one is here"),
        "missing GPU": ("right", None),
    }


def test_each_check_says_in_numbers_what_it_looked_at(checks, gpu):
    found, _ = checks("leaks", "pipeline", "copies beside kernels", steady=True, delay_s=0.01)
    assert found["leaks"].figures["batches"] == 60
    assert found["pipeline"].figures == {"images": 81}
    gains = found["copies beside kernels"].figures
    assert (
        1.2 < (gains["copy_ms"] + gains["kernel_ms"]) / max(gains["copy_ms"], gains["kernel_ms"]) == gains["possible"]
    )
    line = gpu("runtime_results").figures_line(
        {"batches": 10_000, "host_bytes": 3 * 2**19, "gain": 1.239, "copy_ms": 2}
    )
    assert line == "batches 10,000, host +1.5 MiB, gain 1.24, copy 2.000 ms"


def result(gpu, **found):
    return gpu("runtime_results").BindingResult(binding="cuda-python", **found)


def report(gpu, *bindings):
    device = {"platform": "Linux", "cuda": {"problem": "none"}}
    return gpu("runtime_results").RuntimeReport(
        created="now", command="", tools={}, device=device, device_after={}, bindings=bindings
    )


def test_what_did_not_run_is_never_a_pass(gpu):
    check, outcome = gpu("runtime_results").Check, gpu("runtime_results").Outcome
    right, wrong, not_run = (check(name=each.value, outcome=each, reason="because | so") for each in outcome)
    missing = result(gpu, problem="not here")
    assert report(gpu, missing, result(gpu, checks=(right, not_run))).exit_status == 0
    assert report(gpu, missing, result(gpu, checks=(not_run,))).exit_status == 2
    assert report(gpu, missing).exit_status == 2
    assert report(gpu, result(gpu, checks=(right,)), result(gpu, checks=(right, wrong))).exit_status == 1
    assert report(gpu, result(gpu, checks=(right,)), result(gpu, problem="signal", crashed=True)).exit_status == 1
    table = gpu("runtime_results").markdown(report(gpu, result(gpu, checks=(right, wrong)), missing))
    assert "| wrong | **wrong** | because \\| so |" in table
    assert "not run: not here" in table


@pytest.mark.parametrize(
    ("ending", "problem"),
    [("kill -SEGV $$", "signal SIGSEGV"), ("exit 3", "exit status 3"), ("sleep 9", "0.5 seconds")],
)
def test_a_binding_that_takes_its_process_down_is_its_own_result(gpu, monkeypatch, tmp_path, ending, problem):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec sh -c '{ending}'\n")
    program.chmod(0o755)
    script = gpu("gpu_runtime_check")
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(script, "TIMEOUT_S", 0.5 if "sleep" in ending else 60)
    found = script.check_in_process("pycuda", 1.0, 50)
    assert found.crashed
    assert problem in found.problem


def test_the_command_gives_each_binding_a_process_and_writes_json_and_table(tmp_path):
    output = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--seconds", "0.1", "--leak-batches", "50", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(output.read_text())
    assert [binding["binding"] for binding in found["bindings"]] == ["cuda-python", "pycuda"]
    assert found["engine"].startswith("no network")
    assert done.stdout.startswith(output.with_suffix(".md").read_text())
    if done.returncode == 2:  # no GPU here
        assert all(binding["problem"] and not binding["checks"] for binding in found["bindings"])
    else:
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("name", "call"), [("cuda-python", "cudaMemcpyAsync"), ("pycuda", "cuMemcpyHtoDAsync")])
def test_one_binding_of_two_that_are_installed_is_checked_by_the_command(
    gpu, kernel_engine, monkeypatch, tmp_path, name, call
):
    monkeypatch.setattr("ran_deploy.runtime.cuda.binding.BINDINGS", dict(BINDINGS))
    device, _ = kernel_engine(api="cuda-python")
    monkeypatch.setitem(sys.modules, "pycuda.driver", stand_in_pycuda(device))
    script = gpu("gpu_runtime_check")
    monkeypatch.setattr(script, "cuda_driver", lambda: StandInLibcuda(device))
    monkeypatch.setattr(script, "CHECKS", {each: script.CHECKS[each] for each in ("page-locked copies", "missing GPU")})
    output = tmp_path / "result.json"
    assert script.main(["--binding", name, "--output", str(output)]) == 0
    (found,) = json.loads(output.read_text())["bindings"]
    assert found["binding"] == name
    assert [(check["name"], check["outcome"]) for check in found["checks"]] == [
        ("page-locked copies", "right"),
        ("missing GPU", "right"),
    ]
    assert [made for made in ("cudaMemcpyAsync", "cuMemcpyHtoDAsync") if device.calls[made]] == [call]


@pytest.mark.parametrize(
    "options", [["--seconds", "0"], ["--seconds", "nan"], ["--leak-batches", "0"], ["--output", "result.txt"]]
)
def test_options_that_cannot_work_are_refused_in_one_line(options):
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"gpu_runtime_check: --.*\n", done.stderr)
