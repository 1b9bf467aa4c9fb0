//! Matrix products against a double loop, and their bits for every layout, number of rows and number of threads.

use super::gemm::{Mat, Packed, Start, matmul, matmul_packed_serial, product, product_into};
use crate::tensor::rng::Key;

fn random(n: usize, key: u64) -> Vec<f32> {
    (0..n).map(|i| Key::new(key).normal(i as u64) as f32).collect()
}

#[test]
fn products_match_a_double_loop_for_every_layout() {
    crate::kernel::simd::forced::at_every_level(|_| matches_a_double_loop());
}

fn matches_a_double_loop() {
    for (m, n, k) in [(1, 1, 1), (1, 33, 7), (13, 31, 300), (25, 64, 257), (120, 40, 16), (3, 100, 0)] {
        let (a, b, c) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
        let expect = |i: usize, j: usize, from: f32| {
            (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum::<f64>() + f64::from(from)
        };
        let a_t: Vec<f32> = (0..k * m).map(|x| a[x % m * k + x / m]).collect();
        let b_t: Vec<f32> = (0..n * k).map(|x| b[x % k * n + x / k]).collect();
        let bias = random(n, 4);
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let left = if ta { Mat::new(&a_t, k, m).t() } else { Mat::new(&a, m, k) };
            let right = if tb { Mat::new(&b_t, n, k).t() } else { Mat::new(&b, k, n) };
            let starts = [
                (Start::Zero, "zero"),
                (Start::Bias(&bias), "bias"),
                (Start::Rows(&c), "rows"),
                (Start::Accumulate, "accumulate"),
            ];
            for (start, name) in starts {
                let mut out = c.clone();
                matmul(left, right, &mut out, n, start);
                for i in 0..m {
                    for j in 0..n {
                        let from = match start {
                            Start::Zero => 0.0,
                            Start::Bias(b) => b[j],
                            Start::Rows(_) | Start::Accumulate => c[i * n + j],
                        };
                        let (got, want) = (f64::from(out[i * n + j]), expect(i, j, from));
                        assert!((got - want).abs() < 1e-4, "{m}x{n}x{k} {ta} {tb} {name} ({i},{j}): {got} for {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_matrix_grown_by_columns_equals_one_packed_at_once() {
    let (m, n, k) = (4, 70, 16);
    let (a, b_t) = (random(m * k, 1), random(n * k, 2));
    let mut grown = Packed::growing(k);
    b_t.chunks(k).for_each(|column| grown.push_column(column));
    let (mut x, mut y) = (vec![0.0; m * n], vec![0.0; m * n]);
    matmul_packed_serial(Mat::new(&a, m, k), &grown, 0, &mut x, n, Start::Zero);
    matmul(Mat::new(&a, m, k), Mat::new(&b_t, n, k).t(), &mut y, n, Start::Zero);
    assert_eq!(x, y);
    let mut last = vec![0.0; m * n];
    matmul_packed_serial(Mat::new(&a, m, k), &grown, 40, &mut last, n, Start::Zero);
    last.chunks(n).zip(y.chunks(n)).for_each(|(x, y)| assert_eq!((x[0], &x[40..]), (0.0, &y[40..])));
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    let (m, n, k) = (128, 200, 700);
    let (a, b) = (random(m * k, 5), random(k * n, 6));
    let mut all = vec![0.0; m * n];
    matmul(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut all, n, Start::Zero);
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let mut one_thread = vec![0.0; m * n];
    single.install(|| matmul(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut one_thread, n, Start::Zero));
    assert_eq!(all, one_thread);
    for i in 0..m {
        let mut row = vec![0.0; n];
        matmul(Mat::new(&a[i * k..(i + 1) * k], 1, k), Mat::new(&b, k, n), &mut row, n, Start::Zero);
        assert_eq!(row, all[i * n..(i + 1) * n], "row {i}");
    }
}

#[test]
fn columns_of_a_packed_matrix_give_those_of_the_product() {
    let (m, n, k) = (30, 200, 300);
    let (a, b) = (random(m * k, 5), random(k * n, 6));
    let (a, packed) = (Mat::new(&a, m, k), Packed::new(Mat::new(&b, k, n)));
    let all = product(a, Mat::new(&b, k, n), Start::Zero);
    let mut part = vec![f32::NAN; 7];
    for columns in [0..n, 64..160, 160..n] {
        product_into(a, packed.columns(columns.clone()), Start::Zero, &mut part);
        for (part, all) in part.chunks_exact(columns.len()).zip(all.chunks_exact(n)) {
            assert_eq!(*part, all[columns.clone()], "{columns:?}");
        }
    }
}

#[test]
fn a_transpose_that_is_packed_in_parts_has_the_bits_of_a_matrix_read_where_it_lies() {
    // Of so many rows one block of k is packed at a time; of few all blocks are.
    for (m, n, k) in [(4100, 33, 600), (100, 70, 1100)] {
        let (a, b, c) = (random(m * k, 7), random(k * n, 8), random(m * n, 9));
        let turned: Vec<f32> = (0..k * m).map(|x| a[x % m * k + x / m]).collect();
        let (b, turned) = (Mat::new(&b, k, n), Mat::new(&turned, k, m).t());
        for start in [Start::Zero, Start::Rows(&c)] {
            assert!(product(turned, b, start) == product(Mat::new(&a, m, k), b, start), "{m}x{n}x{k}");
        }
    }
}
