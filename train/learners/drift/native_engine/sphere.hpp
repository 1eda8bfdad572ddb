// Geometry on the sphere around a sample's start: train/sphere.py.
#pragma once

#include "lanes.hpp"

namespace driftcal {

template <class N>
struct Point {
  N east, north, up;
};

// An origin on the sphere: cosine and sine of its latitude.
template <class T>
struct Origin {
  T cos, sin;

  template <class N>
  INLINE N cos_latitude(N north) const {
    return cosine(north) * cos - sine(north) * sin;
  }

  // The point `east`, `north` of the origin [radians]; nothing in it cancels.
  template <class N>
  INLINE Point<N> point(N east, N north) const {
    const N half_east = sine(east * T(0.5)), half_north = sine(north * T(0.5)), cos_north = cos_latitude(north);
    const N fall = half_east * half_east * T(2);
    const T radius = T(EARTH_RADIUS);
    return {cos_north * sine(east) * radius, (sine(north) + cos_north * fall * sin) * radius,
            (half_north * half_north * T(2) + cos_north * fall * cos) * -radius};
  }
};

// Great-circle distance [m] from the chord, by the arcsine's series.
template <class N>
INLINE N separation(const Point<N>& a, const Point<N>& b) {
  typedef Real<N> T;
  const N east = a.east - b.east, north = a.north - b.north, up = a.up - b.up;
  const N square = east * east + north * north + up * up + T(LEAST_SQUARE);
  const N q = square * T(0.25 / (EARTH_RADIUS * EARTH_RADIUS));
  return square_root(square) * (q * (q * (q * T(15. / 336) + T(3. / 40)) + T(1. / 6)) + T(1));
}

}  // namespace driftcal
