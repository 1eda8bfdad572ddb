"""From parameters and gradients to better parameters and their standard errors."""
