"""From tracks and currents to samples of kind `drift`."""
