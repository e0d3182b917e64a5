// Arguments of the kernels that test the emulator: x holds 256 numbers, y has room for 256, all in one block of 256
// threads unless the test says otherwise. `map` is a plane of bf16, 64 columns by 64 rows, in boxes of 64 by 64.
#pragma once
#include "ptx.cuh"

struct PlantedArgs {
    TensorMap map;
    const float* x;
    float* y;
    bf16* plane;
    u64 n;
};
FIPK_ARGS(PlantedArgs, 192); // a multiple of the map's alignment

#define PLANTED(name) FIPK_KERNEL(name, PlantedArgs, 256)
