"""Backup and restore of the embedded install: rows, objects, images, repositories, lines and the host key.

A backup is a set of *parts*, files that are compressed each by itself, and a manifest that is written
last: without one there is no backup. The keyring is referred to and never in it.
"""
