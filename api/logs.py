"""The service's log: one JSON object a line, on stderr."""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

from api import request_ids

FIELDS: Final = "parcelle_fields"
"""Attribute of a log record that holds further members of its object."""

# What is secret goes by these names in addresses and connection strings: the signature of a link
# (sig), tokens and keys of services, passwords of databases.
_QUERY: Final = re.compile(
    r"(?P<address>[a-z][a-z0-9+.-]*://[^\s?\"'<>]*)\?[^\s\"'<>)\]]+", re.IGNORECASE
)
_LOGIN: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/\"'<>]+@", re.IGNORECASE)
# libpq takes what follows the first @ of a password that has one for the host, and names it.
_QUOTED_LOGIN: Final = re.compile(r"(?<=[\"'])[^\s/\"']+@(?=[^\s/\"']+[\"'])")
_NAMED: Final = re.compile(
    r"(?P<name>\b(?:password|passwd|token|api[-_]?keys?|x-api-key|secret|sig|signature)\b"
    r"[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&)\]}]+",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text without what addresses, headers and connection strings in it hold of secrets.

    Nothing that Parcelle writes should need it; libraries repeat addresses in their errors.
    """
    text = _QUERY.sub(r"\g<address>?...", text)
    text = _LOGIN.sub(r"\g<scheme>***@", text)
    text = _QUOTED_LOGIN.sub("***@", text)
    text = _BEARER.sub(r"\g<name>***", text)
    return _NAMED.sub(r"\g<name>***", text)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object without line breaks and without secrets.

    Members: ``time`` (RFC 3339, UTC), ``level``, ``process``, ``logger``, ``message``, and where
    there is one ``request_id``, what the record has under ``FIELDS``, and ``traceback``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        # Handlers write in the thread and context that logs.
        request_id = request_ids.current()
        if request_id is not None:
            content["request_id"] = request_id
        content |= getattr(record, FIELDS, {})
        if record.exc_info:
            content["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(content, default=str)


def log_config(level: str) -> dict[str, Any]:
    """For ``logging.config.dictConfig``, which each worker process calls.

    Args:
        level: Name of the lowest level that is written.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "json",
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        # At INFO these tell how they were loaded.
        "loggers": {name: {"level": "WARNING"} for name in ("alembic", "faiss")},
    }
