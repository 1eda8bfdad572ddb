"""Files that are written whole or not at all, and claims to write them."""
