// Raw samples into a batch, their crc32c taken of the words that pass by.
//
// A copy waits for memory and a checksum for the processor, so that together they take hardly more than the copy. The
// instruction that takes eight bytes into a sum has a result three clocks later: three strips of a sample, each with a
// sum of its own, keep it busy. Sums are linear over GF(2): zero bytes after a strip multiply its sum by a power of x
// modulo the polynomial of Castagnoli, which makes one sum of the three (zlib's crc32_combine does the same).

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#else
#error this processor has no instruction for crc32c
#endif

namespace {

constexpr std::size_t STRIPS = 3;
constexpr std::size_t LINE = 64;             // bytes between two calls for what lies ahead
constexpr std::size_t AHEAD = 4 * LINE;      // how far that is
constexpr std::uint32_t ONE = 0x80000000u;   // x to the power 0: sums have their bits in reverse
constexpr std::uint32_t X_8 = ONE >> 8;      // what a zero byte multiplies a sum by
constexpr std::uint32_t POLYNOMIAL = 0x82F63B78u;

std::uint32_t sum_word(std::uint32_t sum, std::uint64_t word) {
#if defined(__SSE4_2__)
    return static_cast<std::uint32_t>(_mm_crc32_u64(sum, word));
#else
    return __crc32cd(sum, word);
#endif
}

std::uint32_t sum_byte(std::uint32_t sum, std::uint8_t byte) {
#if defined(__SSE4_2__)
    return _mm_crc32_u8(sum, byte);
#else
    return __crc32cb(sum, byte);
#endif
}

std::uint32_t product(std::uint32_t a, std::uint32_t b) {
    std::uint32_t sum = 0;
    for (int power = 31; power >= 0; --power) {
        if (a >> power & 1) sum ^= b;
        b = (b >> 1) ^ (b & 1 ? POLYNOMIAL : 0);
    }
    return sum;
}

// What `size` zero bytes multiply a sum by.
std::uint32_t zeros(std::size_t size) {
    std::uint32_t found = ONE;
    for (std::uint32_t square = X_8; size; size >>= 1, square = product(square, square))
        if (size & 1) found = product(found, square);
    return found;
}

std::uint64_t copy_word(const std::uint8_t* from, std::uint8_t* to) {
    std::uint64_t word;
    std::memcpy(&word, from, sizeof word);
    std::memcpy(to, &word, sizeof word);
    return word;
}

// Copies a sample; its crc32c. `shift` is zeros(strip), and `strip`, a multiple of LINE, at most a third of `size`.
std::uint32_t copy(const std::uint8_t* from, std::uint8_t* to, std::size_t size, std::size_t strip,
                   std::uint32_t shift) {
    std::uint32_t sums[STRIPS] = {~0u};
    for (std::size_t line = 0; line < strip; line += LINE) {
        for (std::size_t k = 0; k < STRIPS; ++k) __builtin_prefetch(from + k * strip + line + AHEAD);
        for (std::size_t at = line; at < line + LINE; at += 8)
            for (std::size_t k = 0; k < STRIPS; ++k)
                sums[k] = sum_word(sums[k], copy_word(from + k * strip + at, to + k * strip + at));
    }
    std::uint32_t sum = sums[0];
    for (std::size_t k = 1; k < STRIPS; ++k) sum = product(sum, shift) ^ sums[k];
    std::size_t at = STRIPS * strip;
    for (; at + 8 <= size; at += 8) sum = sum_word(sum, copy_word(from + at, to + at));
    for (; at < size; ++at) sum = sum_byte(sum, to[at] = from[at]);
    return ~sum;
}

}  // namespace

// Copies `n` samples of `size` bytes from the addresses `from` into the rows of `to`. Which of them are whole, that is
// have the crc32c `expected`, goes into `whole`; one whose address is 0 is not, and its row is left as it is.
extern "C" void driftcal_copy(std::size_t n, std::size_t size, const std::uintptr_t* from,
                              const std::uint32_t* expected, std::uint8_t* to, std::uint8_t* whole) {
    const std::size_t strip = size / STRIPS / LINE * LINE;
    const std::uint32_t shift = zeros(strip);
    for (std::size_t k = 0; k < n; ++k) {
        const auto* sample = reinterpret_cast<const std::uint8_t*>(from[k]);
        whole[k] = sample && copy(sample, to + k * size, size, strip, shift) == expected[k];
    }
}
