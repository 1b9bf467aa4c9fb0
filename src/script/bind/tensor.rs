//! Tensors in scripts: construction, reading, operators and functions; `pages/tensors.md` says what each means.
//!
//! A number beside a tensor takes the tensor's type. Parameters that may be a tensor or a number are read by us and not
//! chosen by Rhai, so that anything else gets an error of ours instead of a silent `false` or a list of signatures.

use super::convert::{self, Dims, Nested, Operand, Tensors, together};
use crate::error::{Error, Kind, Result};
use crate::run::Stream;
use crate::script::lang::native::{Call, FromScript, Handle, IntoScript, Number, Place, Registry, Typed};
use crate::tensor::rng::Key;
use crate::tensor::{DType, Device, Op, Tensor, ops, randint, shape, tape};
use rhai::{Array, Dynamic, FLOAT, INT, ImmutableString};
use std::any::TypeId;

impl Handle for Tensor {
    const NAME: &'static str = "Tensor";
    const RECEIVER: &'static str = "x";

    fn also() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn of_other(value: &Dynamic, place: Place<'_>) -> Result<Option<Self>> {
        let Ok(items) = value.as_array_ref() else { return Ok(None) };
        let what = format!("`{}`: {}", place.function, place.name);
        match convert::rows(&what, &items, &Device::Cpu)? {
            Some(read) => Ok(Some(read)),
            None => Err(place.wrong("a tensor, or an array of numbers", value)),
        }
    }
}

pub fn register(reg: &mut Registry) {
    reg.handle::<Tensor>(ToString::to_string);
    create(reg);
    read(reg);
    operators(reg);
    unary(reg);
    choices(reg);
    reductions(reg);
    arrangements(reg);
    gradients(reg);
}

type Draw = fn(&[usize], Key, &Device) -> Result<Tensor>;

fn create(reg: &mut Registry) {
    reg.function("tensor", ["values", "type"], |call: &Call, values: Nested, kind: Option<DType>| {
        convert::make(values, kind.unwrap_or(DType::F32), &call.session.device())
    });
    reg.function("zeros", ["shape"], |call: &Call, shape: Dims| Tensor::full(&shape.0, 0.0, &call.session.device()));
    reg.function("ones", ["shape"], |call: &Call, shape: Dims| Tensor::full(&shape.0, 1.0, &call.session.device()));
    reg.function("full", ["shape", "value"], |call: &Call, shape: Dims, value: Number| {
        Tensor::full(&shape.0, value.0, &call.session.device())
    });
    reg.function("arange", ["n"], |call: &Call, n: usize| Tensor::arange(n, &call.session.device()));
    let draws: [(&str, Draw); 2] = [("randn", Tensor::randn), ("rand", Tensor::rand)];
    for (name, draw) in draws {
        reg.function(name, ["shape"], move |call: &Call, shape: Dims| {
            draw(&shape.0, call.session.key(Stream::Rand), &call.session.device())
        });
    }
    reg.function("randint", ["shape", "low", "high"], |call: &Call, shape: Dims, low: INT, high: INT| {
        randint(&shape.0, low..high, call.session.key(Stream::Rand), &call.session.device())
    });
    reg.form(["low", "high"], |call: &Call, low: INT, high: INT| -> Result<INT> {
        let drawn = randint(&[], low..high, call.session.key(Stream::Rand), &call.session.device())?;
        Ok(drawn.item()? as INT)
    });
}

fn read(reg: &mut Registry) {
    reg.property("shape", |x: &mut Tensor| -> Array { x.dims().iter().map(|d| Dynamic::from(*d as INT)).collect() });
    reg.function("item", ["x"], |x: Tensor| x.item());
    reg.function("to_array", ["x"], |x: Tensor| convert::nested_array(&x));
    reg.index(["i"], |x: &mut Tensor, i: INT| x.index(i));
    reg.function("to_f64", ["x"], |x: Tensor| x.to_dtype(DType::F64));
    reg.function("to_f32", ["x"], |x: Tensor| x.to_dtype(DType::F32));
}

/// A tensor with a tensor or a number, in every order.
fn pairs() -> [[TypeId; 2]; 3] {
    let (tensor, anything) = (TypeId::of::<Tensor>(), TypeId::of::<Dynamic>());
    [[tensor, tensor], [tensor, anything], [anything, tensor]]
}

fn both(op: &'static Op<2>, a: Operand, b: Operand) -> Result<Tensor> {
    match (a, b) {
        (Operand::Tensor(a), Operand::Tensor(b)) => op.on(&a, &b),
        (Operand::Tensor(a), Operand::Number(x)) => op.on(&a, &a.number(x)?),
        (Operand::Number(x), Operand::Tensor(b)) => op.on(&b.number(x)?, &b),
        // Rhai chooses by the types in `pairs`.
        (Operand::Number(_), Operand::Number(_)) => {
            Err(Error::new(Kind::Internal, format!("`{}` was called for two numbers", op.name)))
        }
    }
}

/// What is compared: a tensor is something, and so never equal to `()`.
enum Compared {
    Nothing,
    Operand(Operand),
}

impl Typed for Compared {
    const TYPE: &'static str = "Tensor | number | ()";
}

impl FromScript for Compared {
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.is_unit() {
            true => Ok(Self::Nothing),
            false => <Operand as FromScript>::read(value, place).map(Self::Operand),
        }
    }
}

/// What a comparison gives: a tensor, or a plain answer where there was nothing to compare with.
enum Answer {
    Cells(Tensor),
    Plain(bool),
}

impl Typed for Answer {
    const TYPE: &'static str = "Tensor";
}

impl IntoScript for Answer {
    fn write(self) -> Dynamic {
        match self {
            Self::Cells(tensor) => tensor.write(),
            Self::Plain(answer) => answer.write(),
        }
    }
}

fn operators(reg: &mut Registry) {
    for op in ops::BINARY {
        reg.operator(op.name, &pairs(), move |a: Operand, b: Operand| both(op, a, b));
    }
    // For tensors alone: a text and an array together are a text, and what `-` makes of an array is Rhai's to say.
    let (tensor, text) = (TypeId::of::<Tensor>(), TypeId::of::<ImmutableString>());
    reg.hidden_on("-", ["x"], &[[tensor]], |x: Tensor| ops::NEG.on(&x));
    reg.hidden_on("+", ["x"], &[[tensor]], |x: Tensor| x);
    reg.hidden_on("+", ["a", "b"], &[[text, tensor]], |a: ImmutableString, b: Tensor| format!("{a}{b}"));
    reg.hidden_on("+", ["a", "b"], &[[tensor, text]], |a: Tensor, b: ImmutableString| format!("{a}{b}"));
    for op in ops::COMPARE {
        match op.name {
            "==" | "!=" => reg.operator(op.name, &pairs(), move |a: Compared, b: Compared| -> Result<Answer> {
                match (a, b) {
                    (Compared::Operand(a), Compared::Operand(b)) => both(op, a, b).map(Answer::Cells),
                    _ => Ok(Answer::Plain(op.name == "!=")),
                }
            }),
            _ => reg.operator(op.name, &pairs(), move |a: Operand, b: Operand| both(op, a, b)),
        }
    }
}

fn unary(reg: &mut Registry) {
    let all = [[TypeId::of::<Tensor>()], [TypeId::of::<FLOAT>()], [TypeId::of::<INT>()]];
    for op in ops::UNARY {
        match op.name {
            // Rhai's own abs and sign of numbers keep the type of ints.
            "abs" | "sign" => reg.function(op.name, ["x"], move |x: Tensor| op.on(&x)),
            _ => reg.function_on(op.name, ["x"], &all, move |x: Operand| -> Result<Operand> {
                match x {
                    Operand::Tensor(x) => op.on(&x).map(Operand::Tensor),
                    Operand::Number(x) => Ok(Operand::Number((op.value)([x]))),
                }
            }),
        }
    }
}

fn choices(reg: &mut Registry) {
    reg.function_on("min", ["a", "b"], &pairs(), |a: Operand, b: Operand| both(&ops::MIN, a, b));
    reg.form(["x"], |x: Tensor| x.smallest(None));
    reg.function_on("max", ["a", "b"], &pairs(), |a: Operand, b: Operand| both(&ops::MAX, a, b));
    reg.form(["x"], |x: Tensor| x.largest(None));
    reg.function("where", ["condition", "a", "b"], |condition: Operand, a: Operand, b: Operand| {
        of_three([condition, a, b], |c, a, b| ops::WHERE.on(c, a, b), ops::WHERE.value)
    });
}

/// A function of three tensors or numbers; numbers alone give a number.
pub(super) fn of_three(
    operands: [Operand; 3],
    run: fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    plain: fn([f64; 3]) -> f64,
) -> Result<Operand> {
    match together(operands)? {
        Ok([a, b, c]) => run(&a, &b, &c).map(Operand::Tensor),
        Err(numbers) => Ok(Operand::Number(plain(numbers))),
    }
}

type Reduction = fn(&Tensor, Option<i64>) -> Result<Tensor>;
type Lane = fn(&Tensor, i64) -> Result<Tensor>;

fn reductions(reg: &mut Registry) {
    let all: [(&str, Reduction); 6] = [
        ("sum", Tensor::sum),
        ("mean", Tensor::mean),
        ("std", Tensor::std),
        ("variance", Tensor::variance),
        ("prod", Tensor::prod),
        ("logsumexp", Tensor::logsumexp),
    ];
    for (name, reduce) in all {
        reg.function(name, ["x", "axis"], move |x: Tensor, axis: Option<INT>| reduce(&x, axis));
    }
    reg.function("quantile", ["x", "q", "axis"], |x: Tensor, q: Number, axis: Option<INT>| x.quantile(q.0, axis));
    // Of an array `sort` is the language's.
    reg.function_on("sort", ["x"], &[[TypeId::of::<Tensor>()]], |x: Tensor| x.sort(-1));
    reg.form(["x", "axis"], |x: Tensor, axis: INT| x.sort(axis));
    let lanes: [(&str, Lane); 4] = [
        ("softmax", Tensor::softmax),
        ("log_softmax", Tensor::log_softmax),
        ("cumsum", Tensor::cumsum),
        ("argsort", Tensor::argsort),
    ];
    for (name, run) in lanes {
        reg.function(name, ["x", "axis"], move |x: Tensor, axis: Option<INT>| run(&x, axis.unwrap_or(-1)));
    }
}

fn arrangements(reg: &mut Registry) {
    reg.function("matmul", ["a", "b"], |a: Tensor, b: Tensor| a.matmul(&b));
    reg.function("transpose", ["x"], |x: Tensor| x.transpose());
    reg.function("reshape", ["x", "shape"], |x: Tensor, shape: Array| -> Result<Tensor> {
        let lengths = shape.iter().map(|v| v.as_int().ok()).collect::<Option<Vec<_>>>();
        let wrong = || Error::shape("`reshape`: a shape is an array of whole numbers, like [-1, 1]");
        x.reshape(&lengths.ok_or_else(wrong)?)
    });
    reg.function("concat", ["parts", "axis"], |parts: Tensors, axis: Option<INT>| {
        Tensor::concat(&parts.0, axis.unwrap_or(0))
    });
    reg.function("stack", ["parts"], |parts: Tensors| Tensor::stack(&parts.0));
    reg.function("gather", ["x", "index", "axis"], |x: Tensor, index: Tensor, axis: Option<INT>| {
        x.gather(&index, axis.unwrap_or(-1))
    });
    reg.function("one_hot", ["x", "n"], |x: Tensor, n: usize| x.one_hot(n));
}

fn gradients(reg: &mut Registry) {
    reg.function("detach", ["x"], |x: Tensor| x.detach());
    reg.function("with_grad", ["x"], |x: Tensor| x.with_grad());
    reg.function("grad", ["loss", "x"], |loss: Tensor, x: Tensor| -> Result<Tensor> {
        let missing = || {
            Error::gradient(format!("the loss does not depend on x, of shape {}", shape::show(x.dims())))
                .hint("make x differentiable first (let x = x.with_grad()) and compute the loss from that one")
        };
        tape::gradient(&loss, &x)?.ok_or_else(missing)
    });
}
