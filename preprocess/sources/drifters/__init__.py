"""Drifters: files, tables and their fixes."""
