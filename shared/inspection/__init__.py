"""Contents of a store as text and figures."""
