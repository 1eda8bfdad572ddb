// One sample's ensemble through its window: train/simulate.py and train/score.py, eight members at a time.
#pragma once

#include "coast.hpp"
#include "noise.hpp"
#include "plan.hpp"
#include "sphere.hpp"
#include "window.hpp"

namespace driftcal {

// The flow at eight members.
template <class N>
struct Flow {
  N u, v, kappa, kappa_x, kappa_y;
};

// One sample's members on their way. N is Vec<T>, or Dual<T> to carry the derivative with respect to log C_s along.
template <class N>
class Ensemble {
  typedef Real<N> T;
  static constexpr bool HAS_TANGENT = Number<N>::has_tangent;

 public:
  explicit Ensemble(const Plan& plan)
      : plan_(plan), blocks_(plan.padded() / LANES), x_(blocks_), y_(blocks_), inside_(blocks_), before_(blocks_) {
    for (auto& component : points_) {
      component.value.resize(2 * plan.members + LANES);
      component.tangent.resize(HAS_TANGENT ? 2 * plan.members + LANES : 0);
    }
  }

  void run(const Window<T>& window, const Start<T>& from, Out<T> values, Out<T> tangents, bool* inside, bool* ashore) {
    begin(window, from);
    for (int fix = 0; fix < plan_.n_fixes(); ++fix) {
      for (int block = 0; block < blocks_; ++block)
        for (int k = 0; k < plan_.n_sub; ++k) advance(block, fix * plan_.n_sub + k);
      measure(fix, values, tangents);
    }
    for (int member = 0; member < plan_.members; ++member) {
      const int block = member / LANES, lane = member % LANES;
      inside[member] = inside_[block][lane] != 0;
      ashore[member] = is_ashore(value(x_[block])[lane], value(y_[block])[lane]);
    }
  }

 private:
  void begin(const Window<T>& window, const Start<T>& from) {
    window_ = &window;
    from_ = &from;
    const Grid& grid = plan_.grid;
    const T latitude = (from.latitude + T(from.cell[1]) * T(grid.lat_step)) * T(M_PI / 180);
    origin_ = {std::cos(latitude), std::sin(latitude)};
    const T cs = std::exp(from.log_cs), root = std::sqrt(T(2) * cs);
    const T share = plan_.scheme == Scheme::heun ? T(0.5) : T(1);
    share_ = Number<N>::make(all(share * cs), all(share * cs * from.log_cs_tangent));
    amplitude_ = Number<N>::make(all(root), all(T(0.5) * root * from.log_cs_tangent));
    for (int c = 0; c < 2; ++c) {
      least_[c] = T(-from.cell[c]);
      most_[c] = T((c ? grid.n_lat : grid.n_lon) - 1) + least_[c];
    }
    for (int block = 0; block < blocks_; ++block) {
      x_[block] = constant<N>(all(from.start[0]));
      y_[block] = constant<N>(all(from.start[1]));
      inside_[block] = Int<T>{} - 1;
      before_[block] = at(x_[block], y_[block]);
    }
  }

  Point<N> at(N x, N y) const {
    return origin_.point(x * T(plan_.grid.lon_step * (M_PI / 180)), y * T(plan_.grid.lat_step * (M_PI / 180)));
  }

  // Eight members, one step.
  INLINE void advance(int block, int step) {
    const T dt = T(plan_.grid.step);
    const N x = x_[block], y = y_[block];
    Vec<T> w[2];
    increments<T>(from_->key, step, block * LANES, w[0], w[1]);
    for (auto& increment : w) increment = increment * std::sqrt(dt);
    const N nothing = constant<N>(Vec<T>{});
    N drift[2], spread[2], kick[2], sum[2] = {nothing, nothing}, new_x = x, new_y = y;
    const int n_stages = plan_.scheme == Scheme::euler ? 1 : 2;
    for (int k = 0; k < n_stages; ++k) {
      motion(new_x, new_y, step + k, drift, spread);
      for (int c = 0; c < 2; ++c) {
        // in ito-heun the noise acts with the amplitude of the start of the step
        if (k == 0 || plan_.scheme != Scheme::ito_heun) kick[c] = spread[c] * w[c];
        sum[c] = sum[c] + drift[c] * dt + kick[c];
      }
      new_x = x + sum[0] * (T(1) / T(k + 1));
      new_y = y + sum[1] * (T(1) / T(k + 1));
    }
    // written so that a NaN counts as inside: it must poison the sample, not pass for one that left
    const Vec<T> at_x = value(new_x), at_y = value(new_y);
    inside_[block] &= ~((at_x < least_[0]) | (at_x > most_[0]) | (at_y < least_[1]) | (at_y > most_[1]));
    x_[block] = select<N>(inside_[block], new_x, x);
    y_[block] = select<N>(inside_[block], new_y, y);
  }

  // Drift [cells/s] and amplitude of the noise [cells s^-1/2] in Smagorinsky diffusion.
  INLINE void motion(N x, N y, int step, N drift[2], N spread[2]) const {
    const Grid& grid = plan_.grid;
    const Flow<N> flow = flow_at(x, y, step);
    const N floored = select<N>(value(flow.kappa) < T(LEAST_KAPPA), constant<N>(all(T(LEAST_KAPPA))), flow.kappa);
    const N amplitude = select<N>(value(flow.kappa) > T(0), amplitude_ * square_root(floored), constant<N>(Vec<T>{}));
    const N cos_latitude = origin_.cos_latitude(y * T(grid.lat_step * (M_PI / 180)));
    const N per_east = all(T(1 / (METRES_PER_DEGREE * grid.lon_step))) / cos_latitude;
    const T per_north = T(1 / (METRES_PER_DEGREE * grid.lat_step));
    drift[0] = (flow.u + share_ * flow.kappa_x) * per_east;
    drift[1] = (flow.v + share_ * flow.kappa_y) * per_north;
    spread[0] = amplitude * per_east;
    spread[1] = amplitude * per_north;
  }

  // South-western corner of the cell of eight members, in cells from the starting one.
  INLINE Vec<T> corner(Vec<T> position, int axis) const {
    const Vec<T> least = all(least_[axis]), most = all(most_[axis] - T(1));
    Vec<T> held = position > least ? position : least;  // a NaN too: it must not index anything
    held = held < most ? held : most;
    const Vec<T> whole = __builtin_convertvector(__builtin_convertvector(held, Int<T>), Vec<T>);
    return whole > held ? whole - T(1) : whole;
  }

  INLINE Int<T> node(Vec<T> i, Vec<T> j) const {
    const Int<T> column = __builtin_convertvector(i, Int<T>) + from_->cell[0];
    const Int<T> row = __builtin_convertvector(j, Int<T>) + from_->cell[1];
    return row * plan_.grid.n_lon + column;
  }

  INLINE Flow<N> flow_at(N x, N y, int step) const {
    const Grid& grid = plan_.grid;
    const T levels = (from_->phase + T(step) * T(grid.step)) * T(1.0 / grid.kappa_every);
    const T last = T(grid.n_intervals() - 1), held = levels > T(0) ? levels : T(0);  // a NaN is held too
    const int interval = int(held < last ? held : last);
    const T share = levels - T(interval);
    const Vec<T> i = corner(value(x), 0), j = corner(value(y), 1);
    const Int<T> nodes = node(i, j);
    N weights[4];
    corner_weights(x - i, y - j, nodes, weights);
    alignas(64) T w[4][LANES], dw[4][LANES];
    for (int k = 0; k < 4; ++k) {
      store<T>(w[k], value(weights[k]));
      if constexpr (HAS_TANGENT) store<T>(dw[k], tangent(weights[k]));
    }
    const T* table = window_->rows.data() + size_t(interval) * grid.nodes() * LANES;
    Vec<T> blend[LANES], slope[LANES];
    for (int q = 0; q < LANES; ++q) {
      const T* row = table + size_t(nodes[q]) * LANES;
      const Vec<T> rows[4] = {load(row), load(row + LANES), load(row + grid.n_lon * LANES),
                              load(row + (grid.n_lon + 1) * LANES)};
      blend[q] = w[0][q] * rows[0] + w[1][q] * rows[1] + w[2][q] * rows[2] + w[3][q] * rows[3];
      if constexpr (HAS_TANGENT)
        slope[q] = dw[0][q] * rows[0] + dw[1][q] * rows[1] + dw[2][q] * rows[2] + dw[3][q] * rows[3];
    }
    transpose<T>(blend);
    if constexpr (HAS_TANGENT) transpose<T>(slope);
    const auto channel = [&](int c) { return Number<N>::make(blend[c], HAS_TANGENT ? slope[c] : Vec<T>{}); };
    return {channel(0) + channel(3) * share, channel(1) + channel(4) * share, channel(2) + channel(5) * share,
            channel(6), channel(7)};
  }

  // Bilinear between four corners of ocean, else by `coastal_weights`.
  INLINE void corner_weights(N x, N y, Int<T> nodes, N weights[4]) const {
    const N rest_x = T(1) - x, rest_y = T(1) - y;
    weights[0] = rest_x * rest_y, weights[1] = x * rest_y, weights[2] = rest_x * y, weights[3] = x * y;
    if (!window_->has_land) return;
    Int<T> ocean;
    bool open = true;
    for (int q = 0; q < LANES; ++q) {
      ocean[q] = window_->ocean[nodes[q]];
      open &= ocean[q] == 15;
    }
    if (!open) coastal_weights<N>(x, y, ocean, weights);
  }

  // In a cell without any corner of ocean. A NaN counts as at the start.
  bool is_ashore(T x, T y) const {
    const Vec<T> i = corner(all(x == x ? x : T(0)), 0), j = corner(all(y == y ? y : T(0)), 1);
    return window_->ocean[node(i, j)[0]] == 0;
  }

  // Distances at a fix, after the members have got there.
  void measure(int fix, Out<T> values, Out<T> tangents) {
    const T* seen = from_->track + 2 * (fix + 1);
    const Point<N> observed = at(constant<N>(all(seen[0])), constant<N>(all(seen[1])));
    Sum to_observed;
    for (int block = 0; block < blocks_; ++block) {
      const Point<N> here = at(x_[block], y_[block]);
      keep(block, here);
      to_observed.add(separation(here, observed), used(block));
      if (plan_.own_lengths) {
        put(separation(here, before_[block]), fix, block, values.steps, tangents.steps);
        before_[block] = here;
      }
      if (plan_.keep_positions)
        for (int axis = 0; axis < 2; ++axis)
          put(axis ? y_[block] : x_[block], 2 * fix + axis, block, values.positions, tangents.positions);
    }
    const T n = T(plan_.members);
    values.observed[fix] = to_observed.value / n;
    if constexpr (HAS_TANGENT) tangents.observed[fix] = to_observed.tangent / n;
    between(fix, values, tangents);
  }

  // Half the mean distance between two members. Each pair is taken once, over cyclic shifts; where distances per member
  // are wanted, twice.
  void between(int fix, Out<T> values, Out<T> tangents) {
    const int n = plan_.members, once = (n - 1) / 2, shifts = plan_.own_lengths ? n - 1 : once;
    Sum pairs;
    for (int block = 0; block < blocks_; ++block) {
      const int first = block * LANES;
      const Point<N> here = kept(first);
      N total = constant<N>(Vec<T>{});
      for (int k = 1; k <= shifts; ++k) total = total + separation(here, kept(first + k));
      if (!plan_.own_lengths && n % 2 == 0) total = total + separation(here, kept(first + n / 2)) * T(0.5);
      if (plan_.own_lengths) {
        total = total * (T(1) / T(n - 1));
        put(total, fix, block, values.per_member, tangents.per_member);
      }
      pairs.add(total, used(block));
    }
    const T share = plan_.own_lengths ? T(0.5) / T(n) : T(1) / (T(n) * T(n - 1));
    values.between[fix] = pairs.value * share;
    if constexpr (HAS_TANGENT) tangents.between[fix] = pairs.tangent * share;
  }

  // A sum over members: the lanes that hold one.
  struct Sum {
    T value = 0, tangent = 0;

    void add(N terms, int used) {
      for (int q = 0; q < used; ++q) {
        value += driftcal::value(terms)[q];
        if constexpr (HAS_TANGENT) tangent += driftcal::tangent(terms)[q];
      }
    }
  };

  int used(int block) const { return std::min(LANES, plan_.members - block * LANES); }

  // The members' points, twice in a row: eight that follow any member are one load, cyclically.
  struct Component {
    std::vector<T> value, tangent;
  };

  void keep(int block, const Point<N>& here) {
    const N parts[3] = {here.east, here.north, here.up};
    for (int c = 0; c < 3; ++c)
      for (int q = 0; q < used(block); ++q)
        for (const int member : {block * LANES + q, block * LANES + q + plan_.members}) {
          points_[c].value[member] = value(parts[c])[q];
          if constexpr (HAS_TANGENT) points_[c].tangent[member] = tangent(parts[c])[q];
        }
  }

  INLINE Point<N> kept(int member) const {
    const auto part = [&](int c) {
      if constexpr (HAS_TANGENT) return N{load(&points_[c].value[member]), load(&points_[c].tangent[member])};
      else return load(&points_[c].value[member]);
    };
    return {part(0), part(1), part(2)};
  }

  // Writes eight members of a row of results.
  void put(N numbers, int row, int block, T* values, T* tangents) const {
    for (int q = 0; q < used(block); ++q) {
      const size_t at = size_t(row) * plan_.members + block * LANES + q;
      values[at] = value(numbers)[q];
      if constexpr (HAS_TANGENT) tangents[at] = tangent(numbers)[q];
    }
  }

  Plan plan_;
  int blocks_;
  std::vector<N> x_, y_;
  std::vector<Int<T>> inside_;
  std::vector<Point<N>> before_;
  Component points_[3];
  const Window<T>* window_ = nullptr;
  const Start<T>* from_ = nullptr;
  Origin<T> origin_{};
  T least_[2], most_[2];
  N share_{}, amplitude_{};
};

}  // namespace driftcal
