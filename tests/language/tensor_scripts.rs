//! Tensors as scripts meet them: every documented example, operators in every order and errors.

use rhai::{Dynamic, Engine, EvalAltResult};
use rhopo::engine::Settings;
use rhopo::gpu::Place;
use rhopo::run::Session;
use rhopo::script::bind;
use rhopo::script::lang::native::{Declaration, Registry};
use rhopo::tensor::Tensor;

fn engine() -> (Engine, Vec<Declaration>) {
    let session = Session::new(Place::Host, Settings::default(), 0);
    let mut reg = Registry::new(&session);
    bind::register_numbers(&mut reg);
    let mut engine = Engine::new();
    engine.set_max_expr_depths(0, 0);
    engine.set_fail_on_invalid_map_property(true);
    engine.register_fn("assert", |holds: bool| -> Result<(), Box<EvalAltResult>> {
        if holds { Ok(()) } else { Err("assertion failed".into()) }
    });
    let docs = reg.install(&mut engine).expect("declarations fit together");
    (engine, docs)
}

#[test]
fn every_function_is_documented_with_an_example_that_runs() {
    let (engine, docs) = engine();
    for doc in &docs {
        let (path, section) = (doc.path(), &doc.section);
        assert!(!section.summary.is_empty() && section.example.contains("assert("), "{path}");
        engine.run(&section.example).unwrap_or_else(|e| panic!("{path}: {e}\n{}", section.example));
    }
    assert!(docs.len() > 70, "{}", docs.len());
}

#[test]
fn operators_take_tensors_and_numbers_in_every_order() {
    let (engine, _) = engine();
    let values = [("tensor([3])", 3.0), ("2", 2.0), ("2.0", 2.0), ("tensor([3], \"f64\")", 3.0)];
    type Plain = fn(f64, f64) -> f64;
    let operators: [(&str, Plain); 14] = [
        ("+", |a, b| a + b),
        ("-", |a, b| a - b),
        ("*", |a, b| a * b),
        ("/", |a, b| f64::from((a / b) as f32)),
        ("%", |a, b| a % b),
        ("**", |a, b| a.powf(b)),
        ("==", |a, b| f64::from(u8::from(a == b))),
        ("!=", |a, b| f64::from(u8::from(a != b))),
        ("<", |a, b| f64::from(u8::from(a < b))),
        ("<=", |a, b| f64::from(u8::from(a <= b))),
        (">", |a, b| f64::from(u8::from(a > b))),
        (">=", |a, b| f64::from(u8::from(a >= b))),
        ("min", f64::min),
        ("max", f64::max),
    ];
    for (a, x) in values {
        for (b, y) in values.iter().filter(|(b, _)| a.starts_with('t') || b.starts_with('t')) {
            for (op, expected) in operators {
                let word = op.starts_with('m');
                let script = if word { format!("{op}({a}, {b})") } else { format!("{a} {op} {b}") };
                let found = engine.eval::<Tensor>(&script).unwrap_or_else(|e| panic!("{script}: {e}"));
                let error = (found.item().unwrap() - expected(x, *y)).abs();
                assert!(error < 1e-7, "{script} = {found}");
            }
        }
    }
    for script in
        ["let x = tensor([1]); x += 1; x *= 3; x -= 0.5; x.item()", "let x = 1 + tensor([1]); (-(1 - x) + 4.5).item()"]
    {
        assert_eq!(engine.eval::<f64>(script).unwrap(), 5.5, "{script}");
    }
}

#[test]
fn plain_numbers_keep_their_functions() {
    let (engine, _) = engine();
    for (script, expected) in [
        ("exp(0) + exp(0.0)", 2.0),
        ("log(exp(2.0))", 2.0),
        ("sqrt(4) + sqrt(4.0)", 4.0),
        ("min(1, 2) + max(1, 2.5)", 3.5),
        ("abs(-2) + abs(-2.0) + sign(-3)", 3.0),
        ("clip(2.5, 0, 1) + sigmoid(0) + relu(-1.0)", 1.5),
        ("where(1 < 2, 3, 4.0)", 3.0),
        ("2 ** 3 + 2.0 ** 3", 16.0),
    ] {
        assert_eq!(engine.eval::<Dynamic>(script).map(|v| v.as_float().unwrap()).unwrap(), expected, "{script}");
    }
    assert_eq!(engine.eval::<i64>("min(3, 2)").unwrap(), 2);
}

#[test]
fn errors_name_what_was_found() {
    let (engine, _) = engine();
    for (script, expected) in [
        ("ones([4]) * ones([4, 5])", "`*` cannot combine shapes [4] and [4,5]"),
        ("ones([4, 1]) < ones([3, 1])", "`<` cannot combine shapes [4,1] and [3,1]"),
        ("tensor([[1, 2], [3]])", "`tensor`: the arrays are ragged: [1] holds 1 entries instead of 2"),
        ("tensor([[1, 2], 3])", "`tensor`: the arrays are ragged: [1] holds a number where other places hold an array"),
        ("tensor([1, [2]])", "`tensor`: the arrays are ragged: [1] holds an array where other places hold a number"),
        (
            "tensor([[1, \"a\"]])",
            "`tensor` takes numbers and nested arrays of numbers, found the string \"a\" at [0][1]",
        ),
        ("tensor([1]) == \"a\"", "`==` takes tensors and numbers, found the string \"a\""),
        ("[\"a\"] > tensor([1])", "`>`: a must be a tensor, or an array of numbers, found an array"),
        ("tensor([1]) + ()", "`+` takes tensors and numbers, found nothing"),
        (
            "zeros([2, -1])",
            "`zeros`: a shape is an array of at most 3 lengths that are not negative, like [4, 1]; found [2, -1]",
        ),
        ("arange(1 << 40)", "a tensor of shape [1,1099511627776] is too large: at most 2^26 numbers"),
        ("arange(-1)", "`arange`: n must not be negative, found -1"),
        ("tensor([1], \"f46\")", "unknown type `f46`"),
        ("ones([2, 3])[2]", "x[i]: index 2 is out of range for length 2"),
        ("ones([2, 3]).item()", "`item` of a tensor of shape [2,3]: it holds 6 numbers"),
        ("ones([2, 3]).reshape([4, -1])", "`reshape` cannot turn shape [2,3] into [4,-1]"),
        ("ones([2, 3]).matmul(ones([2, 3]))", "`matmul` cannot multiply shapes [2,3] and [2,3]"),
        ("gather(ones([2, 3]), ones([2, 1]) * 0.5)", "`gather`: 0.5 is not a whole number from 0 to 2"),
        ("stack([ones([1]), 2])", "`stack` takes an array of tensors, found the int 2 in it"),
        ("stack([ones([1]), ones([2])])", "`stack` takes tensors of one shape, found [1] and [2]"),
        ("concat([ones([1, 2]), ones([1, 3])])", "`concat` along axis 0 cannot join shapes [1,2] and [1,3]"),
        ("seq_sum(ones([2, 3]), ones([2, 4]))", "`seq_sum`: values of shape [2,3] do not fit the mask of shape [2,4]"),
        ("pair_diff(ones([3, 1]))", "`pair_diff` takes an even number of rows, found shape [3,1]"),
        ("advantage::group(ones([4]), 2)", "`advantage::group` takes one reward per row, shape [B,1], found [4]"),
        ("advantage::rloo(ones([4, 1]), 3)", "`advantage::rloo`: 4 rows do not divide into groups of 3"),
        ("advantage::group(tensor([[0], [1]]) / 0, 2)", "`advantage::group`: reward is NaN in row 0"),
        ("grad(mean(ones([2, 1])), ones([2, 1]))", "the loss does not depend on anything that can be differentiated"),
        ("let x = ones([1]).with_grad(); grad(sum(x), ones([1]))", "the loss does not depend on x, of shape [1]"),
        ("sum(ones([2, 2]), 2)", "`sum`: axis 2 of a tensor of shape [2,2]"),
    ] {
        let found = match *engine.eval::<Dynamic>(script).unwrap_err() {
            EvalAltResult::ErrorRuntime(token, _) => token.cast::<rhopo::Error>(),
            other => panic!("{script}: {other}"),
        };
        assert_eq!(found.what, expected, "{script}");
    }
}

#[test]
fn values_chain_print_and_compare_with_nothing() {
    let (engine, _) = engine();
    assert_eq!(
        engine.eval::<f64>("let x = tensor([[1, 2], [3, 4]]); x[1][0].item() + x[-1].exp().log()[0].item()").unwrap(),
        6.0
    );
    assert_eq!(engine.eval::<String>("`loss ${mean(tensor([1, 2]))}`").unwrap(), "loss Tensor [] f32 cpu 1.5000");
    assert_eq!(engine.eval::<String>("\"x \" + tensor(1)").unwrap(), "x Tensor [] f32 cpu 1");
    assert!(engine.eval::<bool>("let x = tensor([1]); x != () && !(x == ()) && !(() == x)").unwrap());
    // A second draw differs from the first; another session with the same seed repeats both.
    let draws = "[rand([3]).to_array(), rand([3]).to_array(), randn([2, 2]).to_array()]";
    let (first, second) = (engine.eval::<Dynamic>(draws).unwrap(), self::engine().0.eval::<Dynamic>(draws).unwrap());
    assert_eq!(first.to_string(), second.to_string());
    assert!(engine.eval::<bool>("rand([3]).to_array() != rand([3]).to_array()").unwrap());
    // A comparison is a tensor, and an `if` refuses it.
    assert!(engine.run("if tensor([1]) > 0 { print(1) }").is_err());
}
