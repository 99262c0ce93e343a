"""What the server tells of itself: a line of JSON for each event, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the client library's name: where workers put their numbers together
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record; `extra={"fields": {…}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII: what is logged may reach a terminal


def log_config(level: str = "INFO") -> dict[str, Any]:
    """For `logging.config`: everything as JSON to standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.{JsonFormatter.__name__}"}},
        "handlers": {"json": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["json"], "level": level},
        # What its workers and signals do is of use when something goes wrong only.
        "loggers": {"uvicorn": {"level": "WARNING"}, "uvicorn.access": {"level": "CRITICAL"}},
    }


class Metrics:
    """The numbers of one worker; `expose` adds up those of all."""

    def __init__(self) -> None:
        registry = CollectorRegistry()  # never read: where there are several processes, their files are
        self.requests = Counter("dogbreed_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "dogbreed_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.step_seconds = Histogram(
            "dogbreed_step_seconds",
            "Steps of a classification: waiting in the queue, decoding, the network.",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_pictures = Histogram(
            "dogbreed_batch_pictures",
            "Pictures in one run of the network.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.rejected = Counter("dogbreed_rejected", "Pictures that are probably no dog.", registry=registry)
        self.in_flight = Gauge(
            "dogbreed_in_flight", "Classifications under way.", multiprocess_mode="livesum", registry=registry
        )
        self.ready = Gauge("dogbreed_ready", "Workers that answer.", multiprocess_mode="livesum", registry=registry)
        self.model = Gauge(
            "dogbreed_model", "The model served.", ["version"], multiprocess_mode="max", registry=registry
        )


def make_folder() -> None:
    """Makes the folder of the numbers anew where something has cleaned it up."""
    Path(os.environ[METRICS_FOLDER]).mkdir(mode=0o700, exist_ok=True)


def forget_dead_workers() -> None:
    """Takes the gauges of workers that were killed out of the sums."""
    make_folder()
    for file in Path(os.environ[METRICS_FOLDER]).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not _runs(pid):
            mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def expose() -> tuple[bytes, str]:
    """The metrics of all workers in Prometheus' text format, and its content type."""
    registry = CollectorRegistry()
    make_folder()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
