// What every kernel of offtake starts from: the vocabulary of the printed statements.

typedef unsigned long long u64;

// What a block has of shared memory: as much as its launch says.
extern __shared__ unsigned block_memory[];

// Minimum and maximum in which a NaN stays one, as numpy has them: what is not finite is counted, never hidden.
__device__ __forceinline__ float least(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a < b || a != a ? a : b;
#endif
}

__device__ __forceinline__ float most(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a > b || a != a ? a : b;
#endif
}

// A number held between 0 and 1, which the GPU does with the operation before, for nothing. It makes a NaN 0: what
// is held so is a share of a quarter, and the start it comes from goes, a NaN still, into the deal's position.
__device__ __forceinline__ float share(float a) {
#ifdef __CUDA_ARCH__
  return __saturatef(a);
#else
  return least(1.0f, most(0.0f, a));
#endif
}

// A word's low 31 bits, and a sign from its top bit: what a normal score is made of.
__device__ __forceinline__ int low_bits(unsigned word) { return (int)(word & 0x7fffffffu); }
__device__ __forceinline__ int top_bit_clear(unsigned word) { return (int)(~word & 0x80000000u); }

// A product of words: one instruction makes both halves, and the compiler keeps one of two that are alike.
__device__ __forceinline__ u64 product(unsigned a, unsigned b) {
#ifdef __CUDA_ARCH__
  u64 result;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(result) : "r"(a), "r"(b));
  return result;
#else
  return (u64)a * b;
#endif
}

__device__ __forceinline__ unsigned product_high(unsigned a, unsigned b) { return (unsigned)(product(a, b) >> 32); }
__device__ __forceinline__ unsigned product_low(unsigned a, unsigned b) { return (unsigned)product(a, b); }

// Fast arithmetic takes what the GPU has an instruction for, to within two or three of a result's last places.
#ifdef OFFTAKE_FAST
__device__ __forceinline__ float fast_exp2(float a) { return exp2f(least(most(a, -126.0f), 127.0f)); }
__device__ __forceinline__ float fast_log2(float a) { return __log2f(a); }

// Scaled before the logarithm, which is exact to 2^-22 of its result or, between 1/2 and 2, to 2^-22.
__device__ __forceinline__ float fast_bits_of_tail(float a) { return -__log2f(a * 0x1p-32f); }
#endif
