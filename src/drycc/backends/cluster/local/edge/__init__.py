"""The edge: the process that hands HTTP requests to pods, and the platform's grip on it.

`control` is what `dryccd` imports; everything else runs in the edge's own process.
"""
