// Hopper and later: samples that stay with a cluster of blocks.
#include "kernels.cuh"
