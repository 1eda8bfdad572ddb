"""An independent float64 simulator and score: plain loops over samples, members and steps, straight from the equations.

It shares no code with `train`, not even constants. The discretisation is the documented one: kappa and its gradient on
the window's nodes by centred differences of currents interpolated linearly to the very time of a stage, bilinear
interpolation between ocean corners, inverse distance near coasts, cos(lat) at the particle, Heun with half of grad K.
"""

import math

import numpy as np

R = 6_371_008.8
DEG = math.pi / 180.0


def slope(f, ocean, j, i, dj, di):
    """Difference of f per cell at node (j, i) in direction (dj, di)."""
    ny, nx = f.shape

    def has(jj, ii):
        return 0 <= jj < ny and 0 <= ii < nx and ocean[jj, ii]

    ahead, behind = has(j + dj, i + di), has(j - dj, i - di)
    if ahead and behind:
        return (f[j + dj, i + di] - f[j - dj, i - di]) / 2
    if ahead:
        return f[j + dj, i + di] - f[j, i]
    if behind:
        return f[j, i] - f[j - dj, i - di]
    return 0.0


class Window:
    """One sample's currents: u, v (time, lat, lon) m/s, NaN on land; lat0 of the southern row, steps in degrees, s."""

    def __init__(self, u, v, lat0, dlat, dlon, dt_levels):
        self.u, self.v = np.asarray(u, float), np.asarray(v, float)
        self.lat0, self.dlat, self.dlon, self.dt = lat0, dlat, dlon, dt_levels
        self.ocean = ~(np.isnan(self.u) | np.isnan(self.v)).any(axis=0)
        self.cache = {}

    def fields(self, t):
        """u, v, kappa, kappa_x, kappa_y on all nodes at t seconds after the first level."""
        if t in self.cache:
            return self.cache[t]
        level = min(max(int(t // self.dt), 0), len(self.u) - 2)
        w = t / self.dt - level
        u = np.where(self.ocean, (1 - w) * self.u[level] + w * self.u[level + 1], 0.0)
        v = np.where(self.ocean, (1 - w) * self.v[level] + w * self.v[level + 1], 0.0)
        ny, nx = u.shape
        dy = R * DEG * self.dlat
        kappa, kx, ky = np.zeros((3, ny, nx))
        for j in range(ny):
            dx = R * DEG * self.dlon * math.cos(DEG * (self.lat0 + j * self.dlat))
            for i in range(nx):
                if self.ocean[j, i]:
                    u_x, v_x = (slope(f, self.ocean, j, i, 0, 1) / dx for f in (u, v))
                    u_y, v_y = (slope(f, self.ocean, j, i, 1, 0) / dy for f in (u, v))
                    kappa[j, i] = dx * dy * math.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)
        for j in range(ny):
            dx = R * DEG * self.dlon * math.cos(DEG * (self.lat0 + j * self.dlat))
            for i in range(nx):
                if self.ocean[j, i]:
                    kx[j, i] = slope(kappa, self.ocean, j, i, 0, 1) / dx
                    ky[j, i] = slope(kappa, self.ocean, j, i, 1, 0) / dy
        self.cache[t] = np.stack([u, v, kappa, kx, ky])
        return self.cache[t]

    def at(self, t, x, y):
        """The five fields at column x, row y."""
        _, ny, nx = self.u.shape
        i, j = min(max(math.floor(x), 0), nx - 2), min(max(math.floor(y), 0), ny - 2)
        a, b = x - i, y - j
        f = self.fields(t)
        corners = [
            (j, i, a, b, (1 - a) * (1 - b)),
            (j, i + 1, 1 - a, b, a * (1 - b)),
            (j + 1, i, a, 1 - b, (1 - a) * b),
            (j + 1, i + 1, 1 - a, 1 - b, a * b),
        ]
        wet = [c for c in corners if self.ocean[c[0], c[1]]]
        if not wet:
            return np.zeros(5)
        if len(wet) == 4:
            return sum(c[4] * f[:, c[0], c[1]] for c in wet)
        weights = [1 / (c[2] ** 2 + c[3] ** 2 + 1e-7) for c in wet]
        return sum(w * f[:, c[0], c[1]] for w, c in zip(weights, wet, strict=True)) / sum(weights)


def simulate(window, start, t0, cs, noise, step, n_obs, n_sub, scheme="heun"):
    """Columns and rows at every fix, (n_obs, members, 2); `noise` is (steps, 2, members) standard normal."""
    share = 0.5 if scheme == "heun" else 1.0
    _, ny, nx = window.u.shape

    def motion(x, y, t):
        u, v, kappa, kx, ky = window.at(t, x, y)
        cos = math.cos(DEG * (window.lat0 + y * window.dlat))
        per_x, per_y = 1 / (R * DEG * window.dlon * cos), 1 / (R * DEG * window.dlat)
        amplitude = math.sqrt(2 * cs * kappa) if kappa > 0 else 0.0
        return (u + share * cs * kx) * per_x, (v + share * cs * ky) * per_y, amplitude * per_x, amplitude * per_y

    members = noise.shape[2]
    out = np.empty((n_obs, members, 2))
    for m in range(members):
        x, y = start
        out[0, m] = x, y
        held = False
        for n in range((n_obs - 1) * n_sub):
            t = t0 + n * step
            wx, wy = noise[n, :, m] * math.sqrt(step)
            ax, ay, bx, by = motion(x, y, t)
            new_x, new_y = x + ax * step + bx * wx, y + ay * step + by * wy
            if scheme != "euler":
                ax1, ay1, bx1, by1 = motion(new_x, new_y, t + step)
                if scheme == "ito-heun":
                    bx1, by1 = bx, by
                new_x = x + (ax + ax1) / 2 * step + (bx + bx1) / 2 * wx
                new_y = y + (ay + ay1) / 2 * step + (by + by1) / 2 * wy
            held = held or not (0 <= new_x <= nx - 1 and 0 <= new_y <= ny - 1)
            if not held:
                x, y = new_x, new_y
            if (n + 1) % n_sub == 0:
                out[(n + 1) // n_sub, m] = x, y
    return out


def haversine(a, b):
    """Distance in metres between (lon, lat) degrees."""
    (lon1, lat1), (lon2, lat2) = a, b
    h = (
        math.sin(DEG * (lat1 - lat2) / 2) ** 2
        + math.cos(DEG * lat1) * math.cos(DEG * lat2) * math.sin(DEG * (lon1 - lon2) / 2) ** 2
    )
    return 2 * R * math.asin(math.sqrt(h))


def energy_terms(members, observed):
    """Both terms of the fair energy score at every fix but the first; (obs, S, 2) and (obs, 2) in degrees."""
    n_obs, s, _ = members.shape
    first, second = np.zeros((2, n_obs - 1))
    for t in range(1, n_obs):
        first[t - 1] = sum(haversine(members[t, a], observed[t]) for a in range(s)) / s
        total = sum(haversine(members[t, a], members[t, b]) for a in range(s) for b in range(s) if a != b)
        second[t - 1] = total / (2 * s * (s - 1))
    return first, second


def liu_terms(members, observed, own):
    """Both terms of the score whose distance is Liu and Weisberg's index; `own`: pairs by the first one's own path."""
    n_obs, s, _ = members.shape

    def index(track, reference):
        separation, length, total, out = 0.0, 0.0, 0.0, []
        for t in range(1, n_obs):
            separation += haversine(track[t], reference[t])
            length += haversine(reference[t], reference[t - 1])
            total += length
            out.append(separation / total)
        return np.array(out)

    first = sum(index(members[:, a], observed) for a in range(s)) / s
    second = np.zeros(n_obs - 1)
    path = np.cumsum(np.cumsum([haversine(observed[t], observed[t - 1]) for t in range(1, n_obs)]))
    for a in range(s):
        for b in range(s):
            if a != b and own:
                second += index(members[:, b], members[:, a])
            elif a != b:
                second += np.cumsum([haversine(members[t, a], members[t, b]) for t in range(1, n_obs)]) / path
    return first, second / (2 * s * (s - 1))
