"""The logger role: what pods print becomes lines of their app, read and followed over websockets."""
