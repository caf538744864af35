import json
import logging
import logging.config
import os
import sys
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from api import request_ids
from api.logs import FIELDS, JsonFormatter, log_config, without_secrets


def formatted(message: str, *args: object, **attributes: object) -> dict[str, object]:
    record = logging.LogRecord("parcelle.x", logging.WARNING, "", 0, message, args, None)
    record.created = 0.5
    record.__dict__.update(attributes)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert line.isascii()
    found: dict[str, object] = json.loads(line)
    return found


@pytest.mark.parametrize(
    "said",
    [
        "GET https://x.org/a.tif?se=1&sig=sesame%3D failed",
        "postgresql+psycopg://me:sesame@h:1/d cannot be opened",
        "postgresql+psycopg://me:a@sesame@h:1/d cannot be opened",
        "postgresql+psycopg://me@h/d?password=sesame cannot be opened",
        "failed to resolve host 'sesame@127.0.0.1'",
        "connection with host=h password=sesame dbname=d failed",
        "headers {'Authorization': 'Bearer sesame', 'X-API-Key': 'sesame'}",
        "Authorization: Basic sesame=",
        'token="sesame"',
    ],
)
def test_no_secret_of_an_address_or_a_header_is_written(said: str) -> None:
    line = str(formatted(said))
    assert "sesame" not in line
    assert "***" in line or "?..." in line


def test_the_traceback_of_an_error_holds_no_secret_either() -> None:
    try:
        raise OSError("https://x.org/a.tif?sig=sesame")
    except OSError:
        found = formatted("failed", exc_info=sys.exc_info())
    assert "sesame" not in str(found)
    assert "https://x.org/a.tif?..." in str(found["traceback"])


@pytest.mark.parametrize(
    "said",
    [
        "GET /collections/demo/items: 200",
        "The database sqlite:////srv/parcelle.db is locked.",
        "Which parcels? None of them.",
        "no key is set; a key: nothing",
        "http://127.0.0.1:8000/ is taken",
    ],
)
def test_what_is_no_secret_is_written_as_it_is(said: str) -> None:
    assert without_secrets(said) == said


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
