"""What is recorded of a device, from texts of the tools that tell it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

SMI = """name, driver_version, clocks.current.sm [MHz], power.draw [W]
NVIDIA H100 80GB HBM3, 570.86.10, 1980 MHz, 70.12 W
NVIDIA H100 80GB HBM3, 570.86.10, 345 MHz, [N/A]
"""


def test_every_gpu_that_nvidia_smi_lists_is_recorded(gpu):
    first, second = gpu("device").parse_smi(SMI)
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert first["clocks.current.sm [MHz]"] == "1980 MHz"
    assert second["power.draw [W]"] == "[N/A]"


@pytest.mark.parametrize("text", ["", "No devices were found\n", "name, driver_version\nonly one\n"])
def test_what_is_no_table_of_gpus_is_refused(gpu, text):
    with pytest.raises(ValueError, match="nvidia-smi printed"):
        gpu("device").parse_smi(text)


def test_the_power_mode_is_read_among_what_else_nvpmodel_says(gpu):
    text = "NVPM WARN: Fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2\n"
    assert gpu("device").parse_nvpmodel(text) == {"mode": "MAXN_SUPER", "number": "2"}
    with pytest.raises(ValueError, match="nvpmodel printed"):
        gpu("device").parse_nvpmodel("permission denied")


# The shape of tegrastats' lines on an Orin: with L4T 36, with JetPack 7, which adds a value to each, and without root.
TEGRASTATS = {
    "11-30-2026 08:00:00 RAM 2448/30536MB (lfb 2x4MB) SWAP 0/15268MB (cached 0MB) CPU [1%@729,off,0%@2201] "
    "GR3D_FREQ 7%@[305,305] CV0@-256C cpu@47.968C tj@48C VDD_GPU_SOC 3175mW/2980mW VIN_SYS 4250mW/4100mW\n": (
        {"cpu": 47.968, "tj": 48.0},
        {"VDD_GPU_SOC": 3175.0, "VIN_SYS": 4250.0},
    ),
    "RAM 8182/62817MB CPU [18%@729] GR3D_FREQ 5% gpu@46.843C/46.9C VDD_GPU_SOC 3588mW/3500mW/3400mW\n": (
        {"gpu": 46.843},
        {"VDD_GPU_SOC": 3588.0},
    ),
    "RAM 1313/30697MB CPU [0%@729] GR3D_FREQ 0% tj@43.343C\n": ({"tj": 43.343}, {}),
}


@pytest.mark.parametrize("text", TEGRASTATS)
def test_power_and_temperature_of_a_jetson_are_read(gpu, text):
    temperatures, power = TEGRASTATS[text]
    assert gpu("device").parse_tegrastats(text) == {"temperature_c": temperatures, "power_mw": power}


def test_what_is_no_line_of_tegrastats_is_refused(gpu):
    for text in ("", "Error: cannot open /sys/kernel/debug\n", "CPU [1%@729,0%@729]\n"):
        with pytest.raises(ValueError, match="tegrastats printed"):
            gpu("device").parse_tegrastats(text)


def test_a_tool_that_prints_without_end_is_asked_for_one_line_and_ended(gpu, monkeypatch, tmp_path):
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nwhile echo tj@43C VDD_IN 5mW/4mW; do sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    record = gpu("device").device_record()
    assert record["tegrastats"] == {"temperature_c": {"tj": 43.0}, "power_mw": {"VDD_IN": 5.0}}
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_colours_and_empty_lines_are_left_out(gpu):
    assert gpu("device").parse_lines("\x1b[1;32mModel\x1b[0m: Orin\n\n  L4T 36.4.3 \n") == ["Model: Orin", "L4T 36.4.3"]


def test_a_tool_that_fails_is_its_reason_and_the_others_go_on(gpu, tmp_path):
    answers = {"nvidia-smi": SMI, "nvpmodel": "NV Power Mode: 15W\n0\n"}

    def run(command):
        if command[0] not in answers:
            raise subprocess.CalledProcessError(1, command, stderr="must be root\n")
        return answers[command[0]]

    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\nmore\n")
    found = gpu("device").device_record(run, tmp_path)
    assert len(found["nvidia-smi"]) == 2
    assert found["nvpmodel"] == {"mode": "15W", "number": "0"}
    assert found["jetson_clocks"] == {"problem": "must be root"}
    assert found["l4t"] == "# R36 (release), REVISION: 4.3"
    assert found["board"] is None


def test_a_machine_without_any_of_the_tools_is_described_all_the_same(gpu):
    found = gpu("device").device_record()
    assert found["platform"]
    assert set(found["cuda"]) in ({"problem"}, {"name", "compute capability", "memory_bytes", "driver supports CUDA"})
    json.dumps(found)
