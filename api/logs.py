"""The service's log: one JSON object a line, on stderr."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from api import request_ids

FIELDS: Final = "parcelle_fields"
"""Attribute of a log record that holds further members of its object."""


class JsonFormatter(logging.Formatter):
    """A record as one JSON object without line breaks.

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
            "message": record.getMessage(),
        }
        # Handlers write in the thread and context that logs.
        request_id = request_ids.current()
        if request_id is not None:
            content["request_id"] = request_id
        content |= getattr(record, FIELDS, {})
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
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
