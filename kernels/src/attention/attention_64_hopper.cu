// Heads of 64 elements on the tensor cores of compute capability 9.0.
#include "attention_hopper.cuh"

FORWARD(64, 128, 2)
QUERIES(64, 64, 2)
KEYS(64, 64, 1)
