"""Images on disk to chips of masked reflectance."""
