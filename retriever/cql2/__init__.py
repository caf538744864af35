"""CQL2, the language of filters: OGC 21-065r2, as text or as JSON, and what of it is answered.

::

    text ─ parsing ─┐
                    ├─ a tree of JSON ─ checking ─ nodes ─ translation ─ SQL
    JSON ───────────┘

Text becomes the JSON of the same expression first, so that one definition says what is allowed.
``retriever.cql2.expression`` is what others use.

References:
    OGC 21-065r2, Common Query Language (CQL2), https://docs.ogc.org/is/21-065r2/21-065r2.html.
"""
