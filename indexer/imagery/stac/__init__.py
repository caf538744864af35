"""Scenes that a STAC catalog names: files of one folder, documents on a server, an API's search."""
