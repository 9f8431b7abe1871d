from __future__ import annotations

import json


def test_doctor_lists_every_backend_of_the_bundle_with_its_state(call, demo):
    outcome = call("ran-doctor", demo.bundle, "--cache-dir", demo.cache)
    assert outcome.status == 0
    for line in ("openvino: proven", "onnxruntime: proven", "tensorrt: unavailable"):
        assert line in outcome.out.splitlines()


def test_doctor_gives_the_same_in_json(call, demo):
    report = json.loads(call("ran-doctor", demo.bundle, "--cache-dir", demo.cache, "--json").out)
    states = {each["backend"]: each["state"] for each in report["backends"]}
    assert states["onnxruntime"] == "proven"
    assert report["versions"]["python"]
    assert report["gpu"]


def test_doctor_judges_for_a_device_that_is_not_here(call, demo):
    outcome = call("ran-doctor", demo.bundle, "--for", "jetpack-6.2")
    assert outcome.status == 3
    assert f"  next: ran-build {demo.bundle} --backend tensorrt" in outcome.out.splitlines()
    assert call("ran-doctor", demo.bundle, "--for", "onnxruntime-1.32").status == 0
    old = json.loads(call("ran-doctor", demo.bundle, "--for", "tensorrt-8.5:sm87", "--json").out)
    assert old["backends"][0]["verdict"] == "impossible"


def test_doctor_refuses_an_unknown_target_and_what_is_no_bundle(call, demo, tmp_path):
    call("ran-doctor", demo.bundle, "--for", "jetpack-99").assert_refused("jetpack-6.2", "tensorrt-X.Y:smNN")
    call("ran-doctor", tmp_path).assert_refused("is no bundle")
