"""Frames of videos and streams, written and served for real."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from ran_deploy.errors import ConfigError, InputError
from ran_deploy.runtime import videos
from ran_deploy.runtime.sources import expand_inputs
from ran_deploy.runtime.videos import is_video, read_frames, shown_name

FRAMES = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)


def flat(frame: np.ndarray) -> np.ndarray:
    """Return a frame of one colour, which video codecs keep."""
    return np.broadcast_to(frame[0, 0], frame.shape).copy()


def write_video(path: Path, code: str = "FFV1", frames: Sequence[np.ndarray] = tuple(map(flat, FRAMES))) -> Path:
    """Write RGB frames. FFV1 loses nothing but what colours in YUV do."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (64, 48))
    assert video.isOpened(), f"no encoder for {code}"
    for frame in frames:
        video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    video.release()
    return path


def far_off(frame: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(frame.astype(int) - flat(expected)).max())


@pytest.mark.parametrize(("name", "code"), [("clip.avi", "FFV1"), ("clip.mkv", "FFV1"), ("clip.mp4", "mp4v")])
def test_frames_come_in_order_as_rgb(tmp_path, name, code):
    found = list(read_frames(str(write_video(tmp_path / name, code))))
    assert [number for number, _ in found] == list(range(12))
    assert max(far_off(frame, FRAMES[number]) for number, frame in found) <= (4 if code == "FFV1" else 24)


def test_a_stride_takes_every_nth_frame_under_its_own_number(tmp_path):
    path = str(write_video(tmp_path / "clip.avi"))
    sources = list(expand_inputs([path], frame_stride=5))
    assert [source.name for source in sources] == [f"{path}[0]", f"{path}[5]", f"{path}[10]"]
    assert far_off(sources[1].load(), FRAMES[5]) <= 4


def test_a_path_will_do_and_a_stride_below_one_will_not(tmp_path):
    path = write_video(tmp_path / "clip.avi")
    assert [number for number, _ in read_frames(path, 4)] == [0, 4, 8]
    with pytest.raises(ConfigError, match="Every 0th frame was asked for; expected 1 for all"):
        next(read_frames(path, 0))


def test_videos_are_found_by_patterns_among_other_inputs(tmp_path):
    write_video(tmp_path / "b.avi")
    np.save(tmp_path / "a.npy", FRAMES[0])
    names = [source.name for source in expand_inputs([f"{tmp_path}/*.???"])]
    assert names == [f"{tmp_path}/a.npy", *(f"{tmp_path}/b.avi[{i}]" for i in range(12))]


@pytest.mark.parametrize("name", ["clip.MP4", "/dev/video0", "rtsp://camera/1", "http://host/live?id=1", "a/b.webm"])
def test_names_of_videos(name):
    assert is_video(name)


@pytest.mark.parametrize("name", ["clip.png", "dev/video0x", "mp4", "folder.mp4x", "rtsp/a.npy"])
def test_names_of_other_things(name):
    assert not is_video(name)


def broken(path: Path | str) -> str:
    *_, last = expand_inputs([str(path)])
    with pytest.raises(InputError) as caught:
        last.load()
    return str(caught.value)


def test_a_missing_file_is_one_broken_source(tmp_path):
    assert broken(tmp_path / "no.mp4") == f"{tmp_path}/no.mp4: cannot be read (No such file or directory)."


@pytest.mark.parametrize("name", ["day:1.avi", "concat:a.avi", "http:1.avi", "clip%03d.avi", "größe [1].avi"])
def test_no_name_of_a_file_is_taken_for_something_else(tmp_path, monkeypatch, name):
    write_video(tmp_path / "clip.avi").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert [number for number, _ in read_frames(name)] == list(range(12))


@pytest.mark.parametrize("name", ["clip-\udcff.avi", "http://localhost/clip-\udcff.avi"])
def test_a_name_that_is_no_unicode_is_one_broken_source(tmp_path, monkeypatch, name):
    write_video(tmp_path / "clip.avi").rename(tmp_path / "clip-\udcff.avi")
    monkeypatch.chdir(tmp_path)
    assert broken(name) == f"{name}: OpenCV opens only names in UTF-8. Rename it."


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_one_broken_source(tmp_path, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    assert broken(tmp_path / "bad.mp4").startswith(f"{tmp_path}/bad.mp4: not a video that OpenCV can decode")


class Unplugged:
    """A camera that gives two frames and then no more, as OpenCV shows one whose cable was pulled."""

    def __init__(self, name: str) -> None:
        self.left = 2

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, FRAMES[0]

    def get(self, prop: int) -> float:
        return -1.0

    def release(self) -> None:
        pass


def test_a_camera_that_gives_no_more_frames_is_an_error(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Unplugged)
    *frames, last = expand_inputs(["/dev/video0"])
    assert [source.name for source in frames] == ["/dev/video0[0]", "/dev/video0[1]"]
    with pytest.raises(InputError, match=r"^/dev/video0: gives no frame after 2 frames\. See that it is still"):
        last.load()


def test_what_is_no_camera_is_not_called_a_damaged_file(monkeypatch):
    monkeypatch.setattr(videos, "CAMERA", re.compile("/dev/zero"))  # a device that opens and has no video
    assert broken("/dev/zero").startswith("/dev/zero: no camera that OpenCV can use, or in use already; v4l2-ctl")


def test_frames_before_a_cut_are_done_and_the_cut_is_told(tmp_path):
    path = write_video(tmp_path / "clip.avi", frames=FRAMES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    *frames, _ = expand_inputs([str(path)])
    assert 5 < len(frames) < 9
    assert f"{path}: ends after {len(frames)} of 12 frames." in broken(path)


@contextlib.contextmanager
def serving(folder: Path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_stream_is_read_from_its_address(tmp_path):
    write_video(tmp_path / "clip.avi")
    with serving(tmp_path) as address:
        sources = list(expand_inputs([f"{address}/clip.avi?quality=[1]"]))
    assert len(sources) == 12
    assert far_off(sources[3].load(), FRAMES[3]) <= 4


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("rtsp://admin:p@ss:1@camera:554/live@2?id=a@b", "rtsp://camera:554/live@2?id=a@b"),
        ("HTTPS://token@host", "HTTPS://host"),
        ("rtsp://camera/user@1", "rtsp://camera/user@1"),
        ("http://camera/live?channel=2&user=a&pwd=secret#x", "http://camera/live?channel=2&user=***&pwd=***#x"),
        ("https://host/live?access_token=secret", "https://host/live?access_token=***"),
        ("clip?key=1.mp4", "clip?key=1.mp4"),
        ("a://user@b.mp4", "a://user@b.mp4"),  # no stream: a folder may be called so
    ],
)
def test_the_user_of_a_stream_is_not_shown(name, shown):
    assert shown_name(name) == shown


@pytest.mark.parametrize("file", ["clip.avi", "nothing.mp4"])
def test_the_password_of_a_stream_is_in_no_result(tmp_path, file):
    write_video(tmp_path / "clip.avi", frames=[flat(FRAMES[0])])
    with serving(tmp_path) as address:
        (source,) = expand_inputs([f"{address.replace('://', '://admin:secret@')}/{file}?token=secret"])
    told = source.name
    if file == "nothing.mp4":
        with pytest.raises(InputError) as caught:
            source.load()
        told += str(caught.value)
    assert told.startswith(f"{address}/{file}")
    assert "secret" not in told


def test_an_address_without_a_video_says_so(tmp_path):
    with serving(tmp_path) as address:
        (source,) = expand_inputs([f"{address}/nothing.mp4"])
        with pytest.raises(InputError, match=r"nothing\.mp4: no video comes from there; check the address"):
            source.load()
