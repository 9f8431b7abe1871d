"""The check that travels to devices without ran-deploy: it must judge as the golden self-test does."""

from __future__ import annotations

import ast
import inspect
import json
import sys

import numpy as np
import pytest

from ran_deploy.manifest import Task
from ran_deploy.verification import standalone
from ran_deploy.verification.golden import TOLERANCE, self_test
from ran_deploy.verification.golden_rows import ROW_RULES, allowed_errors, lowest_cosines

ROWS = np.array([[4, 1, 0], [0, 3, 0.1], [1, 0.99, 5], [2, 2.0001, 0]], np.float32)


def expected_of(task, batches=(4,), attention=None):
    allowed = allowed_errors(ROWS, TOLERANCE)
    certain = ROW_RULES[task].certain(ROWS, allowed)
    is_label = task is Task.CLASSIFICATION
    labels = [int(row.argmax()) if sure and is_label else None for row, sure in zip(ROWS, certain, strict=True)]
    cosines = [
        float(value) if sure and not is_label else None
        for value, sure in zip(lowest_cosines(ROWS, allowed), certain, strict=True)
    ]
    return {
        "output": "logits",
        "batches": list(batches),
        "tolerance": TOLERANCE,
        "rows": ROWS.tolist(),
        "labels": labels,
        "lowest_cosines": cosines,
        "attention": attention or {},
    }


def changed(row, values):
    outputs = ROWS.copy()
    outputs[row] = values
    return outputs


CASES = {
    "same": ROWS,
    "rounding": ROWS * np.float32(1.001),
    "far": ROWS * np.float32(1.05),
    "swapped labels": changed(0, [1, 4, 0]),
    "labels that were never certain": changed(3, [2.0001, 2, 0]),
    "turned": changed(1, [0.4, 3, 0.1]),
    "infinite": changed(2, [np.inf, 0, 0]),
    "not a number": changed(2, [np.nan, 0, 0]),
}


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("case", CASES)
def test_it_judges_as_the_golden_self_test_does(case, task):
    outputs = CASES[case]
    found, line = standalone.check(expected_of(task), {"logits": outputs.ravel().tolist()}, 4)
    lookup = {row.tobytes(): output for row, output in zip(ROWS, outputs, strict=True)}
    judged = self_test(
        lambda rows: np.stack([lookup[row.tobytes()] for row in rows]), ROWS, ROWS, spread=0, max_batch=4, task=task
    )
    assert found is judged.passed, line


@pytest.mark.parametrize(("shift", "passed"), [(0.0, True), (0.02, True), (0.05, False)])
def test_masks_are_held_as_the_factor_of_the_trunk(shift, passed):
    masks = [[0.1, 0.2]] * 4
    outputs = {"logits": ROWS.ravel().tolist(), "attention/a": [(1 + v) * (1 + shift) - 1 for v in masks[0] * 4]}
    found, line = standalone.check(expected_of(Task.CLASSIFICATION, attention={"attention/a": masks}), outputs, 4)
    assert found is passed
    assert "attention/a" in line


def test_a_missing_mask_fails():
    expected = expected_of(Task.CLASSIFICATION, attention={"attention/a": [[0.1]] * 4})
    assert not standalone.check(expected, {"logits": ROWS.ravel().tolist()}, 4)[0]


def test_a_batch_that_is_larger_than_the_golden_inputs_begins_again():
    outputs = np.concatenate([ROWS, ROWS[:2]])
    assert standalone.check(expected_of(Task.CLASSIFICATION), {"logits": outputs.ravel().tolist()}, 6)[0]
    assert not standalone.check(expected_of(Task.CLASSIFICATION), {"logits": ROWS.ravel().tolist()}, 6)[0]


def trtexec_json(name, values):
    """What `exportJSONOutput` of trtexec prints, by its source (samples/common/sampleReporting.cpp)."""
    numbers = ", ".join(f"{value:g}" for value in values)
    return f'[\n  {{ "name" : "{name}"\n  , "dimensions" : "4x3"\n  , "values" : [ {numbers} ]\n  }}\n]\n'


def test_the_file_of_trtexec_is_read_with_what_no_json_allows(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(trtexec_json("inf/nan", [1.5, float("nan"), float("-inf"), 2e-7]).replace("nan,", "-nan,"))
    (values,) = standalone.read_outputs(path).values()
    assert values[0] == 1.5
    assert np.isnan(values[1])
    assert values[2:] == [float("-inf"), 2e-7]


def test_main_says_passed_failed_or_what_is_missing(tmp_path, capsys):
    (tmp_path / "expected.json").write_text(json.dumps(expected_of(Task.CLASSIFICATION, batches=(1, 4))))
    assert standalone.main(tmp_path) == 2
    assert "found_1.json cannot be read" in capsys.readouterr().err
    (tmp_path / "found_1.json").write_text(trtexec_json("logits", ROWS[0]))
    (tmp_path / "found_4.json").write_text(trtexec_json("logits", (2 * ROWS).ravel()))
    assert standalone.main(tmp_path) == 1
    assert "batch 1: passed" in (out := capsys.readouterr().out)
    assert "batch 4: FAILED: relative L2 1.0000" in out
    (tmp_path / "found_4.json").write_text(trtexec_json("logits", ROWS.ravel()))
    assert standalone.main(tmp_path) == 0


def test_it_is_written_for_python_3_8_and_its_standard_library():
    source = inspect.getsource(standalone)
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported <= sys.stdlib_module_names
    assert "strict=" not in source  # of zip, from Python 3.10 on
