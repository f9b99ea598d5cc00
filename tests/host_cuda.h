// What the printed kernels need of CUDA, for a C++ compiler: the threads of a launch run one after another.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
using std::size_t;

#define __global__
#define __device__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct Index { unsigned x, y, z; };
static thread_local Index blockIdx, threadIdx;
static thread_local Index blockDim = {1, 1, 1}, gridDim = {1, 1, 1};

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
static inline int __float_as_int(float value) { int bits; std::memcpy(&bits, &value, 4); return bits; }
static inline float __int_as_float(int bits) { float value; std::memcpy(&value, &bits, 4); return value; }
