"""A trained model: what a model directory holds (the root of `model.tar.gz`), and how it answers.

model.pt         state dict: backbone.*, head.*, rejection.means; loaded with weights_only=True
network.xml|bin  the network as it runs on CPUs: converted, and quantised where that was chosen
classifier.npz   head and rejection as arrays: with the network above all that answering takes, without PyTorch
gallery.npz      some small training pictures of each class, to show a similar one
classes.json     index → breed
config.json      all that is needed to rebuild the network and its preprocessing, and to train it again
metrics.json     what was measured, with 95 % intervals
model_card.md    for people
code/            inference.py (the SageMaker hooks), the package itself, requirements.txt
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dogbreed import __version__
from dogbreed.backbones import Weights, build_backbone
from dogbreed.classifier import Classifier
from dogbreed.config import EmbedConfig, TrainConfig
from dogbreed.data.pictures import Pixels, Preprocessing
from dogbreed.errors import DogbreedError
from dogbreed.extractor import Extractor, FloatArray, feature_network
from dogbreed.files import atomic_dir, atomic_path, read_json, sha256_file, sha256_json, write_json, write_text
from dogbreed.gallery import Gallery

if TYPE_CHECKING:
    from torch import nn

    from dogbreed.head import Head

FORMAT = 2


@dataclass(frozen=True)
class Answer:
    """The answer for one picture.

    probabilities: (C,) float32, summing to one.
    rejection_score: how unlike every class the picture is; above `Model.threshold` it is probably none of them.
    """

    probabilities: FloatArray
    rejection_score: float
    rejected: bool

    def predictions(self, breeds: tuple[str, ...], top_k: int) -> list[dict[str, Any]]:
        """The likeliest classes, best first, as the endpoint and `predict --json` give them."""
        order = np.argsort(-self.probabilities, kind="stable")[:top_k]
        return [{"breed": breeds[i], "class_index": int(i), "probability": float(self.probabilities[i])} for i in order]


@dataclass(frozen=True)
class Model:
    """A classifier that can be used, saved and loaded.

    Quick start: `Model.load(Path("runs/model")).answer([pixels])`, with pixels from `pictures.decode`.
    """

    config: TrainConfig
    breeds: tuple[str, ...]
    extractor: Extractor
    classifier: Classifier
    threshold: float  # of the rejection score
    gallery: Gallery
    facts: dict[str, Any]  # of the training data, recorded in config.json
    version: str = ""  # the backbone and a hash of all weights; empty before it is saved

    @property
    def preprocessing(self) -> Preprocessing:
        return self.extractor.preprocessing

    def answer(self, pixels: Sequence[Pixels]) -> list[Answer]:
        """(B, crop_px, crop_px, 3) uint8 → B answers."""
        return self.answer_features(self.extractor(np.stack(pixels)))

    def answer_features(self, features: FloatArray) -> list[Answer]:
        """(B, D) features → B answers."""
        scores = self.classifier.rejection_scores(features)
        probabilities = self.classifier.probabilities(features)
        return [Answer(p, float(s), bool(s > self.threshold)) for p, s in zip(probabilities, scores, strict=True)]

    def save(self, folder: Path, *, head: Head, metrics: dict[str, Any], card: str) -> None:
        """Writes the model directory, whole or not at all; one that is there is replaced.

        Args:
            head: what `classifier` was made of.
        """
        import torch

        with atomic_dir(folder) as partial:
            state = dict(self.extractor.build().state_dict())  # backbone.*
            state |= {f"head.{k}": v.cpu() for k, v in head.state_dict().items()}
            state["rejection.means"] = torch.from_numpy(np.array(self.classifier.means))
            torch.save(state, partial / "model.pt")
            self.classifier.save(partial / "classifier.npz")
            self.gallery.save(partial / "gallery.npz")
            for name in ("network.xml", "network.bin"):
                shutil.copyfile(self.extractor.converted().with_name(name), partial / name)
            write_json(partial / "classes.json", {str(i): breed for i, breed in enumerate(self.breeds)})
            write_json(
                partial / "config.json",
                {
                    "format": FORMAT,
                    "dogbreed": __version__,
                    "train": self.config.as_dict(),
                    "extractor": self.extractor.identity,
                    "sha256": {name: sha256_file(partial / name) for name in WEIGHTS},
                    "rejection_threshold": self.threshold,
                    "runtime": {"engine": "openvino", "precision": self.config.precision},
                    **self.facts,
                },
            )
            write_json(partial / "metrics.json", metrics)
            write_text(partial / "model_card.md", card)
            _write_code(partial / "code")

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> Model:
        """Opens a model directory.

        Raises:
            DogbreedError: it is not one, is damaged, or was written by another version.
        """
        recorded = read_config(folder)
        try:
            if {name: sha256_file(folder / name) for name in WEIGHTS} != recorded["sha256"]:
                raise ValueError("its weights are not those that were saved")
            config = TrainConfig.from_dict(recorded["train"])
            names = read_json(folder / "classes.json", what="list of classes", fix=_FIX)
            breeds = tuple(names[str(i)] for i in range(len(names)))
            preprocessing = Preprocessing.from_dict(recorded["extractor"]["preprocessing"])
            classifier = Classifier.load(folder / "classifier.npz")
            gallery = Gallery.load(folder / "gallery.npz")
            threshold = float(recorded["rejection_threshold"])
            precision = recorded["runtime"]["precision"]
            embedding = EmbedConfig.from_dict({**config.part(EmbedConfig).as_dict(), "precision": precision})
            if len(classifier.means) != len(breeds):
                raise ValueError(f"it has {len(classifier.means)} outputs and {len(breeds)} classes")
        except DogbreedError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DogbreedError(f"The model {folder} is damaged ({reason})", "Train it again.") from None

        # Named by what was verified just now, not by what the model says its weights once were: others' features and
        # networks are cached under such names.
        weights = Weights(str(folder), None, sha256_json(recorded["sha256"]))
        extractor = Extractor(
            embedding,
            preprocessing,
            weights,
            lambda: network_of(folder, config.backbone, preprocessing),
            device,
            network=folder / "network.xml",
        )
        version = f"{config.backbone}@{weights.sha256[:12]}"
        return cls(config, breeds, extractor, classifier, threshold, gallery, {"data": recorded.get("data")}, version)


def network_of(folder: Path, backbone: str, preprocessing: Preprocessing) -> nn.Module:
    """The network of a model directory in PyTorch, with the weights of its model.pt.

    Raises:
        DogbreedError: they do not fit.
    """
    import torch

    network = feature_network(build_backbone(backbone, None)[0], preprocessing)
    try:
        state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
        network.load_state_dict({k: v for k, v in state.items() if k.startswith("backbone.")})
    except Exception:
        raise DogbreedError(
            f"The model {folder} is damaged (its weights do not fit {backbone})", "Train it again."
        ) from None
    return network


WEIGHTS = ("model.pt", "network.xml", "network.bin", "classifier.npz", "gallery.npz")
_FIX = "Give a folder that `dogbreed train` wrote."


def read_config(folder: Path) -> dict[str, Any]:
    """A model directory's `config.json`; raises DogbreedError if there is none, or one of another version."""
    recorded = read_json(folder / "config.json", what="model", fix=_FIX)
    if not isinstance(recorded, dict) or recorded.get("format") != FORMAT:
        found = recorded.get("format") if isinstance(recorded, dict) else None
        raise DogbreedError(
            f"The model {folder} has format {found}, this version reads {FORMAT}",
            "Train it again, or use the version of dogbreed that wrote it.",
        )
    return recorded


def _write_code(folder: Path) -> None:
    """The hooks of the serving container, the package beside them, and the versions of what both need."""
    package = Path(__file__).parent
    folder.mkdir()
    (folder / "inference.py").write_text(
        '"""The hooks that SageMaker\'s PyTorch serving container calls."""\n\n'
        "from dogbreed.inference import input_fn, model_fn, output_fn, predict_fn\n\n"
        '__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]\n'
    )
    needed = ("filelock", "numpy", "openvino", "pillow", "rich")
    (folder / "requirements.txt").write_text("".join(f"{name}=={version(name)}\n" for name in needed))
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(package, folder / "dogbreed", ignore=ignore)


def pack(folder: Path, archive: Path) -> None:
    """Writes a model directory as `model.tar.gz`; the same directory gives the same bytes."""
    import gzip
    import tarfile

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with (
        atomic_path(archive) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=1) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            if "__pycache__" not in path.parts:
                tar.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=plain)
