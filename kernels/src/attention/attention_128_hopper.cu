// Heads of 128 elements on the tensor cores of compute capability 9.0.
#include "attention_hopper.cuh"

FORWARD(128, 64, 2)
QUERIES(128, 64, 1)
KEYS(128, 64, 1)
