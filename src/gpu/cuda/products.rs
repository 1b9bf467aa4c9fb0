//! Matrix products by cuBLASLt.
//!
//! Owns the translation: the library's matrices are column-major, so a row-major product is given to it as that of the
//! transposed matrices, in the other order. Owns the choice of the algorithm too: it belongs to the weight and not to
//! the number of rows, so that a row comes to the same bits alone and among others. It is chosen for many rows, and
//! asked whether it can do the rows at hand; only where it cannot is another chosen for these, and that is counted.

use super::session::Session;
use crate::error::{Error, Kind, Result};
use crate::gpu::array::DType;
use crate::gpu::backend::{RawOperand, RawProduct, Span};
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasLtMatmulPreferenceAttributes_t as Preference};
use std::collections::BTreeMap;
use std::ffi::c_void;

/// Bytes of the device that an algorithm may use beside its operands.
const WORKSPACE: usize = 32 << 20;

/// The number of rows that algorithms are chosen for.
const ROWS: usize = 4096;

/// Algorithms that are asked for, the one that should be fastest first.
const CANDIDATES: usize = 16;

/// A matrix as the library takes it: column-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Matrix {
    dtype: DType,
    /// As it is stored.
    rows: usize,
    columns: usize,
    /// Numbers from one column to the next.
    leading: usize,
    transposed: bool,
    /// Bytes that its address is a multiple of, 16 at most.
    alignment: u32,
}

/// out `[N,M]` = first `[N,K]` · second `[K,M]` + start `[N,M]`, all column-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    first: Matrix,
    second: Matrix,
    /// Of the shape of `out`; `out` itself where there is none.
    start: Matrix,
    out: Matrix,
}

impl Matrix {
    /// Row-major numbers are the transposed matrix's column-major ones.
    fn of(operand: &RawOperand) -> Self {
        let RawOperand { span, dtype, rows, columns, transposed } = *operand;
        Self { dtype, rows: columns, columns: rows, leading: columns, transposed, alignment: alignment(&span) }
    }
}

impl Problem {
    /// out = a · b row-major is outᵀ = bᵀ · aᵀ column-major.
    fn of(product: &RawProduct) -> Self {
        let out = Matrix::of(&product.out);
        let start = product.start.as_ref().map_or(out, |start| Matrix { alignment: alignment(start), ..out });
        Self { first: Matrix::of(&product.b), second: Matrix::of(&product.a), start, out }
    }

    /// The same product for `ROWS` rows: what all numbers of rows share an algorithm by. The rows are those of `a` and
    /// `out`, as in a linear map, or the ones that are summed over, as in its weight's gradient.
    fn pinned(self) -> Self {
        let with = |matrix: Matrix| Matrix { columns: ROWS, ..matrix };
        let Self { first, second, start, out } = self;
        match (first.transposed, second.transposed) {
            (_, false) => Self { first, second: with(second), start: with(start), out: with(out) },
            (false, true) => Self { first: with(first), second: with(second), start, out },
            (true, true) => self,
        }
    }
}

fn alignment(span: &Span) -> u32 {
    const MOST: u32 = 16;
    let address = span.address.0 + span.offset as u64;
    MOST.min(1 << address.trailing_zeros().min(MOST.trailing_zeros()))
}

/// The library in use on a device.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    algorithms: Algorithms,
}

// SAFETY: the handle may be used from any thread; calls are made by one at a time.
unsafe impl Send for Products {}

#[derive(Default)]
struct Algorithms {
    /// By the product for `ROWS` rows.
    pinned: BTreeMap<Problem, sys::cublasLtMatmulAlgo_t>,
    /// What was found to do for the rows at hand.
    checked: BTreeMap<Problem, sys::cublasLtMatmulAlgo_t>,
    /// How many of `checked` are not the pinned one.
    unpinned: u64,
}

fn failed(doing: &str) -> impl Fn(CublasError) -> Error {
    move |e| Error::new(Kind::Device, format!("cuBLASLt: {doing}: {e}"))
}

impl Products {
    pub(super) fn new(session: &Session) -> Result<Self> {
        let handle = result::create_handle().map_err(failed("starting"))?;
        let workspace = session.allocate(WORKSPACE)?.ok_or_else(|| {
            Error::new(Kind::Memory, format!("{}: no memory for matrix products", session.facts.name))
                .hint("another program holds the GPU's memory: nvidia-smi lists it")
        })?;
        Ok(Self { handle, workspace, algorithms: Algorithms::default() })
    }

    /// How often no pinned algorithm would do, so that bits may depend on the number of rows.
    pub(super) fn unpinned(&self) -> u64 {
        self.algorithms.unpinned
    }

    /// Queues a product.
    pub(super) fn multiply(&mut self, session: &Session, product: &RawProduct) -> Result<()> {
        let problem = Problem::of(product);
        let layout = Layout::new(&problem)?;
        let algorithm = match self.algorithms.checked.get(&problem) {
            Some(known) => *known,
            None => self.choose(problem, &layout)?,
        };
        let at = |span: &Span| (span.address.0 + span.offset as u64) as *mut c_void;
        let out = at(&product.out.span);
        let start = product.start.as_ref().map_or(out, at);
        let (alpha, beta) = (1f32, if product.start.is_some() { 1f32 } else { 0f32 });
        // SAFETY: the descriptors live; the addresses are of memory of the device that holds what they describe, until
        // what is queued has run; the scales are f32, as the operation says, and are read before this returns.
        let queued = unsafe {
            result::matmul(
                self.handle,
                layout.operation.0,
                std::ptr::from_ref(&alpha).cast(),
                std::ptr::from_ref(&beta).cast(),
                at(&product.b.span),
                layout.first.0,
                at(&product.a.span),
                layout.second.0,
                start,
                layout.start.0,
                out,
                layout.out.0,
                &algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                session.stream.cast(),
            )
        };
        queued.map_err(failed(&format!("the product {problem:?}")))
    }

    /// The pinned algorithm if it can do the rows at hand, else another.
    fn choose(&mut self, problem: Problem, layout: &Layout) -> Result<sys::cublasLtMatmulAlgo_t> {
        let key = problem.pinned();
        let pinned = match self.algorithms.pinned.get(&key) {
            Some(known) => *known,
            None => {
                let found = self.ask(&key, &Layout::new(&key)?)?;
                self.algorithms.pinned.insert(key, found);
                found
            }
        };
        let algorithm = match self.can(&pinned, layout) {
            true => pinned,
            false => {
                self.algorithms.unpinned += 1;
                self.ask(&problem, layout)?
            }
        };
        self.algorithms.checked.insert(problem, algorithm);
        Ok(algorithm)
    }

    fn can(&self, algorithm: &sys::cublasLtMatmulAlgo_t, layout: &Layout) -> bool {
        let mut answer = nothing();
        // SAFETY: the descriptors live.
        let checked = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                self.handle,
                layout.operation.0,
                layout.first.0,
                layout.second.0,
                layout.start.0,
                layout.out.0,
                algorithm,
                &mut answer,
            )
        };
        checked.result().is_ok() && answer.workspaceSize <= WORKSPACE
    }

    /// The best algorithm that adds every element's terms in one go: without parts of K that are added up at the end.
    fn ask(&self, problem: &Problem, layout: &Layout) -> Result<sys::cublasLtMatmulAlgo_t> {
        let preference = preference(problem)?;
        let mut found = [nothing(); CANDIDATES];
        let mut count = 0;
        // SAFETY: the descriptors live, and there is room for as many answers as are asked for.
        let asked = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                layout.operation.0,
                layout.first.0,
                layout.second.0,
                layout.start.0,
                layout.out.0,
                preference.0,
                CANDIDATES as i32,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        asked.result().map_err(failed(&format!("looking for an algorithm for {problem:?}")))?;
        let found = &found[..usize::try_from(count).unwrap_or(0).min(CANDIDATES)];
        let fits = |answer: &&sys::cublasLtMatmulHeuristicResult_t| {
            answer.state.result().is_ok() && answer.workspaceSize <= WORKSPACE && parts_of_k(&answer.algo) <= 1
        };
        found
            .iter()
            .find(fits)
            .map(|answer| answer.algo)
            .ok_or_else(|| Error::new(Kind::Device, format!("cuBLASLt has no algorithm for the product {problem:?}")))
    }
}

fn nothing() -> sys::cublasLtMatmulHeuristicResult_t {
    sys::cublasLtMatmulHeuristicResult_t {
        algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        workspaceSize: 0,
        state: sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
        wavesCount: 0.0,
        reserved: [0; 4],
    }
}

fn parts_of_k(algorithm: &sys::cublasLtMatmulAlgo_t) -> i32 {
    let mut parts = 0i32;
    let mut written = 0;
    let which = sys::cublasLtMatmulAlgoConfigAttributes_t::CUBLASLT_ALGO_CONFIG_SPLITK_NUM;
    let to: *mut c_void = std::ptr::from_mut(&mut parts).cast();
    // SAFETY: the attribute is a 32-bit number.
    let answer =
        unsafe { sys::cublasLtMatmulAlgoConfigGetAttribute(algorithm, which, to, size_of_val(&parts), &mut written) };
    // What cannot be asked how many it makes is taken to make several.
    if answer.result().is_ok() { parts } else { i32::MAX }
}

/// Something of the library's that is destroyed with this value.
struct Owned<T: Copy>(T, unsafe fn(T) -> std::result::Result<(), CublasError>);

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once. There is nothing to do about one that cannot be destroyed.
        let _ = unsafe { (self.1)(self.0) };
    }
}

/// A problem in the library's terms.
struct Layout {
    operation: Owned<sys::cublasLtMatmulDesc_t>,
    first: Owned<sys::cublasLtMatrixLayout_t>,
    second: Owned<sys::cublasLtMatrixLayout_t>,
    start: Owned<sys::cublasLtMatrixLayout_t>,
    out: Owned<sys::cublasLtMatrixLayout_t>,
}

impl Layout {
    fn new(problem: &Problem) -> Result<Self> {
        Ok(Self {
            operation: operation(problem)?,
            first: matrix(&problem.first)?,
            second: matrix(&problem.second)?,
            start: matrix(&problem.start)?,
            out: matrix(&problem.out)?,
        })
    }
}

fn matrix(matrix: &Matrix) -> Result<Owned<sys::cublasLtMatrixLayout_t>> {
    let dtype = data_type(matrix.dtype)?;
    let leading = i64::try_from(matrix.leading).map_err(|_| failed("a matrix")(CublasError(INVALID)))?;
    let made = result::create_matrix_layout(dtype, matrix.rows as u64, matrix.columns as u64, leading);
    made.map(|made| Owned(made, result::destroy_matrix_layout)).map_err(failed("describing a matrix"))
}

const INVALID: sys::cublasStatus_t = sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE;

fn data_type(dtype: DType) -> Result<sys::cudaDataType> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType::CUDA_R_32F),
        DType::Bf16 => Ok(sys::cudaDataType::CUDA_R_16BF),
        _ => Err(Error::new(Kind::Internal, format!("a matrix product of {dtype:?}"))),
    }
}

/// Sums and scales in f32; f32 operands are not shortened to TF32.
fn operation(problem: &Problem) -> Result<Owned<sys::cublasLtMatmulDesc_t>> {
    use sys::cublasLtMatmulDescAttributes_t as Attribute;
    let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
    let made = result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F).map_err(failed("starting"))?;
    let made = Owned(made, result::destroy_matmul_desc);
    let sides = [
        (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, problem.first.transposed),
        (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, problem.second.transposed),
    ];
    for (side, transposed) in sides {
        // `CUBLAS_OP_N` is 0 and `CUBLAS_OP_T` is 1; the attribute is an `int32_t`.
        let value = i32::from(transposed);
        let from: *const c_void = std::ptr::from_ref(&value).cast();
        // SAFETY: the descriptor lives, and the attribute has this size.
        let set = unsafe { result::set_matmul_desc_attribute(made.0, side, from, size_of_val(&value)) };
        set.map_err(failed("describing a product"))?;
    }
    Ok(made)
}

/// No sum is cut into parts, and no more is assumed of addresses than is so (the library assumes 256 bytes).
fn preference(problem: &Problem) -> Result<Owned<sys::cublasLtMatmulPreference_t>> {
    let made = result::create_matmul_pref().map_err(failed("stating preferences"))?;
    let made = Owned(made, result::destroy_matmul_pref);
    let set = |which: Preference, from: *const c_void, bytes: usize| {
        // SAFETY: the descriptor lives, and each attribute has the size that it is given with below.
        let set = unsafe { result::set_matmul_pref_attribute(made.0, which, from, bytes) };
        set.map_err(failed("stating preferences"))
    };
    let most = WORKSPACE as u64;
    set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::ptr::from_ref(&most).cast(), size_of::<u64>())?;
    let numbers = [
        (
            Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32,
        ),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, problem.first.alignment),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, problem.second.alignment),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, problem.start.alignment),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, problem.out.alignment),
    ];
    for (which, number) in numbers {
        set(which, std::ptr::from_ref::<u32>(&number).cast(), size_of::<u32>())?;
    }
    Ok(made)
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once; the workspace goes with the pool.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::backend::Address;

    fn operand(rows: usize, columns: usize, transposed: bool) -> RawOperand {
        let span = Span { address: Address(1 << 20), offset: 0, bytes: 4 * rows * columns };
        RawOperand { span, dtype: DType::F32, rows, columns, transposed }
    }

    /// out `[m,n]` = a `[m,k]` · b `[k,n]`, each operand as it is or stored transposed.
    fn product([m, k, n]: [usize; 3], [a, b]: [bool; 2]) -> RawProduct {
        let stored = |rows, columns, transposed| match transposed {
            false => operand(rows, columns, false),
            true => operand(columns, rows, true),
        };
        RawProduct { a: stored(m, k, a), b: stored(k, n, b), out: operand(m, n, false), start: None }
    }

    /// The element in a row and a column of a matrix as the library reads it.
    fn element(matrix: &Matrix, numbers: &[f64], row: usize, column: usize) -> f64 {
        let (row, column) = if matrix.transposed { (column, row) } else { (row, column) };
        assert!(row < matrix.rows && column < matrix.columns && matrix.rows <= matrix.leading);
        numbers[column * matrix.leading + row]
    }

    /// What the library makes of a problem: its matrices are column-major.
    fn solved(problem: &Problem, first: &[f64], second: &[f64], out: &mut [f64]) {
        let inner = if problem.first.transposed { problem.first.rows } else { problem.first.columns };
        for row in 0..problem.out.rows {
            for column in 0..problem.out.columns {
                let term = |k| element(&problem.first, first, row, k) * element(&problem.second, second, k, column);
                out[column * problem.out.leading + row] = (0..inner).map(term).sum();
            }
        }
    }

    #[test]
    fn row_major_products_are_column_major_ones_of_the_transposed() {
        for sizes @ [m, k, n] in [[2, 3, 5], [1, 4, 2], [4, 1, 1], [3, 3, 3]] {
            for transposed @ [a_t, b_t] in [[false, false], [false, true], [true, false], [true, true]] {
                let a: Vec<f64> = (0..m * k).map(|i| (i * i % 7) as f64 - 2.0).collect();
                let b: Vec<f64> = (0..k * n).map(|i| (i * 5 % 11) as f64 - 4.0).collect();
                let at = |numbers: &[f64], [rows, columns]: [usize; 2], turned: bool, row: usize, column: usize| {
                    if turned { numbers[column * rows + row] } else { numbers[row * columns + column] }
                };
                let mut expected = vec![0.0; m * n];
                for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                    let term = |i| at(&a, [m, k], a_t, row, i) * at(&b, [k, n], b_t, i, column);
                    expected[row * n + column] = (0..k).map(term).sum();
                }
                let mut found = vec![f64::NAN; m * n];
                solved(&Problem::of(&product(sizes, transposed)), &b, &a, &mut found);
                assert_eq!(found, expected, "{sizes:?} {transposed:?}");
            }
        }
    }

    #[test]
    fn all_numbers_of_rows_share_an_algorithm() {
        let key = |sizes, transposed| Problem::of(&product(sizes, transposed)).pinned();
        // y = x·Wᵀ, dx = dy·W: the rows are m. dW = dyᵀ·x: the rows are k.
        for b in [false, true] {
            assert_eq!(key([7, 64, 32], [false, b]), key([5000, 64, 32], [false, b]));
            assert_ne!(key([7, 64, 32], [false, b]), key([7, 32, 64], [false, b]));
        }
        assert_eq!(key([64, 7, 32], [true, false]), key([64, 5000, 32], [true, false]));
        assert_ne!(key([64, 7, 32], [true, false]), key([32, 7, 64], [true, false]));
        assert_ne!(key([64, 64, 64], [false, false]), key([64, 64, 64], [false, true]));
    }

    #[test]
    fn alignments_are_what_addresses_are_multiples_of() {
        let at = |address, offset| alignment(&Span { address: Address(address), offset, bytes: 4 });
        assert_eq!([at(256, 0), at(256, 8), at(256, 4), at(256, 6), at(0, 0)], [16, 8, 4, 2, 16]);
    }
}
