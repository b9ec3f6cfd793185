"""Where pods run: one port, an adapter for this machine's processes."""
