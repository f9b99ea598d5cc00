// How the host launches a yardstick's kernel; follows its printed source.
extern "C" void host_launch(int, const unsigned* grid, unsigned threads, void** a) {
  blockDim = {threads, 1, 1};
  for (unsigned block = 0; block < grid[0]; ++block)
    for (unsigned thread = 0; thread < threads; ++thread) {
      blockIdx = {block, 0, 0};
      threadIdx = {thread, 0, 0};
      offtake_yardstick(*(unsigned*)a[0], *(unsigned**)a[1]);
    }
}
