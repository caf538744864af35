"""The door's side of decoding uploads: a process that is started when the first image comes."""

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from api.errors import RequestError
from api.settings import ApiSettings

if TYPE_CHECKING:
    from indexer.imagery.chip import Chip
    from indexer.imagery.decoding import DecodingWorker
    from indexer.imagery.reader import ReadingOptions
    from indexer.imagery.spectral_bands import SpectralBand

RETRY_AFTER_S: Final = 5


class LazyDecoder:
    """Reads uploaded images in a process of their own; without any, nothing of GDAL is loaded.

    Args:
        settings: How much memory and time an image may take.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._worker: DecodingWorker | None = None
        self._making = threading.Lock()

    def decode(
        self,
        content: bytes,
        name: str,
        options: "ReadingOptions",
        wanted: "tuple[SpectralBand, ...] | None",
    ) -> "Chip":
        """The chip that an upload holds, as ``DecodingWorker.decode``.

        Raises:
            ImageryError: If the image cannot be used.
            RequestError: ``too-busy``, 503, if it cannot be read just now.
        """
        from indexer.imagery.decoding import NotDecodedNowError

        try:
            return self._decoding().decode(content, name, options, wanted)
        except NotDecodedNowError as error:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                kind="too-busy",
                detail=str(error),
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from None

    @property
    def pid(self) -> int | None:
        """Of the process; None where none runs."""
        return None if self._worker is None else self._worker.pid

    def close(self) -> None:
        """End the process; the next image starts another."""
        if self._worker is not None:
            self._worker.close()

    def _decoding(self) -> "DecodingWorker":
        from indexer.imagery.decoding import DecodingWorker

        with self._making:
            if self._worker is None:
                self._worker = DecodingWorker(
                    memory_bytes=self._settings.decode_memory_bytes,
                    timeout_s=self._settings.decode_timeout_s,
                    most_bytes=self._settings.max_body_bytes,
                )
            return self._worker
