// Heads of 96 elements on tensor cores.
#include "tensor.cuh"

FORWARD(96, 1, 64, 3)
QUERIES(96, 1, 32, 3)
KEYS(96, 1, 32, 3)
