"""The page at `/`: its bytes, and the headers that keep it from loading or running anything that is not its own.

Also packed into the Lambda function's archive, beside `page.html`: only the standard library, imported when needed.
"""

from __future__ import annotations

_cached: tuple[bytes, dict[str, str]] | None = None  # functools.cache would be half of what importing this costs


def page() -> tuple[bytes, dict[str, str]]:
    """The HTML (UTF-8) and the headers to send with it.

    A request whose `If-None-Match` is the `ETag` may be answered with 304, the same headers and no body.
    """
    global _cached
    if _cached is not None:
        return _cached
    import base64
    import hashlib
    from pathlib import Path

    # A browser hashes what it parsed, in which line ends are LF whatever the file has.
    html = Path(__file__).with_name("page.html").read_bytes().replace(b"\r\n", b"\n")

    def source(tag: bytes) -> str:
        content = html.split(b"<" + tag + b">", 1)[1].split(b"</" + tag + b">", 1)[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"

    policy = {
        "default-src": "'none'",
        "script-src": source(b"script"),
        "style-src": source(b"style"),
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",  # innerHTML and its kind throw
        "trusted-types": "'none'",
    }
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",  # kept, but asked about each time: a new version shows at once
        "ETag": f'"{hashlib.sha256(html).hexdigest()[:16]}"',
    }
    _cached = html, headers
    return _cached
