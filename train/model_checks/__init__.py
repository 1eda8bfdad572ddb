"""Model checks: where the drifters contradict the calibrated model, and what that says of them."""
