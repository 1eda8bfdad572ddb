// Eight numbers at a time, and eight numbers with their derivatives: what the maths of the other files is written in.
//
// A function of `Vec<T>` computes values; given `Dual<T>` instead, the same function computes values and tangents
// (forward mode). Vectors are those of GCC and Clang, so that no instruction set is named here.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace driftcal {

#define INLINE inline __attribute__((always_inline))

constexpr int LANES = 8;

template <class T>
struct Lane;

template <>
struct Lane<float> {
  typedef float Vec __attribute__((vector_size(4 * LANES)));
  typedef int32_t Int __attribute__((vector_size(4 * LANES)));
};

template <>
struct Lane<double> {
  typedef double Vec __attribute__((vector_size(8 * LANES)));
  typedef int64_t Int __attribute__((vector_size(8 * LANES)));
};

typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

template <class T>
using Vec = typename Lane<T>::Vec;

// Integers as wide as T; as a mask, all bits of a lane or none.
template <class T>
using Int = typename Lane<T>::Int;

template <class T>
INLINE Vec<T> all(T value) {
  return Vec<T>{} + value;
}

template <class T>
INLINE Vec<T> load(const T* at) {
  Vec<T> loaded;
  std::memcpy(&loaded, at, sizeof loaded);
  return loaded;
}

template <class T>
INLINE void store(T* at, Vec<T> value) {
  std::memcpy(at, &value, sizeof value);
}

// A value and its tangent.
template <class T>
struct Dual {
  Vec<T> v, d;
};

// clang-format off
template <class T> INLINE Dual<T> operator+(Dual<T> a, Dual<T> b) { return {a.v + b.v, a.d + b.d}; }
template <class T> INLINE Dual<T> operator-(Dual<T> a, Dual<T> b) { return {a.v - b.v, a.d - b.d}; }
template <class T> INLINE Dual<T> operator*(Dual<T> a, Dual<T> b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
template <class T> INLINE Dual<T> operator/(Dual<T> a, Dual<T> b) {
  const Vec<T> q = a.v / b.v;
  return {q, (a.d - q * b.d) / b.v};
}
template <class T> INLINE Dual<T> operator+(Dual<T> a, Vec<T> b) { return {a.v + b, a.d}; }
template <class T> INLINE Dual<T> operator-(Dual<T> a, Vec<T> b) { return {a.v - b, a.d}; }
template <class T> INLINE Dual<T> operator*(Dual<T> a, Vec<T> b) { return {a.v * b, a.d * b}; }
template <class T> INLINE Dual<T> operator-(Vec<T> a, Dual<T> b) { return {a - b.v, -b.d}; }
template <class T> INLINE Dual<T> operator/(Vec<T> a, Dual<T> b) {
  const Vec<T> q = a / b.v;
  return {q, -q * b.d / b.v};
}
template <class T> INLINE Dual<T> operator+(Dual<T> a, T b) { return {a.v + b, a.d}; }
template <class T> INLINE Dual<T> operator-(Dual<T> a, T b) { return {a.v - b, a.d}; }
template <class T> INLINE Dual<T> operator*(Dual<T> a, T b) { return {a.v * b, a.d * b}; }
template <class T> INLINE Dual<T> operator-(T a, Dual<T> b) { return {a - b.v, -b.d}; }
// clang-format on

// What a number is made of.
template <class N>
struct Number;

#define VALUES_ONLY(T)                                               \
  template <>                                                        \
  struct Number<Vec<T>> {                                            \
    typedef T Real;                                                  \
    static constexpr bool has_tangent = false;                       \
    static INLINE Vec<T> make(Vec<T> value, Vec<T>) { return value; } \
    static INLINE Vec<T> value(Vec<T> n) { return n; }               \
    static INLINE Vec<T> tangent(Vec<T>) { return Vec<T>{}; }        \
  };
VALUES_ONLY(float)
VALUES_ONLY(double)
#undef VALUES_ONLY

template <class T>
struct Number<Dual<T>> {
  typedef T Real;
  static constexpr bool has_tangent = true;
  static INLINE Dual<T> make(Vec<T> value, Vec<T> tangent) { return {value, tangent}; }
  static INLINE Vec<T> value(Dual<T> n) { return n.v; }
  static INLINE Vec<T> tangent(Dual<T> n) { return n.d; }
};

template <class N>
using Real = typename Number<N>::Real;

template <class N>
INLINE Vec<Real<N>> value(N n) {
  return Number<N>::value(n);
}

template <class N>
INLINE Vec<Real<N>> tangent(N n) {
  return Number<N>::tangent(n);
}

// The number that does not depend on the parameter.
template <class N>
INLINE N constant(Vec<Real<N>> value) {
  return Number<N>::make(value, Vec<Real<N>>{});
}

template <class N>
INLINE N select(Int<Real<N>> mask, N yes, N no) {
  return Number<N>::make(mask ? value(yes) : value(no), mask ? tangent(yes) : tangent(no));
}

template <class T>
INLINE Vec<T> root(Vec<T> x) {
  Vec<T> r;
  for (int q = 0; q < LANES; ++q) r[q] = std::sqrt(x[q]);
  return r;
}

INLINE Vec<float> square_root(Vec<float> x) { return root<float>(x); }
INLINE Vec<double> square_root(Vec<double> x) { return root<double>(x); }

template <class T>
INLINE Dual<T> square_root(Dual<T> x) {
  const Vec<T> r = square_root(x.v);
  return {r, T(0.5) * x.d / r};
}

// Sine and cosine of at most a radian: the series of train/sphere.py.
template <class T>
INLINE Vec<T> sine_series(Vec<T> angle) {
  const Vec<T> q = angle * angle;
  return angle *
         (T(1) - q * (T(1. / 6) - q * (T(1. / 120) - q * (T(1. / 5040) - q * (T(1. / 362880) - q * T(1. / 39916800))))));
}

template <class T>
INLINE Vec<T> cosine_series(Vec<T> angle) {
  const Vec<T> q = angle * angle;
  return T(1) -
         q * (T(1. / 2) - q * (T(1. / 24) - q * (T(1. / 720) - q * (T(1. / 40320) - q * (T(1. / 3628800) - q * T(1. / 479001600))))));
}

INLINE Vec<float> sine(Vec<float> a) { return sine_series<float>(a); }
INLINE Vec<double> sine(Vec<double> a) { return sine_series<double>(a); }
INLINE Vec<float> cosine(Vec<float> a) { return cosine_series<float>(a); }
INLINE Vec<double> cosine(Vec<double> a) { return cosine_series<double>(a); }

template <class T>
INLINE Dual<T> sine(Dual<T> a) {
  return {sine(a.v), cosine(a.v) * a.d};
}

template <class T>
INLINE Dual<T> cosine(Dual<T> a) {
  return {cosine(a.v), -sine(a.v) * a.d};
}

// Natural logarithm of normal numbers in (0, 1]: exponent and mantissa in [sqrt(1/2), sqrt(2)), whose logarithm is a
// polynomial (Moshier 1992, Cephes, logf), 1 unit in the last place.
INLINE Vec<float> logarithm(Vec<float> x) {
  typedef Int<float> I;
  I bits;
  std::memcpy(&bits, &x, sizeof bits);
  const I above_root = bits - 0x3f3504f3;  // bits of sqrt(1/2)
  const Vec<float> exponent = __builtin_convertvector(above_root >> 23, Vec<float>);
  const I mantissa = (above_root & 0x7fffff) + 0x3f3504f3;
  Vec<float> m;
  std::memcpy(&m, &mantissa, sizeof m);
  m = m - 1.0f;
  const Vec<float> z = m * m;
  Vec<float> p = all(7.0376836292e-2f);
  for (const float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                        2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = p * m + c;
  const Vec<float> low = m * z * p - 2.12194440e-4f * exponent - 0.5f * z;
  return m + low + 0.693359375f * exponent;
}

INLINE Vec<double> logarithm(Vec<double> x) {
  Vec<double> r;
  for (int q = 0; q < LANES; ++q) r[q] = std::log(x[q]);
  return r;
}

// Eight vectors of eight, rows to columns.
template <class T>
INLINE void transpose(Vec<T> r[LANES]) {
  Vec<T> t[LANES];
  for (int i = 0; i < LANES; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  Vec<T> s[LANES];
  for (int i = 0; i < LANES; i += 4)
    for (int k = 0; k < 2; ++k) {
      s[i + k] = __builtin_shufflevector(t[i + k], t[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      s[i + k + 2] = __builtin_shufflevector(t[i + k], t[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int k = 0; k < 4; ++k) {
    r[k] = __builtin_shufflevector(s[k], s[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    r[k + 4] = __builtin_shufflevector(s[k], s[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

}  // namespace driftcal
