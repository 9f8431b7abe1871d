"""docs/models.md: its example runs, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from ran_deploy.models import load_checkpoint
from ran_deploy.models.arithmetic import cost_of
from ran_deploy.models.design import Attention, Learning
from ran_deploy.models.layouts import LAYOUTS
from ran_deploy.models.zoo import ARCHITECTURES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_example_saves_a_checkpoint_that_is_that_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    exec(code, {})
    loaded = load_checkpoint("mine.safetensors")
    design = loaded.module.design
    assert (loaded.architecture, loaded.num_classes, loaded.labels[3]) == ("mine", 10, "class 3")
    assert (design.attention, design.learning) == (Attention.SPATIAL, Learning.NAIVE)


def test_every_layout_is_described_there_and_named_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", TEXT, re.MULTILINE) == list(LAYOUTS)
    for name in set(LAYOUTS) - {"ran-deploy", "authors"}:  # there: this project's, the authors' Caffe names
        assert name in readme.replace("FaceX-Zoo", "facexzoo")


def test_the_cost_of_our_inception_units_is_the_one_stated():
    cost = cost_of(ARCHITECTURES["attentioninception-56"].design, 1000, (224, 224))
    stated = f"{cost.parameters / 1e6:.2f} M parameters and {cost.multiply_adds / 1e9:.2f} G multiply-adds"
    assert stated in " ".join(TEXT.split())


def test_the_commands_it_shows_name_networks_of_the_zoo():
    named = set(re.findall(r"--architecture ([a-z][\w-]+)", TEXT))
    assert named
    assert named <= set(ARCHITECTURES)
