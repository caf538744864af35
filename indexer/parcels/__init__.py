"""Parcels on disk, and the share of each pixel that they cover."""
