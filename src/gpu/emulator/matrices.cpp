// What the lanes of a warp compute together on matrices: ldmatrix and mma.sync, by NVIDIA's layouts of their fragments.
#include "emulator.h"

namespace emu {

void spread_matrices(void* in[32], void* out[32]) {
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++) {
            const u16* c = ((MatrixRow*)in[8 * m + l / 4])->cells + 2 * (l % 4);
            ((u32*)out[l])[m] = c[0] | (u32)c[1] << 16;
        }
}

void spread_matrices_t(void* in[32], void* out[32]) {
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++) {
            u16 a = ((MatrixRow*)in[8 * m + 2 * (l % 4)])->cells[l / 4];
            u16 b = ((MatrixRow*)in[8 * m + 2 * (l % 4) + 1])->cells[l / 4];
            ((u32*)out[l])[m] = a | (u32)b << 16;
        }
}

void multiply_matrices(void* in[32], void* out[32]) {
    double A[16][16], B[16][8]; // products of two bf16 are exact in f64
    auto half = [](u32 w, int h) { return (double)to_float(bf16{(u16)(h ? w >> 16 : w)}); };
    for (int l = 0; l < 32; l++) {
        const MmaIn* x = (MmaIn*)in[l];
        int g = l / 4, t = l % 4;
        for (int h = 0; h < 2; h++) {
            A[g][2 * t + h] = half(x->a[0], h), A[g + 8][2 * t + h] = half(x->a[1], h);
            A[g][2 * t + 8 + h] = half(x->a[2], h), A[g + 8][2 * t + 8 + h] = half(x->a[3], h);
            B[2 * t + h][g] = half(x->b[0], h), B[2 * t + 8 + h][g] = half(x->b[1], h);
        }
    }
    for (int l = 0; l < 32; l++) {
        const MmaIn* x = (MmaIn*)in[l];
        float sums[4];
        for (int i = 0; i < 4; i++) {
            int row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
            double sum = x->c[i];
            for (int k = 0; k < 16; k++) sum += A[row][k] * B[k][column];
            sums[i] = (float)sum;
        }
        memcpy(out[l], sums, sizeof sums);
    }
}
} // namespace emu
