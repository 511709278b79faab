// Turing and later: multiply-add.
#include "kernels.cuh"
