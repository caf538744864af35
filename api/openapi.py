"""The OpenAPI document: version 3.0, with a path of its own for each collection's items.

FastAPI writes OpenAPI 3.1. OGC API - Features names 3.0 (requirements class ``oas30``), and GDAL
hands a condition on a property to the server only where a literal path ``/collections/NAME/items``
has a parameter of that name.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final
from urllib.parse import quote

OPENAPI_JSON: Final = "application/vnd.oai.openapi+json;version=3.0"

_VERSION: Final = "3.0.3"
ITEMS: Final = "/collections/{collection}/items"
"""The path of any collection's items."""

Schema = dict[str, Any]


def as_openapi_3_0(document: Schema) -> Schema:
    """An OpenAPI 3.1 document in the words of 3.0.

    Schemas of 3.0 know no ``null``, ``const`` or list of ``examples``, and say otherwise what is
    excluded from a range (https://spec.openapis.org/oas/v3.0.3#schema-object).
    """
    return {**_object(document), "openapi": _VERSION}


def _object(part: Schema) -> Schema:
    # Names of properties are no keywords.
    older = {
        key: {name: _any(schema) for name, schema in value.items()}
        if key == "properties"
        else _any(value)
        for key, value in part.items()
    }
    return _without_newer_keywords(older)


def _any(part: object) -> object:
    if isinstance(part, list):
        return [_any(each) for each in part]
    return _object(part) if isinstance(part, dict) else part


def _without_newer_keywords(schema: Schema) -> Schema:
    found = dict(schema)
    if isinstance(found.get("examples"), list):
        found["example"] = found.pop("examples")[0]
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if found.get("contentMediaType") == "application/octet-stream":
        del found["contentMediaType"]
        found["format"] = "binary"
    for bound, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(found.get(bound), int | float) and not isinstance(found[bound], bool):
            found[inclusive], found[bound] = found[bound], True
    return _nullable(found)


def _nullable(schema: Schema) -> Schema:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        rest = [kind for kind in kinds if kind != "null"]
        schema = {**schema, "nullable": "null" in kinds}
        del schema["type"]
        # Several types at once are another thing that 3.0 does not know.
        return {**schema, "type": rest[0]} if len(rest) == 1 else schema
    choices = schema.get("anyOf")
    if not isinstance(choices, list) or {"type": "null"} not in choices:
        return schema
    rest = [choice for choice in choices if choice != {"type": "null"}]
    besides = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(rest) == 1 and "$ref" not in rest[0]:
        return {**rest[0], **besides, "nullable": True}
    return {**besides, "anyOf": rest, "nullable": True}


def without_keys(document: Schema) -> Schema:
    """The document of a service that asks for no key."""
    paths = {
        path: {
            method: {key: value for key, value in operation.items() if key != "security"}
            for method, operation in operations.items()
        }
        for path, operations in document["paths"].items()
    }
    components = {
        key: value for key, value in document["components"].items() if key != "securitySchemes"
    }
    return {**document, "paths": paths, "components": components}


def with_collections(document: Schema, parameters: Mapping[str, Sequence[Schema]]) -> Schema:
    """The document with a literal path for the items of each collection.

    Args:
        document: With the path of any collection's items.
        parameters: For each collection, the parameters that its properties are.
    """
    paths: Schema = {}
    for path, operations in document["paths"].items():
        paths[path] = operations
        if path == ITEMS:
            for name, own in parameters.items():
                literal = f"/collections/{quote(name, safe='')}/items"
                paths[literal] = _of_collection(operations, name, own)
    return {**document, "paths": paths}


def _of_collection(operations: Schema, name: str, own: Sequence[Schema]) -> Schema:
    literal = deepcopy(operations)
    get = literal["get"]
    shared = [one for one in get["parameters"] if one["in"] != "path"]
    get["parameters"] = [*shared, *own]
    get["operationId"] = f"{get['operationId']}_{quote(name, safe='')}"
    get["summary"] = f"Items of {name}"
    return literal
