"""What the tests share: a small set of photographs, a cache that is nobody else's, and a trained model."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from photographs import write_photos

from dogbreed.config import TrainConfig
from dogbreed.train import Trained, train

LONGEST = (
    "test_infrastructure.py",
    "test_package.py",
    "test_terraform_modules.py",
    "test_serve_hostile_inputs.py",
    "test_serve_hostile_callers.py",
    "test_page.py",
    "test_ec2_train.py",
    "test_loadtest.py",
    "test_demo.py",
    "test_image_serving.py",
    "test_lambda_hostile.py",
    "test_localaws_package.py",
    "test_serve.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one of them when the others have finished."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 4 classes × (12 train, 4 valid, 4 test) pictures. Not to be changed: copy it first."""
    return write_photos(tmp_path_factory.mktemp("photos") / "dogImages")


@pytest.fixture(autouse=True)
def cache(
    tmp_path_factory: pytest.TempPathFactory, _session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A cache of the test's own, empty but for converted networks: they take seconds and are found by their content."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "networks").symlink_to(_session_cache / "networks")
    monkeypatch.setenv("DOGBREED_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared-cache")
    (folder / "networks").mkdir()
    return folder


@pytest.fixture
def shared_cache(_session_cache: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For tests that need features but not to compute them: one cache for the session, with those of `photos`."""
    monkeypatch.setenv("DOGBREED_CACHE", str(_session_cache))
    return _session_cache


@pytest.fixture(scope="session")
def train_config() -> TrainConfig:
    return TrainConfig(solver="ridge", weight_decay=1e-3)


@pytest.fixture(scope="session")
def trained(
    photos: Path, _session_cache: Path, train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A model trained on `photos`; `trained.folder` is its directory. Not to be changed: copy it first."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOGBREED_CACHE", str(_session_cache))
        return train(data=photos, out=tmp_path_factory.mktemp("trained") / "model", config=train_config)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a disk is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def serve_bytes() -> Iterator[Callable[[bytes], str]]:
    """Serves bytes on a loopback port: `serve_bytes(data)` gives their `host:port`."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    servers: list[ThreadingHTTPServer] = []

    def start(body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
