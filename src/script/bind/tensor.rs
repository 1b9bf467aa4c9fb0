//! Tensors in scripts: construction, reading, operators and functions.
//!
//! A number beside a tensor takes the tensor's type. Parameters that may be a tensor or a number are `Dynamic`, so
//! that anything else gets an error of ours instead of Rhai's silent `false` or a list of signatures.

use crate::error::{Error, Result};
use crate::run::{Session, Stream};
use crate::script::bind::convert::{self, Answer, Nested, count, dims, dtype, float, together};
use crate::script::registry::{Doc, Registry};
use crate::tensor::{DType, Device, Op, Tensor, ops, shape, tape};
use rhai::{Array, Dynamic, EvalAltResult, FLOAT, FuncRegistration, INT, Module};
use std::rc::Rc;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Tensor>("Tensor");
    create(reg, session);
    random(reg, session);
    read(reg);
    operators(reg);
    comparisons(reg);
    unary(reg);
    choices(reg);
    reductions(reg);
    lanes(reg);
    arrangements(reg);
    gradients(reg);
}

fn create(reg: &mut Registry, session: &Rc<Session>) {
    let device = session.device();
    let doc = Doc::new("tensor(values: array) -> Tensor", "A tensor from a number or nested arrays of numbers.")
        .param("values", "number, [..], [[..]] or [[[..]]]", "row by row; true and false count as 1 and 0")
        .param("type", "\"f32\" or \"f64\"", "f32 if left out")
        .errors("Arrays of different lengths, and entries that are not numbers.")
        .example("let x = tensor([[1, 2, 3], [4, 5, 6]]);\nassert(x.shape == [2, 3]);\nassert(tensor([0.1], \"f64\").item() == 0.1);");
    reg.add(doc, |m| {
        let on = device.clone();
        m.set_native_fn("tensor", move |values: Dynamic| Ok(convert::make(Nested::read(&values)?, DType::F32, &on)?));
        let on = device.clone();
        m.set_native_fn("tensor", move |values: Dynamic, name: &str| {
            Ok(convert::make(Nested::read(&values)?, dtype(name)?, &on)?)
        });
    });
    let doc = Doc::new("zeros(shape: array) -> Tensor", "A tensor of zeros.")
        .param("shape", "array of int", "the lengths of its axes; [] is a single number")
        .example("assert(zeros([2, 1]).to_array() == [[0.0], [0.0]]);");
    filled(reg, "zeros", doc, 0.0, &device);
    let doc = Doc::new("ones(shape: array) -> Tensor", "A tensor of ones.")
        .param("shape", "array of int", "the lengths of its axes; [] is a single number")
        .example("assert(sum(ones([4, 1])).item() == 4.0);");
    filled(reg, "ones", doc, 1.0, &device);
    let doc = Doc::new("full(shape: array, value: number) -> Tensor", "A tensor with one value in every cell.")
        .param("shape", "array of int", "the lengths of its axes")
        .param("value", "number", "what every cell holds")
        .example("assert(full([1, 3], 2).to_array() == [[2.0, 2.0, 2.0]]);");
    let on = device.clone();
    reg.add(doc, |m| {
        m.set_native_fn("full", move |shape: Array, value: Dynamic| {
            Ok(Tensor::full(&dims("full", &shape)?, float("full", "value", &value)?, &on)?)
        });
    });
    let doc = Doc::new("arange(n: int) -> Tensor", "The numbers 0, 1, …, n-1 in one row, which broadcasts over rows.")
        .param("n", "int", "how many; the shape is [1,n]")
        .errors("A negative n.")
        .example("let discount = 0.5 ** arange(3);\nassert((discount * ones([2, 1])).to_array() == [[1.0, 0.5, 0.25], [1.0, 0.5, 0.25]]);");
    reg.add(doc, |m| {
        m.set_native_fn("arange", move |n: INT| Ok(Tensor::arange(count("arange", "n", n)?, &device)?));
    });
}

fn filled(reg: &mut Registry, name: &'static str, doc: Doc, value: f64, device: &Device) {
    let on = device.clone();
    reg.add(doc.errors("A shape that is not an array of lengths."), |m| {
        m.set_native_fn(name, move |shape: Array| Ok(Tensor::full(&dims(name, &shape)?, value, &on)?));
    });
}

fn random(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new("randn(shape: array) -> Tensor", "Standard normal numbers, from the run's seed.")
        .param("shape", "array of int", "the lengths of its axes")
        .errors("A shape that is not an array of lengths.")
        .example("let x = randn([100, 1]);\nassert(x.shape == [100, 1]);\nassert(abs(mean(x).item()) < 1.0);");
    // Not pure: a call with constant arguments must not be folded into one result.
    let seeded =
        |m: &mut Module, name: &'static str, draw: fn(&[usize], crate::tensor::rng::Key, &Device) -> Result<Tensor>| {
            let session = session.clone();
            let body = move |shape: Array| -> Answer<Tensor> {
                Ok(draw(&dims(name, &shape)?, session.key(Stream::Rand), &session.device())?)
            };
            FuncRegistration::new(name).with_volatility(true).set_into_module(m, body);
        };
    reg.add(doc, |m| seeded(m, "randn", Tensor::randn));
    let doc = Doc::new("rand(shape: array) -> Tensor", "Uniform numbers in [0, 1), from the run's seed.")
        .param("shape", "array of int", "the lengths of its axes")
        .errors("A shape that is not an array of lengths.")
        .example("let coin = rand([8, 1]) < 0.5;\nassert(max(coin * (1 - coin)).item() == 0.0);");
    reg.add(doc, |m| seeded(m, "rand", Tensor::rand));
}

fn read(reg: &mut Registry) {
    let doc = Doc::named("shape", "x.shape -> array", "The lengths of the axes.")
        .example("assert(zeros([4, 1]).shape == [4, 1]);\nassert(mean(zeros([4, 1])).shape == []);");
    reg.add(doc, |m| {
        m.set_getter_fn("shape", |x: &mut Tensor| {
            Ok::<Array, Box<EvalAltResult>>(x.dims().iter().map(|d| Dynamic::from(*d as INT)).collect())
        });
    });
    let doc = Doc::new("item(x: Tensor) -> float", "The only number of a tensor that holds one.")
        .param("x", "one cell, any shape", "such as the result of mean")
        .errors("A tensor with more or fewer cells than one.")
        .example("assert(mean(tensor([1, 3])).item() == 2.0);");
    reg.add(doc, |m| {
        m.set_native_fn("item", |x: Tensor| Ok(x.item()?));
    });
    let doc = Doc::new("to_array(x: Tensor) -> array", "The values as nested arrays of floats.")
        .param("x", "any shape", "a single number gives a float")
        .example("assert(tensor([[1, 2]]).to_array() == [[1.0, 2.0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("to_array", |x: Tensor| Ok(convert::nested_array(&x)?));
    });
    let doc = Doc::named("[]", "x[i] -> Tensor", "Entry i of the first axis; negative i counts from the end.")
        .param("i", "int", "the row of [B,T], the cell of [n]")
        .errors("An index out of range, and a single number.")
        .example("let x = tensor([[1, 2], [3, 4]]);\nassert(x[1].to_array() == [3.0, 4.0]);\nassert(x[-1][0].item() == 3.0);");
    reg.add(doc, |m| {
        m.set_indexer_get_fn(|x: &mut Tensor, i: INT| Ok::<_, Box<EvalAltResult>>(x.index(i)?));
    });
    for (name, to, doc) in [
        ("to_f64", DType::F64, Doc::new("to_f64(x: Tensor) -> Tensor", "The same values in double precision.")),
        ("to_f32", DType::F32, Doc::new("to_f32(x: Tensor) -> Tensor", "The same values in single precision.")),
    ] {
        let doc = doc.param("x", "any shape", "gradients pass through; f64 with f32 gives f64");
        let doc = doc.example("let x = tensor([0.1], \"f64\");\nassert(x.to_f32().to_f64().item() != 0.1);\nassert(x.to_f64().item() == 0.1);");
        reg.add(doc, |m| {
            m.set_native_fn(name, move |x: Tensor| Ok(x.to_dtype(to)?));
        });
    }
    let m = reg.global();
    for name in ["to_string", "to_debug", "print", "debug"] {
        m.set_native_fn(name, |x: Tensor| Ok::<_, Box<EvalAltResult>>(x.to_string()));
    }
}

const OPERATORS: [(&str, &str, &str); 6] = [
    ("a + b -> Tensor", "The sum, cell by cell.", "assert((1 + tensor([1, 2])).to_array() == [2.0, 3.0]);"),
    (
        "a - b -> Tensor",
        "The difference, cell by cell; -x alone is the negative.",
        "let x = tensor([1, 2]);\nassert((1 - x).to_array() == [0.0, -1.0]);\nassert((-x).to_array() == [-1.0, -2.0]);",
    ),
    (
        "a * b -> Tensor",
        "The product, cell by cell.",
        "let a = tensor([[1], [2]]);\nlet b = tensor([[1, 10]]);\nassert((a * b).to_array() == [[1.0, 10.0], [2.0, 20.0]]);",
    ),
    ("a / b -> Tensor", "The quotient, cell by cell.", "assert((tensor([1, 3]) / 2).to_array() == [0.5, 1.5]);"),
    (
        "a % b -> Tensor",
        "The remainder, cell by cell, with the sign of a.",
        "assert((tensor([5, -5]) % 3).to_array() == [2.0, -2.0]);",
    ),
    (
        "a ** b -> Tensor",
        "The power, cell by cell. Note that Rhai reads -z ** 2 as (-z) ** 2.",
        "let x = tensor([1, 3]);\nassert((x ** 2).to_array() == [1.0, 9.0]);\nassert((2 ** x).to_array() == [2.0, 8.0]);",
    ),
];

/// `op` for a tensor with a tensor or a number, in every order; `other` answers for anything else, if it can.
fn binary(m: &mut Module, op: &'static Op<2>, other: fn(&Dynamic) -> Option<Dynamic>) {
    let answer = move |a: &Dynamic, b: &Dynamic, beside: &Dynamic| -> Answer<Dynamic> {
        if let Some(value) = other(beside) {
            return Ok(value);
        }
        match together(op.name, [a, b])? {
            Ok([a, b]) => Ok(Dynamic::from(op.on(&a, &b)?)),
            Err(numbers) => Ok((op.value)(numbers).into()),
        }
    };
    m.set_native_fn(op.name, move |a: Tensor, b: Tensor| Ok::<_, Box<EvalAltResult>>(Dynamic::from(op.on(&a, &b)?)));
    m.set_native_fn(op.name, move |a: Tensor, b: Dynamic| answer(&Dynamic::from(a), &b, &b));
    m.set_native_fn(op.name, move |a: Dynamic, b: Tensor| answer(&a, &Dynamic::from(b), &a));
}

fn operators(reg: &mut Registry) {
    for (op, (signature, summary, example)) in ops::BINARY.into_iter().zip(OPERATORS) {
        let doc = Doc::named(op.name, signature, summary)
            .param("a, b", "tensor or number", "shapes [], [B,1], [1,T] and [B,T] broadcast with each other")
            .errors("Shapes that do not fit each other without guessing, such as [B] with [B,T].")
            .example(example);
        reg.add(doc, |m| binary(m, op, |_| None));
    }
    let m = reg.global();
    m.set_native_fn("-", |x: Tensor| Ok::<_, Box<EvalAltResult>>(ops::NEG.on(&x)?));
    m.set_native_fn("+", |x: Tensor| Ok::<_, Box<EvalAltResult>>(x));
    m.set_native_fn("+", |a: &str, x: Tensor| Ok::<_, Box<EvalAltResult>>(format!("{a}{x}")));
    m.set_native_fn("+", |x: Tensor, b: &str| Ok::<_, Box<EvalAltResult>>(format!("{x}{b}")));
}

const COMPARISONS: [(&str, &str, &str); 6] = [
    (
        "a == b -> Tensor",
        "1 where equal, else 0. Compared with (), a plain false: a tensor is something.",
        "assert((tensor([1, 2]) == 2).to_array() == [0.0, 1.0]);\nassert(!(tensor([1]) == ()));",
    ),
    (
        "a != b -> Tensor",
        "1 where different, else 0. Compared with (), a plain true.",
        "assert((tensor([1, 2]) != 2).to_array() == [1.0, 0.0]);\nassert(tensor([1]) != ());",
    ),
    ("a < b -> Tensor", "1 where a is smaller, else 0.", "assert((tensor([1, 2]) < 2).to_array() == [1.0, 0.0]);"),
    ("a <= b -> Tensor", "1 where a is at most b, else 0.", "assert((2 <= tensor([1, 2])).to_array() == [0.0, 1.0]);"),
    ("a > b -> Tensor", "1 where a is larger, else 0.", "assert((1.5 > tensor([1, 2])).to_array() == [1.0, 0.0]);"),
    ("a >= b -> Tensor", "1 where a is at least b, else 0.", "assert((tensor([1, 2]) >= 2).to_array() == [0.0, 1.0]);"),
];

fn comparisons(reg: &mut Registry) {
    for (op, (signature, summary, example)) in ops::COMPARE.into_iter().zip(COMPARISONS) {
        let doc = Doc::named(op.name, signature, summary)
            .param("a, b", "tensor or number", "shapes [], [B,1], [1,T] and [B,T] broadcast with each other")
            .errors("Shapes that do not fit, and a tensor with something that is neither tensor nor number.")
            .example(example);
        let with_nothing: fn(&Dynamic) -> Option<Dynamic> = match op.name {
            "==" => |other| other.is_unit().then(|| false.into()),
            "!=" => |other| other.is_unit().then(|| true.into()),
            _ => |_| None,
        };
        reg.add(doc, |m| binary(m, op, with_nothing));
    }
}

const UNARY: [(&str, &str, &str); 12] = [
    (
        "exp(x: Tensor) -> Tensor",
        "e to the power of each cell.",
        "assert(exp(tensor([0])).item() == 1.0);\nassert(exp(0.0) == 1.0);",
    ),
    (
        "log(x: Tensor) -> Tensor",
        "The natural logarithm, of plain numbers too (log(x, 10.0) is the decimal one).",
        "assert(log(tensor([1])).item() == 0.0);\nassert(abs(log(exp(1.0)) - 1.0) < 1e-12);",
    ),
    ("log1p(x: Tensor) -> Tensor", "log(1 + x), exact for small x.", "assert(log1p(tensor([1e-6])).item() > 0.9e-6);"),
    ("sqrt(x: Tensor) -> Tensor", "The square root.", "assert(sqrt(tensor([9])).item() == 3.0);"),
    ("square(x: Tensor) -> Tensor", "x·x.", "assert(square(tensor([-3])).item() == 9.0);"),
    (
        "abs(x: Tensor) -> Tensor",
        "The absolute value; its derivative at 0 is 0.",
        "assert(abs(tensor([-3])).item() == 3.0);",
    ),
    (
        "sign(x: Tensor) -> Tensor",
        "-1, 0 or 1. Without gradient.",
        "assert(sign(tensor([-3, 0, 5])).to_array() == [-1.0, 0.0, 1.0]);",
    ),
    ("sigmoid(x: Tensor) -> Tensor", "1/(1 + e^-x).", "assert(sigmoid(tensor([0, 1000])).to_array() == [0.5, 1.0]);"),
    (
        "log_sigmoid(x: Tensor) -> Tensor",
        "log(sigmoid(x)), exact far from 0.",
        "assert(log_sigmoid(tensor([-1000, 1000])).to_array() == [-1000.0, 0.0]);",
    ),
    (
        "softplus(x: Tensor) -> Tensor",
        "log(1 + e^x), exact far from 0.",
        "assert(softplus(tensor([1000])).item() == 1000.0);",
    ),
    (
        "relu(x: Tensor) -> Tensor",
        "x where positive, else 0; its derivative at 0 is 0.",
        "assert(relu(tensor([-1, 2])).to_array() == [0.0, 2.0]);",
    ),
    ("tanh(x: Tensor) -> Tensor", "The hyperbolic tangent.", "assert(tanh(tensor([0])).item() == 0.0);"),
];

fn unary(reg: &mut Registry) {
    for (op, (signature, summary, example)) in ops::UNARY.into_iter().zip(UNARY) {
        let doc = Doc::new(signature, summary).param("x", "tensor or number", "any shape").example(example);
        reg.add(doc, |m| {
            m.set_native_fn(op.name, move |x: Tensor| Ok(op.on(&x)?));
            // Rhai's own abs and sign of numbers keep the type of ints.
            if !matches!(op.name, "abs" | "sign") {
                m.set_native_fn(op.name, move |x: FLOAT| Ok::<_, Box<EvalAltResult>>((op.value)([x])));
                m.set_native_fn(op.name, move |x: INT| Ok::<_, Box<EvalAltResult>>((op.value)([x as FLOAT])));
            }
        });
    }
}

fn choices(reg: &mut Registry) {
    let pair = |name: &'static str, signature, summary, example| {
        Doc::named(name, signature, summary)
            .param("a, b", "tensor or number", "with one argument: the extreme over all cells, not per token")
            .errors("Shapes that do not fit; with one argument, per-token values.")
            .example(example)
    };
    let doc = pair(
        "min",
        "min(a, b) -> Tensor",
        "The smaller, cell by cell; a tie shares its gradient.",
        "let x = tensor([1, 5]);\nassert(min(x, 3).to_array() == [1.0, 3.0]);\nassert(min(x).item() == 1.0);\nassert(min(1, 2) == 1);",
    );
    reg.add(doc, |m| {
        binary(m, &ops::MIN, |_| None);
        m.set_native_fn("min", |x: Tensor| Ok(x.smallest(None)?));
    });
    let doc = pair(
        "max",
        "max(a, b) -> Tensor",
        "The larger, cell by cell; a tie shares its gradient.",
        "let x = tensor([1, 5]);\nassert(max(3.0, x).to_array() == [3.0, 5.0]);\nassert(max(x).item() == 5.0);",
    );
    reg.add(doc, |m| {
        binary(m, &ops::MAX, |_| None);
        m.set_native_fn("max", |x: Tensor| Ok(x.largest(None)?));
    });
    let doc = Doc::new("where(condition, a, b) -> Tensor", "a where the condition is not 0, else b, cell by cell.")
        .param("condition", "tensor or number", "usually a comparison")
        .param("a, b", "tensor or number", "what was not chosen changes neither value nor gradient, NaN included")
        .errors("Shapes that do not fit each other.")
        .example("let x = tensor([-1, 4]);\nassert(where(x > 0, sqrt(x), 0).to_array() == [0.0, 2.0]);");
    reg.add(doc, |m| ternary(m, "where", |c, a, b| ops::WHERE.on(c, a, b), ops::WHERE.value));
}

/// A function of three tensors or numbers; numbers alone give a number.
pub(super) fn ternary(
    m: &mut Module,
    name: &'static str,
    run: fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    plain: fn([f64; 3]) -> f64,
) {
    m.set_native_fn(name, move |a: Dynamic, b: Dynamic, c: Dynamic| -> Answer<Dynamic> {
        match together(name, [&a, &b, &c])? {
            Ok([a, b, c]) => Ok(Dynamic::from(run(&a, &b, &c)?)),
            Err(numbers) => Ok(plain(numbers).into()),
        }
    });
}

type Reduction = fn(&Tensor, Option<i64>) -> Result<Tensor>;

fn reductions(reg: &mut Registry) {
    let all: [(&'static str, Reduction, Doc); 4] = [
        (
            "sum",
            Tensor::sum,
            Doc::new("sum(x: Tensor) -> Tensor", "The sum of all cells, or along an axis.")
                .errors("Per-token values: seq_sum(x, mask) or token_mean(x, mask) say what padding counts for.")
                .example("let x = tensor([[1, 2], [3, 4]]);\nassert(sum(x).item() == 10.0);\nassert(sum(x, 1).to_array() == [[3.0], [7.0]]);"),
        ),
        (
            "mean",
            Tensor::mean,
            Doc::new("mean(x: Tensor) -> Tensor", "The mean of all cells, or along an axis.")
                .errors("Per-token values: token_mean(x, mask) and seq_mean(x, mask) name the aggregation.")
                .example("assert(mean(tensor([[1], [3]])).item() == 2.0);"),
        ),
        (
            "std",
            Tensor::std,
            Doc::new("std(x: Tensor) -> Tensor", "The standard deviation (biased) of all cells, or along an axis.")
                .errors("Per-token values.")
                .example("assert(std(tensor([[1], [3]])).item() == 1.0);"),
        ),
        (
            "variance",
            Tensor::variance,
            Doc::new("variance(x: Tensor) -> Tensor", "The variance (biased) of all cells, or along an axis.")
                .errors("Per-token values.")
                .example("assert(variance(tensor([[1], [5]])).item() == 4.0);"),
        ),
    ];
    for (name, reduce, doc) in all {
        let doc = doc.param("x", "[B,1] or any shape that is not per token", "what to reduce").param(
            "axis",
            "int",
            "left out: all cells give one number; else that axis stays with length 1",
        );
        reg.add(doc, |m| {
            m.set_native_fn(name, move |x: Tensor| Ok(reduce(&x, None)?));
            m.set_native_fn(name, move |x: Tensor, axis: INT| Ok(reduce(&x, Some(axis))?));
        });
    }
}

type Lane = fn(&Tensor, i64) -> Result<Tensor>;

fn lanes(reg: &mut Registry) {
    let all: [(&'static str, Lane, Doc); 4] = [
        (
            "softmax",
            Tensor::softmax,
            Doc::new("softmax(x: Tensor) -> Tensor", "e^x divided by its sum along an axis.")
                .example("assert(softmax(tensor([[7, 7]])).to_array() == [[0.5, 0.5]]);"),
        ),
        (
            "log_softmax",
            Tensor::log_softmax,
            Doc::new("log_softmax(x: Tensor) -> Tensor", "The logarithm of softmax, exact where softmax is 0.")
                .example("assert(log_softmax(tensor([[0, -1000]])).to_array() == [[0.0, -1000.0]]);"),
        ),
        (
            "cumsum",
            Tensor::cumsum,
            Doc::new("cumsum(x: Tensor) -> Tensor", "Sums up to and including each cell along an axis.")
                .example("assert(cumsum(tensor([1, 2, 3])).to_array() == [1.0, 3.0, 6.0]);"),
        ),
        (
            "argsort",
            Tensor::argsort,
            Doc::new("argsort(x: Tensor) -> Tensor", "The positions that sort an axis in ascending order; NaN comes last.")
                .example("let x = tensor([[3], [1], [2]]);\nlet order = argsort(x, 0);\nassert(order.to_array() == [[1.0], [2.0], [0.0]]);\nassert(gather(x, order, 0).to_array() == [[1.0], [2.0], [3.0]]);"),
        ),
    ];
    for (name, run, doc) in all {
        let doc = doc
            .param("x", "any shape but []", "what to work on")
            .param("axis", "int", "the last one if left out")
            .errors("An axis that x does not have.");
        reg.add(doc, |m| {
            m.set_native_fn(name, move |x: Tensor| Ok(run(&x, -1)?));
            m.set_native_fn(name, move |x: Tensor, axis: INT| Ok(run(&x, axis)?));
        });
    }
}

fn arrangements(reg: &mut Registry) {
    let doc = Doc::new("matmul(a: Tensor, b: Tensor) -> Tensor", "The matrix product.")
        .param("a", "[m,k] or [b,m,k]", "left factor")
        .param("b", "[k,n] or [b,k,n]", "right factor")
        .errors("Shapes that cannot be multiplied.")
        .example("assert(matmul(tensor([[1, 2]]), tensor([[3], [4]])).to_array() == [[11.0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("matmul", |a: Tensor, b: Tensor| Ok(a.matmul(&b)?));
    });
    let doc = Doc::new("transpose(x: Tensor) -> Tensor", "Swaps the last two axes.")
        .param("x", "rank 2 or 3", "a matrix, or several")
        .errors("A tensor with fewer than two axes.")
        .example("assert(transpose(tensor([[1, 2]])).to_array() == [[1.0], [2.0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("transpose", |x: Tensor| Ok(x.transpose()?));
    });
    let doc = Doc::new("reshape(x: Tensor, shape: array) -> Tensor", "The same values, row by row, in another shape.")
        .param("x", "any shape", "what to reshape")
        .param("shape", "array of int", "one length may be -1: it follows from the others")
        .errors("A shape that holds another number of values.")
        .example("assert(reshape(tensor([1, 2, 3, 4]), [-1, 1]).shape == [4, 1]);");
    reg.add(doc, |m| {
        m.set_native_fn("reshape", |x: Tensor, shape: Array| -> Answer<Tensor> {
            let lengths = shape.iter().map(|v| v.as_int().ok()).collect::<Option<Vec<_>>>();
            let wrong = || Error::shape("`reshape`: a shape is an array of whole numbers, like [-1, 1]");
            Ok(x.reshape(&lengths.ok_or_else(wrong)?)?)
        });
    });
    let doc = Doc::new("concat(parts: array) -> Tensor", "Joins tensors along an axis that they have.")
        .param("parts", "array of tensors", "equal in every other axis")
        .param("axis", "int", "0, the rows, if left out")
        .errors("Shapes that differ in another axis.")
        .example("assert(concat([ones([1, 2]), zeros([1, 2])]).to_array() == [[1.0, 1.0], [0.0, 0.0]]);\nassert(concat([ones([2, 1]), ones([2, 3])], 1).shape == [2, 4]);");
    reg.add(doc, |m| {
        m.set_native_fn("concat", |parts: Array| Ok(Tensor::concat(&convert::tensors("concat", &parts)?, 0)?));
        m.set_native_fn("concat", |parts: Array, axis: INT| {
            Ok(Tensor::concat(&convert::tensors("concat", &parts)?, axis)?)
        });
    });
    let doc = Doc::new("stack(parts: array) -> Tensor", "Joins tensors of one shape along a new first axis.")
        .param("parts", "array of tensors", "all of one shape")
        .errors("Shapes that differ, and an empty array.")
        .example("let x = tensor([1, 2]);\nassert(stack([mean(x), sum(x)]).to_array() == [1.5, 3.0]);");
    reg.add(doc, |m| {
        m.set_native_fn("stack", |parts: Array| Ok(Tensor::stack(&convert::tensors("stack", &parts)?)?));
    });
    let doc = Doc::new(
        "gather(x: Tensor, index: Tensor) -> Tensor",
        "Picks along an axis: cell [i,j] is x[i][index[i][j]].",
    )
    .param("x", "rank 1 to 3", "where to pick from")
    .param("index", "the rank of x", "whole numbers; as long as x on the other axes")
    .param("axis", "int", "the last one if left out")
    .errors("An index out of range or not whole, and shapes that do not fit.")
    .example(
        "let x = tensor([[10, 20], [30, 40]]);\nassert(gather(x, tensor([[1], [0]])).to_array() == [[20.0], [30.0]]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("gather", |x: Tensor, index: Tensor| Ok(x.gather(&index, -1)?));
        m.set_native_fn("gather", |x: Tensor, index: Tensor, axis: INT| Ok(x.gather(&index, axis)?));
    });
    let doc =
        Doc::new("one_hot(x: Tensor, n: int) -> Tensor", "1 at each value's position along a new last axis, else 0.")
            .param("x", "[B,1], [B] or [B,T]", "whole numbers from 0 to n-1; [B,1] gives [B,n]")
            .param("n", "int", "the length of the new axis")
            .errors("A value that is not a whole number from 0 to n-1.")
            .example("assert(one_hot(tensor([[1], [0]]), 2).to_array() == [[0.0, 1.0], [1.0, 0.0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("one_hot", |x: Tensor, n: INT| Ok(x.one_hot(count("one_hot", "n", n)?)?));
    });
}

fn gradients(reg: &mut Registry) {
    let doc = Doc::new("detach(x: Tensor) -> Tensor", "The same values as a constant: no gradient flows through.")
        .param("x", "any shape", "what to cut off")
        .example("let x = tensor([3]).with_grad();\nassert(grad(sum(x * detach(x)), x).to_array() == [3.0]);");
    reg.add(doc, |m| {
        m.set_native_fn("detach", |x: Tensor| Ok::<_, Box<EvalAltResult>>(x.detach()));
    });
    let doc = Doc::new("with_grad(x: Tensor) -> Tensor", "The same values as a variable to differentiate by.")
        .param("x", "any shape", "what it was computed from is cut off")
        .example("let x = tensor([[1], [2]]).with_grad();\nassert(grad(sum(x ** 2), x).to_array() == [[2.0], [4.0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("with_grad", |x: Tensor| Ok::<_, Box<EvalAltResult>>(x.with_grad()));
    });
    let doc = Doc::new("grad(loss: Tensor, x: Tensor) -> Tensor", "The gradient of a loss with respect to x. Changes nothing.")
        .param("loss", "one number", "computed from x")
        .param("x", "any shape", "a variable made by with_grad, or any value on the way to the loss")
        .errors("A loss that is not one number, or that does not depend on x.")
        .example("let logp = tensor([[-1, -2]]).with_grad();\nlet mask = tensor([[1, 0]]);\nassert(grad(token_mean(logp, mask), logp).to_array() == [[1.0, 0.0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("grad", |loss: Tensor, x: Tensor| -> Answer<Tensor> {
            let missing = || {
                let error =
                    Error::gradient(format!("the loss does not depend on x, of shape {}", shape::show(x.dims())));
                error.hint("make x differentiable first (let x = x.with_grad()) and compute the loss from that one")
            };
            Ok(tape::backward(&loss)?.of(&x).ok_or_else(missing)?)
        });
    });
}
