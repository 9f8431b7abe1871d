"""ran-infer on videos and on a live stream that has no end."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
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
    """A camera as many of them speak: one JPEG after the other until nobody listens."""

    def do_GET(self) -> None:
        frame = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                self.wfile.write(head.encode() + frame + b"\r\n")
                time.sleep(0.005)

    def log_message(self, *arguments: object) -> None:
        pass


def test_an_interrupt_ends_a_live_stream_and_keeps_its_results(demo, tmp_path):
    output = tmp_path / "results.jsonl"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EndlessMjpeg) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/camera.mjpg"
        command = [Path(sys.executable).parent / "ran-infer", demo.bundle, address, "--output", output]
        with subprocess.Popen(
            [*command, "--cache-dir", demo.cache],
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        ) as process:
            while process.poll() is None and not any(file.stat().st_size for file in tmp_path.glob(".results*")):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        server.shutdown()
    assert process.returncode == 130, errors
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows
    assert [row["source"] for row in rows] == [f"{address}[{number}]" for number in range(len(rows))]
    assert all(row["error"] is None for row in rows)
