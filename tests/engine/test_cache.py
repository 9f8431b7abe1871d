from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ran_deploy.engine.cache import CachedEngine, EngineCache, default_cache_dir
from ran_deploy.engine.padding import Padding
from ran_deploy.manifest import BatchProfile

HERE = {"openvino": "2026.4", "cpu": "zen4"}
BLOB = CachedEngine(data=b"blob", batch=BatchProfile(maximum=3, optimum=2), required=HERE, proven=True)
ORIN = {"tensorrt": "10.3.0", "platform": "Linux aarch64", "GPU": "Orin", "compute capability": "8.7"}
PLAN = CachedEngine(data=b"plan", batch=BatchProfile(), required=ORIN, proven=True)
WIDE = replace(
    PLAN,
    data=b"wide",
    required={"tensorrt": ">=10.3.0,<11", "platform": "Linux aarch64", "compute capability": ">=8.0"},
)


def test_an_engine_is_found_again_on_the_same_device_only(tmp_path):
    cache = EngineCache(tmp_path, "digest")
    assert cache.get("openvino", HERE) is None
    cache.put("openvino", HERE, BLOB)
    assert cache.get("openvino", dict(reversed(HERE.items()))) == BLOB
    assert cache.get("openvino", {**HERE, "cpu": "other"}) is None
    assert cache.get("onnxruntime", HERE) is None
    assert EngineCache(tmp_path, "other bundle").get("openvino", HERE) is None


def test_a_damaged_entry_is_a_miss_with_a_warning(tmp_path, caplog):
    cache = EngineCache(tmp_path, "digest")
    folder = cache.put("openvino", HERE, BLOB)
    (folder / "engine.plan").write_bytes(b"blow")
    assert cache.get("openvino", HERE) is None
    (folder / "entry.json").write_text("{")
    assert cache.get("openvino", HERE) is None
    assert len(caplog.records) == 2


def test_a_compatible_engine_is_found_by_every_device_that_meets_it(tmp_path):
    cache = EngineCache(tmp_path, "digest")
    cache.put("tensorrt", ORIN, WIDE)
    assert cache.get("tensorrt", ORIN) == WIDE
    updated = {**ORIN, "tensorrt": "10.16.2"}
    assert cache.get("tensorrt", updated) == replace(WIDE, proven=False)
    assert cache.get("tensorrt", {**updated, "GPU": "GH200", "compute capability": "9.0"}) is not None
    assert cache.get("tensorrt", {**ORIN, "tensorrt": "10.2.9"}) is None
    assert cache.get("tensorrt", {**ORIN, "tensorrt": "11.0.0"}) is None
    assert cache.get("tensorrt", {**ORIN, "platform": "Linux x86_64"}) is None
    assert cache.get("tensorrt-rtx", {"tensorrt_rtx": "1.7.1", "platform": "Linux aarch64"}) is None


def test_a_proof_counts_on_the_very_device_and_is_kept_when_another_adds_its_own(tmp_path):
    cache, updated = EngineCache(tmp_path, "digest"), {**ORIN, "tensorrt": "10.16.2"}
    cache.put("tensorrt", ORIN, WIDE)
    cache.put("tensorrt", updated, WIDE)
    assert cache.get("tensorrt", ORIN).proven
    assert cache.get("tensorrt", updated).proven
    cache.put("tensorrt", ORIN, replace(WIDE, data=b"built again"))
    assert not cache.get("tensorrt", updated).proven


def test_the_engine_of_this_very_device_comes_first_and_a_compatible_one_replaces_it(tmp_path):
    cache = EngineCache(tmp_path, "digest")
    cache.put("tensorrt", ORIN, WIDE)
    cache.put("tensorrt", ORIN, PLAN)
    assert cache.get("tensorrt", ORIN) == PLAN
    cache.put("tensorrt", ORIN, WIDE)
    assert cache.get("tensorrt", ORIN) == WIDE


def test_an_engine_for_several_versions_brings_code(tmp_path):
    assert WIDE.traits.host_code
    assert not PLAN.traits.host_code
    assert not replace(PLAN, required={**ORIN, "compute capability": ">=8.0"}).traits.host_code
    assert not BLOB.traits.host_code


def test_an_engine_without_weights_comes_with_the_very_graph_it_was_built_from(tmp_path, caplog):
    cache, stripped = EngineCache(tmp_path, "digest"), replace(PLAN, refit_from=b"graph")
    folder = cache.put("tensorrt", ORIN, stripped)
    assert cache.get("tensorrt", ORIN, lambda: b"graph") == stripped
    assert json.loads((folder / "entry.json").read_text())["graph_sha256"] == hashlib.sha256(b"graph").hexdigest()
    assert cache.get("tensorrt", ORIN, lambda: b"another graph") is None
    assert "it was built from another graph" in caplog.text
    assert cache.get("tensorrt", ORIN) is None  # who has no graph cannot use it


def test_a_graph_is_read_for_engines_without_weights_alone(tmp_path):
    def never() -> bytes:
        raise AssertionError("read")

    cache = EngineCache(tmp_path, "digest")
    folder = cache.put("tensorrt", ORIN, PLAN)
    entry = json.loads((folder / "entry.json").read_text())
    assert entry.pop("graph_sha256") is None
    assert entry.pop("padding") == []
    (folder / "entry.json").write_text(json.dumps(entry))  # as earlier releases wrote it
    assert cache.get("tensorrt", ORIN, never) == PLAN


@pytest.mark.parametrize("other", [{"refit_from": b"another graph"}, {"padding": (Padding(least=5, size=8),)}])
def test_a_proof_is_of_the_engine_with_its_graph_and_its_padding(tmp_path, other):
    cache, updated = EngineCache(tmp_path, "digest"), {**ORIN, "tensorrt": "10.16.2"}
    engine = replace(WIDE, refit_from=b"graph")
    cache.put("tensorrt", updated, engine)
    cache.put("tensorrt", ORIN, engine)
    assert cache.get("tensorrt", updated, lambda: b"graph").proven
    changed = replace(engine, **other)
    cache.put("tensorrt", ORIN, changed)
    assert not cache.get("tensorrt", updated, lambda: changed.refit_from).proven


def test_what_is_padded_is_kept_with_the_engine(tmp_path):
    cache, padded = EngineCache(tmp_path, "digest"), replace(PLAN, padding=(Padding(least=3, size=4),))
    cache.put("tensorrt", ORIN, padded)
    found = cache.get("tensorrt", ORIN)
    assert found == padded
    assert found.traits.padding == padded.padding


def test_an_entry_of_an_earlier_release_is_proven_anew(tmp_path):
    cache = EngineCache(tmp_path, "digest")
    folder = cache.put("tensorrt", ORIN, PLAN)
    entry = json.loads((folder / "entry.json").read_text())
    del entry["proven_on"]
    (folder / "entry.json").write_text(json.dumps({**entry, "proven": True}))
    assert cache.get("tensorrt", ORIN) == replace(PLAN, proven=False)


def test_a_cache_that_cannot_be_written_only_warns(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert EngineCache(tmp_path / "file", "digest").put("openvino", HERE, BLOB) is None
    assert "not kept" in caplog.text


def test_the_default_folder_follows_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/ran-deploy")


def test_the_engine_for_dla_and_that_of_the_gpu_leave_each_other_in_place(tmp_path):
    on_dla = {**ORIN, "accelerator": "DLA"}
    dla = replace(PLAN, data=b"for DLA", required=on_dla, half_pixel=True)
    cache = EngineCache(tmp_path, "digest")
    assert cache.put("tensorrt", ORIN, PLAN) != cache.put("tensorrt", on_dla, dla)
    assert cache.get("tensorrt", ORIN) == PLAN
    assert cache.get("tensorrt", on_dla) == dla


@pytest.mark.parametrize("stored", [PLAN, WIDE])
def test_an_engine_of_the_gpu_never_stands_for_the_one_for_dla_nor_the_reverse(tmp_path, stored):
    on_dla = {**ORIN, "accelerator": "DLA"}
    cache, other = EngineCache(tmp_path, "digest"), EngineCache(tmp_path, "other")
    cache.put("tensorrt", ORIN, stored)
    assert cache.get("tensorrt", ORIN) == stored
    assert cache.get("tensorrt", on_dla) is None
    other.put("tensorrt", on_dla, replace(stored, required={**stored.required, "accelerator": "DLA"}))
    assert other.get("tensorrt", on_dla) is not None
    assert other.get("tensorrt", ORIN) is None


def test_an_entry_from_before_half_pixels_is_of_the_network_itself(tmp_path):
    cache = EngineCache(tmp_path, "digest")
    folder = cache.put("tensorrt", ORIN, PLAN)
    entry = json.loads((folder / "entry.json").read_text())
    assert entry.pop("half_pixel") is False
    (folder / "entry.json").write_text(json.dumps(entry))
    assert cache.get("tensorrt", ORIN) == PLAN


def test_only_what_this_device_could_use_deserves_a_warning(tmp_path, caplog):
    cache, thor = EngineCache(tmp_path, "digest"), {**ORIN, "GPU": "Thor", "compute capability": "11.0"}
    foreign = cache.put("tensorrt", thor, replace(PLAN, required=thor))
    (foreign / "engine.plan").write_bytes(b"damaged")
    assert cache.get("tensorrt", ORIN) is None
    (foreign / "entry.json").write_text("{")
    assert cache.get("tensorrt", ORIN) is None
    assert caplog.records == []
    wide = cache.put("tensorrt", ORIN, WIDE)
    (wide / "engine.plan").write_bytes(b"damaged")
    assert cache.get("tensorrt", ORIN) is None
    assert f"ignoring the damaged cache entry {wide} (its sha256 differs)" in caplog.text
