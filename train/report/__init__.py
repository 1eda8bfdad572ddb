"""Report: a finished run as one page."""
