"""Configurations take what a person writes in Python, and refuse the rest in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ran_deploy import BenchConfig, ExportConfig, GpuOptions, ValidateConfig
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValidateConfig(bundle=3), "bundle is 3; expected a path"),
        (lambda: ValidateConfig(bundle=None), "bundle is None; expected a value"),
        (
            lambda: ValidateConfig(bundle="a.ran", backends=(1,)),
            r"backends is \(1,\); expected text, or a list of texts",
        ),
        (
            lambda: ExportConfig(checkpoint="a", output="b", precision="int4"),
            "precision is 'int4'; expected one of 'fp32', 'fp16', 'int8'",
        ),
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
def test_anything_else_is_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_choices_of_a_recipe_may_be_text():
    member = next(iter(Interpolation))
    assert RecipeOptions(interpolation=member.value).interpolation is member


def test_a_compatible_engine_asked_for_by_text_requires_what_it_would_by_the_choice():
    built_on = {"tensorrt": "10.3.0", "GPU": "Orin", "compute capability": "8.7"}
    options = GpuOptions(hardware="ampere-plus", compute_capabilities="8.9")
    assert options.required(built_on) == {"tensorrt": "10.3.0", "compute capability": ">=8.0"}
    assert options.compute_capabilities == ("8.9",)
