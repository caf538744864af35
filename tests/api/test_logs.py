import json
import logging
import logging.config
import os
import sys
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from api import request_ids
from api.logs import FIELDS, JsonFormatter, log_config


def formatted(message: str, *args: object, **attributes: object) -> dict[str, object]:
    record = logging.LogRecord("parcelle.x", logging.WARNING, "", 0, message, args, None)
    record.created = 0.5
    record.__dict__.update(attributes)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert line.isascii()
    found: dict[str, object] = json.loads(line)
    return found


def test_a_record_is_one_line_of_json() -> None:
    assert formatted("seen %d of %s", 3, "é\n\ud800") == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "WARNING",
        "process": os.getpid(),
        "logger": "parcelle.x",
        "message": "seen 3 of é\n\ud800",
    }


def test_a_record_of_a_request_has_its_id_and_fields() -> None:
    def asked() -> dict[str, object]:
        request_ids.begin([(b"x-request-id", b"mine")])
        return formatted("x", **{FIELDS: {"status": 200}})

    found = copy_context().run(asked)
    assert found["request_id"] == "mine"
    assert found["status"] == 200
    assert "request_id" not in formatted("after it")


def test_a_traceback_is_a_member() -> None:
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        found = formatted("x", exc_info=sys.exc_info())
    assert "RuntimeError: broken" in str(found["traceback"])


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    others = {name: logging.getLogger(name).level for name in ("alembic", "faiss")}
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    for name, before in others.items():
        logging.getLogger(name).setLevel(before)


@pytest.mark.usefixtures("restored_logging")
def test_the_configuration_writes_what_is_at_its_level_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.config.dictConfig(log_config("INFO"))
    logging.getLogger("parcelle.x").info("seen")
    logging.getLogger("parcelle.x").debug("not seen")
    logging.getLogger("faiss.loader").info("not seen")
    output = capsys.readouterr()
    assert [json.loads(line)["message"] for line in output.err.splitlines()] == ["seen"]
    assert output.out == ""
