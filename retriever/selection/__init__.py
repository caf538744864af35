"""Which rows of an index a filter allows, found in its columns instead of in SQL.

::

    ParcelFilter ── lowering ── conjuncts ── rows ── RowSet
                       │  └───── nodes ───── logic ──┤
                       └─ what only SQL knows ───────┘

The answer is that of ``retriever.statements.allowed_rows``, for the rows that the columns hold.
"""

from retriever.selection.rows import Condition as Condition
from retriever.selection.rows import describe_selection as describe_selection
from retriever.selection.rows import select_rows as select_rows
