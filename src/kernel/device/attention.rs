//! Attention on a device: on tensor cores in bf16, without them in f32.
//!
//! Owns the launches. Which tokens are joined is `attention_lists.rs`'s.

use super::attention_lists::{KeyArrays, QueryArrays, ROWS};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Arg, Array, DType, Grid, Kernel};
use crate::kernel::attention::{Attention, Heads};
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};

/// Widths of heads that the kernels on tensor cores are compiled for; a head of another width has the next one, its rest
/// zero.
const WIDTHS: [usize; 7] = [16, 32, 64, 80, 96, 128, 256];

const THREADS: u32 = 128;

impl DeviceForm<3> for Attention {
    type Kept = Kept;

    fn device(&self, _: &Tape, inputs: [&Var; 3]) -> Result<(Array, Kept)> {
        let [q, k, v] = [inputs[0].array()?, inputs[1].array()?, inputs[2].array()?];
        let lists = self.segments.lists().queries(&self.segments, q.gpu())?;
        let (out, lse) = Shape::new(self.heads, q.dtype())?.forward(q, [k, v], &lists, 1)?;
        Ok((out.clone(), Kept { inputs: inputs.map(Var::clone), out, lse }))
    }

    fn device_backward(&self, kept: &Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        let [q, k, v] = &kept.inputs;
        let shape = Shape::new(self.heads, dy.dtype())?;
        let from = Inputs {
            qkv: [q.array()?, k.array()?, v.array()?],
            dy,
            lse: &kept.lse,
            delta: &shape.delta(&kept.out, dy)?,
        };
        if q.needs_grad() {
            let lists = self.segments.lists().queries(&self.segments, dy.gpu())?;
            grads.add_owned(q, shape.query_grad(&from, &lists)?)?;
        }
        if k.needs_grad() || v.needs_grad() {
            let lists = self.segments.lists().keys(&self.segments, dy.gpu())?;
            let [dk, dv] = shape.key_grads(&from, &lists)?;
            grads.add_owned(k, dk)?;
            grads.add_owned(v, dv)?;
        }
        Ok(())
    }
}

/// What the backward pass needs beside the gradient.
pub(in crate::kernel) struct Kept {
    /// q, k and v
    inputs: [Var; 3],
    out: Array,
    /// The log-sum-exp of each row of scores, `[N, query]` f32, in the base that the kernels chose.
    lse: Array,
}

/// What gradients are computed from.
pub(super) struct Inputs<'a> {
    pub(super) qkv: [&'a Array; 3],
    pub(super) dy: &'a Array,
    pub(super) lse: &'a Array,
    /// Σ dy·y of each head, `[N, query]` f32.
    pub(super) delta: &'a Array,
}

/// Heads of numbers of one type.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    heads: Heads,
    dtype: DType,
    /// The width that kernels on tensor cores have.
    width: usize,
}

impl Shape {
    pub(super) fn new(heads: Heads, dtype: DType) -> Result<Self> {
        let Some(&width) = WIDTHS.iter().find(|&&width| width >= heads.dim) else {
            let (dim, most) = (heads.dim, WIDTHS[WIDTHS.len() - 1]);
            let what = format!("attention on a device has heads of at most {most} numbers; these have {dim}");
            return Err(Error::new(Kind::Device, what).hint("use --device cpu"));
        };
        Ok(Self { heads, dtype, width })
    }

    fn kernel(&self, file: &'static str, function: &'static str) -> Kernel {
        match self.dtype {
            DType::Bf16 => Kernel::plain(file, function).with("HEAD_DIM", self.width),
            _ => Kernel::plain("attention_f32", function),
        }
    }

    /// `blocks` of what a block has, for each of some heads; `shared` numbers of bf16 are shared by the threads of a block
    /// on tensor cores.
    fn grid(&self, blocks: usize, heads: usize, threads: u32, shared: usize) -> Grid {
        let [blocks, heads] = [blocks, heads].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        match self.dtype {
            DType::Bf16 => Grid { blocks: [blocks, heads], threads, shared: 2 * shared as u32 },
            _ => Grid { blocks: [blocks, heads], threads: THREADS, shared: 0 },
        }
    }

    /// What the last arguments of every kernel are.
    fn reach(&self) -> [Arg<'static>; 4] {
        let Heads { dim, window, scale, softcap, .. } = self.heads;
        let window = window.and_then(|window| i32::try_from(window).ok()).unwrap_or(i32::MAX);
        [(dim as i32).into(), window.into(), scale.into(), softcap.unwrap_or(0.0).into()]
    }

    /// Rows of keys or queries in shared memory that a block walks at a time.
    fn others(&self) -> usize {
        if self.width > 128 { 32 } else { 64 }
    }

    /// Numbers from row to row in shared memory.
    fn pitch(&self) -> usize {
        self.width + 8
    }

    /// q `[N, query*dim]` over k and v `[tokens, key*dim]` → `[N, query*dim]` and the log-sum-exp of each row of scores
    /// `[N, query]`. A block has `pack` heads of its queries.
    pub(super) fn forward(
        &self,
        q: &Array,
        [k, v]: [&Array; 2],
        lists: &QueryArrays,
        pack: usize,
    ) -> Result<(Array, Array)> {
        let (gpu, heads) = (q.gpu(), &self.heads);
        let (n, _) = q.dims2()?;
        let y = gpu.empty("what attention gives", self.dtype, q.dims())?;
        let lse = gpu.empty("log-sum-exps of attention", DType::F32, &[n, heads.query])?;
        let (items, _) = lists.items.dims2()?;
        let shared = (ROWS + 4 * self.others()) * self.pitch();
        let grid = self.grid(items, heads.query / pack, THREADS, shared);
        let arrays = [q, k, v, &lists.items, &lists.ranges, &y, &lse].map(Arg::from);
        let counts = [heads.query, heads.group(), pack].map(|n| Arg::from(n as i32));
        let args: Vec<Arg> = arrays.into_iter().chain(counts).chain(self.reach()).collect();
        gpu.launch(&self.kernel("attention", "attention_forward"), grid, &args)?;
        Ok((y, lse))
    }

    /// Σ dy·y of each head, `[N, query]`.
    pub(super) fn delta(&self, y: &Array, dy: &Array) -> Result<Array> {
        let (n, _) = y.dims2()?;
        let rows = n * self.heads.query;
        let delta = y.gpu().empty("a sum of attention", DType::F32, &[n, self.heads.query])?;
        let kernel = Kernel::typed("attention_sums", "attention_delta", &[("Y", self.dtype)]);
        let args = [y.into(), dy.into(), (&delta).into(), rows.into(), (self.heads.dim as i32).into()];
        y.gpu().launch(&kernel, Grid::of(rows.div_ceil(THREADS as usize / 32), THREADS), &args)?;
        Ok(delta)
    }

    pub(super) fn query_grad(&self, from: &Inputs, lists: &QueryArrays) -> Result<Array> {
        let (q, heads) = (from.qkv[0], &self.heads);
        let dq = q.gpu().empty("a gradient of queries", self.dtype, q.dims())?;
        let (items, _) = lists.items.dims2()?;
        let shared = 2 * (ROWS + self.others()) * self.pitch();
        let grid = self.grid(items, heads.query, THREADS, shared);
        let lists = [&lists.items, &lists.ranges];
        self.differentiate("attention_dq", grid, from, lists, &[&dq])?;
        Ok(dq)
    }

    pub(super) fn key_grads(&self, from: &Inputs, lists: &KeyArrays) -> Result<[Array; 2]> {
        let ([_, k, _], heads, gpu) = (from.qkv, &self.heads, from.dy.gpu());
        let empty = || gpu.empty("a gradient of keys", self.dtype, k.dims());
        let (dk, dv) = (empty()?, empty()?);
        let dims = [lists.parts, heads.key, 2, ROWS, heads.dim];
        let parts = gpu.empty("parts of gradients of keys", DType::F32, &dims)?;
        let (items, _) = lists.items.dims2()?;
        // As the kernel has them: queries of a tile, and warps side by side.
        let queries = if self.width <= 64 || self.width == 128 { 64 } else { 32 };
        let across = if self.width >= 128 { 2 } else { 1 };
        let probabilities = if across > 1 { 2 * ROWS * (queries + 8) } else { 0 };
        let shared = 2 * (ROWS + queries) * self.pitch() + 4 * queries + probabilities;
        let grid = self.grid(items, heads.key, across * THREADS, shared);
        self.differentiate("attention_dkv", grid, from, [&lists.items, &lists.entries], &[&dk, &dv, &parts])?;
        let (cut, _) = lists.sums.dims2()?;
        if cut > 0 {
            let kernel = Kernel::typed("attention_sums", "attention_add_parts", &[("Y", self.dtype)]);
            let grid = Grid { blocks: [cut as u32, heads.key as u32], threads: THREADS, shared: 0 };
            let arrays = [&parts, &lists.sums, &dk, &dv].map(Arg::from);
            let sizes = [heads.key, heads.dim].map(|n| Arg::from(n as i32));
            gpu.launch(&kernel, grid, &arrays.into_iter().chain(sizes).collect::<Vec<_>>())?;
        }
        Ok([dk, dv])
    }

    fn differentiate(
        &self,
        function: &'static str,
        grid: Grid,
        from: &Inputs,
        lists: [&Array; 2],
        out: &[&Array],
    ) -> Result<()> {
        let arrays =
            from.qkv.into_iter().chain([from.dy, from.lse, from.delta]).chain(lists).chain(out.iter().copied());
        let counts = [self.heads.query, self.heads.group()].map(|n| Arg::from(n as i32));
        let args: Vec<Arg> = arrays.map(Arg::from).chain(counts).chain(self.reach()).collect();
        from.dy.gpu().launch(&self.kernel("attention_backward", function), grid, &args)
    }
}
