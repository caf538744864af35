"""What filters ask of the rows of an index, in columns beside its vectors.

::

    SQL ── reading ─┐                  ┌─ numbers: ranges, by rank and by bucket
                    ├─ table: Columns ─┼─ codes: few different values, each with its rows by time
    files ── open ──┘                  └─ boxes: rectangles, by side and by place

Values are whole and exact; what makes them quick to look up is derived, and made when it is first
asked for, or read from the files of a generation.
"""

from indexer.columns.table import Columns as Columns
