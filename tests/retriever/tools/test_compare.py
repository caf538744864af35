from langchain_core.tools import BaseTool

from retriever.search import ParcelSearcher
from tests.retriever.tools.asking import answer, artifact, refusal

NEXT = "Next: get_parcel_state with an id tells how it stands among its kind."


def test_parcels_are_told_side_by_side(compare: BaseTool, searcher: ParcelSearcher) -> None:
    (generation,) = searcher.generations()
    lines = answer(compare, parcel_ids=["a", "c"]).splitlines()
    # Vectors at cosines 1 and 0.8 to one axis.
    assert lines == [
        "2 parcels side by side, seen within a day. Medians, unitless.",
        "number,id,collection,crop,seen,NDVI,NDMI,NDVI per day",
        '1,"a","demo","winter wheat",2023-05-29,0.70,0.30,too few',
        '2,"c","other","BTH",2023-05-29,0.70,0.30,too few',
        "Similarity (cosine, -1 to 1): 1-2: 0.800.",
        f"Source: space {generation.manifest.space_digest[:12]} (croma-large, weights trained).",
        NEXT,
    ]


def test_in_detail_area_and_peak_are_told(compare: BaseTool) -> None:
    lines = answer(compare, parcel_ids=["a", "c"], response_format="detailed").splitlines()
    assert lines[1] == (
        '1. "a" of "demo": crop "winter wheat", 1.23 ha, seen 2023-05-29: NDVI 0.70, NDMI 0.30, '
        "peak NDVI 0.70 on 2023-05-29"
    )


def test_dates_that_cannot_be_compared_are_told(compare: BaseTool) -> None:
    text = answer(compare, parcel_ids=["a", "b"])
    # 29 May to 12 August.
    assert "2 parcels side by side, NOT comparable: seen 75 days apart." in text
    assert artifact(compare, parcel_ids=["a", "b"])["comparable"] is False


def test_a_parcel_that_was_never_seen_reliably_is_told(compare: BaseTool) -> None:
    lines = answer(compare, parcel_ids=["a", "e"]).splitlines()
    assert "NOT comparable: one was never seen reliably" in lines[0]
    assert lines[3] == '2,"e",unknown,never seen reliably'
    assert "no two have vectors in one space" in lines[4]


def test_the_artifact_is_the_whole_comparison(compare: BaseTool, searcher: ParcelSearcher) -> None:
    whole = artifact(compare, parcel_ids=["a", "b", "c"])
    assert whole == searcher.compare(["a", "b", "c"]).to_dict()


def test_an_id_in_several_collections_must_be_told_apart(compare: BaseTool) -> None:
    text = refusal(compare, parcel_ids=["a", "twin"])
    assert 'several collections ("demo", "other")' in text
    assert text.endswith("Call compare_parcels again with one of these as collection.")
    assert "side by side" in answer(compare, parcel_ids=["a", "twin"], collection="demo")
