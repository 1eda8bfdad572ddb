"""Evaluation: statistics of single samples become means, ratios and their errors."""
