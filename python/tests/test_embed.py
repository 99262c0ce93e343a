"""Features are computed once, survive what happens to processes and disks, and always belong to their pictures."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from photographs import draw, encode
from PIL import Image
from runs import start

from dogbreed.backbones import Weights
from dogbreed.config import EmbedConfig
from dogbreed.data import pictures
from dogbreed.data.dataset import Sample, open_dataset
from dogbreed.data.pictures import Preprocessing
from dogbreed.embed import CHUNK, Features, embed, embed_views
from dogbreed.errors import DogbreedError
from dogbreed.extractor import Extractor, FloatArray, Runtime
from dogbreed.files import cache_dir

TINY = Preprocessing(16, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)


@dataclasses.dataclass(frozen=True)
class Tiny(Extractor):
    """Features by averaging 4 × 4 fields; counts the pictures it has seen and can be told to do more."""

    seen: list[int] = dataclasses.field(default_factory=list)
    before: Callable[[], object] = lambda: None

    @cached_property
    def runtime(self) -> Runtime:
        def run(pixels: pictures.Pixels) -> FloatArray:
            if pixels.any():  # not the empty picture that the number of features is found with
                self.before()
                self.seen.append(len(pixels))
            return pixels.reshape(len(pixels), 4, 4, 4, 4, 3).mean((2, 4), dtype=np.float32).reshape(len(pixels), 48)

        return run


def tiny(before: Callable[[], object] = lambda: None, **changes: object) -> Tiny:
    def build() -> None:
        raise AssertionError("there is no network")

    extractor = Tiny(EmbedConfig(), TINY, Weights("random", None, "0" * 64), build, before=before)
    return dataclasses.replace(extractor, **changes)


def write_many(folder: Path, count: int) -> list[Sample]:
    """Small pictures in one folder, labelled 0, 1, 2, 0, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(1, 256, (16, 16, 3), dtype=np.uint8)
        (folder / f"{i:04}.png").write_bytes(encode(Image.fromarray(noise), "PNG"))
    return samples_in(folder)


def samples_in(folder: Path) -> list[Sample]:
    return [Sample(path, i % 3) for i, path in enumerate(sorted(folder.glob("*.png")))]


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return write_many(tmp_path / "pictures", 50)


def expected(paths: tuple[Path, ...]) -> FloatArray:
    pixels = np.stack([pictures.decode_file(path, TINY) for path in paths])
    return tiny()(pixels)


def files_of(cache: Path) -> set[str]:
    return {p.name for p in cache.rglob("*") if p.is_file() and not p.name.startswith(".")}


def test_rows_labels_and_paths_belong_together(samples: list[Sample]) -> None:
    features = embed(samples[::-1], tiny())
    assert features.paths == tuple(s.path for s in samples[::-1])
    assert features.labels.tolist() == [s.class_index for s in samples[::-1]] and features.labels.dtype == np.int64
    assert features.matrix.dtype == np.float32 and np.array_equal(features.matrix, expected(features.paths))
    assert len(features) == 50 and features.skipped == ()


def test_features_are_computed_once(samples: list[Sample]) -> None:
    first, second = tiny(), tiny()
    computed, cached = embed(samples, first), embed(samples, second)
    assert sum(first.seen) == 50 and second.seen == []
    assert computed.seconds > 0 and cached.seconds == 0
    assert np.array_equal(cached.matrix, computed.matrix) and cached.key == computed.key


def test_the_matrix_stays_on_disk(samples: list[Sample]) -> None:
    assert isinstance(embed(samples, tiny()).matrix, np.memmap)


CHANGES: dict[str, Callable[[Tiny], Tiny]] = {
    "backbone": lambda e: dataclasses.replace(e, config=EmbedConfig(backbone="resnet18")),
    "weights": lambda e: dataclasses.replace(e, weights=Weights("random", None, "1" * 64)),
    "precision": lambda e: dataclasses.replace(e, config=EmbedConfig(precision="bf16")),
    "preprocessing": lambda e: dataclasses.replace(e, preprocessing=dataclasses.replace(TINY, resize_px=20)),
    "mean": lambda e: dataclasses.replace(e, preprocessing=dataclasses.replace(TINY, mean=(0.1, 0.2, 0.3))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_network_has_features_of_its_own(samples: list[Sample], change: str) -> None:
    before = embed(samples, tiny())
    changed = CHANGES[change](tiny())
    assert embed(samples, changed).key != before.key
    assert sum(changed.seen) == 50


def test_another_decoder_or_view_has_features_of_its_own(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {embed(samples, tiny(), view=view).key for view in ("plain", "flip", "crop1")}
    monkeypatch.setattr(pictures, "DECODER_VERSION", pictures.DECODER_VERSION + 1)
    extractor = tiny()
    keys.add(embed(samples, extractor).key)
    assert len(keys) == 4 and sum(extractor.seen) == 50


def test_names_times_and_order_of_the_pictures_do_not_matter(samples: list[Sample], tmp_path: Path) -> None:
    first = embed(samples, tiny())
    moved = tmp_path / "elsewhere"
    shutil.move(samples[0].path.parent, moved)
    for path in moved.iterdir():
        path.rename(moved / f"x{path.name}")
        os.utime(moved / f"x{path.name}", (1, 1))
    again = tiny()
    features = embed(samples_in(moved), again)
    assert features.key == first.key and features.paths[0] == moved / "x0000.png"
    backwards = embed(samples_in(moved)[::-1], again)
    assert again.seen == [] and np.array_equal(backwards.matrix, first.matrix[::-1])


def test_a_changed_picture_gets_new_features(samples: list[Sample]) -> None:
    embed(samples, tiny())
    samples[7].path.write_bytes(samples[8].path.read_bytes() + b"\0")
    again = tiny()
    features = embed(samples, again)
    assert sum(again.seen) == 1 and np.array_equal(features.matrix, expected(features.paths))


def test_added_pictures_cost_only_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(write_many(tmp_path / "pictures", 40), tiny())
    more = write_many(tmp_path / "pictures", 50)
    decoded: list[str] = []
    decode_file = pictures.decode_file
    monkeypatch.setattr(
        "dogbreed.embed.decode_file", lambda path, *a, **k: (decoded.append(path.name), decode_file(path, *a, **k))[1]
    )
    extractor = tiny()
    features = embed(more, extractor)
    assert sum(extractor.seen) == 10 and sorted(decoded) == [f"{i:04}.png" for i in range(40, 50)]
    assert np.array_equal(features.matrix, expected(features.paths))


def test_broken_pictures_are_left_out_and_named(samples: list[Sample]) -> None:
    whole = samples[3].path.read_bytes()
    samples[3].path.write_bytes(whole[: len(whole) // 2])
    samples[20].path.write_bytes(b"")
    samples[21].path.unlink()
    for _ in range(2):  # computed, and from the cache
        features = embed(samples, tiny())
        assert len(features) == 47 == len(features.matrix) == len(features.labels)
        assert [s.path.name for s in features.skipped] == ["0003.png", "0020.png", "0021.png"]
        assert "truncated" in features.skipped[0].reason and features.skipped[1].reason == "the file is empty"
        assert "No such file" in features.skipped[2].reason
        assert features.labels.tolist() == [i % 3 for i in range(50) if i not in (3, 20, 21)]
        assert np.array_equal(features.matrix, expected(features.paths))


def test_a_set_without_a_usable_picture_is_an_error(samples: list[Sample]) -> None:
    for sample in samples:
        sample.path.write_bytes(b"not a picture")
    with pytest.raises(DogbreedError, match=r"None of the 50 pictures can be used \(0000.png: .*dogbreed data check"):
        embed(samples, tiny())


def test_views_are_rows_with_the_labels_of_their_pictures(samples: list[Sample]) -> None:
    features = embed_views(samples, tiny(), ("plain", "flip"), title="Embedding")
    fields = features.matrix.reshape(2, 50, 4, 4, 3)
    assert np.allclose(fields[1], fields[0][:, :, ::-1], atol=1e-3)
    assert features.labels.tolist() == [i % 3 for i in range(50)] * 2 and features.paths[:50] == features.paths[50:]


# ------------------------------------------------------------------------------------------------ kills and crowds


def slowly(folder: str, hang: bool) -> None:
    """What the processes below run: 20 batches a second; if so wished, for ever after the first mark of progress."""

    def before() -> None:
        time.sleep(0.05)
        while hang and list(cache_dir().rglob("done.bin")):
            time.sleep(1)

    extractor = tiny(before)
    embed(samples_in(Path(folder)), extractor)
    print(sum(extractor.seen))


def start_slowly(folder: Path, *, hang: bool = False) -> subprocess.Popen[str]:
    code = f"import test_embed; test_embed.slowly({str(folder)!r}, {hang})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_computation_goes_on_where_it_was(tmp_path: Path, cache: Path) -> None:
    samples = write_many(tmp_path / "pictures", CHUNK + 150)
    samples[5].path.write_bytes(b"broken")
    process = start_slowly(tmp_path / "pictures", hang=True)
    wait_for(lambda: list(cache.rglob("done.bin")), process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert "meta.json" not in files_of(cache)  # nothing that looks finished

    extractor = tiny()
    features = embed(samples, extractor)
    assert sum(extractor.seen) == 150
    uninterrupted = embed(samples, tiny(), cache=tmp_path / "other cache")
    assert features.matrix.tobytes() == uninterrupted.matrix.tobytes()
    assert [s.path for s in features.skipped] == [s.path for s in uninterrupted.skipped] == [samples[5].path]
    assert files_of(cache) == {"extractor.json", "meta.json", "digests.bin", "features.npy"}
    assert not list(cache.rglob("*.partial"))


def test_a_kill_before_the_first_mark_leaves_nothing_in_the_way(samples: list[Sample], cache: Path) -> None:
    embed(samples, tiny())
    (finished,) = (path.parent for path in cache.rglob("meta.json"))
    shutil.rmtree(finished)
    partial = finished.with_name(finished.name + ".partial")
    partial.mkdir()
    (partial / "features.npy").touch()  # opened, and then the process was gone
    assert np.array_equal(embed(samples, tiny()).matrix, expected(tuple(s.path for s in samples)))


def test_two_processes_do_the_work_once(tmp_path: Path) -> None:
    write_many(tmp_path / "pictures", 200)
    processes = [start_slowly(tmp_path / "pictures") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(int(out) for out, _ in outputs) == [0, 200]


def dogbreed(*arguments: object) -> subprocess.Popen[str]:
    return start("-m", "dogbreed", *map(str, arguments))


def test_ctrl_c_ends_in_one_line_and_130(photos: Path, cache: Path) -> None:
    process = dogbreed("embed", photos)
    wait_for(lambda: list(cache.rglob("*.partial")), process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines() == ["error: Stopped. What was done is kept: run the same command again to go on."]
    assert "meta.json" not in files_of(cache)


# ------------------------------------------------------------------------------------------------ disks and caches


def fill(disk: Path) -> Path:
    """Leaves nothing free; returns the file that took it."""
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"\0" * 4096)
    return disk / "filler"


def test_a_disk_that_is_too_small_is_noticed_at_the_start(tmp_path: Path, small_disk: Path) -> None:
    many = write_many(tmp_path / "pictures", 50) * 200
    with pytest.raises(DogbreedError, match=r"The features need 2 MB but .* has 1 MB left.*DOGBREED_CACHE"):
        embed(many, tiny(), cache=small_disk)
    assert "meta.json" not in files_of(small_disk)


def test_a_disk_that_fills_up_on_the_way_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    samples = write_many(tmp_path / "pictures", 200)
    with pytest.raises(OSError) as caught:
        embed(samples, tiny(before=lambda: fill(small_disk)), cache=small_disk)
    assert caught.value.errno == errno.ENOSPC
    assert "meta.json" not in files_of(small_disk)
    (small_disk / "filler").unlink()
    features = embed(samples, tiny(), cache=small_disk)
    assert np.array_equal(features.matrix, expected(features.paths))


def test_a_full_disk_is_one_clear_line(photos: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOGBREED_CACHE", str(small_disk))
    fill(small_disk)
    process = dogbreed("embed", photos)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(error.splitlines()) == 1 and error.startswith("error: The disk is full"), error
    assert files_of(small_disk) == {"filler"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("features.npy", b""),
        ("features.npy", b"\x93NUMPY garbage"),
        ("meta.json", b"{"),
        ("meta.json", b'{"format": 99, "rows": 50, "feature_size": 48, "skipped": {}}'),
        ("meta.json", b'{"format": 1, "rows": 51, "feature_size": 48, "skipped": {}}'),
        ("meta.json", b"[]"),
    ],
)
def test_a_damaged_cache_is_named_with_its_remedy(
    samples: list[Sample], cache: Path, file: str, content: bytes
) -> None:
    embed(samples, tiny())
    (path,) = cache.rglob(file)
    path.write_bytes(content)
    with pytest.raises(DogbreedError) as caught:
        embed(samples, tiny())
    assert f"rm -r '{path.parent}'" in caught.value.fix and "\n" not in str(caught.value)
    shutil.rmtree(path.parent)  # the remedy
    assert len(embed(samples, tiny())) == 50


def test_a_cache_of_another_version_says_so(samples: list[Sample], cache: Path) -> None:
    embed(samples, tiny())
    (path,) = cache.rglob("meta.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(DogbreedError, match="it has format 99, this version reads 1"):
        embed(samples, tiny())


def test_a_cache_that_lost_a_file_is_made_again(samples: list[Sample], cache: Path) -> None:
    embed(samples, tiny())
    next(cache.rglob("meta.json")).unlink()
    assert len(embed(samples, tiny())) == 50


def test_a_damaged_neighbour_does_not_get_in_the_way(tmp_path: Path, cache: Path) -> None:
    embed(write_many(tmp_path / "pictures", 40), tiny())
    next(cache.rglob("features.npy")).write_bytes(b"")
    features = embed(write_many(tmp_path / "pictures", 50), tiny())
    assert np.array_equal(features.matrix, expected(features.paths))


def test_the_photographs_of_a_data_set_are_embedded(photos: Path, shared_cache: Path) -> None:
    dataset = open_dataset(photos)
    features: Features = embed(dataset.split("valid"), Extractor.create(EmbedConfig()))
    assert features.matrix.shape == (16, 1280) and features.labels.tolist() == [i // 4 for i in range(16)]
    lengths = np.linalg.norm(features.matrix, axis=1)
    alike = (features.matrix @ features.matrix.T) / np.outer(lengths, lengths)
    same = features.labels[:, None] == features.labels[None]
    assert alike[same].mean() > alike[~same].mean() + 0.1  # they tell the classes apart


def test_a_picture_in_two_classes_has_two_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(draw(0, 0)))
    features = embed([Sample(path, 0), Sample(path, 1)], tiny())
    assert features.labels.tolist() == [0, 1] and np.array_equal(features.matrix[0], features.matrix[1])
