"""Motion of drifters that neither the currents nor their diffusivity give: mean drift, random flight, inertial motion.

Random flight and inertial motion are one process, an Ornstein-Uhlenbeck velocity w = u + i v [m/s] of every drifter's
own, which for inertial motion turns:

    dw = -λ w dt + s √(2/T) dB,   λ = 1/T + i f,   f = 2 Ω sin φ  (random flight: f = 0)

with a complex Wiener process B, E|dB|² = dt. So E|w|² = s², and w forgets: E[w(t + τ) w*(t)] = s² exp(-λ τ), clockwise
where f > 0. Velocity and displacement of a step are drawn together from their exact joint distribution, so that the
dispersion does not depend on the step. Shares no code with the training stage.
"""

import numpy as np
from jaxtyping import Complex128, Float64, Int

from driftcal.preprocess.recipe import Synthetic
from driftcal.shared.geo import METRES_PER_DEGREE

EARTH_ROTATION = 7.292115e-5
"""Angular velocity of the Earth [rad/s] (WGS 84)."""


def _standard(rng: np.random.Generator, n: int) -> Complex128[np.ndarray, " {n}"]:
    """Complex normal numbers with E|z|² = 1, (n,)."""
    return rng.standard_normal((n, 2)) @ np.array([1, 1j]) * np.sqrt(0.5)


class OwnVelocity:
    """The velocities w of `n` drifters, stationary from the start.

    Args:
        rng: The stream of random numbers, of this motion alone.
        n: Number of drifters.
        speed: Root mean square s of |w| [m/s].
        time: Decay time T [s].
        turning: True for inertial motion, whose f is that of a drifter's latitude.
    """

    def __init__(self, rng: np.random.Generator, n: int, *, speed: float, time: float, turning: bool):
        self._rng, self._speed, self._time, self._turning = rng, speed, time, turning
        self.now = speed * _standard(rng, n)

    def mean_over(
        self, who: Int[np.ndarray, " n"], lat: Float64[np.ndarray, " n"], step: float
    ) -> Complex128[np.ndarray, " n"]:
        """Mean velocity of the drifters `who` over the next `step` [s], complex (n,); their velocities are stepped.

        Args:
            who: Numbers of the drifters, (n,).
            lat: Their latitudes [degrees], (n,).
            step: Length of the step [s].
        """
        f = 2 * EARTH_ROTATION * np.sin(np.radians(lat)) if self._turning else np.zeros(len(who))
        rate, forcing = 1 / self._time + 1j * f, 2 * self._speed**2 / self._time
        # Noise of w at the end of the step: ∫ exp(-λ (h - t)) dB; of its displacement: ∫ (1 - exp(-λ (h - t))) / λ dB.
        lost, power = -np.expm1(-rate * step), -np.expm1(-2 * step / self._time) * self._time / 2
        of_velocity = forcing * power
        together = forcing / rate * (np.conj(lost / rate) - power)
        of_path = forcing / np.abs(rate) ** 2 * (step - 2 * (lost / rate).real + power)
        rest = np.sqrt(np.maximum(of_path - np.abs(together) ** 2 / of_velocity, 0.0))
        first, second = _standard(self._rng, len(who)), _standard(self._rng, len(who))
        before = self.now[who]
        path = before * lost / rate + together / np.sqrt(of_velocity) * first + rest * second
        self.now[who] = before * (1 - lost) + np.sqrt(of_velocity) * first
        return path / step


class UnmodelledMotion:
    """Mean drift, random flight and inertial motion of the truth of `spec`, of `n` drifters.

    Each has a stream of random numbers of its own: none changes what another one draws.
    """

    def __init__(self, spec: Synthetic, n: int):
        truth, self._own = spec.world, []
        self._drift = np.array(truth.mean_drift)
        if (flight := truth.random_flight) is not None:
            rng, speed = np.random.default_rng([spec.seed, 4]), np.sqrt(2) * flight.speed
            self._own.append(OwnVelocity(rng, n, speed=speed, time=flight.time, turning=False))
        if (motion := truth.inertial) is not None:
            rng = np.random.default_rng([spec.seed, 5])
            self._own.append(OwnVelocity(rng, n, speed=motion.speed, time=motion.time, turning=True))

    def mean_over(
        self, who: Int[np.ndarray, " n"], lat: Float64[np.ndarray, " n"], step: float
    ) -> Float64[np.ndarray, "n 2"]:
        """Mean velocity of the drifters `who` (n,) at `lat` (n,) over the next `step` [s], [m/s], (n, 2)."""
        total = np.tile(self._drift, (len(who), 1))
        for one in self._own:
            velocity = one.mean_over(who, lat, step)
            total += np.stack([velocity.real, velocity.imag], axis=1)
        return total


def reported(
    spec: Synthetic, position: Float64[np.ndarray, "N H 2"]
) -> tuple[Float64[np.ndarray, "N H 2"], Float64[np.ndarray, "N H 2"]]:
    """Positions as they are reported: with a random error of every fix and component, independent of all others.

    Args:
        spec: The settings.
        position: True positions [degrees], (N, H, 2).

    Returns:
        Reported positions (N, H, 2), and standard deviations of their error [degrees], the same shape.
    """
    deviation = np.broadcast_to(spec.world.position_error / METRES_PER_DEGREE, position.shape).copy()
    deviation[..., 0] /= np.cos(np.radians(position[..., 1]))
    if not spec.world.position_error:
        return position, deviation
    noise = np.random.default_rng([spec.seed, 6]).standard_normal(position.shape)
    return position + deviation * noise, deviation
