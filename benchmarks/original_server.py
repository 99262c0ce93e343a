"""The named baseline of serving: the original projects' endpoint, written afresh.

    python benchmarks/original_server.py --port 8081

`POST /invocations` with a picture answers the raw logits of 133 classes as a JSON list; `GET /ping` answers 200.

Kept from the originals, for this is what is timed: eager PyTorch on the CPU, torchvision's ResNet-50 in NCHW, default
threads, default malloc, transforms composed anew for each request, one request at a time. Their container's own server
(Java, with a Python worker behind it) is replaced by the standard library's, which costs less.

Put right: the network is in evaluation mode without gradients, and any mode of picture becomes RGB. The weights are
random and nothing is downloaded at start, which makes the start shorter than the originals' and changes no other time.

Nothing of ``dogbreed`` is loaded in this process. ``Server-Timing`` has the milliseconds of the steps, as the server
compared with it sends them: decode is the picture and its transforms, queue the wait for the request before.
"""

from __future__ import annotations

import argparse
import io
import json
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter

import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

CLASSES = 133

_one_at_a_time = ThreadPoolExecutor(1)


def create_model() -> nn.Module:
    """The frozen network with the originals' head: (N, 3, 224, 224) → (N, 133) logits."""
    model: nn.Module = models.resnet50(weights=None)
    model.fc = nn.Linear(2048, CLASSES)
    return model.eval()


def answer(model: nn.Module, body: bytes, came_s: float) -> tuple[list[list[float]], dict[str, float]]:
    """Raw logits, (1, 133), and the milliseconds of each step of a request that came at `came_s`."""
    started = perf_counter()
    picture = Image.open(io.BytesIO(body)).convert("RGB")
    transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    pixels = transform(picture).unsqueeze(0)
    decoded = perf_counter()
    with torch.no_grad():
        logits: list[list[float]] = model(pixels).tolist()
    done = perf_counter()
    return logits, {
        "queue": (started - came_s) * 1e3,
        "decode": (decoded - started) * 1e3,
        "network": (done - decoded) * 1e3,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept open, as the originals' server did
    disable_nagle_algorithm = True  # or an answer would wait up to 40 ms for the client to acknowledge its headers
    model: nn.Module

    def do_GET(self) -> None:
        self._send(b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        logits, ms = _one_at_a_time.submit(answer, self.model, body, perf_counter()).result()
        self._send(json.dumps(logits).encode(), ", ".join(f"{step};dur={value:.2f}" for step, value in ms.items()))

    def _send(self, body: bytes, timing: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if timing:
            self.send_header("Server-Timing", timing)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: writing a line for each request would be timed too."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8081)
    port = parser.parse_args().port
    Handler.model = create_model()
    with Server(("127.0.0.1", port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
