"""The builder: git over SSH, from a push to a queued build, and the program that makes images."""
