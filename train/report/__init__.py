"""From a finished run to one page."""
