"""The server as its callers see it: a real process, asked over real HTTP."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from photographs import BREEDS, CLASSES
from serving import PING, Client, Reply, answers, kill_group, memory_mib, wait_until, workers_of

from dogbreed.inference import MAX_BODY_BYTES, input_fn, predict_fn
from dogbreed.server_process import Running, running
from dogbreed.train import Trained


@pytest.fixture(scope="module")
def server(trained: Trained) -> Iterator[Running]:
    with running(trained.folder) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    client = Client(server.address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def jpeg(photos: Path) -> bytes:
    return sorted((photos / "test" / CLASSES[1]).iterdir())[0].read_bytes()


# ------------------------------------------------------------------------------------------------ answers


def test_a_picture_gets_the_answer_that_the_hooks_give(client: Client, trained: Trained, jpeg: bytes) -> None:
    reply = client.classify(jpeg)
    assert reply.status == 200 and reply.headers["content-type"] == "application/json"
    wanted = predict_fn(input_fn(jpeg, "image/jpeg"), trained.model)
    answer = reply.json()
    assert [p["breed"] for p in answer["predictions"]] == [p["breed"] for p in wanted["predictions"]]
    assert answer["predictions"][0]["breed"] == BREEDS[1]
    assert answer["predictions"][0]["probability"] == pytest.approx(wanted["predictions"][0]["probability"], abs=1e-3)
    assert answer["rejected"] is False and answer["model"].startswith("efficientnet_lite0@")


def test_every_way_of_sending_a_picture_gives_the_same_answer(
    trained: Trained, jpeg: bytes, serve_bytes: Callable[[bytes], str]
) -> None:
    host = serve_bytes(jpeg)
    image = base64.b64encode(jpeg).decode()
    with running(trained.folder, "--allow", host) as server:
        client = Client(server.address)
        ways = [client.classify(jpeg), client.classify({"image": image}), client.classify({"url": f"http://{host}/"})]
        assert [reply.status for reply in ways] == [200, 200, 200]
        assert len({json.dumps(reply.json()["predictions"][0]["breed"]) for reply in ways}) == 1
        everything = client.classify({"image": image, "top_k": "all", "details": True}).json()
    assert len(everything["predictions"]) == len(CLASSES)
    assert everything["details"]["similar"]["breed"] == BREEDS[1]
    assert set(everything["details"]["ms"]) == {"queue", "decode", "network"}


def test_many_at_once_each_get_their_own_answer(server: Running, photos: Path) -> None:
    pictures = [(n, path) for n, name in enumerate(CLASSES) for path in sorted((photos / "train" / name).iterdir())]

    def ask(picture: tuple[int, Path]) -> tuple[int, int]:
        client = Client(server.address)
        reply = client.classify(picture[1].read_bytes())
        client.close()
        assert reply.status == 200, reply.body
        return picture[0], reply.json()["predictions"][0]["class_index"]

    with ThreadPoolExecutor(16) as pool:
        pairs = list(pool.map(ask, pictures * 4))
    assert sum(wanted == got for wanted, got in pairs) > 0.95 * len(pairs)


def test_each_request_has_an_id_and_says_how_long_each_step_took(client: Client, jpeg: bytes) -> None:
    given = client.classify(jpeg, **{"X-Request-Id": "order-66.a_b"})
    assert given.headers["x-request-id"] == "order-66.a_b"
    steps = dict(re.findall(r"(\w+);dur=([\d.]+)", given.headers["server-timing"]))
    assert set(steps) == {"queue", "decode", "network"} and float(steps["network"]) > 0
    made = client.classify(jpeg, **{"X-Request-Id": "with spaces; and more"})
    assert re.fullmatch(r"[0-9a-f]{32}", made.headers["x-request-id"])


IMAGE = base64.b64encode(b"not a picture").decode()


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b"dog", "text/plain", 415, "'text/plain' is not supported"),
        (b"{", "application/json", 400, "not valid JSON"),
        (b"[" * 200_000, "application/json", 400, "not valid JSON"),
        (b'{"image": 1}', "application/json", 400, "are texts"),
        (b'{"image": "%"}', "application/json", 400, "not valid base64"),
        (json.dumps({"image": IMAGE, "top_k": -1}).encode(), "application/json", 400, "top_k"),
        (json.dumps({"image": IMAGE}).encode(), "application/json", 422, "not a picture in a known format"),
        (b"", "image/jpeg", 422, "the file is empty"),
        (b'{"url": "http://127.0.0.1:8081/"}', "application/json", 422, "not on the public internet"),
        (b'{"url": "http://[::ffff:169.254.169.254]/latest/"}', "application/json", 422, "not on the public internet"),
        (bytes(MAX_BODY_BYTES + 1), "image/jpeg", 413, "larger than 6 MiB"),
    ],
)
def test_a_mistake_is_answered_with_its_status_and_one_line(
    client: Client, body: bytes, kind: str, status: int, reason: str
) -> None:
    reply = client.classify(body, kind)
    assert reply.status == status and reason in reply.json()["error"] and "\n" not in reply.json()["error"]
    assert set(reply.json()) == {"error"}


def test_other_paths_methods_and_types_are_refused(client: Client, jpeg: bytes) -> None:
    unknown = client.get("/admin")
    assert unknown.status == 404
    wrong = client.get("/invocations")
    assert wrong.status == 405 and wrong.headers["allow"] == "POST"
    assert client.classify(jpeg, Accept="text/csv").status == 406
    said = "there is nothing of that kind here: pictures go to POST /invocations, the page is at GET /"
    for reply in (unknown, wrong):
        assert reply.json() == {"error": said}


def test_the_page_may_load_nothing_from_elsewhere(client: Client) -> None:
    reply = client.get("/")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    again = client.get("/", **{"If-None-Match": reply.headers["etag"]})
    assert again.status == 304 and not again.body


# ------------------------------------------------------------------------------------------------ what it tells


def sample(metrics: str, name: str) -> float:
    """The value of a metric, by its name with its labels."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    assert found, f"there is no {name} in\n{metrics}"
    return float(found[1])


def test_metrics_count_what_was_answered(trained: Trained, jpeg: bytes) -> None:
    with running(trained.folder, "--workers", "2") as server:
        for _ in range(20):  # over connections of their own, so that both workers get some
            client = Client(server.address)
            client.classify(jpeg)
            client.classify(b"", "image/jpeg")
            client.close()

        def counted(status: int) -> bool:  # that happens after the answer is sent
            metrics = Client(server.address).get("/metrics").body.decode()
            return f'dogbreed_requests_total{{path="/invocations",status="{status}"}} 20.0\n' in metrics

        wait_until(lambda: counted(200) and counted(422))
        metrics = Client(server.address).get("/metrics").body.decode()
        version = Client(server.address).classify(jpeg).json()["model"]
    assert sample(metrics, 'dogbreed_step_seconds_count{step="network"}') == 20
    assert sample(metrics, "dogbreed_batch_pictures_sum") == 20
    assert sample(metrics, "dogbreed_in_flight") == 0
    assert 1 <= sample(metrics, "dogbreed_ready") <= 2
    assert sample(metrics, f'dogbreed_model{{version="{version}"}}') == 1


def test_every_line_of_the_log_is_json_and_none_tells_what_was_sent(server: Running, client: Client) -> None:
    client.classify({"url": "http://10.0.0.1/secret-dog.jpg?token=hunter2"}, **{"X-Request-Id": "my-secret"})
    wait_until(lambda: "my-secret" in server.log())  # it is written after the answer
    lines = [json.loads(line) for line in server.log().splitlines() if not line.startswith("Serving ")]
    (mine,) = [line for line in lines if line.get("request_id") == "my-secret"]
    assert mine["status"] == 422 and mine["path"] == "/invocations" and mine["ms"] > 0 and mine["level"] == "INFO"
    assert any(line["message"] == "ready" for line in lines)
    assert "hunter2" not in server.log() and "secret-dog" not in server.log()


def test_it_starts_without_pytorch_and_in_little_memory(server: Running) -> None:
    (worker,) = workers_of(server.process.pid)
    loaded = Path(f"/proc/{worker}/maps").read_text()
    assert "openvino" in loaded and "libtorch" not in loaded
    assert memory_mib(worker) + memory_mib(server.process.pid) < 600


# ------------------------------------------------------------------------------------------------ load, death, stops


class Load:
    """Callers that ask again and again, each on a connection that it opens anew when it breaks."""

    def __init__(self, address: str, body: bytes, callers: int) -> None:
        self.replies: list[Reply | None] = []  # None: no answer
        self._address, self._body, self._ends = address, body, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        client = Client(self._address)
        while not self._ends.is_set():
            try:
                self.replies.append(client.classify(self._body))
            except OSError:
                self.replies.append(None)
                client = Client(self._address)
                time.sleep(0.05)
            except Exception:  # half an answer
                self.replies.append(None)
                client = Client(self._address)

    def statuses(self) -> Counter[int | None]:
        return Counter(reply.status if reply else None for reply in self.replies)


def test_a_killed_worker_loses_only_what_it_had_in_hand(trained: Trained, jpeg: bytes) -> None:
    callers = 4
    with running(trained.folder) as server, Load(server.address, jpeg, callers) as load:
        wait_until(lambda: len(load.replies) > 20)
        (worker,) = workers_of(server.process.pid)
        before = len(load.replies)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: sum(reply is not None for reply in load.replies[before:]) > 20)
        statuses = load.statuses()
        (error,) = [line for line in server.log().splitlines() if '"level": "ERROR"' in line]
        metrics = Client(server.address).get("/metrics").body.decode()
    death = json.loads(error)
    assert death["message"] == "a worker died and was replaced" and death["worker"] == worker
    assert death["exit_code"] == -signal.SIGKILL
    assert statuses[None] <= callers, "each caller lost at most the one that it waited for"
    assert set(statuses) <= {200, None} and statuses[200] > 40
    assert sample(metrics, "dogbreed_ready") == 1, "the dead one does not count"
    assert sample(metrics, 'dogbreed_requests_total{path="/invocations",status="200"}') >= statuses[200] - callers


def test_more_than_it_takes_is_refused_at_once_and_then_it_recovers(
    trained: Trained, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOGBREED_SERVE_QUEUE", "3")  # as a container is told
    with running(trained.folder, "--threads", "1") as server:
        with Load(server.address, jpeg, 16) as load:
            wait_until(lambda: load.statuses()[200] > 50 and load.statuses()[429] > 50)
        refused = [reply for reply in load.replies if reply and reply.status == 429]
        assert set(load.statuses()) == {200, 429}, "nothing is dropped, nothing fails"
        assert all(reply.headers["retry-after"] == "1" for reply in refused)
        assert "too many requests" in refused[0].json()["error"]
        client = Client(server.address)
        assert [client.classify(jpeg).status for _ in range(20)] == [200] * 20
        assert sample(client.get("/metrics").body.decode(), "dogbreed_in_flight") == 0


def test_bodies_that_arrive_slowly_may_not_fill_the_memory(trained: Trained, jpeg: bytes) -> None:
    size = 5 * 2**20
    with running(trained.folder, "--body-mib", "8") as server:
        host, _, port = urlsplit(server.address).netloc.partition(":")
        head = f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n"
        slow = [socket.create_connection((host, int(port))) for _ in range(3)]
        for connection in slow:
            connection.settimeout(20)
            connection.sendall(head.encode() + bytes(size - 1))
        refused = [c for c in slow if _has_answer(c)]
        assert 1 <= len(refused) <= 2 and all(b" 429 " in c.recv(65536).splitlines()[0] for c in refused)
        for connection in slow:
            connection.close()
        wait_until(lambda: Client(server.address).classify(jpeg).status == 200)


def _has_answer(connection: socket.socket) -> bool:
    import select

    return bool(select.select([connection], [], [], 1)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopping_answers_what_is_in_hand(trained: Trained, jpeg: bytes, number: int) -> None:
    with running(trained.folder) as server, Load(server.address, jpeg, 8) as load:
        wait_until(lambda: len(load.replies) > 20)
        started = time.monotonic()
        os.kill(server.process.pid, number)
        assert server.process.wait(30) == 0
        assert time.monotonic() - started < 30
        time.sleep(0.2)
        log = server.log()
    got = [reply for reply in load.replies if reply]
    assert {reply.status for reply in got} <= {200, 503}
    answered = sum('"status": 200' in line and "/invocations" in line for line in log.splitlines())
    assert answered == sum(reply.status == 200 for reply in got), "no answer that was made was lost"
    assert "Traceback" not in log


def test_a_terminal_s_ctrl_c_ends_it_without_a_trace(trained: Trained) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dogbreed", "serve", str(trained.folder), "--port", "0"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stderr
        said = process.stderr.readline()
        assert said.startswith("Serving ")
        wait_until(lambda: answers(said.split(" at ")[1].split("/ ")[0], PING), 60)
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(30) == 0 and "Traceback" not in rest
    finally:
        kill_group(process)


# ------------------------------------------------------------------------------------------------ its own start


def refused(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dogbreed", "serve", *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return done.stderr


def test_a_start_that_cannot_succeed_says_why(trained: Trained, server: Running, tmp_path: Path) -> None:
    assert "There is no model at" in refused(str(tmp_path))
    port = server.address.rpartition(":")[2]
    assert f"Port {port} of 127.0.0.1 cannot be listened on" in refused(str(trained.folder), "--port", port)
    damaged = shutil.copytree(trained.folder, tmp_path / "damaged")
    (damaged / "network.bin").write_bytes(b"other")
    assert "its weights are not those that were saved" in refused(str(damaged), "--port", "0")
    assert "--queue is 0" in refused(str(trained.folder), "--queue", "0")
