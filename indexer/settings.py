"""Where data, weights and database live. Built once at the edge and passed in."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.memory import bytes_of, half_of_memory


class Settings(BaseSettings):
    """Settings of the lower floors, from ``PARCELLE_*`` environment variables or arguments."""

    model_config = SettingsConfigDict(
        env_prefix="PARCELLE_",
        extra="ignore",
        # A database URL or a token is not repeated where it is refused.
        hide_input_in_errors=True,
    )

    data_dir: Path = Path("parcelle-data")
    """Folder of the SQLite database, the generations and cached weights."""

    database_url: str = ""
    """SQLAlchemy URL; empty means ``sqlite:///<data_dir>/parcelle.db``."""

    croma_weights: str = "pretrained"
    """``pretrained``, the path of a weight file, or ``untrained``."""

    index_memory: str = ""
    """What an index may take, such as ``8GiB``; empty means half of the machine's memory."""

    vector_backend: Literal["faiss", "milvus"] = "faiss"
    """Where vectors are searched: in this process, or on a Milvus server."""

    milvus_uri: str = ""
    """Address of a Milvus server; empty means a file, ``<data_dir>/milvus.db``, by Milvus Lite."""

    milvus_token: SecretStr = SecretStr("")
    """``user:password`` or token of the Milvus server; empty for one that asks for none."""

    log_level: str = Field(default="WARNING")
    """Name of a level of Python's logging."""

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        level = value.upper()
        if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError(
                f"PARCELLE_LOG_LEVEL is {value!r}; use DEBUG, INFO, WARNING, ERROR or CRITICAL"
            )
        return level

    @field_validator("index_memory")
    @classmethod
    def _known_size(cls, value: str) -> str:
        if value and bytes_of(value) is None:
            raise ValueError(
                f"PARCELLE_INDEX_MEMORY is {value!r}; write a size such as 8GiB or 512MiB"
            )
        return value

    @property
    def index_memory_bytes(self) -> int:
        """Bytes that an index may take."""
        return bytes_of(self.index_memory) or half_of_memory()

    @property
    def resolved_database_url(self) -> str:
        """The database URL with its default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'parcelle.db'}"

    @property
    def resolved_milvus_uri(self) -> str:
        """The address of Milvus with its default filled in."""
        return self.milvus_uri or str(self.data_dir / "milvus.db")

    @property
    def generations_dir(self) -> Path:
        """Folder that holds one folder per published generation."""
        return self.data_dir / "generations"
