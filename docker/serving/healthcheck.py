#!/usr/local/bin/python
"""Exits with 0 if the server in this container can answer requests. `http.client` knows no proxies: none is asked."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")), timeout=4)
try:
    connection.request("GET", "/ping")
    sys.exit(connection.getresponse().status != 200)
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"error: the server does not answer ({error}). Its log says why.")
