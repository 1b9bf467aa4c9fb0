//! y = x · W + b (+ residual) for weights stored either way round, with gradients added straight into the
//! accumulators of W and b.

use super::elementwise::add;
use super::gemm::{Mat, Packed, Start, matmul, product, product_packed};
use super::host;
use super::op::{Operation, Tangent};
use super::packs::Side;
use super::tape::{Grads, Sink, Tape, Var};
use crate::error::Result;
use candle_core::Tensor;

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[out,in]`: `nn.Linear` of most families.
    OutIn,
    /// `[in,out]`: GPT-2's `Conv1D`.
    InOut,
}

impl Layout {
    /// The weight as the matrix `[in,out]` that x is multiplied by.
    fn mat(self, w: &[f32], inputs: usize, outputs: usize) -> Mat<'_> {
        match self {
            Self::OutIn => Mat::new(w, outputs, inputs).t(),
            Self::InOut => Mat::new(w, inputs, outputs),
        }
    }

    /// (in, out) of a weight with these rows and columns.
    pub(super) fn sizes(self, (rows, columns): (usize, usize)) -> (usize, usize) {
        match self {
            Self::OutIn => (columns, rows),
            Self::InOut => (rows, columns),
        }
    }
}

/// The type of what a map gives on a device; on the host it is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// The weight's.
    Weight,
    F32,
}

/// x `[N,in]`, w as `layout` says, b `[out]` → `[N,out]`, on a device in the weight's type.
pub fn linear(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>, layout: Layout) -> Result<Var> {
    map(tape, [x, w], b, Linear { layout, out: Out::Weight })
}

/// As `linear`, in f32 on a device too: logits, values and scores.
pub fn linear_f32(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>, layout: Layout) -> Result<Var> {
    map(tape, [x, w], b, Linear { layout, out: Out::F32 })
}

fn map(tape: &mut Tape, [x, w]: [&Var; 2], b: Option<&Var>, op: Linear) -> Result<Var> {
    let Linear { layout, out } = op;
    match b {
        Some(b) => tape.apply(LinearAdd { layout, addend: Addend::Bias(out) }, [x, w, b]),
        None => tape.apply(op, [x, w]),
    }
}

/// As `linear`, added to `residual` `[N,out]`: without a bias the product's sums start from it.
pub fn linear_add(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>, residual: &Var, layout: Layout) -> Result<Var> {
    if b.is_none() {
        return tape.apply(LinearAdd { layout, addend: Addend::Residual }, [x, w, residual]);
    }
    let y = linear(tape, x, w, b, layout)?;
    add(tape, residual, &y)
}

/// x·W
#[derive(Clone)]
pub(super) struct Linear {
    pub(super) layout: Layout,
    pub(super) out: Out,
}

impl Operation<2> for Linear {
    type Saved = Operands;

    fn host(&self, tape: &Tape, [x, w]: [&Var; 2]) -> Result<(Tensor, Operands)> {
        Ok((multiply(tape, x.tensor()?, w, self.layout, Start::Zero)?, Operands::of(x, w)?))
    }

    fn backward(&self, saved: &Operands, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        saved.backward(self.layout, dy, grads)
    }

    fn plain(&self, [x, w]: &[Tensor; 2]) -> Result<Tensor> {
        Ok(match self.layout {
            Layout::OutIn => x.matmul(&w.t()?)?,
            Layout::InOut => x.matmul(w)?,
        })
    }
}

impl Tangent<2> for Linear {
    fn tangent(&self, tape: &Tape, xw: [&Var; 2], tangents: [Option<&Tensor>; 2], _: &Operands) -> Result<Tensor> {
        tangent(tape, xw, tangents, self.layout, Start::Zero)
    }
}

/// What is added to a product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Addend {
    /// `[out]`, to every row of what is given in this type.
    Bias(Out),
    /// `[N,out]`, of the type of what is given.
    Residual,
}

/// x·W + the third input, from which the product's sums start.
#[derive(Clone)]
pub(super) struct LinearAdd {
    pub(super) layout: Layout,
    pub(super) addend: Addend,
}

impl Operation<3> for LinearAdd {
    /// The product's operands, and the bias; of a residual only where its gradient goes.
    type Saved = (Operands, Option<Var>, Sink);

    fn host(&self, tape: &Tape, [x, w, addend]: [&Var; 3]) -> Result<(Tensor, Self::Saved)> {
        let y = {
            let addend = host::read(addend.tensor()?)?;
            let start = match self.addend {
                Addend::Bias(_) => Start::Bias(&addend),
                Addend::Residual => Start::Rows(&addend),
            };
            multiply(tape, x.tensor()?, w, self.layout, start)?
        };
        let bias = matches!(self.addend, Addend::Bias(_)).then(|| addend.clone());
        Ok((y, (Operands::of(x, w)?, bias, addend.sink())))
    }

    fn backward(&self, (operands, bias, addend): &Self::Saved, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let Some(bias) = bias else {
            grads.add_shared(*addend, dy)?;
            return operands.backward(self.layout, dy, grads);
        };
        operands.backward(self.layout, dy, grads)?;
        let (n, outputs) = dy.dims2()?;
        let dy = host::read(dy)?;
        grads.accumulate(bias, |db| {
            host::sum_rows(db, n, |rows, sum| {
                for row in dy[rows.start * outputs..rows.end * outputs].chunks_exact(outputs) {
                    sum.iter_mut().zip(row).for_each(|(s, g)| *s += g);
                }
            });
        })
    }

    fn plain(&self, [x, w, addend]: &[Tensor; 3]) -> Result<Tensor> {
        let y = Linear { layout: self.layout, out: Out::F32 }.plain(&[x.clone(), w.clone()])?;
        Ok(match self.addend {
            Addend::Bias(_) => y.broadcast_add(addend)?,
            Addend::Residual => (y + addend)?,
        })
    }
}

impl Tangent<3> for LinearAdd {
    fn tangent(
        &self,
        tape: &Tape,
        [x, w, _]: [&Var; 3],
        [dx, dw, added]: [Option<&Tensor>; 3],
        _: &Self::Saved,
    ) -> Result<Tensor> {
        let added = added.map(host::read).transpose()?;
        let start = match (&added, self.addend) {
            (None, _) => Start::Zero,
            (Some(added), Addend::Bias(_)) => Start::Bias(added),
            (Some(added), Addend::Residual) => Start::Rows(added),
        };
        tangent(tape, [x, w], [dx, dw], self.layout, start)
    }
}

/// start + dx·W + x·dW
fn tangent(
    tape: &Tape,
    [x, w]: [&Var; 2],
    [dx, dw]: [Option<&Tensor>; 2],
    layout: Layout,
    start: Start,
) -> Result<Tensor> {
    let first = dx.map(|dx| multiply(tape, dx, w, layout, start)).transpose()?;
    let Some(dw) = dw else {
        return match (first, start) {
            (Some(first), _) => Ok(first),
            (None, start) => repeated(x.value.dim(0)?, layout.sizes(w.value.dims2()?).1, start),
        };
    };
    let (n, (inputs, outputs)) = (x.value.dim(0)?, layout.sizes(dw.dims2()?));
    let (x, numbers) = (host::read(x.tensor()?)?, host::read(dw)?);
    let first = first.as_ref().map(host::read).transpose()?;
    let start = first.as_ref().map_or(start, |first| Start::Rows(first));
    host::tensor(product(Mat::new(&x, n, inputs), layout.mat(&numbers, inputs, outputs), start), &[n, outputs])
}

/// What sums over nothing start from.
fn repeated(rows: usize, width: usize, start: Start) -> Result<Tensor> {
    let numbers = match start {
        Start::Rows(rows) => rows.to_vec(),
        Start::Bias(row) => row.repeat(rows),
        Start::Zero | Start::Accumulate => vec![0.0; rows * width],
    };
    host::tensor(numbers, &[rows, width])
}

fn multiply(tape: &Tape, x: &Tensor, w: &Var, layout: Layout, start: Start) -> Result<Tensor> {
    let n = x.dim(0)?;
    let (inputs, outputs) = layout.sizes(w.tensor()?.dims2()?);
    let (x, numbers) = (host::read(x)?, host::read(w.tensor()?)?);
    let y = by_weight(tape, w, Side::Forward, (Mat::new(&x, n, inputs), layout.mat(&numbers, inputs, outputs)), start)?;
    host::tensor(y, &[n, outputs])
}

/// a · b where b is made of the weight w, by its packed copy where that is kept.
fn by_weight(tape: &Tape, w: &Var, side: Side, (a, b): (Mat, Mat), start: Start) -> Result<Vec<f32>> {
    let fill = |packed: &mut Packed| {
        packed.fill(b);
        Ok(())
    };
    Ok(match tape.packed(w, side, fill)? {
        Some(packed) => product_packed(a, &packed, start),
        None => product(a, b, start),
    })
}

/// What a product keeps of its operands.
pub(super) struct Operands {
    /// Where the gradient of x goes.
    to: Sink,
    /// x itself, which the weight's gradient alone reads again.
    x: Option<Tensor>,
    w: Var,
}

impl Operands {
    fn of(x: &Var, w: &Var) -> Result<Self> {
        let read = if w.needs_grad() { Some(x.tensor()?.clone()) } else { None };
        Ok(Self { to: x.sink(), x: read, w: w.clone() })
    }

    fn backward(&self, layout: Layout, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let n = dy.dim(0)?;
        let (inputs, outputs) = layout.sizes(self.w.tensor()?.dims2()?);
        let dy = host::read(dy)?;
        let dy = Mat::new(&dy, n, outputs);
        if self.to.needs_grad() {
            let numbers = host::read(self.w.tensor()?)?;
            let operands = (dy, layout.mat(&numbers, inputs, outputs).t());
            let dx = by_weight(grads.tape(), &self.w, Side::Backward, operands, Start::Zero)?;
            grads.add_owned(self.to, host::tensor(dx, &[n, inputs])?)?;
        }
        if let Some(x) = &self.x {
            let x = host::read(x)?;
            let x = Mat::new(&x, n, inputs);
            grads.accumulate(&self.w, |dw| match layout {
                Layout::OutIn => matmul(dy.t(), x, dw, inputs, Start::Accumulate),
                Layout::InOut => matmul(x.t(), dy, dw, outputs, Start::Accumulate),
            })?;
        }
        Ok(())
    }
}
