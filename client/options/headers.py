"""Headers: short texts that travel with a job (a tenant, a trace, who asked for it). They lie beside the arguments, so
jobs with different headers still share a bundle, and are signed with them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import InvalidJob

HEADERS_MAX = 32
HEADER_BYTES_MAX = 8 * 1024
"""All names and values of one job."""
NONE: Mapping[str, str] = {}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")


def checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Raises `InvalidJob` for what cannot travel."""
    if not isinstance(headers, Mapping):
        raise InvalidJob(f'headers {headers!r:.80} is not valid: a mapping, as in headers={{"tenant": "acme"}}')
    if len(headers) > HEADERS_MAX:
        raise InvalidJob(f"{len(headers)} headers: at most {HEADERS_MAX} travel with a job")
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.match(name):
            raise InvalidJob(f"{name!r:.80} is not a valid header name: letters, digits and _ . - (at most 64)")
        if not isinstance(value, str):
            raise InvalidJob(f"header {name}: its value has to be a text, and is of type {type(value).__name__}")
        try:
            size += len(name) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidJob(f"header {name}: its value {value!r:.80} cannot be encoded as UTF-8") from None
    if size > HEADER_BYTES_MAX:
        raise InvalidJob(f"headers of {size:,} bytes: at most {HEADER_BYTES_MAX:,} travel with a job")
    return headers
