// Hopper and later: float32 on tensor cores, copies to shared memory that do not wait.
#include "kernels.cuh"
