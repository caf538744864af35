"""Ground floor: from satellite pixels to a published, searchable generation."""
