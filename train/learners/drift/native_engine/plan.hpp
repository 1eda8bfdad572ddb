// What is wanted of the kernel, a sample's beginning, and where its results go.
#pragma once

#include "noise.hpp"
#include "window.hpp"

namespace driftcal {

enum class Scheme : int64_t { heun, ito_heun, euler, reference };

// How an ensemble is integrated, and what is wanted of it.
struct Plan {
  Grid grid;
  Scheme scheme;
  int members, n_sub;
  bool own_lengths, keep_positions;

  int n_fixes() const { return grid.n_obs - 1; }
  int padded() const { return (members + LANES - 1) / LANES * LANES; }
};

// What is known of a sample beside its currents.
template <class T>
struct Start {
  int cell[2];
  T start[2];
  const T* track;  // (obs, 2)
  T phase, latitude;
  Key key;
  T log_cs, log_cs_tangent;
};

// Where a sample's results go, values or tangents; null where not wanted.
template <class T>
struct Out {
  T *observed, *between, *per_member, *steps, *positions;
};

}  // namespace driftcal
