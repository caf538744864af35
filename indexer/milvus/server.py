"""A Milvus server, asked through its Python client: one door for every call, with its errors.

``pymilvus`` is imported when the first call is made, since it takes seconds.
"""

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from indexer.errors import StorageError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

ROW, VECTOR = "row", "vector"
"""Names of the two fields of a collection."""

MOST_RESULTS = 16_384
"""Results that a search may ask for (https://milvus.io/docs/limitations.md)."""

SECONDS = 10.0
"""What an answer may take."""

SECONDS_TO_BUILD = 3600.0
"""What a step of building may take: it is Milvus that trains and fills the lists."""

# https://github.com/milvus-io/milvus/blob/master/pkg/util/merr/errors.go
_COLLECTION_NOT_FOUND = 100
_COLLECTION_NOT_LOADED = 101

_MOST_MS_APART = 2000
"""Between attempts to reach a server that is away; else they come to be minutes apart."""

_FETCHED_BYTES = 8 << 20
"""Vectors that are sent or fetched at once; a message may have 64 MiB."""

_LITE = ".db"


class MilvusServer:
    """Calls to one server, or to a file of Milvus Lite. Safe to share between threads.

    It connects when it is first asked, and again by itself after the server was away.

    Args:
        uri: ``http://host:19530``, or a file that ends in ``.db``.
        token: ``user:password``; empty where the server asks for none.
        seconds: What an answer may take.
    """

    def __init__(self, uri: str, token: str = "", seconds: float = SECONDS) -> None:
        self._uri = uri
        self._token = token
        self._seconds = seconds
        self._client: MilvusClient | None = None
        self._connecting = threading.Lock()

    @property
    def address(self) -> str:
        """Where it is, without any secret."""
        if self.is_file:
            return self._uri
        parts = urlsplit(self._uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def is_file(self) -> bool:
        """Whether it is a file of Milvus Lite, which one process at a time can open."""
        return self._uri.endswith(_LITE)

    @property
    def is_lite(self) -> bool:
        """Whether Milvus Lite answers, from a file or as a server of its own."""
        return "lite" in self.version

    @property
    def version(self) -> str:
        """As the server tells it."""
        return str(self.call("get_server_version"))

    def close(self) -> None:
        """End the connection; a file can be opened by another process then."""
        with self._connecting:
            if self._client is None:
                return
            self._client.close()
            self._client = None
            if self.is_file:
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self._uri)

    def call(
        self,
        method: str,
        *args: object,
        seconds: float | None = None,
        loaded: bool = False,
        **kwargs: object,
    ) -> Any:  # noqa: ANN401 - whatever Milvus answers
        """Call a method of ``pymilvus.MilvusClient``.

        Args:
            method: Its name.
            args: Its arguments.
            seconds: What it may take; None for what is usual.
            loaded: The collection was loaded a moment ago.
            kwargs: Its arguments.

        Raises:
            StorageError: If the server cannot be reached, or refuses (``milvus-unreachable``), or
                if it does not have the collection (``generation-corrupt``).
        """
        client = self._connected()
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            return getattr(client, method)(*args, timeout=seconds or self._seconds, **kwargs)
        except MilvusException as error:
            if error.code == _COLLECTION_NOT_FOUND:
                raise self._missing(error.message) from error
            forgotten = error.code == _COLLECTION_NOT_LOADED and not loaded
            if forgotten and method in ("search", "query"):
                # Milvus Lite forgets what was loaded when it is started anew.
                self.load(str(args[0]))
                return self.call(method, *args, seconds=seconds, loaded=True, **kwargs)
            raise self._unreachable(error.message) from error
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else error
            raise self._unreachable(str(code)) from error

    def _connected(self) -> "MilvusClient":
        if self._client is not None:
            return self._client
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> "MilvusClient":
        try:
            from pymilvus import MilvusClient
            from pymilvus.exceptions import MilvusException
        except ModuleNotFoundError as error:
            raise StorageError(
                f"PARCELLE_VECTOR_BACKEND is milvus, but {error.name} is not installed. Install it "
                "with: pip install 'parcelle[milvus]'",
                kind="milvus-unreachable",
            ) from error
        _silence()
        if self.is_file:
            Path(self._uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            return MilvusClient(
                self._uri,
                token=self._token,
                timeout=self._seconds,
                dedicated=True,
                grpc_options={"grpc.max_reconnect_backoff_ms": _MOST_MS_APART},
            )
        except MilvusException as error:
            if self.is_file:
                raise self._file_unusable(error) from error
            raise self._unreachable(error.message) from error

    def _file_unusable(self, error: Exception) -> StorageError:
        if "milvus-lite is required" in str(error):
            what = "is a file of Milvus Lite, which is not installed: pip install milvus-lite"
        elif not os.access(Path(self._uri).parent, os.W_OK):
            what = "cannot be written to"
        else:
            what = (
                "cannot be opened by Milvus Lite. One process at a time can: end the other one, "
                "such as a parcelle serve that runs, or start a server and let PARCELLE_MILVUS_URI "
                "name it"
            )
        return StorageError(f"{self._uri} {what}.", kind="milvus-unreachable")

    def _unreachable(self, why: str) -> StorageError:
        if self._token:
            why = why.replace(self._token, "***")
        return StorageError(
            f"Milvus at {self.address} does not answer as it should ({why}). See that it runs, and "
            "that PARCELLE_MILVUS_URI names it.",
            kind="milvus-unreachable",
        )

    def _missing(self, what: str) -> StorageError:
        return StorageError(
            f"Milvus at {self.address}: {what}. Rebuild it from the database with: "
            "parcelle generations rebuild",
            kind="generation-corrupt",
        )

    # Collections -----------------------------------------------------------------------------

    def create(self, collection: str, dimensions: int) -> None:
        """Make an empty collection; one of the same name, of a build that died, is dropped."""
        self.drop(collection)
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimensions)
        self.call("create_collection", collection, schema=schema)

    def insert(self, collection: str, first: int, vectors: FloatArray) -> None:
        """Add vectors, shape ``(n, d)``, under the rows from one on."""
        size = rows_at_once(vectors.shape[1])
        for at in range(0, len(vectors), size):
            rows = [
                {ROW: first + at + n, VECTOR: vector}
                for n, vector in enumerate(vectors[at : at + size])
            ]
            self.call("insert", collection, rows, seconds=SECONDS_TO_BUILD)

    def make_index(self, collection: str, kind: str, nlist: int) -> None:
        """Have the lists built, and the collection held in the server's memory."""
        from pymilvus import MilvusClient

        wanted = MilvusClient.prepare_index_params()
        parameters = {"nlist": nlist} if nlist > 1 else {}
        wanted.add_index(VECTOR, index_type=kind, metric_type="IP", params=parameters)
        self.call("create_index", collection, wanted, seconds=SECONDS_TO_BUILD)
        self.load(collection)

    def load(self, collection: str) -> None:
        """Have a collection held in the server's memory; nothing where it is."""
        self.call("load_collection", collection, seconds=SECONDS_TO_BUILD)

    def count(self, collection: str) -> int:
        """Rows of a collection."""
        answer = self.call(
            "query", collection, output_fields=["count(*)"], consistency_level="Strong"
        )
        return int(answer[0]["count(*)"])

    def drop(self, collection: str) -> None:
        """Remove a collection, if it is there, with the names that point at it."""
        if self.call("has_collection", collection):
            # A server refuses while an alias points at it.
            for alias in self.call("list_aliases", collection)["aliases"]:
                self.call("drop_alias", alias)
            self.call("drop_collection", collection)

    def collections(self, prefix: str) -> list[str]:
        """Names of collections that begin alike."""
        return sorted(name for name in self.call("list_collections") if name.startswith(prefix))

    def point(self, alias: str, collection: str) -> None:
        """Let a name stand for a collection from now on, whatever it stood for before."""
        if alias in self.call("list_aliases", "")["aliases"]:
            self.call("alter_alias", collection, alias)
        else:
            self.call("create_alias", collection, alias)

    # Rows ------------------------------------------------------------------------------------

    def search(
        self, collection: str, queries: FloatArray, k: int, nprobe: int, among: str = ""
    ) -> list[tuple[FloatArray, IntArray]]:
        """Scores and rows of the k nearest to each query, closest first.

        Args:
            collection: Its name.
            queries: Shape ``(n_queries, d)``.
            k: At most ``MOST_RESULTS``.
            nprobe: Lists to look into.
            among: Which rows may be found, as an expression; empty for all.
        """
        answer = self.call(
            "search",
            collection,
            data=list(queries),
            limit=k,
            filter=among,
            anns_field=VECTOR,
            # Else Milvus Lite sends the vectors along.
            output_fields=[ROW],
            search_params={"metric_type": "IP", "params": {"nprobe": nprobe}},
        )
        return [
            (np.asarray(one.distances, dtype=np.float32), np.asarray(one.ids, dtype=np.int64))
            for one in answer
        ]

    def fetch(self, collection: str, among: str) -> tuple[IntArray, FloatArray]:
        """Rows in ascending order and their vectors, as an expression chooses them."""
        answer = self.call("query", collection, filter=among, output_fields=[ROW, VECTOR])
        rows = np.array([one[ROW] for one in answer], dtype=np.int64)
        vectors = np.array([one[VECTOR] for one in answer], dtype=np.float32)
        order = np.argsort(rows)
        return rows[order], vectors[order]


def rows_at_once(dimensions: int) -> int:
    """Rows whose vectors are sent or fetched in one message."""
    return max(1, min(MOST_RESULTS, _FETCHED_BYTES // (4 * dimensions)))


def _silence() -> None:
    """Leave telling of errors to those who call: the client prints each with its traceback."""
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
