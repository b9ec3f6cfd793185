"""The worker: takes jobs and runs them."""
