"""The Lambda function against the original's: import, own CPU of a call, peak memory.

    python benchmarks/lambda_function.py [--calls 200] [--imports 10]

Each figure comes from fresh processes of the Python that runs this, with the files of `lambda.zip` unpacked as Lambda
does it (no bytecode beside them). A stand-in for endpoint, web site and X-Ray's daemon runs in a process of its own, so
that CPU time is the function's alone and waiting counts for nothing. The endpoint is asked over plain HTTP.

The baseline is the original's function, written afresh: boto3, a client for each call, the address handed on as it is.
It fetches no picture: its endpoint does that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import socketserver
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import zipfile
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import as_markdown, describe

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 133
PHOTO_BYTES = 100_000

ORIGINAL = """
import json

import boto3


def handler(event, context):
    print("Context:::", context)
    runtime = boto3.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(
        EndpointName="pytorch-inference",
        ContentType="application/json",
        Accept="application/json",
        Body=json.dumps(event),
    )
    result = json.loads(response["Body"].read().decode("utf-8"))
    headers = {"Content-Type": "text/plain", "Access-Control-Allow-Origin": "*"}
    return {"statusCode": 200, "headers": headers, "body": json.dumps(result), "Content-Type-In": str(context)}
"""

IMPORT = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import {module}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""

CALLS = """
import {module}, json, os, sys, time
event, cpu, wall = json.load(open(sys.argv[1])), [], []
out, sys.stdout = sys.stdout, open(os.devnull, "w")
for _ in range(int(sys.argv[2])):
    began, used = time.perf_counter(), time.process_time()
    answer = {module}.handler(event, None)
    cpu.append(1000 * (time.process_time() - used))
    wall.append(1000 * (time.perf_counter() - began))
    assert answer["statusCode"] == 200, answer
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([cpu, wall, int(peak.split()[1]) / 1024]), file=out)
"""


def serve(photo: bytes, certificate: str | None) -> None:
    """Endpoint and web site on one port, the same with TLS on another, and X-Ray's daemon; prints the three ports."""
    predictions = [{"breed": f"Breed {i}", "class_index": i, "probability": 1 / CLASSES} for i in range(CLASSES)]
    answer = {"predictions": predictions, "rejected": False, "rejection_score": 0.1, "model": "net@0123456789ab"}
    full, short = (json.dumps(answer | {"predictions": predictions[:count]}).encode() for count in (CLASSES, 5))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(photo, "image/jpeg")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._send(full if self.headers["Content-Type"] == "application/json" else short, "application/json")

        def _send(self, body: bytes, kind: str) -> None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: object) -> None: ...

    class Daemon(socketserver.BaseRequestHandler):
        def handle(self) -> None: ...

    plain, safe = (ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        safe.socket = context.wrap_socket(safe.socket, server_side=True)
    daemon = socketserver.UDPServer(("127.0.0.1", 0), Daemon)
    for server in (plain, safe, daemon):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(plain.server_port, safe.server_port, daemon.server_address[1], flush=True)
    sys.stdin.read()  # until whoever started this ends


def photograph() -> bytes:
    """Noise, as large a file as a photograph; the function looks at its first bytes only."""
    return b"\xff\xd8\xff\xe0" + random.Random(0).randbytes(PHOTO_BYTES - 4)


def unpack(folder: Path) -> None:
    """The function's package, built and unpacked, and the original beside it."""
    sys.path.insert(0, str(ROOT / "python"))
    from dogbreed.aws.package import PACKAGES, _zip
    from dogbreed.aws.repository import Repository

    _zip(folder / "lambda.zip", PACKAGES["lambda.zip"](Repository(ROOT)))
    with zipfile.ZipFile(folder / "lambda.zip") as archive:
        archive.extractall(folder)
    (folder / "original.py").write_text(ORIGINAL)


def certify(folder: Path) -> Path | None:
    """A certificate of 127.0.0.1 with its key; None where there is no openssl."""
    if shutil.which("openssl") is None:
        return None
    pem = folder / "certificate.pem"
    options = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = ["openssl", "req", "-x509", *options.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", folder / "key.pem", "-out", pem], check=True, capture_output=True)
    with pem.open("ab") as file:
        file.write((folder / "key.pem").read_bytes())
    return pem


@contextlib.contextmanager
def stand_in(folder: Path, certificate: Path | None) -> Iterator[list[int]]:
    (folder / "photo.jpg").write_bytes(photograph())
    command = [sys.executable, __file__, "--serve", str(folder / "photo.jpg"), str(certificate or "")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            yield [int(port) for port in process.stdout.readline().split()]
        finally:
            process.stdin.close()


def environment(ports: list[int], certificate: Path | None) -> dict[str, str]:
    """As Lambda sets it, with a call that is traced."""
    plain, safe, daemon = ports
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    return inherited | {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "a",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": f"http://127.0.0.1:{plain}",
        "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon}",
        "_X_AMZN_TRACE_ID": "Root=1-581cf771-a006649127e371903a2de979;Parent=70de5b6f19ff9a0b;Sampled=1",
        "ENDPOINT_NAME": "dogbreed",
        "FETCH_EXEMPT_HOSTS": f"127.0.0.1:{plain},127.0.0.1:{safe}",
        "PAGE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **({"SSL_CERT_FILE": str(certificate)} if certificate else {}),
    }


class Bench:
    """Runs Python in the unpacked package."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env

    def python(self, code: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, *options, "-c", code, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout, done.stderr

    def imports(self, module: str, times: int) -> tuple[list[float], list[float]]:
        """Milliseconds by the clock and of CPU, in as many processes."""
        code = IMPORT.format(module=module)
        found = [[1000 * float(number) for number in self.python(code)[0].split()] for _ in range(times)]
        return [wall for wall, _ in found], [cpu for _, cpu in found]

    def largest(self, module: str, count: int = 6) -> str:
        """Where the import's time goes, by package, without what that imports in turn."""
        lines = self.python(f"import {module}", options=("-X", "importtime"))[1].splitlines()[1:]
        start = next(i for i, line in enumerate(lines) if line.split("|")[2].strip() == "site") + 1
        spent = Counter[str]()
        for own, _, name in (line.removeprefix("import time:").split("|") for line in lines[start:]):
            top = name.strip().partition(".")[0]
            spent["the standard library" if top in sys.stdlib_module_names else top] += int(own)
        return ", ".join(f"{name} {own_us / 1000:.0f} ms" for name, own_us in spent.most_common(count))

    def calls(self, module: str, event: dict[str, Any], times: int) -> tuple[list[float], list[float], float]:
        """Milliseconds of CPU and by the clock for each call, and the process's peak memory in MiB."""
        (self.folder / "event.json").write_text(json.dumps(event))
        cpu, wall, peak = json.loads(self.python(CALLS.format(module=module), "event.json", str(times))[0])
        return cpu, wall, peak


def row(name: str, ours: str, original: str = "–", ratio: float | None = None, limit: str = "–") -> None:
    print(f"| {name} | {ours} | {original} | {'–' if ratio is None else f'{ratio:.2f}'} | {limit} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=200, help="calls in a process")
    parser.add_argument("--imports", type=int, default=10, help="processes that import")
    arguments = parser.parse_args()
    print(as_markdown(describe()))
    print(f"| boto3, botocore | {version('boto3')}, {version('botocore')} |\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(folder)
        certificate = certify(folder)
        with stand_in(folder, certificate) as ports:
            measure(Bench(folder, environment(ports, certificate)), ports, bool(certificate), arguments)


def measure(bench: Bench, ports: list[int], tls: bool, arguments: argparse.Namespace) -> None:
    url = f"http://127.0.0.1:{ports[0]}/dog.jpg"
    image = b64encode(photograph()).decode()
    bench.imports("handler", 1)  # reads the files from the disk
    bench.imports("original", 1)

    print("| | ours | the original | ratio | limit |\n|---|---|---|---|---|")
    (wall, cpu), (old_wall, old_cpu) = (bench.imports(module, arguments.imports) for module in ("handler", "original"))
    middle, old_middle = statistics.median(wall), statistics.median(old_wall)
    row(
        f"import, median of {arguments.imports} processes (shortest, longest)",
        f"{middle:.0f} ms ({min(wall):.0f}, {max(wall):.0f})",
        f"{old_middle:.0f} ms ({min(old_wall):.0f}, {max(old_wall):.0f})",
        middle / old_middle,
        "300 ms",
    )
    row("its CPU, median", f"{statistics.median(cpu):.0f} ms", f"{statistics.median(old_cpu):.0f} ms")

    used, took, peak = bench.calls("handler", {"url": url}, arguments.calls)
    old_used, old_took, old_peak = bench.calls("original", {"url": url}, arguments.calls)
    middle, old_middle = statistics.median(used[1:]), statistics.median(old_used[1:])
    row("CPU of the first call", f"{used[0]:.1f} ms", f"{old_used[0]:.1f} ms", used[0] / old_used[0])
    row(
        'CPU of a call, median (95th percentile): `{"url"}`, 100 kB over HTTP, 5 classes',
        f"{middle:.2f} ms ({statistics.quantiles(used[1:], n=20)[-1]:.2f})",
        f"{old_middle:.2f} ms ({statistics.quantiles(old_used[1:], n=20)[-1]:.2f})",
        middle / old_middle,
        "5 ms",
    )
    events: dict[str, dict[str, Any]] = {
        '… `{"image"}`': {"image": image},
        '… `{"image"}`, all classes and details': {"image": image, "top_k": "all", "details": True},
    }
    if tls:
        events = {
            '… `{"url"}` over HTTPS, a new connection each time': {"url": f"https://127.0.0.1:{ports[1]}/"}
        } | events
    for name, event in events.items():
        used, _, _ = bench.calls("handler", event, arguments.calls)
        row(
            name, f"{statistics.median(used[1:]):.2f} ms ({statistics.quantiles(used[1:], n=20)[-1]:.2f})", limit="5 ms"
        )
    row("by the clock, median", f"{statistics.median(took[1:]):.2f} ms", f"{statistics.median(old_took[1:]):.2f} ms")
    row(
        f"peak memory after {arguments.calls} calls", f"{peak:.1f} MiB", f"{old_peak:.1f} MiB", peak / old_peak, "77 MB"
    )
    print(f"\nOf the import, without what is imported in turn: {bench.largest('handler')}.")
    print(f"Of the original's: {bench.largest('original')}.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]).read_bytes(), sys.argv[3] or None)
    else:
        main()
