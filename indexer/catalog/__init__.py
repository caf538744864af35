"""The SQL catalog: tables, connection, statements."""
