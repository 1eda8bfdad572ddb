"""From statistics of single samples to means, ratios and their errors."""
