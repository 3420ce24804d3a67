// Heads of 80 elements on tensor cores.
#include "tensor.cuh"

FORWARD(80, 2, 32, 2)
QUERIES(80, 1, 64, 3)
KEYS(80, 1, 32, 3)
