//! The innermost tile of a matrix product: up to MR × NR elements of C, each one chain of fused multiply-adds
//! over k. Every instruction set walks the same chain.
//!
//! Owns nothing but that loop; `gemm.rs` cuts and packs.

use super::simd::{Level, level};

/// Most rows of a tile.
pub const MR: usize = 12;
/// Columns of a panel.
pub const NR: usize = 32;
/// Numbers of a cache line.
pub const LINE: usize = 16;

/// One tile: A element (i, p) at `a[i*rs + p*cs]`, B as a packed panel `[k, NR]`, C rows `ldc` apart.
pub struct Tile {
    pub a: *const f32,
    pub rs: usize,
    pub cs: usize,
    pub b: *const f32,
    pub k: usize,
    pub c: *mut f32,
    pub ldc: usize,
    /// Memory that is wanted next, a cache line of it for each of the `k` steps; null where nothing is.
    pub ahead: *const f32,
}

impl Tile {
    /// Computes `rows` (≤ MR) × `cols` (≤ NR); `zero`: the sums start from 0, not from C.
    ///
    /// # Safety
    /// `a`, `b` and `c` must be valid for the elements named above.
    pub unsafe fn run(&self, rows: usize, cols: usize, zero: bool) {
        if cols == NR {
            // SAFETY: the caller's promise.
            unsafe { self.full(rows, self.c, self.ldc, zero) };
            return;
        }
        // A narrow last panel goes through a buffer of full width.
        let mut buffer = [0.0f32; MR * NR];
        if !zero {
            for i in 0..rows {
                for j in 0..cols {
                    // SAFETY: (i, j) lies inside the tile.
                    buffer[i * NR + j] = unsafe { *self.c.add(i * self.ldc + j) };
                }
            }
        }
        // SAFETY: the buffer holds MR × NR.
        unsafe { self.full(rows, buffer.as_mut_ptr(), NR, zero) };
        for i in 0..rows {
            for j in 0..cols {
                // SAFETY: (i, j) lies inside the tile.
                unsafe { *self.c.add(i * self.ldc + j) = buffer[i * NR + j] };
            }
        }
    }

    /// # Safety
    /// As `run`, with `c` valid for `rows` × NR.
    unsafe fn full(&self, rows: usize, c: *mut f32, ldc: usize, zero: bool) {
        macro_rules! rows {
            ($f:ident: $($n:literal)*) => {
                match rows {
                    // SAFETY: the caller's promise; the instruction set was detected.
                    $($n => unsafe { self.$f::<$n>(c, ldc, zero) },)*
                    _ => unreachable!("a tile has 1 to MR rows"),
                }
            };
        }
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if self.ahead.is_null() => rows!(avx512: 1 2 3 4 5 6 7 8 9 10 11 12),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => rows!(avx512_ahead: 1 2 3 4 5 6 7 8 9 10 11 12),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => rows!(avx2: 1 2 3 4 5 6 7 8 9 10 11 12),
            _ => rows!(portable: 1 2 3 4 5 6 7 8 9 10 11 12),
        }
    }

    /// # Safety
    /// As `full`; the processor has AVX-512F.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512<const M: usize>(&self, c: *mut f32, ldc: usize, zero: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.avx512_part::<M, false>(c, ldc, zero) }
    }

    /// Fetches `ahead` meanwhile.
    ///
    /// # Safety
    /// As `avx512`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512_ahead<const M: usize>(&self, c: *mut f32, ldc: usize, zero: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.avx512_part::<M, true>(c, ldc, zero) }
    }

    /// # Safety
    /// As `avx512`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn avx512_part<const M: usize, const AHEAD: bool>(&self, c: *mut f32, ldc: usize, zero: bool) {
        use std::arch::x86_64::*;
        // SAFETY: every pointer stays inside what the caller promised.
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; M];
            if !zero {
                for (i, row) in acc.iter_mut().enumerate() {
                    row[0] = _mm512_loadu_ps(c.add(i * ldc));
                    row[1] = _mm512_loadu_ps(c.add(i * ldc + 16));
                }
            }
            let (mut a, mut b, mut ahead) = (self.a, self.b, self.ahead);
            for _ in 0..self.k {
                if AHEAD {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                    ahead = ahead.wrapping_add(LINE);
                }
                let b0 = _mm512_loadu_ps(b);
                let b1 = _mm512_loadu_ps(b.add(16));
                for (i, row) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(i * self.rs));
                    row[0] = _mm512_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm512_fmadd_ps(x, b1, row[1]);
                }
                a = a.add(self.cs);
                b = b.add(NR);
            }
            for (i, row) in acc.iter().enumerate() {
                _mm512_storeu_ps(c.add(i * ldc), row[0]);
                _mm512_storeu_ps(c.add(i * ldc + 16), row[1]);
            }
        }
    }

    /// Two halves of 16 columns and at most 6 rows at a time: what 16 registers hold.
    ///
    /// # Safety
    /// As `full`; the processor has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const M: usize>(&self, c: *mut f32, ldc: usize, zero: bool) {
        for half in 0..2 {
            let mut i = 0;
            while i < M {
                // SAFETY: rows i.. and these 16 columns lie inside the tile.
                unsafe {
                    let (a, b, c) = (self.a.add(i * self.rs), self.b.add(16 * half), c.add(i * ldc + 16 * half));
                    if M - i >= 6 {
                        self.avx2_part::<6>(a, b, c, ldc, zero);
                        i += 6;
                    } else {
                        self.avx2_part::<1>(a, b, c, ldc, zero);
                        i += 1;
                    }
                }
            }
        }
    }

    /// # Safety
    /// As `avx2`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_part<const M: usize>(
        &self,
        mut a: *const f32,
        mut b: *const f32,
        c: *mut f32,
        ldc: usize,
        zero: bool,
    ) {
        use std::arch::x86_64::*;
        // SAFETY: every pointer stays inside what the caller promised.
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); 2]; M];
            if !zero {
                for (i, row) in acc.iter_mut().enumerate() {
                    row[0] = _mm256_loadu_ps(c.add(i * ldc));
                    row[1] = _mm256_loadu_ps(c.add(i * ldc + 8));
                }
            }
            for _ in 0..self.k {
                let b0 = _mm256_loadu_ps(b);
                let b1 = _mm256_loadu_ps(b.add(8));
                for (i, row) in acc.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(i * self.rs));
                    row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm256_fmadd_ps(x, b1, row[1]);
                }
                a = a.add(self.cs);
                b = b.add(NR);
            }
            for (i, row) in acc.iter().enumerate() {
                _mm256_storeu_ps(c.add(i * ldc), row[0]);
                _mm256_storeu_ps(c.add(i * ldc + 8), row[1]);
            }
        }
    }

    /// # Safety
    /// As `full`.
    unsafe fn portable<const M: usize>(&self, c: *mut f32, ldc: usize, zero: bool) {
        let mut acc = [[0.0f32; NR]; M];
        // SAFETY: every pointer stays inside what the caller promised.
        unsafe {
            for (i, row) in acc.iter_mut().enumerate() {
                for (j, x) in row.iter_mut().enumerate() {
                    *x = if zero { 0.0 } else { *c.add(i * ldc + j) };
                }
            }
            for p in 0..self.k {
                for (i, row) in acc.iter_mut().enumerate() {
                    let x = *self.a.add(i * self.rs + p * self.cs);
                    for (j, sum) in row.iter_mut().enumerate() {
                        *sum = x.mul_add(*self.b.add(p * NR + j), *sum);
                    }
                }
            }
            for (i, row) in acc.iter().enumerate() {
                for (j, x) in row.iter().enumerate() {
                    *c.add(i * ldc + j) = *x;
                }
            }
        }
    }
}
