// Interpolation by coasts: `corner_weights` of train/dynamics.py.
#pragma once

#include "lanes.hpp"

namespace driftcal {

// Weights of a cell's corners where not all are ocean: inverse squared distance among those that are (pastax's scheme).
// `weights` holds the bilinear ones, which members in the open ocean keep; `ocean` has a bit for every corner.
template <class N>
__attribute__((noinline)) void coastal_weights(N x, N y, Int<Real<N>> ocean, N weights[4]) {
  typedef Real<N> T;
  const N rest_x = T(1) - x, rest_y = T(1) - y;
  const N xx = x * x, yy = y * y + T(COAST), rest_xx = rest_x * rest_x, rest_yy = rest_y * rest_y + T(COAST);
  const N far[4] = {xx + yy, rest_xx + yy, xx + rest_yy, rest_xx + rest_yy};
  // inverses over their sum, multiplied through by all four distances: one division instead of five
  const N south = far[0] * far[1], north = far[2] * far[3];
  N inverse[4] = {far[1] * north, far[0] * north, far[3] * south, far[2] * south};
  const N nothing = constant<N>(Vec<T>{});
  for (int k = 0; k < 4; ++k) inverse[k] = select<N>((ocean & (1 << k)) != 0, inverse[k], nothing);
  const N total = inverse[0] + inverse[1] + inverse[2] + inverse[3];
  const N scale = all(T(1)) / select<N>(ocean == 0, constant<N>(all(T(1))), total);
  for (int k = 0; k < 4; ++k) weights[k] = select<N>(ocean == 15, weights[k], inverse[k] * scale);
}

}  // namespace driftcal
