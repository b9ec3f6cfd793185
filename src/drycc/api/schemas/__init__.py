"""What requests may say and what answers look like, one noun a module.

Requests are parsed with these; answers are only described by them: rows go out as they are.
"""
