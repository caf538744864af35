"""``POST /search``: parcels that look like examples, a vector, or an image that is sent along."""

from http import HTTPStatus

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.decoder import LazyDecoder
from api.dependencies import DecoderDep, KeyDep, KnownParametersDep, SearcherDep, TurnsDep
from api.errors import problem_responses
from api.features import GEOJSON, MATCHES_SCHEMA, GeoJSONResponse, described
from api.filters import filter_from
from api.search_requests import SearchRequest, SentImage, body_description, read_search
from indexer.errors import InvalidInputError
from retriever.queries import ParcelFilter
from retriever.results import Matches
from retriever.search import ParcelSearcher

router = APIRouter(
    tags=["search"],
    dependencies=[KeyDep, KnownParametersDep],
    responses=problem_responses(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)


@router.post(
    "/search",
    response_class=GeoJSONResponse,
    responses=described("The matches, closest first", GEOJSON, MATCHES_SCHEMA),
    openapi_extra={"requestBody": body_description()},
)
async def search(
    request: Request, searcher: SearcherDep, turns: TurnsDep, decoder: DecoderDep
) -> GeoJSONResponse:
    """Parcels that look like some examples and not like others, like a vector, or like an image.

    Send JSON with `positive` and `negative` ids, or with a `vector`; or send a form
    (`multipart/form-data`) with an `image`. No example is ever its own match.
    """
    asked, image = await read_search(request)
    if image is None:
        return await turns.ask(lambda: GeoJSONResponse(_found(searcher, asked).to_geojson()))

    def by_image() -> GeoJSONResponse:
        return GeoJSONResponse(_by_image(searcher, decoder, asked, image).to_geojson())

    # To embed it takes seconds, most of them outside of the interpreter.
    return await run_in_threadpool(by_image)


def _found(searcher: ParcelSearcher, asked: SearchRequest) -> Matches:
    where = _filter(asked)
    if asked.vector is None:
        return searcher.similar_by_examples(
            asked.positive,
            asked.negative,
            collection=asked.collection,
            k=asked.k,
            where=where,
            observations=asked.observations,
            recall=asked.recall,
            explain=asked.explain,
        )
    if asked.positive or asked.negative:
        raise InvalidInputError(
            "Examples and a vector were given; send one of them.", kind="invalid-examples"
        )
    return searcher.similar_by_vector(
        np.asarray(asked.vector),
        collection=asked.collection,
        space=asked.space,
        k=asked.k,
        where=where,
        observations=asked.observations,
        recall=asked.recall,
        explain=asked.explain,
    )


def _by_image(
    searcher: ParcelSearcher, decoder: LazyDecoder, asked: SearchRequest, image: SentImage
) -> Matches:
    # GDAL is needed for no other search.
    from indexer.imagery.reader import ReadingOptions
    from indexer.sensors import parse_bands, parse_baseline
    from retriever.query_embedding import bands_to_ask_with

    where = _filter(asked)
    wanted = bands_to_ask_with(searcher.engine, asked.collection)
    options = ReadingOptions(
        bands=None if image.bands is None else parse_bands(image.bands),
        baseline=None if image.baseline is None else parse_baseline(image.baseline),
        wanted=wanted.names,
    )
    return searcher.similar_by_chip(
        decoder.decode(image.content, image.name, options, wanted.spectral),
        collection=asked.collection,
        k=asked.k,
        where=where,
        observations=asked.observations,
        recall=asked.recall,
        explain=asked.explain,
    )


def _filter(asked: SearchRequest) -> ParcelFilter:
    bbox = asked.bbox
    if isinstance(bbox, list):
        bbox = ",".join(f"{side:.17g}" for side in bbox)
    return filter_from(
        collections=asked.collections,
        bbox=bbox,
        interval=asked.datetime,
        expression=asked.filter,
        language=asked.filter_lang,
    )
