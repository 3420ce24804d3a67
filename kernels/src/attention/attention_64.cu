// Heads of 64 elements on tensor cores.
#include "tensor.cuh"

FORWARD(64, 2, 64, 2)
QUERIES(64, 1, 64, 3)
KEYS(64, 1, 32, 3)
