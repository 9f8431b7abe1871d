from __future__ import annotations

from pathlib import Path

from ran_deploy.cache import CachedEngine, EngineCache, default_cache_dir
from ran_deploy.manifest import BatchProfile

BLOB = CachedEngine(data=b"blob", batch=BatchProfile(maximum=3, optimum=2), proven=True)
HERE = {"openvino": "2026.4", "cpu": "zen4"}


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


def test_a_cache_that_cannot_be_written_only_warns(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert EngineCache(tmp_path / "file", "digest").put("openvino", HERE, BLOB) is None
    assert "not kept" in caplog.text


def test_the_default_folder_follows_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/ran-deploy")
