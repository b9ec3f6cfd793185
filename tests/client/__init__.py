"""The wire twin of the official client, and the official client itself where it is found."""
