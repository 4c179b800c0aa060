"""Run a search: its folder, its trials, its report."""
