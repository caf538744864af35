"""Top floor: the same questions over HTTP and the command line."""
