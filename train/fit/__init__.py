"""Fitting: parameters and gradients give better parameters and their standard errors."""
