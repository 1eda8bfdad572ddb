// The increments of train/noise.py: Threefry-2x32 of (step, member) under a sample's key, then Box and Muller's deviates.
#pragma once

#include "lanes.hpp"

namespace driftcal {

struct Key {
  uint32_t first, second;
};

// Both words of the generator after thirteen rounds.
INLINE void threefry(Key key, Words a, Words b, Words words[2]) {
  constexpr int rotations[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  const uint32_t keys[3] = {key.first, key.second, key.first ^ key.second ^ 0x1BD11BDAu};
  a += keys[0], b += keys[1];
#pragma GCC unroll 13
  for (int number = 0; number < 13; ++number) {
    const int turn = rotations[number % 8];
    a += b;
    b = a ^ ((b << turn) | (b >> (32 - turn)));
    if (number % 4 == 3) {
      const int injected = number / 4 + 1;
      a += keys[injected % 3], b += keys[(injected + 1) % 3] + uint32_t(injected);
    }
  }
  words[0] = a, words[1] = b;
}

// Standard normal increments, east and north, of eight members from `first` on.
template <class T>
INLINE void increments(Key key, uint32_t step, uint32_t first, Vec<T>& east, Vec<T>& north) {
  typedef Int<float> Signed;  // as wide as the words
  Words words[2];
  threefry(key, Words{} + step, Words{0, 1, 2, 3, 4, 5, 6, 7} + first, words);
  const auto upper = [](Words word) { return __builtin_convertvector((Signed)(word >> 8), Vec<T>); };
  const auto bit = [&words](uint32_t which) {
    return __builtin_convertvector((Signed)((words[1] & which) != 0u), Int<T>);
  };
  const Vec<T> radius = square_root(T(-2) * logarithm((upper(words[0]) + T(0.5)) * T(0x1p-24)));
  const Vec<T> turn = (upper(words[1]) + T(0.5)) * T(M_PI / 2 * 0x1p-24) - T(M_PI / 4);
  const Vec<T> along = cosine(turn), across = sine(turn);
  const Int<T> swap = bit(1);
  east = (bit(2) ? -radius : radius) * (swap ? across : along);
  north = (bit(4) ? -radius : radius) * (swap ? along : across);
}

}  // namespace driftcal
