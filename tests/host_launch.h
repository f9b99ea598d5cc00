// How the host launches each kernel; follows the printed source. Arguments come as an array of pointers to them.

struct Slot;
unsigned block_memory[65536];  // as large as any block's

template <class Kernel> static void each_thread(Kernel kernel) {
  for (unsigned y = 0; y < gridDim.y; ++y)
    for (unsigned x = 0; x < gridDim.x; ++x)
      for (unsigned thread = 0; thread < blockDim.x; ++thread) {
        blockIdx = {x, y, 0};
        threadIdx = {thread, 0, 0};
        kernel();
      }
}

template <class Kernel> static void each_block(unsigned threads, Kernel kernel) {
  blockDim.x = threads;
  std::barrier<> together(threads);
  block_barrier = &together;
  std::vector<std::thread> running;
  for (unsigned thread = 0; thread < threads; ++thread)
    running.emplace_back([&, thread] {
      for (unsigned y = 0; y < gridDim.y; ++y)
        for (unsigned x = 0; x < gridDim.x; ++x) {
          blockIdx = {x, y, 0};
          threadIdx = {thread, 0, 0};
          kernel();
          together.arrive_and_wait();
        }
    });
  for (std::thread& thread : running) thread.join();
  block_barrier = nullptr;
}

template <class T> static T argument(void** given, int number) { return *(T*)given[number]; }

extern "C" void host_launch(int kernel, const unsigned* grid, unsigned threads, void** a) {
  gridDim = {grid[0], grid[1], 1};
  blockDim = {threads, 1, 1};
  switch (kernel) {
    case 0:
      each_thread([&] {
        offtake_paths(argument<u64>(a, 0), argument<unsigned>(a, 1), argument<float*>(a, 2), argument<float*>(a, 3));
      });
      break;
    case 1:
      each_block(2, [&] { offtake_tally(argument<float*>(a, 0), argument<unsigned>(a, 1), argument<u64>(a, 2)); });
      break;
    case 2:
      each_thread([&] {
        offtake_count(argument<float*>(a, 0), argument<unsigned>(a, 1), argument<int*>(a, 2), argument<float*>(a, 3),
                      argument<u64*>(a, 4));
      });
      break;
    case 3:
      each_thread([&] { offtake_mark(argument<unsigned*>(a, 0)); });
      break;
    case 4:
      each_block(2, [&] {
        offtake_rank(argument<unsigned*>(a, 0), argument<unsigned*>(a, 1), argument<unsigned*>(a, 2));
      });
      break;
    case 5:
      each_thread([&] {
        offtake_collect(argument<unsigned*>(a, 0), argument<unsigned*>(a, 1), argument<unsigned*>(a, 2),
                        argument<unsigned>(a, 3), argument<u64*>(a, 4));
      });
  }
}
