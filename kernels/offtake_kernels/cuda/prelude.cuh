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

// A word's low 31 bits, and a sign from its top bit: what a normal score is made of.
__device__ __forceinline__ int low_bits(unsigned word) { return (int)(word & 0x7fffffffu); }
__device__ __forceinline__ int top_bit_clear(unsigned word) { return (int)(~word & 0x80000000u); }
