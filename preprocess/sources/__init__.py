"""From files and their conventions to plain arrays in SI units."""
