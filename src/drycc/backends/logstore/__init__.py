"""Where the apps' log lines are kept."""
