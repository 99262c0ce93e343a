"""One decoder for everything: any picture a person has gives sensible pixels, anything else a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import draw, encode
from PIL import Image, ImageFile, ImageFilter

from dogbreed.backbones import preprocessing_of
from dogbreed.data.pictures import VIEWS, BadPicture, Preprocessing, decode, decode_file, open_picture

SMALL = Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.5,) * 3)
RED, BLUE = (220, 30, 40), (20, 40, 200)


def two_halves(mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture.convert(mode)


def colour(pixels: np.ndarray, x: int, y: int = 16) -> tuple[int, ...]:
    return tuple(int(v) for v in pixels[y, x])


def test_transparency_shows_white() -> None:
    rgba = two_halves("RGBA")
    rgba.putalpha(Image.fromarray(np.repeat(np.uint8([[255, 0]]), 32, axis=1).repeat(64, axis=0)))
    pixels = decode(encode(rgba, "PNG"), SMALL)
    assert pixels.shape == (32, 32, 3)
    assert colour(pixels, 5) == RED and colour(pixels, 27) == (255, 255, 255)


def test_half_transparent_grey_is_mixed_with_white() -> None:
    pixels = decode(encode(Image.new("LA", (64, 64), (100, 128)), "PNG"), SMALL)
    assert colour(pixels, 16) == pytest.approx((177,) * 3, abs=1)


def test_a_transparent_palette_colour_shows_white() -> None:
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([*RED, *BLUE])
    palette.paste(1, (32, 0, 64, 64))
    pixels = decode(encode(palette, "PNG", transparency=1), SMALL)
    assert colour(pixels, 5) == RED and colour(pixels, 27) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "value"), [("L", 90), ("1", 1)])
def test_greyscale_gives_three_equal_channels(mode: str, value: int) -> None:
    pixels = decode(encode(Image.new(mode, (40, 64), value), "PNG"), SMALL)
    assert colour(pixels, 16) == (90 if mode == "L" else 255,) * 3


def test_16_bit_greyscale_is_scaled_rather_than_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    pixels = decode(encode(Image.fromarray(ramp), "PNG"), SMALL)
    assert np.abs(pixels[16, :, 0] - np.linspace(0, 255, 32)).max() < 8


def test_a_dark_16_bit_picture_stays_dark() -> None:
    dark = Image.fromarray(np.full((64, 64), 6553, np.uint16))
    assert colour(decode(encode(dark, "PNG"), SMALL), 16) == pytest.approx((25,) * 3, abs=1)


def test_cmyk_looks_like_the_picture_it_was() -> None:
    pixels = decode(encode(two_halves("CMYK"), "JPEG", quality=95), SMALL)
    assert colour(pixels, 5) == pytest.approx(RED, abs=12) and colour(pixels, 27) == pytest.approx(BLUE, abs=12)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: left becomes top
    pixels = decode(encode(two_halves(size=(96, 64)), "JPEG", exif=exif, quality=95), SMALL)
    assert colour(pixels, 16, 3) == pytest.approx(RED, abs=12) and colour(pixels, 16, 29) == pytest.approx(BLUE, abs=12)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (64, 64), c) for c in (RED, BLUE)]
    pixels = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50), SMALL)
    assert colour(pixels, 16) == pytest.approx(RED, abs=4)


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "PNG", "GIF"])
def test_every_usual_format_is_read(kind: str) -> None:
    pixels = decode(encode(two_halves(), kind), SMALL)
    assert colour(pixels, 5) == pytest.approx(RED, abs=12) and colour(pixels, 27) == pytest.approx(BLUE, abs=12)


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(two_halves(), "PNG"))
    assert colour(decode_file(path, SMALL), 5) == RED


# ------------------------------------------------------------------------------------------------ bad pictures


def a_bomb() -> bytes:
    """A PNG of 60,000 × 60,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(draw(0, 0))[:-4000], "truncated"),
        (b"", "the file is empty"),
        (b"<html>Not found</html>", "not a picture in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a known format"),
        (a_bomb(), "more than 64 million pixels"),
    ],
    ids=["truncated", "empty", "web page", "a format out of reach", "bomb"],
)
def test_a_bad_picture_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadPicture, match=reason):
        decode(data, SMALL)


def test_a_file_that_cannot_be_read_is_a_bad_picture(tmp_path: Path) -> None:
    with pytest.raises(BadPicture, match="cannot be read"):
        decode_file(tmp_path / "gone.jpg", SMALL)
    with pytest.raises(BadPicture, match="cannot be read"):
        decode_file(tmp_path, SMALL)


def test_an_endless_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(BadPicture, match="larger than 64 MiB"):
        decode_file(path, SMALL)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(BadPicture):
        decode(data, SMALL)


SEEDS = [
    encode(two_halves(), "JPEG"),
    encode(two_halves(), "PNG"),
    encode(two_halves(), "WEBP"),
    encode(two_halves(), "GIF"),
    encode(two_halves(), "TIFF", compression="tiff_lzw"),
]


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12), st.data())
def test_a_damaged_picture_is_decoded_or_refused(
    seed: bytes, changes: list[tuple[int, int]], more: st.DataObject
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    cut = more.draw(st.integers(0, len(data)))
    try:
        assert decode(bytes(data[: cut or None]), SMALL).shape == (32, 32, 3)
    except BadPicture as error:
        assert "\n" not in str(error)


# ------------------------------------------------------------------------------------------------ the right pixels


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0"])  # bilinear and bicubic
@pytest.mark.parametrize(("size", "levels"), [((450, 300), 1), ((300, 450), 1), ((500, 375), 3)])
def test_pixels_are_those_of_the_backbones_own_transforms(name: str, size: tuple[int, int], levels: float) -> None:
    """To rounding, or (where torchvision rounds the scaled size) to half a pixel."""
    import torchvision

    picture = draw(3, 1, size=size).filter(ImageFilter.GaussianBlur(1))  # as lenses do
    own = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()
    mean, std = (np.array(v)[:, None, None] for v in (own.mean, own.std))
    wanted = ((own(picture).numpy() * std + mean) * 255).transpose(1, 2, 0)
    pixels = decode(encode(picture, "PNG"), preprocessing_of(name))
    assert pixels.shape == wanted.shape
    assert np.abs(pixels - wanted).mean() < levels


@pytest.mark.parametrize("size", [(3000, 2000), (1500, 2400)])
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    load = ImageFile.ImageFile.load

    def watched(self: ImageFile.ImageFile) -> object:
        decoded.append(self.size)
        return load(self)

    picture = draw(3, 2, size=(size[0] // 5, size[1] // 5)).resize(size, Image.Resampling.BICUBIC)
    preprocessing = preprocessing_of("resnet50")
    data = encode(picture, "JPEG", quality=90)
    full = decode(encode(Image.open(io.BytesIO(data)), "BMP"), preprocessing)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", watched)
    small = decode(data, preprocessing)
    assert decoded and max(decoded[0]) <= max(size) / 2
    assert min(decoded[0]) >= preprocessing.resize_px  # never enlarged again
    assert np.abs(small.astype(int) - full).mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_large_picture_of_another_format_is_reduced_and_looks_the_same(kind: str, mode: str) -> None:
    """Turned by its EXIF and with a transparent corner, since these are what a reduction could lose."""
    picture = draw(3, 2, size=(400, 300)).resize((1600, 1200), Image.Resampling.BICUBIC).convert(mode)
    if mode == "RGBA":
        picture.paste((0, 0, 0, 0), (500, 200, 800, 600))
    exif = Image.Exif()
    exif[0x0112] = 6
    preprocessing = preprocessing_of("resnet50")
    reduced = decode(encode(picture, kind, exif=exif, lossless=True), preprocessing)
    upright = picture.convert("RGBA").transpose(Image.Transpose.ROTATE_270)
    flat = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    size = preprocessing.crop_px
    left, top = (1200 - 1200 * 224 / 256) / 2, (1600 - 1200 * 224 / 256) / 2
    box = (left, top, 1200 - left, 1600 - top)
    full = np.asarray(flat.resize((size, size), Image.Resampling.BILINEAR, box=box)).astype(int)
    assert np.abs(reduced - full).mean() < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (31, 33)])
def test_tiny_and_narrow_pictures_fill_the_crop(size: tuple[int, int]) -> None:
    for view in VIEWS:
        assert decode(encode(Image.new("RGB", size, RED), "PNG"), SMALL, view)[16, 16].tolist() == list(RED)


def test_the_flipped_view_is_the_mirror_image() -> None:
    data = encode(draw(0, 1))
    assert np.array_equal(decode(data, SMALL, "flip"), decode(data, SMALL)[:, ::-1])


def test_crops_follow_the_seed_and_differ_between_views() -> None:
    data = encode(draw(1, 1))
    crops = {view: decode(data, SMALL, view, seed=7) for view in ("plain", "crop1", "crop2", "crop3")}
    assert all(np.array_equal(pixels, decode(data, SMALL, view, seed=7)) for view, pixels in crops.items())
    assert len({pixels.tobytes() for pixels in crops.values()}) == len(crops)
    assert not np.array_equal(crops["crop1"], decode(data, SMALL, "crop1", seed=8))


def test_a_picture_is_identified_without_decoding_it() -> None:
    assert open_picture(encode(draw(0, 0))[:2000]).size == (320, 260)
