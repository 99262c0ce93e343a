"""Tells X-Ray how long a part of a call took: one datagram to the daemon that Lambda runs, without its SDK.

A subsegment document behind the daemon's header line, as "Sending trace data to AWS X-Ray" of its guide describes them.
Nothing here raises or waits: a trace is not worth a call.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import socket
from typing import NamedTuple

_HEADER = b'{"format": "json", "version": 1}\n'


class Trace(NamedTuple):
    """What Lambda says of the present call.

    id: of the trace. parent: the function's own segment. sampled: whether X-Ray wants to hear of it.
    """

    id: str
    parent: str
    sampled: bool


def current() -> Trace | None:
    """The present call's trace; Lambda sets the variable before each (`Root=1-…;Parent=…;Sampled=1;Lineage=…`)."""
    parts = (part.strip().partition("=") for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";"))
    fields = {name: value for name, _, value in parts}
    root, parent = fields.get("Root", ""), fields.get("Parent", "")
    if not re.fullmatch("1-[0-9a-f]{8}-[0-9a-f]{24}", root):
        return None
    return Trace(root, parent, fields.get("Sampled") == "1" and bool(re.fullmatch("[0-9a-f]{16}", parent)))


def send(trace: Trace | None, name: str, start_s: float, end_s: float, status: int, **annotations: str) -> None:
    """Reports a part of the call.

    start_s, end_s: since 1970. status: as in HTTP; 400 and more marks an error, 500 and more a fault.
    annotations: what traces can be searched by.
    """
    if trace is None or not trace.sampled:
        return
    subsegment = {
        "name": name,
        "id": os.urandom(8).hex(),
        "trace_id": trace.id,
        "parent_id": trace.parent,
        "type": "subsegment",
        "start_time": start_s,
        "end_time": end_s,
        "error": 400 <= status < 500,
        "throttle": status == 429,
        "fault": status >= 500,
        "annotations": annotations,
    }
    with contextlib.suppress(OSError, ValueError, OverflowError):
        address = _daemon(os.environ.get("AWS_XRAY_DAEMON_ADDRESS", ""))
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(_HEADER + json.dumps(subsegment).encode(), address)


def _daemon(setting: str) -> tuple[str, int]:
    """The daemon's UDP address, from `address:port` or `tcp:address:port udp:address:port`; ValueError without one.

    A name instead of an address would have to be looked up, which takes time.
    """
    for part in setting.split():
        if not part.startswith("tcp:"):
            host, _, port = part.removeprefix("udp:").rpartition(":")
            return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    raise ValueError("no address")
