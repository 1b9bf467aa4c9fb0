//! Tensors as scripts meet them: every documented example, operators in every order, errors, and the objectives of
//! the design written in Rhai against the reference values and gradients.

use rhai::{Dynamic, Engine, EvalAltResult, Map, Scope};
use rhopo::engine::Settings;
use rhopo::run::Session;
use rhopo::script::bind;
use rhopo::script::registry::{Doc, Registry};
use rhopo::tensor::{DType, Device, Tensor};
use serde_json::Value;

fn engine() -> (Engine, Vec<Doc>) {
    let session = Session::new(Device::Cpu, Settings::default(), 0);
    let mut reg = Registry::new();
    bind::tensor::register(&mut reg, &session);
    bind::rl::register(&mut reg, &session);
    let mut engine = Engine::new();
    engine.set_max_expr_depths(0, 0);
    engine.set_fail_on_invalid_map_property(true);
    engine.register_fn("assert", |holds: bool| -> Result<(), Box<EvalAltResult>> {
        if holds { Ok(()) } else { Err("assertion failed".into()) }
    });
    let docs = reg.install(&mut engine);
    (engine, docs)
}

#[test]
fn every_function_is_documented_with_an_example_that_runs() {
    let (engine, docs) = engine();
    for doc in &docs {
        assert!(!doc.summary.is_empty() && doc.example.contains("assert("), "{}", doc.path());
        engine.run(doc.example).unwrap_or_else(|e| panic!("{}: {e}\n{}", doc.path(), doc.example));
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
        ("[1] > tensor([1])", "`>` takes tensors and numbers, found an array"),
        ("tensor([1]) + ()", "`+` takes tensors and numbers, found nothing"),
        (
            "zeros([2, -1])",
            "`zeros`: a shape is an array of at most 3 lengths that are not negative, like [4, 1]; found [2, -1]",
        ),
        ("arange(1 << 40)", "a tensor of shape [1,1099511627776] is too large: at most 2^28 numbers"),
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

/// The objectives of the design, by script name, as `fn loss` writes them.
const GAIN: &str = "fn gain(logp, b, lo, hi) {
    let ratio = exp(logp - b.old_logprob);
    min(ratio * b.advantage, clip(ratio, 1 - lo, 1 + hi) * b.advantage)
}
fn d(logp, b) { seq_sum(logp - b.ref_logprob, b.mask) }
";
const LOSSES: [(&str, &str); 34] = [
    ("sft", "-token_mean(logp, b.mask)"),
    ("reinforce", "-mean(seq_sum(logp * b.advantage, b.mask))"),
    ("rloo", "-mean(seq_sum(logp * b.advantage, b.mask))"),
    ("remax", "-mean(seq_sum(logp * b.advantage, b.mask))"),
    ("reinforce_pp", "-mean(seq_sum(gain(logp, b, cfg.clip, cfg.clip), b.mask))"),
    ("ppo", "-token_mean(gain(logp, b, cfg.clip, cfg.clip), b.mask)"),
    ("ppo_pp", "-token_mean(gain(logp, b, cfg.clip, cfg.clip), b.mask)"),
    ("dr_po", "-token_mean(gain(logp, b, cfg.clip, cfg.clip), b.mask)"),
    (
        "value_loss",
        "let near = clip(logp, b.old_value - cfg.value_clip, b.old_value + cfg.value_clip);
         0.5 * token_mean(max((logp - b.ret) ** 2, (near - b.ret) ** 2), b.mask)",
    ),
    (
        "ppo_penalty",
        "let l = logp - b.old_logprob; let ratio = exp(l);
         -token_mean(ratio * b.advantage - cfg.beta * (ratio - 1 - l), b.mask)",
    ),
    ("grpo", "seq_mean(cfg.beta * kl::k3(logp, b.ref_logprob) - gain(logp, b, cfg.clip, cfg.clip), b.mask)"),
    ("dr_grpo", "-const_mean(gain(logp, b, cfg.clip, cfg.clip), b.mask, cfg.max_tokens)"),
    ("dapo", "-token_mean(gain(logp, b, cfg.clip_low, cfg.clip_high), b.mask)"),
    ("grpo_plus", "-seq_mean(gain(logp, b, cfg.clip_low, cfg.clip_high), b.mask)"),
    (
        "gspo",
        "let s = exp(seq_avg(logp - b.old_logprob, b.mask));
         -mean(min(s * b.advantage, clip(s, 1 - cfg.clip_low, 1 + cfg.clip_high) * b.advantage))",
    ),
    ("rebel", "mean((pair_diff(seq_sum(logp - b.old_logprob, b.mask)) / cfg.eta - pair_diff(b.reward)) ** 2)"),
    ("refuel", "mean((pair_diff(seq_sum(logp - b.old_logprob, b.turn_mask)) / cfg.eta - pair_diff(b.future)) ** 2)"),
    ("dpo", "-mean(log_sigmoid(cfg.beta * pair_diff(d(logp, b))))"),
    (
        "cdpo",
        "let z = cfg.beta * pair_diff(d(logp, b)); let ls = cfg.label_smoothing;
         -mean((1 - ls) * log_sigmoid(z) + ls * log_sigmoid(-z))",
    ),
    ("ipo", "mean((pair_diff(d(logp, b)) - 1 / (2 * cfg.beta)) ** 2)"),
    ("rso", "mean(relu(1 - cfg.beta * pair_diff(d(logp, b))))"),
    (
        "slic",
        "let l = seq_sum(logp, b.mask);
         mean(relu(cfg.delta - pair_diff(l))) - cfg.lambda * mean(pair_first(l))",
    ),
    ("simpo", "-mean(log_sigmoid(cfg.beta * pair_diff(seq_avg(logp, b.mask)) - cfg.gamma))"),
    (
        "orpo",
        "let a = seq_avg(logp, b.mask);
         -mean(pair_first(a)) - cfg.lambda * mean(log_sigmoid(pair_diff(a - log1p(-exp(a)))))",
    ),
    (
        "cpo",
        "let l = seq_sum(logp, b.mask);
         -mean(log_sigmoid(cfg.beta * pair_diff(l))) - cfg.lambda * mean(pair_first(l))",
    ),
    (
        "apo_zero",
        "let z = cfg.beta * d(logp, b);
         mean(1 - sigmoid(pair_first(z)) + sigmoid(pair_second(z)))",
    ),
    ("apo_down", "let z = cfg.beta * d(logp, b); mean(sigmoid(pair_first(z)) + 1 - sigmoid(pair_diff(z)))"),
    (
        "kto",
        "let x = cfg.beta * (d(logp, b) - max(0, mean(b.kl_logratio)).detach());
         mean(where(b.label > 0, cfg.desirable * (1 - sigmoid(x)), cfg.undesirable * (1 - sigmoid(-x))))",
    ),
    ("cpl", "-mean(log_sigmoid(cfg.beta * pair_diff(seq_sum(logp * cfg.gamma ** arange(logp.shape[1]).to_f64(), b.mask))))"),
    (
        "discopop",
        "let z = cfg.beta * pair_diff(d(logp, b)); let g = sigmoid(z / cfg.tau);
         mean(-(1 - g) * log_sigmoid(z) + g * exp(-z))",
    ),
    ("awr", "-mean(seq_sum(logp * min(exp(b.advantage / cfg.beta), cfg.max_weight), b.mask))"),
    ("reward_model", "-mean(log_sigmoid(pair_diff(logp)))"),
    // Rows of the unified objective that need a group and the other row of a pair.
    (
        "gro/dpo",
        "let z = d(logp, b); let other = gather(z, b.other, 0);
         -sum(seq_sum(((1 - sigmoid(cfg.beta * b.label * (z - other))) * b.advantage).detach() * logp, b.mask)) / logp.shape[0]",
    ),
    (
        "gro/proposal",
        "let l = seq_avg(logp, b.mask); let w = 1 - sigmoid(sign(b.advantage) * advantage::rloo(l, cfg.group));
         -sum(seq_sum((w * exp(b.advantage / cfg.beta)).detach() * logp, b.mask)) / logp.shape[0]",
    ),
];

fn tensor(value: &Value, dtype: DType) -> Tensor {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    let dims = [rows.len(), rows[0].len()];
    let x = Tensor::from_vec_f64(rows.concat(), &dims, &Device::Cpu).unwrap();
    x.to_dtype(dtype).unwrap().with_tokens(dims[1] > 1)
}

/// `x` with NaN in every cell outside the mask.
fn poisoned(x: &Tensor, mask: &Tensor) -> Tensor {
    let cells = x.to_vec().unwrap().into_iter().zip(mask.to_vec().unwrap());
    let cells = cells.map(|(x, m)| if m == 0.0 { f64::NAN } else { x }).collect();
    Tensor::from_vec_f64(cells, x.dims(), &Device::Cpu).unwrap().to_dtype(x.dtype()).unwrap().with_tokens(x.is_tokens())
}

/// Runs every case that `LOSSES` has a body for, with NaN outside the mask if asked, and returns their number.
fn check_objectives(dtype: DType, tolerance: f64, poison: bool) -> usize {
    let (engine, _) = engine();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/objectives.json");
    let fixtures: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut cases = 0;
    for case in fixtures["losses"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let script = match (case["script"].as_str().unwrap(), case["call"].as_str().unwrap()) {
            ("gro", _) => format!("gro/{}", case["cfg"]["method"].as_str().unwrap()),
            (script, "loss") => script.to_string(),
            (_, call) => call.to_string(),
        };
        let Some((_, body)) = LOSSES.iter().find(|(found, _)| *found == script) else {
            assert!(script.starts_with("gro/"), "{script}");
            continue;
        };
        cases += 1;
        let mut b: Map = case["columns"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.into(), Dynamic::from(tensor(v, dtype))))
            .collect();
        let mut logp = tensor(&case["logp"], dtype);
        if poison && let Some(mask) = case["columns"].get("mask") {
            let mask = tensor(mask, dtype);
            logp = poisoned(&logp, &mask);
            for (_, column) in b.iter_mut().filter(|(name, _)| !name.ends_with("mask")) {
                let x = column.clone().cast::<Tensor>();
                if x.dims() == mask.dims() && mask.dims()[1] > 1 {
                    *column = Dynamic::from(poisoned(&x, &mask));
                }
            }
        }
        let logp = logp.with_grad();
        let rows = logp.dims()[0];
        let other = Tensor::from_vec((0..rows).map(|i| (i ^ 1) as f32).collect(), &[rows, 1], &Device::Cpu).unwrap();
        b.insert("other".into(), Dynamic::from(other));
        let number = |v: &Value| {
            v.as_i64().map(Dynamic::from).unwrap_or_else(|| v.as_f64().map_or(Dynamic::UNIT, Dynamic::from))
        };
        let cfg: Map = case["cfg"].as_object().unwrap().iter().map(|(k, v)| (k.into(), number(v))).collect();

        let ast = engine
            .compile(format!(
                "{GAIN}fn loss(logp, b, cfg) {{ {body} }}\nfn slope(logp, b, cfg) {{ grad(loss(logp, b, cfg), logp) }}"
            ))
            .unwrap();
        let call = |f: &str| {
            let arguments = (logp.clone(), b.clone(), cfg.clone());
            engine.call_fn::<Tensor>(&mut Scope::new(), &ast, f, arguments).unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        if let Some(expected) = case["loss"].as_f64() {
            let found = call("loss").item().unwrap();
            assert!(
                (found - expected).abs() <= tolerance * expected.abs().max(1.0),
                "{name}: loss {found}, not {expected}"
            );
        }
        let (found, expected) = (call("slope").to_vec().unwrap(), tensor(&case["grad"], DType::F64).to_vec().unwrap());
        let largest = expected.iter().fold(0.0f64, |a, b| a.max(b.abs())).max(1e-12);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= 10.0 * tolerance * largest,
                "{name}: gradient of cell {i} is {found}, not {expected}"
            );
        }
    }
    cases
}

#[test]
fn objectives_written_in_rhai_agree_with_the_reference_in_f64() {
    assert!(check_objectives(DType::F64, 1e-9, false) >= 32 * 9);
}

#[test]
fn objectives_written_in_rhai_agree_with_the_reference_in_f32() {
    check_objectives(DType::F32, 1e-4, false);
}

#[test]
fn objectives_do_not_see_what_stands_outside_the_mask() {
    check_objectives(DType::F64, 1e-9, true);
}

#[test]
fn the_overlong_penalty_of_the_library_agrees_with_the_reference() {
    let (engine, _) = engine();
    let source = include_str!("../stdlib/reward.rhai");
    let ast = engine.compile(source).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/objectives.json");
    let fixtures: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = fixtures["functions"].as_array().unwrap().iter().filter(|case| case["function"] == "reward::overlong");
    let mut count = 0;
    for case in cases {
        let number = |name: &str| case["args"][name].as_i64().unwrap();
        let arguments = (tensor(&case["args"]["length"], DType::F32), number("max"), number("cache"));
        let found: Tensor = engine.call_fn(&mut Scope::new(), &ast, "overlong", arguments).unwrap();
        assert_eq!(found.to_vec().unwrap(), tensor(&case["value"], DType::F64).to_vec().unwrap(), "{}", case["name"]);
        count += 1;
    }
    assert_eq!(count, 9);
}
