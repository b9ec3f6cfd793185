"""Routes, one noun a module; what a list or a get reads stands beside them as one `select`."""
