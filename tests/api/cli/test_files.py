import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shapely

from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.api.cli.conftest import Parcelle
from tests.synthetic import make_chip, write_geotiff

PARCEL = "demo-005"


def write_chips(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"chip_{number}.tif" for number in range(count)]
    folder.mkdir()
    for number, path in enumerate(paths):
        chip = make_chip(size=24, seed=number)
        write_geotiff(path, chip.reflectance * 10_000, descriptions=chip.bands)
    return paths


def test_embed_writes_rows_in_input_order_and_names_them(
    parcelle: Parcelle, tiny_croma: str, tmp_path: Path
) -> None:
    paths = write_chips(tmp_path / "chips", 3)
    out = tmp_path / "out" / "chips.npy"
    ran = parcelle(
        "embed", paths[2], paths[0], paths[1], "--encoder", tiny_croma, "--out", out, "--json"
    )
    assert ran.exit_code == 0, ran.stderr
    embeddings = np.load(out)
    assert embeddings.shape == (3, 512)
    assert embeddings.dtype == np.float32
    about = json.loads(out.with_suffix(".json").read_text())
    names = [row["id"] for row in about["rows"]]
    assert names == ["chip_2", "chip_0", "chip_1"]
    assert about["recipe"]["weights"]["kind"] == "untrained"
    for name, row in zip(names, embeddings, strict=True):
        alone = tmp_path / f"{name}.npy"
        parcelle(
            "embed", tmp_path / "chips" / f"{name}.tif", "--encoder", tiny_croma, "--out", alone
        )
        np.testing.assert_allclose(np.load(alone)[0], row, atol=1e-5)


def test_embed_to_512_dimensions_gives_unit_vectors_of_a_named_space(
    parcelle: Parcelle, tiny_croma: str, tmp_path: Path
) -> None:
    write_chips(tmp_path / "chips", 2)
    out = tmp_path / "chips.parquet"
    ran = parcelle(
        "embed", tmp_path / "chips", "--encoder", tiny_croma, "--out", out, "--dimensions", "512",
        "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    table = pq.read_table(out)
    vectors = np.array(table["embedding"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    emb = json.loads(table.schema.metadata[b"emb"])
    assert emb["emb:dimensions"] == 512
    assert emb["space"]["id"] == ran.json["space"]["id"]


def test_embed_refuses_dimensions_that_the_encoder_does_not_have(
    parcelle: Parcelle, tiny_croma: str, tmp_path: Path
) -> None:
    write_chips(tmp_path / "chips", 1)
    out = tmp_path / "chips.npy"
    ran = parcelle(
        "embed", tmp_path / "chips", "--encoder", tiny_croma, "--out", out, "--dimensions", "1024"
    )
    assert ran.exit_code == 2
    assert "1024" in ran.stderr
    assert not out.exists()


def test_embed_refuses_an_unknown_ending_before_any_work(
    parcelle: Parcelle, tmp_path: Path
) -> None:
    write_chips(tmp_path / "chips", 1)
    ran = parcelle("embed", tmp_path / "chips", "--out", tmp_path / "chips.csv")
    assert ran.exit_code == 2
    assert "chips.csv" in ran.stderr


def test_exported_vectors_are_those_that_searches_use(
    in_demo: Parcelle, demo_index: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "vectors.npy"
    ran = in_demo("export", out, "--collection", "demo", "--json")
    assert ran.exit_code == 0, ran.stderr
    vectors = np.load(out)
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert len(rows) == len(vectors) == ran.json["rows"]
    with ParcelSearcher.open(demo_index) as searcher:
        answer = searcher.similar_by_id(PARCEL, k=1)
    (own,) = [
        number
        for number, row in enumerate(rows)
        if row["id"] == PARCEL and row["scene"] == answer.query["scene"]
    ]
    scores = vectors @ vectors[own]
    scores[[number for number, row in enumerate(rows) if row["id"] == PARCEL]] = -1
    best = rows[int(scores.argmax())]
    assert best["id"] == answer.matches[0].parcel_id
    assert abs(scores.max() - answer.matches[0].score) < 1e-5


def test_exported_geoparquet_holds_geometry_and_provenance(
    in_demo: Parcelle, tmp_path: Path
) -> None:
    out = tmp_path / "vectors.parquet"
    assert in_demo("export", out).exit_code == 0
    table = pq.read_table(out)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry"
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    west, south, east, north = shapely.total_bounds(shapely.from_wkb(table["geometry"].to_pylist()))
    assert 2 < west < east < 3
    assert 49 < south < north < 50
    assert set(table["processing:version"].to_pylist()) == {"05.09"}


def test_export_of_an_unknown_collection_names_those_there_are(
    in_demo: Parcelle, tmp_path: Path
) -> None:
    ran = in_demo("export", tmp_path / "x.npy", "--collection", "dmeo")
    assert ran.exit_code == 1
    assert "demo" in ran.stderr
    assert not list(tmp_path.glob("*.npy"))
