"""Starts and stops a local AWS from the command line."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from localaws import server
from localaws.server import LocalAwsError, Server


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        if options.command == "up":
            _up(options)
        elif options.command == "down":
            _down(options.state)
        elif options.command == "status":
            return _status(options.state)
        else:
            server.serve(options.state, socket.socket(fileno=options.fd))
    except LocalAwsError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _up(options: argparse.Namespace) -> None:
    if options.foreground:
        options.state.mkdir(parents=True, exist_ok=True)
        server.serve(options.state, server.bind(options.port), options.bucket)
    else:
        _describe(server.up(options.port, options.state, options.bucket))


def _down(state: Path) -> None:
    ended = server.down(state)
    if ended is None:
        print(f"Nothing to stop: no server with the state folder {state} runs.")
    else:
        print(f"Stopped {ended.url}. Its account lived in memory and is gone, with every resource and object in it.")
        print("Terraform state that was made against it describes nothing any more: delete it before the next apply.")


def _status(state: Path) -> int:
    running = server.status(state)
    if running is None:
        print(f"No server with the state folder {state} runs.")
        return 1
    _describe(running)
    return 0


def _describe(running: Server) -> None:
    print(f"Local AWS at {running.url} (process {running.pid}, log {running.log}). Point clients at it with:")
    for name, value in running.environment.items():
        print(f"  export {name}={value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("localaws", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down|status")
    up = commands.add_parser("up", help="start the server if it does not run, and wait until it answers")
    up.add_argument("--port", type=int, default=server.PORT, help="default: %(default)s; 0 takes a free one")
    up.add_argument("--bucket", action="append", default=[], metavar="NAME", help="make this bucket, with versioning")
    up.add_argument("--foreground", action="store_true", help="stay in the terminal until Ctrl-C")
    down = commands.add_parser("down", help="end the server, and with it the account")
    status = commands.add_parser("status", help="say whether and where the server runs (exit status 1: it does not)")
    serve = commands.add_parser("serve")  # what `up` starts; the socket is the parent's
    serve.add_argument("--fd", type=int, required=True)
    for command in (up, down, status, serve):
        command.add_argument(
            "--state",
            type=Path,
            default=server.default_state(),
            metavar="FOLDER",
            help="where the server keeps its lock and log; one server per folder (default: %(default)s)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
