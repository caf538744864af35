"""Backups of an index: one folder that any Parcelle of this version or a later one restores."""
