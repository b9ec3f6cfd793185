"""The controller's REST API under /v2."""
