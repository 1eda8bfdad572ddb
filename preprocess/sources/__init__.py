"""Sources: files of many conventions, read as plain arrays in SI units."""
