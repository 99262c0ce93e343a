"""Starting and stopping, as a person and a program do it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from localaws import server, wsgi
from localaws.__main__ import main


def client(running, service):
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=running.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def test_up_is_ready_idempotent_and_ends_with_down(state):
    running = server.up(port=0, state=state)
    assert client(running, "sts").get_caller_identity()["Account"]
    assert (
        server.up(port=0, state=state) == server.up(port=running.port, state=state) == server.status(state) == running
    )
    assert "ready" in Path(running.log).read_text()
    assert server.down(state) == running
    server.bind(running.port).close()
    assert server.status(state) is None
    assert server.down(state) is None


def test_two_at_once_start_one_server(state):
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: server.up(port=0, state=state), range(2))
    assert first == second


def test_it_listens_on_loopback_only(state):
    running = server.up(port=0, state=state)
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with socket.socket() as connection:
            assert connection.connect_ex((address, running.port)) != 0


def test_a_bucket_is_made_with_versioning_and_kept(state):
    running = server.up(port=0, state=state, buckets=["tfstate"])
    s3 = client(running, "s3")
    assert s3.get_bucket_versioning(Bucket="tfstate")["Status"] == "Enabled"
    s3.put_object(Bucket="tfstate", Key="k", Body=b"kept")
    server.up(port=0, state=state, buckets=["tfstate", "another"])
    assert s3.get_object(Bucket="tfstate", Key="k")["Body"].read() == b"kept"
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {"tfstate", "another"}


def test_the_managed_policies_of_aws_are_there(state, url):
    """Even beside the server of the other tests, which does without them."""
    policy = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    assert client(server.up(port=0, state=state), "iam").get_policy(PolicyArn=policy)["Policy"]["Arn"] == policy


def test_a_killed_server_is_seen_as_gone_and_replaced(state):
    killed = server.up(port=0, state=state)
    os.kill(killed.pid, signal.SIGKILL)
    os.waitpid(killed.pid, 0)
    assert server.status(state) is None
    assert server.up(port=0, state=state).pid != killed.pid


def test_a_process_that_is_not_the_server_is_never_ended(state):
    state.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        stale = {"pid": stranger.pid, "port": 1, "log": ""}
        (state / "server.json").write_text(json.dumps(stale))
        assert server.down(state) is None
        assert stranger.poll() is None
        with ThreadPoolExecutor(1) as pool, starting(state) as process:
            down = pool.submit(server.down, state)
            assert not wait([down], timeout=0.5).done, "it waits for the one that is starting"
            process.stdin.write(b"\n")
            process.stdin.close()
            assert down.result(timeout=30).pid == process.pid
        assert stranger.poll() is None
        stranger.communicate(b"\n")


@contextmanager
def starting(state):
    """A server that has the lock, and starts for as long as it gets no line."""
    script = f"""
import localaws, pathlib
from localaws import server
def install():
    print("starting", flush=True)
    input()
localaws.install = install
server.serve(pathlib.Path({str(state)!r}), server.bind(0))
"""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout.readline() == b"starting\n"
            yield process
        finally:
            process.kill()


def test_one_that_never_gets_ready_is_said_to_be_starting(state, monkeypatch):
    monkeypatch.setattr(server, "START_S", 0.2)
    state.mkdir()
    with starting(state), pytest.raises(server.LocalAwsError, match="is still starting") as caught:
        server.status(state)
    assert caught.value.fix == "Try again in a while."


def test_nothing_is_left_when_up_is_interrupted(state, monkeypatch):
    started = []

    def interrupted(state, pid):
        started.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "_answers", interrupted)
    assert main(["up", "--port", "0", "--state", str(state)]) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert server.status(state) is None


def test_it_ends_when_its_state_folder_is_gone(state):
    running = server.up(port=0, state=state)
    shutil.rmtree(state)
    assert server._wait_for(lambda: _is_free(running.port), timeout_s=30)


def _is_free(port):
    with socket.socket() as connection:
        return connection.connect_ex((server.HOST, port)) != 0


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The environment of a person who works with an account, and through a proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "missing"))
    (tmp_path / "broken").write_text("[profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "broken"))
    monkeypatch.setenv("AWS_PROFILE", "missing")


@pytest.mark.parametrize("foreground", [False, True])
def test_it_takes_nothing_from_the_callers_environment(state, elsewhere, foreground):
    if foreground:
        with in_the_foreground(state) as process:
            assert server._look(state)[1].pid == process.pid
    else:
        running = server.up(port=0, state=state, buckets=["tfstate"])
        assert server.up(port=0, state=state, buckets=["tfstate", "another"]) == running


def test_a_region_that_cannot_be_is_said_in_one_line(state, monkeypatch, capsys):
    monkeypatch.setenv("AWS_REGION", "not a region")
    assert main(["up", "--port", "0", "--bucket", "tfstate", "--state", str(state)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot list the buckets") and line.endswith("Correct the name or the region.")
    assert server.status(state) is None


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_said_in_one_line(state, port, capsys):
    assert main(["up", f"--port={port}", "--state", str(state)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: there is no port {port}. Choose one up to 65535; 0 takes a free one."


def test_what_is_wrong_and_what_to_do_come_apart(state, tmp_path):
    error = server.LocalAwsError("it rains", "Take an umbrella.")
    assert (error.problem, error.fix, str(error)) == ("it rains", "Take an umbrella.", "it rains. Take an umbrella.")
    running = server.up(port=0, state=state)
    for wrong in (lambda: server.bind(running.port), lambda: server.up(running.port + 1, state)):
        with pytest.raises(server.LocalAwsError) as caught:
            wrong()
        assert "--" not in str(caught.value), "these are the callers' options"


def test_a_port_in_use_is_said_in_one_line(state, capsys):
    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["up", "--port", str(port), "--state", str(state)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cannot listen on port {port}")
    assert server.status(state) is None


def test_another_port_for_a_running_server_is_refused(state, capsys):
    running = server.up(port=0, state=state)
    assert main(["up", "--port", str(running.port + 1), "--state", str(state)]) == 1
    assert f"already listens on port {running.port}" in capsys.readouterr().err


def test_a_bucket_that_cannot_be_is_said_in_one_line(state, capsys):
    assert main(["up", "--port", "0", "--bucket", "b", "--state", str(state)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot make the bucket b")


def test_a_server_that_cannot_start_says_why(state, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(state.parent))
    (state.parent / "moto.py").write_text("raise ImportError('no moto here')")
    with pytest.raises(server.LocalAwsError, match="no moto here"):
        server.up(port=0, state=state)


def test_the_commands_say_where_it_is_and_what_is_lost(state, capsys):
    options = ["--state", str(state)]
    assert main(["status", *options]) == 1
    assert main(["up", "--port", "0", *options]) == 0
    url = re.search(r"AWS_ENDPOINT_URL=(\S+)", capsys.readouterr().out)[1]
    assert main(["status", *options]) == 0
    assert url in capsys.readouterr().out
    assert main(["down", *options]) == 0
    assert "is gone" in capsys.readouterr().out
    assert main(["down", *options]) == 0
    assert "Nothing to stop" in capsys.readouterr().out
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)


def test_in_the_foreground_it_ends_with_ctrl_c(state):
    with in_the_foreground(state) as process:
        running = server.status(state)
        assert running.pid == process.pid
        assert "Contents" not in client(running, "s3").list_objects_v2(Bucket="tfstate")


@contextmanager
def in_the_foreground(state):
    """A server that is ready, with its bucket."""
    command = [sys.executable, "-m", "localaws", "up", "--foreground", "--port", "0", "--bucket", "tfstate"]
    with subprocess.Popen([*command, "--state", str(state)], stderr=subprocess.PIPE, text=True) as process:
        lines = []
        assert any("ready at" in (lines.append(line) or line) for line in iter(process.stderr.readline, "")), lines
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [("server.LocalAwsError('no', 'Do.')", 1, "error: no. Do."), ("RuntimeError('ours')", 1, "RuntimeError: ours")],
)
def test_it_does_not_serve_without_its_bucket(state, failure, status, said):
    script = f"""
import sys
from localaws import __main__, server
def fail(*_):
    raise {failure}
server.make_buckets = fail
sys.exit(__main__.main(["up", "--foreground", "--port", "0", "--bucket", "tfstate", "--state", {str(state)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == said


def scope(service, path="/"):
    return {"PATH_INFO": path, "HTTP_AUTHORIZATION": f"Credential=a/20300101/us-east-1/{service}/aws4_request, x"}


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (scope("ec2"), scope("ec2"), False),
        (scope("ec2"), scope("iam"), True),
        (scope("s3", "/bucket/key"), scope("s3", "/bucket/key"), True),
        (scope("s3"), scope("s3"), True),
        (scope("sqs"), scope("sqs"), True),
        (scope("lambda", "/2015-03-31/functions/"), scope("lambda", "/2015-03-31/functions/"), True),
        ({"PATH_INFO": "/"}, {"PATH_INFO": "/"}, True),
    ],
)
def test_the_calls_of_an_api_go_through_one_after_the_other(one, other, overlap, monkeypatch):
    meeting = threading.Barrier(2)

    def meet(self, environ, start_response):
        try:
            meeting.wait(timeout=30 if overlap else 0.5)
        except threading.BrokenBarrierError:
            return [b"alone"]
        return [b"met"]

    monkeypatch.setattr(wsgi.DomainDispatcherApplication, "__call__", meet)
    application = wsgi.Application(server.HEALTH, {})
    with ThreadPoolExecutor(2) as pool:
        answers = [*pool.map(lambda environ: application(environ, None), (one, other))]
    assert answers == [[b"met" if overlap else b"alone"]] * 2


def test_what_is_not_emulated_is_in_the_log(state):
    running = server.up(port=0, state=state)
    with pytest.raises(Exception, match="NotEmulated"):
        client(running, "sagemaker").create_hub(HubName="hub", HubDescription="d")
    assert "not emulated locally: sagemaker:CreateHub" in Path(running.log).read_text()
