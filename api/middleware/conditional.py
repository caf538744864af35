"""Entity tags, and no second answer to who has it already (RFC 9110, sections 8.8.3 and 13)."""

import hashlib
import re
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON: Final = re.compile(r"application/([\w.-]+\+)?json\b")
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')

_OF_THE_BODY: Final = {b"content-type", b"content-length", b"content-encoding", b"content-language"}


def entity_tag(content: bytes) -> str:
    """A weak entity tag for content that a compressed copy may stand for.

    Args:
        content: What is the same in answers that mean the same.
    """
    return f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'


def names(if_none_match: str, tag: str) -> bool:
    """Whether an ``If-None-Match`` header names a tag; weak and strong ones are alike to it.

    Args:
        if_none_match: The header; empty where there is none.
        tag: Of the answer that there would be.
    """
    if not if_none_match:
        return False
    return if_none_match.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(if_none_match)


class ConditionalAnswers:
    """Tags successful answers to GET, and answers with 304 where the client has the same.

    JSON gets a tag of its body; what has a tag of its own keeps it; a stream without one is
    passed on. Each that has a tag is to be asked for again before a copy is used, so that
    nothing outlives its generation.

    Args:
        app: The layers within.
        private: Whether keys are asked for, so that no shared cache may keep an answer.
    """

    def __init__(self, app: ASGIApp, *, private: bool) -> None:
        self._app = app
        self._cache_control = "private, no-cache" if private else "no-cache"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] == "http" and scope["method"] == "GET":
            known = ", ".join(Headers(scope=scope).getlist("if-none-match"))
            send = _Answer(send, known, self._cache_control).send
        await self._app(scope, receive, send)


class _Answer:
    """One answer on its way out."""

    def __init__(self, send: Send, known: str, cache_control: str) -> None:
        self._send = send
        self._known = known
        self._cache_control = cache_control
        self._held: Message | None = None
        self._is_known = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self._held is not None:
            await self._continue(self._held, message)
        elif not self._is_known:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = Headers(raw=message["headers"])
        if message["status"] != HTTPStatus.OK:
            await self._send(message)
        elif "etag" in headers:
            await self._send_tagged(message, headers["etag"])
        elif _JSON.match(headers.get("content-type", "")):
            self._held = message
        else:
            await self._send(message)

    async def _continue(self, start: Message, message: Message) -> None:
        self._held = None
        if message.get("more_body", False):
            await self._send(start)
        else:
            await self._send_tagged(start, entity_tag(message.get("body", b"")))
        if not self._is_known:
            await self._send(message)

    async def _send_tagged(self, start: Message, tag: str) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["etag"] = tag
        headers.setdefault("cache-control", self._cache_control)
        self._is_known = names(self._known, tag)
        if not self._is_known:
            await self._send({**start, "headers": headers.raw})
            return
        # The whole answer would have said so where it is compressed, and it may be.
        headers.add_vary_header("Accept-Encoding")
        kept = [(name, value) for name, value in headers.raw if name not in _OF_THE_BODY]
        status = HTTPStatus.NOT_MODIFIED.value
        await self._send({"type": "http.response.start", "status": status, "headers": kept})
        await self._send({"type": "http.response.body", "body": b""})
