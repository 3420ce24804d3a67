// Heads of 128 elements on tensor cores.
#include "tensor.cuh"

FORWARD(128, 1, 32, 3)
QUERIES(128, 1, 32, 3)
KEYS(128, 1, 32, 2)
