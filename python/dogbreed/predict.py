"""Predictions for files, folders and addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogbreed.cpu import cpu_count
from dogbreed.data.dataset import list_pictures
from dogbreed.data.pictures import MAX_BYTES, BadPicture, Pixels, decode
from dogbreed.errors import DogbreedError
from dogbreed.extractor import BATCH_SIZE
from dogbreed.model import Answer, Model
from dogbreed.webfetch import Refused, fetch_url


@dataclass(frozen=True)
class Prediction:
    """The answer for one source, or why there is none."""

    source: str
    answer: Answer | None = None
    error: str | None = None

    def as_dict(self, breeds: tuple[str, ...], top_k: int) -> dict[str, Any]:
        """As `dogbreed predict --json` prints it."""
        if self.answer is None:
            return {"file": self.source, "predictions": [], "error": self.error}
        return {
            "file": self.source,
            "predictions": self.answer.predictions(breeds, top_k),
            "rejected": self.answer.rejected,
            "rejection_score": self.answer.rejection_score,
        }


def expand(sources: Sequence[str]) -> list[str]:
    """Files and addresses as they are, folders as the pictures in them.

    Raises:
        DogbreedError: a path that does not exist, or a folder without pictures.
    """
    found: list[str] = []
    for source in sources:
        if source.startswith(("http://", "https://")):
            found.append(source)
            continue
        path = Path(source).expanduser()
        if path.is_dir():
            pictures = list_pictures(path)
            if not pictures:
                raise DogbreedError(f"There are no pictures in {path}", "Give a folder that holds pictures.")
            found += [str(p) for p in pictures]
        elif path.exists():
            found.append(str(path))
        else:
            raise DogbreedError(
                f"There is no file {source}", "Give a picture, a folder of pictures or an http address."
            )
    return found


def read_source(source: str, allowed: Sequence[str] = ()) -> bytes:
    """The bytes of a file or of what lies behind a public address; raises BadPicture or Refused."""
    if source.startswith(("http://", "https://")):
        return fetch_url(source, allowed=allowed)
    try:
        path = Path(source)
        if path.stat().st_size > MAX_BYTES:
            raise BadPicture(f"the file is larger than {MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"the file cannot be read ({error.strerror})") from None


def predict(model: Model, sources: Sequence[str], *, allowed: Sequence[str] = ()) -> Iterator[Prediction]:
    """Answers for each source in order; a bad picture gets its reason and does not stop the others."""

    def load(source: str) -> Pixels | str:
        try:
            return decode(read_source(source, allowed), model.preprocessing)
        except (BadPicture, Refused) as error:
            return str(error)

    with ThreadPoolExecutor(cpu_count()) as pool:
        for start in range(0, len(sources), BATCH_SIZE):
            batch = sources[start : start + BATCH_SIZE]
            loaded = list(pool.map(load, batch))
            good = [pixels for pixels in loaded if not isinstance(pixels, str)]
            answers = iter(model.answer(good) if good else [])
            for source, pixels in zip(batch, loaded, strict=True):
                if isinstance(pixels, str):
                    yield Prediction(source, error=pixels)
                else:
                    yield Prediction(source, answer=next(answers))
