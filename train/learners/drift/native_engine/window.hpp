// One sample's window of currents as a table of flows: `tabulate` of train/dynamics.py.
//
// A row of eight numbers per node and interval: u, v, kappa at the interval's start, their increments over it, and grad
// kappa in its middle. Planes have a border of zeros, so that no difference asks whether it has a neighbour.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "lanes.hpp"

namespace driftcal {

// What all windows of a store share; steps in seconds and degrees.
struct Grid {
  int n_times, n_lat, n_lon, n_obs;
  int64_t time_step, kappa_every, step;
  double lat_step, lon_step;

  int nodes() const { return n_lat * n_lon; }
  int fine() const { return int(time_step / kappa_every); }
  int n_intervals() const { return (n_times - 1) * fine(); }
};

template <class T>
class Window {
 public:
  std::vector<T> rows;         // (interval, row, column, 8)
  std::vector<uint8_t> ocean;  // (row, column): which corners of the cell north-east of a node are ocean
  bool has_land = false;

  explicit Window(const Grid& grid)
      : rows(size_t(grid.n_intervals()) * grid.nodes() * LANES + LANES),
        ocean(grid.nodes()),
        grid_(grid),
        stride_((grid.n_lon + LANES - 1) / LANES * LANES + LANES),
        plane_(size_t(grid.n_lat + 2) * stride_ + LANES),
        wet_(plane_),
        east_(plane_),
        west_(plane_),
        north_(plane_),
        south_(plane_),
        metres_(grid.n_lat),
        velocity_(size_t(grid.n_times) * 2, std::vector<T>(plane_)),
        from_(plane_),
        to_(plane_) {}

  // Fills the table from currents (2, time, row, column) [1e-4 m/s] and the latitude of the southern row [degrees].
  void tabulate(const int16_t* currents, T latitude) {
    decode(currents);
    for (int j = 0; j < grid_.n_lat; ++j) {
      const T degrees = latitude + T(j) * T(grid_.lat_step);
      metres_[j] = T(METRES_PER_DEGREE * grid_.lon_step) * std::cos(degrees * T(M_PI / 180));
    }
    level(0, to_);
    for (int n = 0; n < grid_.n_intervals(); ++n) {
      std::swap(from_, to_);
      level(n + 1, to_);
      write(rows.data() + size_t(n) * grid_.nodes() * LANES);
    }
  }

 private:
  // Flow at one level, on planes.
  struct Level {
    explicit Level(size_t size) : u(size), v(size), kappa(size), kappa_x(size), kappa_y(size) {}
    std::vector<T> u, v, kappa, kappa_x, kappa_y;
  };

  size_t at(int j, int i) const { return size_t(j + 1) * stride_ + i + 1; }

  void decode(const int16_t* currents) {
    const int nodes = grid_.nodes(), levels = 2 * grid_.n_times;
    std::fill(ocean.begin(), ocean.end(), 1);
    for (int level = 0; level < levels; ++level)
      for (int n = 0; n < nodes; ++n) ocean[n] &= currents[size_t(level) * nodes + n] != FILL;
    for (int j = 0; j < grid_.n_lat; ++j)
      for (int i = 0; i < grid_.n_lon; ++i) wet_[at(j, i)] = ocean[j * grid_.n_lon + i];
    for (int level = 0; level < levels; ++level)
      for (int j = 0; j < grid_.n_lat; ++j) {
        const int16_t* row = currents + size_t(level) * nodes + j * grid_.n_lon;
        T* plane = velocity_[level].data() + at(j, 0);
        const T* wet = wet_.data() + at(j, 0);
        for (int i = 0; i < grid_.n_lon; ++i) plane[i] = wet[i] * (T(row[i]) * T(SCALE));
      }
    weigh();
  }

  // Weights of the differences to the four neighbours: 1/2 each, 1 at a coast or edge, else 0; and the corners' bits.
  void weigh() {
    has_land = false;
    for (int j = 0; j < grid_.n_lat; ++j)
      for (int i = 0; i < grid_.n_lon; ++i) {
        const size_t n = at(j, i);
        const T here = wet_[n], e = wet_[n + 1], w = wet_[n - 1], no = wet_[n + stride_], so = wet_[n - stride_];
        const auto weight = [here](T there, T opposite) { return here * there * (T(1) - T(0.5) * opposite); };
        east_[n] = weight(e, w), west_[n] = weight(w, e), north_[n] = weight(no, so), south_[n] = weight(so, no);
        ocean[j * grid_.n_lon + i] = here + 2 * e + 4 * no + 8 * wet_[n + stride_ + 1];
        has_land |= here == 0;
      }
  }

  // Currents, kappa and its gradient at a level of `kappa_every`.
  void level(int number, Level& made) const {
    const int fine = grid_.fine(), day = std::min(number / fine, grid_.n_times - 2);
    const T share = T(number - day * fine) / T(fine), dy = T(METRES_PER_DEGREE * grid_.lat_step);
    const auto between = [&](int component, std::vector<T>& plane) {
      const T* first = velocity_[component * grid_.n_times + day].data();
      const T* second = velocity_[component * grid_.n_times + day + 1].data();
      for (size_t n = 0; n < plane_; ++n) plane[n] = first[n] + share * (second[n] - first[n]);
    };
    between(0, made.u);
    between(1, made.v);
    for (int j = 0; j < grid_.n_lat; ++j) {
      const T dx = metres_[j], per_x = T(1) / dx, per_y = T(1) / dy;
      const T *u = made.u.data(), *v = made.v.data();
      T* kappa = made.kappa.data();
      for (size_t n = at(j, 0); n < at(j, grid_.n_lon); ++n) {
        const T u_x = along(u, n) * per_x, v_x = along(v, n) * per_x;
        const T u_y = across(u, n) * per_y, v_y = across(v, n) * per_y, shear = u_y + v_x;
        kappa[n] = dx * dy * std::sqrt(u_x * u_x + v_y * v_y + T(0.5) * shear * shear);
      }
    }
    for (int j = 0; j < grid_.n_lat; ++j) {
      const T per_x = T(1) / metres_[j], per_y = T(1) / dy;
      const T* kappa = made.kappa.data();
      for (size_t n = at(j, 0); n < at(j, grid_.n_lon); ++n) {
        made.kappa_x[n] = along(kappa, n) * per_x;
        made.kappa_y[n] = across(kappa, n) * per_y;
      }
    }
  }

  // Differences per cell, east and north: centred, one-sided at coasts and edges, else 0.
  T along(const T* f, size_t n) const { return east_[n] * (f[n + 1] - f[n]) + west_[n] * (f[n] - f[n - 1]); }
  T across(const T* f, size_t n) const {
    return north_[n] * (f[n + stride_] - f[n]) + south_[n] * (f[n] - f[n - stride_]);
  }

  // The rows of the interval between the two levels at hand.
  void write(T* row) const {
    const bool at_start = grid_.kappa_every == grid_.step;  // every stage falls on a level
    for (int j = 0; j < grid_.n_lat; ++j)
      for (int i = 0; i < grid_.n_lon; i += LANES) {
        const size_t n = at(j, i);
        Vec<T> c[LANES] = {load(&from_.u[n]), load(&from_.v[n]), load(&from_.kappa[n]), load(&to_.u[n]),
                           load(&to_.v[n]),   load(&to_.kappa[n]), load(&from_.kappa_x[n]), load(&from_.kappa_y[n])};
        for (int k = 0; k < 3; ++k) c[k + 3] = c[k + 3] - c[k];
        if (!at_start) {
          c[6] = T(0.5) * (c[6] + load(&to_.kappa_x[n]));
          c[7] = T(0.5) * (c[7] + load(&to_.kappa_y[n]));
        }
        transpose<T>(c);
        const int used = std::min(LANES, grid_.n_lon - i);
        for (int q = 0; q < used; ++q, row += LANES) store<T>(row, c[q]);
      }
  }

  Grid grid_;
  int stride_;
  size_t plane_;
  std::vector<T> wet_, east_, west_, north_, south_, metres_;
  std::vector<std::vector<T>> velocity_;
  Level from_, to_;
};

}  // namespace driftcal
