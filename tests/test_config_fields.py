"""Configurations take what a person writes in Python, and refuse the rest in one line."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

import ran_deploy
from ran_deploy import BatchProfile, BenchConfig, BuildConfig, ExportConfig, GpuOptions, ValidateConfig
from ran_deploy.errors import ConfigError
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Interpolation
from ran_deploy.workflows.exporting.recipe import RecipeOptions


def fp16_export(**options):
    return ExportConfig(checkpoint="best.pth", output="a.ran", precision="fp16", **options)


def test_text_becomes_the_path_or_the_choice_that_is_declared():
    config = ExportConfig(checkpoint="best.pth", output="a.ran", precision="fp16", backends=["openvino"])
    assert (config.checkpoint, config.output) == (Path("best.pth"), Path("a.ran"))
    assert config.precision is Precision.FP16
    assert config.backends == ("openvino",)


def test_a_choice_as_text_is_the_choice_for_every_rule_about_it():
    with pytest.raises(ConfigError, match="INT8 needs calibration data"):
        ExportConfig(checkpoint="best.pth", output="a.ran", precision="int8")


def test_one_backend_may_stand_alone():
    assert ValidateConfig(bundle="a.ran", backends="all").backends == ("all",)


def test_what_is_right_stays_as_it_is():
    path = Path("a.ran")
    config = BenchConfig(bundle=path, batches=(1, 8))
    assert config.bundle is path
    assert (config.backends, config.batches, config.cache_dir) == (("auto",), (1, 8), None)


def test_numbers_may_be_those_of_numpy():
    config = BenchConfig(bundle="a.ran", batches=np.array([1, 8]), seconds=np.float32(0.5), threads=np.int64(2))
    assert (config.batches, config.seconds, config.threads) == ((1, 8), 0.5, 2)
    assert {type(each) for each in (*config.batches, config.threads)} == {int}
    assert RecipeOptions(mean=np.array([1.0, 0.5, 0.25])).mean == (1.0, 0.5, 0.25)


def test_golden_inputs_may_be_a_path_or_a_word():
    assert fp16_export(golden=Path("images")).golden == Path("images")
    assert fp16_export(golden="synthetic").golden == "synthetic"


def test_a_configuration_can_be_copied_and_sent():
    config = fp16_export(gpu=GpuOptions(hardware="ampere-plus"), batch=BatchProfile(maximum=64))
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == dataclasses.replace(config) == config


@pytest.mark.parametrize("threads", [-1, 1025, 10**30])
def test_a_number_of_threads_that_no_processor_has_is_refused(threads, demo):
    with pytest.raises(ConfigError, match=f"--threads is {threads}; expected 1 to 1024, or 0 for all"):
        ran_deploy.load(demo.bundle, cache_dir=demo.cache, threads=threads)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValidateConfig(bundle=3), "bundle is 3; expected a path"),
        (lambda: ValidateConfig(bundle=None), "bundle is None; expected a path"),
        (
            lambda: ValidateConfig(bundle="a.ran", backends=(1,)),
            r"backends is \(1,\); expected text, or a list of texts",
        ),
        (
            lambda: ExportConfig(checkpoint="a", output="b", precision="int4"),
            "precision is 'int4'; expected one of 'fp32', 'fp16', 'int8'",
        ),
        (lambda: BenchConfig(bundle=""), "bundle is ''; expected a path"),
        (lambda: BenchConfig(bundle="a", seconds="3"), "seconds is '3'; expected a number"),
        (lambda: BenchConfig(bundle="a", warm_up=2.5), r"warm_up is 2\.5; expected a whole number"),
        (lambda: BenchConfig(bundle="a", threads=True), "threads is True; expected a whole number"),
        (lambda: BenchConfig(bundle="a", batches=8), "batches is 8; expected a list of whole numbers"),
        (lambda: BenchConfig(bundle="a", device=0), "device is 0; expected text"),
        (lambda: BenchConfig(bundle="a", backends=[]), "There is no engine to measure"),
        (lambda: ValidateConfig(bundle="a", details="no"), "details is 'no'; expected True or False"),
        (lambda: ValidateConfig(bundle="a", limit=np.zeros((99, 9))), r"limit is array\(.*; expected a whole number"),
        (lambda: BuildConfig(bundle="a", backend="b", batch=8), r"batch is 8; expected BatchProfile\(\.\.\.\)"),
        (lambda: BatchProfile(maximum="8"), "maximum is '8'; expected a whole number"),
        (lambda: fp16_export(input_size=(32,)), r"input_size is \(32,\); expected 2 whole numbers"),
        (
            lambda: RecipeOptions(resize=1.5),
            r"resize is 1\.5; expected a whole number, or 2 whole numbers, or text",
        ),
        (lambda: RecipeOptions(mean="0.5"), "mean is '0.5'; expected 3 numbers"),
        (lambda: GpuOptions(workspace_bytes=1e9), "workspace_bytes is 1000000000.0; expected a whole number"),
        (lambda: GpuOptions(workspace_bytes=2**41), "2,199,023,255,552 bytes; expected 1 MiB to 1 TiB"),
        (lambda: GpuOptions(dla_core=-1), "dla_core is -1; expected 0 or more"),
        (lambda: ran_deploy.load("a.ran", threads="2"), "threads is '2'; expected a whole number"),
        (lambda: ran_deploy.load(None), "path is None; expected a path"),
        (lambda: RecipeOptions(interpolation="nearst"), "interpolation is 'nearst'; expected one of"),
        (lambda: GpuOptions(hardware="ampere"), "hardware is 'ampere'; expected one of 'ampere-plus'"),
        (lambda: fp16_export(gpu=GpuOptions(strip_weights=True)), "The engine in a bundle has its weights"),
        (lambda: fp16_export(gpu=GpuOptions(dla_core=0)), "Leave strip_weights, half_pixel and dla_core to ran-build"),
        (
            lambda: fp16_export(gpu=GpuOptions(optimum_profile=True), backends="openvino"),
            "--optimum-profile: for TensorRT's engine alone",
        ),
    ],
)
def test_anything_else_is_refused_by_name_in_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1


def test_choices_of_a_recipe_may_be_text():
    member = next(iter(Interpolation))
    assert RecipeOptions(interpolation=member.value).interpolation is member


def test_a_compatible_engine_asked_for_by_text_requires_what_it_would_by_the_choice():
    built_on = {"tensorrt": "10.3.0", "GPU": "Orin", "compute capability": "8.7"}
    options = GpuOptions(hardware="ampere-plus", compute_capabilities="8.9")
    assert options.required(built_on) == {"tensorrt": "10.3.0", "compute capability": ">=8.0"}
    assert options.compute_capabilities == ("8.9",)


def test_an_empty_path_of_golden_inputs_is_not_the_current_folder():
    with pytest.raises(ConfigError, match="--golden is empty; expected a path, or 'synthetic'"):
        ExportConfig(checkpoint="best.pth", output="a.ran", precision="fp32", golden="")
