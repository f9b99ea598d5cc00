// The exact tally of a launch's rows: integer sums by bin, so that no order of threads, blocks or devices matters.
//
// A block takes a chunk of a row's values into a table of bins in shared memory and hands its sums to the device's
// table. A bin is a value's pattern without its lowest 15 bits; n, Σl and Σl² of those bits make every moment exact.

enum { LOW_BITS = 15, LOW_MASK = 0x7fff, BIN_BITS = 17, INFINITE = 0xff };
enum { TALLY_THREADS = 1024 };
enum { BLOCK_SLOTS = 4096, IN_BLOCK = 16, IN_DEVICE = 256 };  // slots of a block's table; how many are tried

// Of so many values Σl < 2^32, n < 2^17 and Σl² < 2^47: what Σl² carries beyond 32 bits is counted above n.
enum { CHUNK = (1 << 17) - 256, N_BITS = 17, N_MASK = (1 << N_BITS) - 1 };

const unsigned NO_BIN = 0xffffffffu;

// A slot of the device's table: row << 17 | bin, plus 1, or 0 while it is free; n, Σl, Σl².
struct __align__(32) Slot {
  u64 key, n, low, square;
};

// What a device sums. `counters`: slots in use, and bins that found none. `extremes`: least, greatest and least
// non-negative value of each row, as `ordered` patterns; `nonfinite`: how many values of a row are not finite, and
// the first path of one.
struct Tally {
  Slot* slots;
  unsigned* counters;
  unsigned* extremes;
  u64* nonfinite;
  unsigned mask;
};
extern "C" { __constant__ Tally tally; }

__device__ __forceinline__ unsigned ordered(unsigned bits) { return bits >> 31 ? ~bits : bits | 0x80000000u; }

// A value's pattern as it is counted: -0 as 0, and every NaN as one.
__device__ __forceinline__ unsigned counted(unsigned bits) {
  if (bits == 0x80000000u) return 0;
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : bits;
}

// A bin's first place in a table: its neighbours' are beside it, and the negative bins half a table away.
__device__ __forceinline__ unsigned home(unsigned bin) {
  return (bin ^ (bin >> (BIN_BITS - 1)) * (BLOCK_SLOTS / 2)) % BLOCK_SLOTS;
}

// The place that is tried next: first at home, then anywhere, and from there on in steps so large that no crowded
// part of a table holds them up.
__device__ __forceinline__ unsigned attempt(unsigned first, u64 key, unsigned tried) {
  return tried == 0 ? first : (unsigned)((key * 0x9e3779b97f4a7c15ull) >> 32) + tried * 0x9e3779b1u;
}

__device__ void add_to_device(u64 row, unsigned bin, u64 n, u64 low, u64 square) {
  const u64 key = (row << BIN_BITS | bin) + 1;
  const unsigned first = (unsigned)row * BLOCK_SLOTS + home(bin);
  for (unsigned tried = 0; tried < IN_DEVICE; ++tried) {
    Slot& slot = tally.slots[attempt(first, key, tried) & tally.mask];
    const u64 found = atomicCAS(&slot.key, (u64)0, key);
    if (found == 0) atomicAdd(&tally.counters[0], 1u);
    if (found == 0 || found == key) {
      atomicAdd(&slot.n, n);
      atomicAdd(&slot.low, low);
      atomicAdd(&slot.square, square);
      return;
    }
  }
  atomicAdd(&tally.counters[1], 1u);
}

// A block's shared memory: the bins of one row's chunk, then the row's extremes in that chunk.
struct Bins {
  unsigned bin[BLOCK_SLOTS], n[BLOCK_SLOTS], low[BLOCK_SLOTS], square[BLOCK_SLOTS];
};

// A thread's sums while its values stay in one bin.
struct Run {
  unsigned bin, n, low;
  u64 square;
};

__device__ void add_to_block(Bins& bins, u64 row, const Run& run) {
  if (run.n == 0) return;
  for (unsigned tried = 0; tried < IN_BLOCK; ++tried) {
    const unsigned slot = attempt(home(run.bin), run.bin, tried) % BLOCK_SLOTS;
    unsigned found = *(volatile unsigned*)&bins.bin[slot];
    if (found == NO_BIN) found = atomicCAS(&bins.bin[slot], NO_BIN, run.bin);
    if (found == NO_BIN || found == run.bin) {
      const unsigned square = (unsigned)run.square;
      const unsigned carried = atomicAdd(&bins.square[slot], square) > ~square;
      atomicAdd(&bins.n[slot], run.n + (((unsigned)(run.square >> 32) + carried) << N_BITS));
      atomicAdd(&bins.low[slot], run.low);
      return;
    }
  }
  add_to_device(row, run.bin, run.n, run.low, run.square);
}

extern "C" __global__ void __launch_bounds__(TALLY_THREADS) offtake_tally(
    const float* __restrict__ rows, unsigned lanes, u64 first_path) {
  Bins& bins = *(Bins*)block_memory;
  for (unsigned slot = threadIdx.x; slot < BLOCK_SLOTS; slot += blockDim.x) {
    bins.bin[slot] = NO_BIN;
    bins.n[slot] = bins.low[slot] = bins.square[slot] = 0;
  }
  __syncthreads();

  const u64 row = blockIdx.x;
  const unsigned begin = blockIdx.y * CHUNK, end = lanes - begin < CHUNK ? lanes : begin + CHUNK;
  const float* const values = rows + (size_t)row * lanes;
  unsigned least = 0xffffffffu, greatest = 0, least_nonnegative = 0xffffffffu, zeros = 0;
  Run run = {NO_BIN, 0, 0, 0};
  for (unsigned lane = begin + threadIdx.x; lane < end; lane += blockDim.x) {
    const unsigned bits = counted((unsigned)__float_as_int(values[lane]));
    if (bits == 0) {  // most rows are 0 for many quarters
      ++zeros;
      continue;
    }
    if ((bits >> 23 & 0xff) == INFINITE) {
      atomicAdd(&tally.nonfinite[2 * row], (u64)1);
      atomicMin(&tally.nonfinite[2 * row + 1], first_path + lane);
    } else {
      const unsigned place = ordered(bits);
      least = least < place ? least : place;
      greatest = greatest > place ? greatest : place;
      if (bits >> 31 == 0) least_nonnegative = least_nonnegative < place ? least_nonnegative : place;
    }
    const unsigned bin = bits >> LOW_BITS, low = bits & LOW_MASK;
    if (bin != run.bin) {
      add_to_block(bins, row, run);
      run = {bin, 0, 0, 0};
    }
    run.n += 1;
    run.low += low;
    run.square += low * low;
  }
  add_to_block(bins, row, run);
  add_to_block(bins, row, {0, zeros, 0, 0});
  if (zeros) {
    const unsigned zero = ordered(0);
    least = least < zero ? least : zero;
    greatest = greatest > zero ? greatest : zero;
    least_nonnegative = zero;
  }
  __syncthreads();

  for (unsigned slot = threadIdx.x; slot < BLOCK_SLOTS; slot += blockDim.x) {
    if (bins.bin[slot] == NO_BIN) continue;
    const u64 square = bins.square[slot] | (u64)(bins.n[slot] >> N_BITS) << 32;
    add_to_device(row, bins.bin[slot], bins.n[slot] & N_MASK, bins.low[slot], square);
  }
  __syncthreads();

  unsigned* const extremes = block_memory;
  if (threadIdx.x == 0) {
    extremes[0] = extremes[2] = 0xffffffffu;
    extremes[1] = 0;
  }
  __syncthreads();
  atomicMin(&extremes[0], least);
  atomicMax(&extremes[1], greatest);
  atomicMin(&extremes[2], least_nonnegative);
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicMin(&tally.extremes[3 * row], extremes[0]);
    atomicMax(&tally.extremes[3 * row + 1], extremes[1]);
    atomicMin(&tally.extremes[3 * row + 2], extremes[2]);
  }
}

// The table in order, in three steps. First a bit for every bin of every row; `marks` begins at 0.
enum { WORDS_A_ROW = 1 << (BIN_BITS - 5) };

extern "C" __global__ void offtake_mark(unsigned* marks) {
  const u64 step = gridDim.x * blockDim.x;
  for (u64 place = blockIdx.x * blockDim.x + threadIdx.x; place <= tally.mask; place += step) {
    const u64 number = tally.slots[place].key - 1;
    if (number != ~0ull) atomicOr(&marks[number >> 5], 1u << (number & 31));
  }
}

// Then how many bits of its row come before each word, and how many a row has; a block is a row.
extern "C" __global__ void offtake_rank(const unsigned* __restrict__ marks, unsigned* before, unsigned* sizes) {
  unsigned* const counts = block_memory;
  const unsigned words = WORDS_A_ROW / blockDim.x;
  const size_t first = (size_t)blockIdx.x * WORDS_A_ROW + threadIdx.x * words;
  unsigned count = 0;
  for (unsigned word = 0; word < words; ++word) count += __popc(marks[first + word]);
  counts[threadIdx.x] = count;
  __syncthreads();
  unsigned bits = 0;
  for (unsigned thread = 0; thread < threadIdx.x; ++thread) bits += counts[thread];
  if (threadIdx.x == blockDim.x - 1) sizes[blockIdx.x] = bits + count;
  for (unsigned word = 0; word < words; ++word) {
    before[first + word] = bits;
    bits += __popc(marks[first + word]);
  }
}

// Then every slot goes to its place, and the table is free again. `begins`: where each row begins; `sums`: bins, n,
// Σl and Σl², `used` numbers each.
extern "C" __global__ void offtake_collect(
    const unsigned* __restrict__ marks, const unsigned* __restrict__ before, const unsigned* __restrict__ begins,
    unsigned used, u64* sums) {
  const u64 step = gridDim.x * blockDim.x;
  for (u64 place = blockIdx.x * blockDim.x + threadIdx.x; place <= tally.mask; place += step) {
    const Slot slot = tally.slots[place];
    if (slot.key == 0) continue;
    tally.slots[place] = {0, 0, 0, 0};
    const u64 number = slot.key - 1;
    const unsigned below = marks[number >> 5] & ((1u << (number & 31)) - 1);
    u64* const sum = sums + begins[number >> BIN_BITS] + before[number >> 5] + __popc(below);
    sum[0] = number & ((1 << BIN_BITS) - 1);
    sum[(size_t)used] = slot.n;
    sum[2 * (size_t)used] = slot.low;
    sum[3 * (size_t)used] = slot.square;
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
