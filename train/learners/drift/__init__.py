"""The drift learner: an ensemble of simulated drifters around every observed one, judged by the energy score."""
