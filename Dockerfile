FROM python:3.12-slim

# rasterio's wheels expect the expat of the system, which slim images need not have.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/*

# `cpu`, or a CUDA version as uv's UV_TORCH_BACKEND knows it.
ARG TORCH_BACKEND=cpu
ENV UV_TORCH_BACKEND=$TORCH_BACKEND \
    UV_SYSTEM_PYTHON=1 \
    UV_NO_CACHE=1 \
    PYTHONUNBUFFERED=1

# Dependencies first, so that a change of the code does not fetch them again.
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN pip install --no-cache-dir -c requirements.lock uv \
    && uv pip install -c requirements.lock -r pyproject.toml --extra postgres --extra milvus

COPY indexer indexer
COPY retriever retriever
COPY api api
COPY migrations migrations
RUN uv pip install --no-deps --build-constraints requirements.lock .

RUN useradd --system --uid 10001 --create-home parcelle \
    && install --directory --owner parcelle --group parcelle /data
USER parcelle
WORKDIR /data
VOLUME /data

# With a read-only root file system only /data and /tmp can be written to; downloaded weights are kept.
ENV PARCELLE_DATA_DIR=/data \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    TORCH_HOME=/data/torch

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]

# Reachable from outside the container, so it starts only where PARCELLE_API_KEYS names a key.
CMD ["parcelle", "serve", "--host", "0.0.0.0", "--port", "8000"]
