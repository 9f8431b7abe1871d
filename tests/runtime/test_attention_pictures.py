from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ran_deploy.errors import OutputError
from ran_deploy.overlays import attention_panels
from ran_deploy.preprocessing import ChannelOrder, Preprocessing
from ran_deploy.runtime.attention_pictures import AttentionPictures, picture_name
from ran_deploy.runtime.pipeline import Result

RECIPE = Preprocessing(crop=(8, 6), channel_order=ChannelOrder.BGR)


def result_of(rng, index: int = 0, name: str = "photo.jpg") -> Result:
    image = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    masks = {"stage1.module1": rng.random((4, 3), np.float32)}
    return Result(index=index, name=name, logits=np.zeros(3, np.float32), attention=masks, image=image)


def test_a_picture_is_a_png_of_the_image_in_rgb_and_its_masks(tmp_path, rng):
    result = result_of(rng)
    AttentionPictures(tmp_path / "new" / "folder", RECIPE).write(result)
    with Image.open(tmp_path / "new" / "folder" / "000001-photo.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), attention_panels(result.image[:, :, ::-1], result.attention))


def test_a_failed_result_has_no_picture(tmp_path):
    AttentionPictures(tmp_path, RECIPE).write(Result(index=0, name="broken.png", error="not an image"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("frames/a.b.jpeg", "000001-a.b.png"),
        ("../../etc/passwd", "000001-passwd.png"),
        ("batch.npy[12]", "000001-batch.npy_12.png"),
        ("\x1b[2J evil\n.png", "000001-2J_evil.png"),
        ("über größe.png", "000001-über_größe.png"),
        ("bytes\udcff.png", "000001-bytes.png"),
        ("...", "000001-....png"),
        ("???.png", "000001-image.png"),
        ("语" * 300 + ".png", f"000001-{'语' * 48}.png"),
    ],
)
def test_names_are_harmless_and_readable(name, expected, tmp_path, rng):
    assert picture_name(Result(index=0, name=name)) == expected
    AttentionPictures(tmp_path, RECIPE).write(result_of(rng, name=name))
    assert [path.name for path in tmp_path.iterdir()] == [expected]


def test_sources_of_one_name_have_pictures_of_their_own():
    names = [picture_name(Result(index=index, name="a/x.png")) for index in (0, 1, 1_234_566)]
    assert names == ["000001-x.png", "000002-x.png", "1234567-x.png"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot make the folder"):
        AttentionPictures(tmp_path / "file" / "below", RECIPE)
