// XLA's door to the kernel: hands out samples to threads, and lets each write its own results.
//
// Compiled by train/native/library.py, which defines the physical constants. One target for both precisions, for values
// alone and for values with their derivative along a change of log C_s: what came says which.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "ensemble.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace driftcal {

// Takes numbers too small to be normal for 0 while it lives, on whichever thread: what threads find must not depend on
// which one found it.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | (uint64_t(1) << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
#endif
};

// Samples to be done, shared by the threads that do them. A thread of the pool may come to it when everything is done
// and the call has returned: then it finds nothing to take.
class Work {
 public:
  explicit Work(int64_t n) : n_(n) {}

  // Takes samples until there are none. `make` gives a function of the sample's number, with memory of its own.
  template <class Make>
  void help(const Make& make) {
    int64_t sample = next_++;
    if (sample >= n_) return;
    FlushDenormals flush;
    for (auto one = make(); sample < n_; sample = next_++) {
      one(sample);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (++done_ == n_) finished_.notify_all();
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return done_ == n_; });
  }

 private:
  const int64_t n_;
  std::atomic<int64_t> next_{0};
  int64_t done_ = 0;
  std::mutex mutex_;
  std::condition_variable finished_;
};

// All samples, by this thread and those of the pool that are free.
template <class Make>
void share_out(ffi::ThreadPool& pool, int64_t n, const Make& make) {
  const auto work = std::make_shared<Work>(n);
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), n) - 1;
  for (int64_t k = 0; k < helpers; ++k) pool.Schedule([work, make] { work->help(make); });
  work->help(make);
  work->wait();
}

// Operands in their order, and results; tangents of the first `N_REAL` follow where the last operand came.
enum { CURRENTS, CELL, START, TRACK, PHASE, LATITUDE, KEYS, LOG_CS, LOG_CS_TANGENT, N_OPERANDS };
enum { OBSERVED, BETWEEN, PER_MEMBER, STEPS, POSITIONS, N_REAL, INSIDE = N_REAL, ASHORE, N_RESULTS };

// What is wanted, in the order of `numbers` in train/native/simulate.py.
enum { STEP, KAPPA_EVERY, TIME_STEP, N_SUB, SCHEME, MEMBERS, OWN_LENGTHS, KEEP_POSITIONS, N_NUMBERS };

Plan plan_of(ffi::Span<const int64_t> numbers, double lat_step, double lon_step, const ffi::AnyBuffer& currents,
             const ffi::AnyBuffer& track) {
  const auto shape = currents.dimensions();
  Plan plan;
  plan.grid.n_times = shape[2], plan.grid.n_lat = shape[3], plan.grid.n_lon = shape[4];
  plan.grid.n_obs = track.dimensions()[1];
  plan.grid.time_step = numbers[TIME_STEP], plan.grid.kappa_every = numbers[KAPPA_EVERY];
  plan.grid.step = numbers[STEP];
  plan.grid.lat_step = lat_step, plan.grid.lon_step = lon_step;
  plan.scheme = Scheme(numbers[SCHEME]);
  plan.members = numbers[MEMBERS];
  plan.n_sub = numbers[N_SUB];
  plan.own_lengths = numbers[OWN_LENGTHS];
  plan.keep_positions = numbers[KEEP_POSITIONS];
  return plan;
}

// A sample's part of an array (sample, ...).
template <class T>
T* part(const ffi::AnyBuffer& array, int64_t sample) {
  return array.typed_data<T>() + sample * (array.element_count() / array.dimensions()[0]);
}

template <class T>
Start<T> start_of(const std::vector<ffi::AnyBuffer>& given, int64_t b) {
  const int32_t* cell = part<int32_t>(given[CELL], b);
  const T* start = part<T>(given[START], b);
  const uint32_t* key = part<uint32_t>(given[KEYS], b);
  const T tangent = given.size() == N_OPERANDS ? *part<T>(given[LOG_CS_TANGENT], b) : T(0);
  return {{cell[0], cell[1]},
          {start[0], start[1]},
          part<T>(given[TRACK], b),
          *part<T>(given[PHASE], b),
          *part<T>(given[LATITUDE], b),
          {key[0], key[1]},
          *part<T>(given[LOG_CS], b),
          tangent};
}

template <class T>
Out<T> out_of(const std::vector<ffi::AnyBuffer>& made, int first, int64_t b) {
  return {part<T>(made[first + OBSERVED], b), part<T>(made[first + BETWEEN], b), part<T>(made[first + PER_MEMBER], b),
          part<T>(made[first + STEPS], b), part<T>(made[first + POSITIONS], b)};
}

template <class N>
void simulate(ffi::ThreadPool& pool, const Plan& plan, const std::vector<ffi::AnyBuffer>& given,
              const std::vector<ffi::AnyBuffer>& made) {
  typedef Real<N> T;
  share_out(pool, given[CURRENTS].dimensions()[0], [&]() {
    const auto window = std::make_shared<Window<T>>(plan.grid);
    return [&, window, ensemble = std::make_shared<Ensemble<N>>(plan)](int64_t b) {
      const Start<T> start = start_of<T>(given, b);
      window->tabulate(part<int16_t>(given[CURRENTS], b), start.latitude);
      ensemble->run(*window, start, out_of<T>(made, 0, b),
                    Number<N>::has_tangent ? out_of<T>(made, N_RESULTS, b) : Out<T>{}, part<bool>(made[INSIDE], b),
                    part<bool>(made[ASHORE], b));
    };
  });
}

ffi::Error run(ffi::ThreadPool pool, ffi::Span<const int64_t> numbers, double lat_step, double lon_step,
               ffi::RemainingArgs operands, ffi::RemainingRets results) {
  std::vector<ffi::AnyBuffer> given, made;
  for (size_t k = 0; k < operands.size(); ++k) given.push_back(*operands.get<ffi::AnyBuffer>(k));
  for (size_t k = 0; k < results.size(); ++k) made.push_back(**results.get<ffi::AnyBuffer>(k));
  const bool tangents = given.size() == N_OPERANDS, wide = given[START].element_type() == ffi::DataType::F64;
  if (numbers.size() != N_NUMBERS || given.size() + !tangents != N_OPERANDS ||
      made.size() != N_RESULTS + (tangents ? N_REAL : 0))
    return ffi::Error::InvalidArgument("driftcal: the kernel and the Python that calls it are not of one version");
  const Plan plan = plan_of(numbers, lat_step, lon_step, given[CURRENTS], given[TRACK]);
  if (wide)
    tangents ? simulate<Dual<double>>(pool, plan, given, made) : simulate<Vec<double>>(pool, plan, given, made);
  else
    tangents ? simulate<Dual<float>>(pool, plan, given, made) : simulate<Vec<float>>(pool, plan, given, made);
  return ffi::Error::Success();
}

}  // namespace driftcal

XLA_FFI_DEFINE_HANDLER_SYMBOL(driftcal_simulate, driftcal::run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<ffi::Span<const int64_t>>("numbers")
                                  .Attr<double>("lat_step")
                                  .Attr<double>("lon_step")
                                  .RemainingArgs()
                                  .RemainingRets());
