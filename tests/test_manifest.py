"""What a manifest cannot mean is refused where it is made and where it is read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import sample_manifest

from ran_deploy.budget_record import BudgetLook, BudgetRecord, RegionRecord
from ran_deploy.errors import BundleError, ConfigError
from ran_deploy.manifest import (
    BatchProfile,
    manifest_from_json,
    manifest_to_json,
)


def dialect(spread: float) -> dict:
    return {"graph": "x.onnx", "spread": spread, "relative_l2": 0.0, "label_agreement": 1.0}


@pytest.fixture
def document() -> dict:
    """A manifest as JSON has it."""
    return json.loads(manifest_to_json(sample_manifest.manifest(labels=tuple("abcdefghij"))))


@pytest.mark.parametrize("sizes", [(0, 1, 1), (9, 0, 0), (1, 9, 8), (2, 1, 3)])
def test_batch_sizes_are_in_order_and_positive(sizes):
    minimum, optimum, maximum = sizes
    with pytest.raises(ConfigError, match=f"{minimum}:{optimum}:{maximum}; expected 1 <= MIN <= OPT <= MAX"):
        BatchProfile(minimum=minimum, optimum=optimum, maximum=maximum)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        (
            "batch",
            {"minimum": 9, "optimum": 0, "maximum": 0},
            r"\(Batch sizes are 9:0:0; expected .* <= MAX\)\. Export",
        ),
        ("preprocessing", {"crop": [0, 33]}, r"\(Pre-processing sizes must be positive; found .*\)\. Export"),
        ("labels", ["cat", "dog"], r"\(There are 2 labels for 10 classes\)\. Export"),
        ("batch", {"maximum": 10**9}, r"\(The largest batch is 1,000,000,000; expected at most 4096 images\)\. Export"),
        ("task", "embedding", r"\(There are 10 labels for an embedding; it has no classes\)\. Export"),
        ("output_size", -1, r"\(There are -1 classes; expected at least 1\)\. Export"),
        ("output_size", 0, r"\(There are 0 classes; expected at least 1\)\. Export"),
        ("dialects", {"x": dialect(spread=-0.1)}, r"\(The spread of x\.onnx is -0\.1; expected 0 to 1\)\. Export"),
        ("dialects", {"x": dialect(spread=1e9)}, r"\(The spread of x\.onnx is 1e\+09; expected 0 to 1\)\. Export"),
        (
            "attention",
            [{"name": "m1", "module": "m", "height": 0, "width": 4}],
            r"\(The mask of m1 is 0x4; expected at least 1x1\)\. Export",
        ),
        ("task", "clairvoyance", r"Invalid enum value 'clairvoyance' .*\)\. Export"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_with_the_bundles_name(part, value, words, document):
    document[part] = {**document[part], **value} if isinstance(value, dict) else value
    with pytest.raises(
        BundleError, match=rf"^sorter\.ran: manifest\.json does not follow the schema .*{words}"
    ) as caught:
        manifest_from_json(json.dumps(document).encode(), "sorter.ran")
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_written_is_read_back(document):
    assert json.loads(manifest_to_json(manifest_from_json(json.dumps(document).encode(), "x"))) == document


def test_the_search_for_what_stays_in_float_is_read_back(document):
    look = BudgetLook(
        kept_regions=1,
        float_multiply_adds=0.06,
        dialect="openvino",
        images=500,
        drop_pp=0.1,
        bound_pp=0.45,
        confidence=0.9875,
        passed=True,
    )
    budget = BudgetRecord(
        max_drop_pp=0.5,
        measure="Top-1",
        dataset="val",
        image_sha256=("0f",),
        method_errors={"minmax": 0.3},
        regions=(RegionRecord(name="stem", multiply_adds=0.06, output_error=0.3, kept_in_float=True),),
        looks=(look,),
        drops=(look,),
        float_multiply_adds=0.06,
    )
    manifest = manifest_from_json(json.dumps(document).encode(), "x")
    assert manifest.budget is None
    document["budget"] = json.loads(manifest_to_json(replace(manifest, budget=budget)))["budget"]
    assert manifest_from_json(json.dumps(document).encode(), "x").budget == budget


@pytest.mark.parametrize(
    ("sizes", "wanted", "nearest"),
    [((1, 8, 32), 64, "1:8:64"), ((4, 8, 8), 2, "2:8:8"), ((1, 8, 32), 5, "1:8:32"), ((4, 4, 4), 7, "7:7:7")],
)
def test_the_nearest_batch_sizes_that_take_another_one(sizes, wanted, nearest):
    minimum, optimum, maximum = sizes
    assert str(BatchProfile(minimum=minimum, optimum=optimum, maximum=maximum).taking(wanted)) == nearest
