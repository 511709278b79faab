// Ampere and later: tensor cores for float32, copies to shared memory that do not wait.
#include "kernels.cuh"
