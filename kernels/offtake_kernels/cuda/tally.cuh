// The exact tally of a launch's rows: integer sums by bin, so that no order of threads, blocks or devices matters.
//
// A block takes a row's next 65,536 values into a table of bins in shared memory and hands its sums to the device's
// table. A bin is a value's pattern without its lowest 15 bits; n, Σl and Σl² of those bits make every moment exact.

enum { LOW_BITS = 15, LOW_MASK = 0x7fff, BIN_BITS = 17, INFINITE = 0xff, SHARED_SLOTS = 2048, CHUNK = 65536 };
enum { NEAR = 16, FAR = 256 };  // slots that are tried in shared memory, and in the device's table

const unsigned NO_BIN = 0xffffffffu;
const u64 NO_KEY = ~0ull;

// What a device sums: `keys` are row << 17 | bin, `sums` n, Σl, Σl² of each; `counters` are slots in use, and bins
// that found none. `extremes`: least, greatest and least non-negative value of each row, as `ordered` patterns;
// `nonfinite`: how many values of a row are not finite, and the first path of one.
struct Tally {
  u64* keys;
  u64* sums;
  unsigned* counters;
  unsigned* extremes;
  u64* nonfinite;
  unsigned mask;
};
extern "C" { __constant__ Tally tally; }

__device__ __forceinline__ unsigned ordered(unsigned bits) { return bits >> 31 ? ~bits : bits | 0x80000000u; }

__device__ void add_to_device(u64 key, u64 n, u64 low, u64 square) {
  unsigned slot = (unsigned)((key * 0x9e3779b97f4a7c15ull) >> 32) & tally.mask;
  for (int tried = 0; tried < FAR; ++tried, slot = (slot + 1) & tally.mask) {
    const u64 found = atomicCAS(&tally.keys[slot], NO_KEY, key);
    if (found == NO_KEY) atomicAdd(&tally.counters[0], 1u);
    if (found == NO_KEY || found == key) {
      atomicAdd(&tally.sums[3 * (size_t)slot], n);
      atomicAdd(&tally.sums[3 * (size_t)slot + 1], low);
      atomicAdd(&tally.sums[3 * (size_t)slot + 2], square);
      return;
    }
  }
  atomicAdd(&tally.counters[1], 1u);
}

// Bins of one row's chunk. Σl² of 65,536 values needs 46 bits: its two halves are summed apart.
struct Bins {
  unsigned bin[SHARED_SLOTS], n[SHARED_SLOTS], low[SHARED_SLOTS], square[SHARED_SLOTS], square_high[SHARED_SLOTS];
};

// A thread's sums while its values stay in one bin: most rows are 0 for many quarters.
struct Run {
  unsigned bin, n, low, square, square_high;
};

__device__ void add_to_block(Bins& bins, u64 row, const Run& run) {
  if (run.n == 0) return;
  unsigned slot = (run.bin * 2654435761u) >> 21;
  for (int tried = 0; tried < NEAR; ++tried, slot = (slot + 1) % SHARED_SLOTS) {
    const unsigned found = atomicCAS(&bins.bin[slot], NO_BIN, run.bin);
    if (found == NO_BIN || found == run.bin) {
      atomicAdd(&bins.n[slot], run.n);
      atomicAdd(&bins.low[slot], run.low);
      atomicAdd(&bins.square[slot], run.square);
      atomicAdd(&bins.square_high[slot], run.square_high);
      return;
    }
  }
  add_to_device(row << BIN_BITS | run.bin, run.n, run.low, run.square + ((u64)run.square_high << 16));
}

extern "C" __global__ void __launch_bounds__(OFFTAKE_THREADS) offtake_tally(
    const float* __restrict__ rows, unsigned lanes, u64 first_path) {
  __shared__ Bins bins;
  __shared__ unsigned extremes[3];
  for (unsigned slot = threadIdx.x; slot < SHARED_SLOTS; slot += blockDim.x) {
    bins.bin[slot] = NO_BIN;
    bins.n[slot] = bins.low[slot] = bins.square[slot] = bins.square_high[slot] = 0;
  }
  if (threadIdx.x == 0) {
    extremes[0] = extremes[2] = 0xffffffffu;
    extremes[1] = 0;
  }
  __syncthreads();

  const u64 row = blockIdx.x;
  const unsigned begin = blockIdx.y * CHUNK, end = lanes - begin < CHUNK ? lanes : begin + CHUNK;
  const float* const values = rows + (size_t)row * lanes;
  unsigned least = 0xffffffffu, greatest = 0, least_nonnegative = 0xffffffffu;
  Run run = {NO_BIN, 0, 0, 0, 0};
  for (unsigned lane = begin + threadIdx.x; lane < end; lane += blockDim.x) {
    unsigned bits = (unsigned)__float_as_int(values[lane]);
    if (bits == 0x80000000u) bits = 0;  // -0 counts as 0
    if ((bits >> 23 & 0xff) == INFINITE) {
      if (bits & 0x7fffffu) bits = 0x7fc00000u;  // and every NaN as one
      atomicAdd(&tally.nonfinite[2 * row], 1ull);
      atomicMin(&tally.nonfinite[2 * row + 1], first_path + lane);
    } else {
      const unsigned place = ordered(bits);
      least = least < place ? least : place;
      greatest = greatest > place ? greatest : place;
      if (bits >> 31 == 0) least_nonnegative = least_nonnegative < place ? least_nonnegative : place;
    }
    const unsigned bin = bits >> LOW_BITS, low = bits & LOW_MASK, square = low * low;
    if (bin != run.bin) {
      add_to_block(bins, row, run);
      run = {bin, 0, 0, 0, 0};
    }
    run.n += 1;
    run.low += low;
    run.square += square & 0xffffu;
    run.square_high += square >> 16;
  }
  add_to_block(bins, row, run);
  atomicMin(&extremes[0], least);
  atomicMax(&extremes[1], greatest);
  atomicMin(&extremes[2], least_nonnegative);
  __syncthreads();

  for (unsigned slot = threadIdx.x; slot < SHARED_SLOTS; slot += blockDim.x) {
    if (bins.n[slot] == 0) continue;
    const u64 square = bins.square[slot] + ((u64)bins.square_high[slot] << 16);
    add_to_device(row << BIN_BITS | bins.bin[slot], bins.n[slot], bins.low[slot], square);
  }
  if (threadIdx.x == 0) {
    atomicMin(&tally.extremes[3 * row], extremes[0]);
    atomicMax(&tally.extremes[3 * row + 1], extremes[1]);
    atomicMin(&tally.extremes[3 * row + 2], extremes[2]);
  }
}

// The table's bins one after another, and the table empty again. `count` begins at 0.
extern "C" __global__ void offtake_collect(u64* keys, u64* sums, unsigned* count) {
  const unsigned step = gridDim.x * blockDim.x;
  for (u64 slot = blockIdx.x * blockDim.x + threadIdx.x; slot <= tally.mask; slot += step) {
    if (tally.keys[slot] == NO_KEY) continue;
    const unsigned place = atomicAdd(count, 1u);
    keys[place] = tally.keys[slot];
    tally.keys[slot] = NO_KEY;
    for (int part = 0; part < 3; ++part) {
      sums[3 * (size_t)place + part] = tally.sums[3 * slot + part];
      tally.sums[3 * slot + part] = 0;
    }
  }
}

// Paths for which a value of a row compares with a level. `rules`: row, operator (< <= > >=), whether -1 stands
// for no value.
extern "C" __global__ void offtake_count(
    const float* __restrict__ rows, unsigned lanes, const int* __restrict__ rules, const float* __restrict__ levels,
    u64* hits) {
  const int* const rule = rules + 3 * blockIdx.x;
  const float level = levels[blockIdx.x];
  const float* const values = rows + (size_t)rule[0] * lanes;
  unsigned count = 0;
  for (unsigned lane = blockIdx.y * blockDim.x + threadIdx.x; lane < lanes; lane += gridDim.y * blockDim.x) {
    const float value = values[lane];
    const bool held = rule[1] == 0   ? value < level
                      : rule[1] == 1 ? value <= level
                      : rule[1] == 2 ? value > level
                                     : value >= level;
    count += held && !(rule[2] && value == -1.0f);
  }
  if (count) atomicAdd(&hits[blockIdx.x], (u64)count);
}
