// CUDA for a C++ compiler: the printed kernels run on the host, a block at a time. The threads of a block are real
// threads where a kernel waits for them, so that its atomics and barriers are put to use.
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>
using std::size_t;

#define __global__
#define __device__
#define __constant__
#define __shared__
#define __align__(bytes) alignas(bytes)
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index { unsigned x, y, z; };
static thread_local Index blockIdx, threadIdx;
static Index blockDim, gridDim;
static std::barrier<>* block_barrier = nullptr;

static inline void __syncthreads() { if (block_barrier) block_barrier->arrive_and_wait(); }
#define __log2f log2f
static inline int __popc(unsigned word) { return __builtin_popcount(word); }
static inline void __stcs(float* place, float value) { *place = value; }
static inline int __float_as_int(float value) { int bits; std::memcpy(&bits, &value, 4); return bits; }
static inline float __int_as_float(int bits) { float value; std::memcpy(&value, &bits, 4); return value; }

template <class T> static inline T atomicAdd(T* place, T value) { return std::atomic_ref<T>(*place).fetch_add(value); }
template <class T> static inline T atomicOr(T* place, T value) { return std::atomic_ref<T>(*place).fetch_or(value); }
template <class T> static inline T atomicCAS(T* place, T expected, T value) {
  std::atomic_ref<T>(*place).compare_exchange_strong(expected, value);
  return expected;
}
template <class T> static inline void atomicMin(T* place, T value) {
  std::atomic_ref<T> at(*place);
  for (T old = at.load(); value < old && !at.compare_exchange_weak(old, value);) {}
}
template <class T> static inline void atomicMax(T* place, T value) {
  std::atomic_ref<T> at(*place);
  for (T old = at.load(); value > old && !at.compare_exchange_weak(old, value);) {}
}
