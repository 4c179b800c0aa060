"""Bulk work on several processes and machines."""
