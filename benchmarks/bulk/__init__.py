"""Predict a folder of very many files: speed by workers, memory over time, and a kill half-way."""
