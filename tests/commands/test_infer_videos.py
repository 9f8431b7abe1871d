"""ran-infer on videos and on a live stream that has no end."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ran_deploy.images import read_image


def test_a_video_gives_what_its_frames_give_as_images(call, demo, tmp_path):
    images = [read_image(path) for path in sorted(demo.images.glob("*.png"))]
    clip = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 10, images[0].shape[1::-1])
    assert clip.isOpened()
    for image in images:
        clip.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    clip.release()
    np.save(tmp_path / "frames.npy", np.stack(images))

    def labels(name: str, *options: str) -> list[str]:
        outcome = call("ran-infer", demo.bundle, tmp_path / name, "--json", "--cache-dir", demo.cache, *options)
        assert outcome.status == 0, outcome.err
        return [json.loads(line)["predictions"][0]["label"] for line in outcome.out.splitlines()]

    expected = labels("frames.npy")
    assert len(set(expected)) > 5
    assert labels("clip.avi") == expected
    assert labels("clip.avi", "--frame-stride", "3") == expected[::3]


class EndlessMjpeg(http.server.BaseHTTPRequestHandler):
    """A camera as many of them speak: one JPEG after the other until nobody listens. /stalled says no more after 60."""

    def do_GET(self) -> None:
        frame = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                self.wfile.write(head.encode() + frame + b"\r\n")
                if number == 60 and self.path.startswith("/stalled"):
                    self.connection.recv(1)  # until the other side ends
                time.sleep(0.005)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def inferring(demo, output: Path, name: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield a camera's address and ran-infer on it, once it has written results."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EndlessMjpeg) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{name}"
        command = [Path(sys.executable).parent / "ran-infer", demo.bundle, address, "--output", output]
        with subprocess.Popen(
            [*command, "--cache-dir", demo.cache],
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        ) as process:
            while process.poll() is None and not any(file.stat().st_size for file in output.parent.glob(".results*")):
                time.sleep(0.01)
            yield address, process
        server.shutdown()


def check_results(output: Path, address: str) -> None:
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows
    assert [row["source"] for row in rows] == [f"{address}[{number}]" for number in range(len(rows))]
    assert all(row["error"] is None for row in rows)


def test_an_interrupt_ends_a_live_stream_and_keeps_its_results(demo, tmp_path):
    output = tmp_path / "results.jsonl"
    with inferring(demo, output, "camera.mjpg") as (address, process):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    check_results(output, address)


def test_one_stop_that_arrives_twice_keeps_the_results(demo, tmp_path):
    """As timeout sends it, to the process and to its group; the camera says nothing meanwhile."""
    output = tmp_path / "results.jsonl"
    with inferring(demo, output, "stalled.mjpg") as (address, process):
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == "stopping: finishing what is in flight\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    check_results(output, address)
