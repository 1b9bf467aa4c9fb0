//! Each row of gro's table against the script of the method itself: the gradient with respect to the log-probs on random
//! batches, up to the constant that the table states. For rows without a script of their own a formula stands here.

use crate::common::{host, largest, max_gap};
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::Value;

const BATCHES: usize = 12;

/// A random batch with ragged rows, holes and sometimes an empty row, in f64; a is [B,1], at is [B,T].
const RANDOM: &str = "
    fn random(batch_number) {
        let B = [4, 8, 2, 6][batch_number % 4];
        let T = [5, 9, 3][batch_number % 3];
        let mask = (arange(T) < rand([B, 1]) * T) * (rand([B, T]) > 0.15);
        let logp = (-3 * rand([B, T]) - 0.05).to_f64();
        let near = |spread| logp + (spread * randn([B, T])).to_f64();
        let spread = if batch_number % 2 == 0 { 0.2 } else { 1.5 };
        let label = reshape(1 - 2 * (arange(B) % 2), [-1, 1]).to_f64();
        #{ logp: logp, mask: mask.to_f64(), old_logprob: near.call(spread), ref_logprob: near.call(spread),
           a: randn([B, 1]).to_f64(), at: randn([B, T]).to_f64() * mask, label: label,
           kl_logratio: (randn([B, 1]) + 0.3).to_f64(), B: B, T: T }
    }
    fn slope(name, b, cfg) {
        let x = b.logp.with_grad();
        grad(script(name).call(\"loss\", [x, b, cfg]), x)
    }";

fn eval(text: &str) -> Value {
    let host = host();
    let source = Source { label: "gro_row.rhai".into(), text: text.into() };
    to_json(&host.eval(&source).unwrap_or_else(|e| panic!("{text}\n{e:?}")))
}

fn numbers(rows: &Value) -> Vec<f64> {
    rows.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect()
}

/// `own` is an expression of b (what `random` makes) for the method's own gradient; `advantage` is what gro's batch has;
/// `cfg` is gro's. The first is `constant` times the second.
fn same_gradient(method: &str, own: &str, advantage: &str, cfg: &str, constant: f64) {
    let text = format!(
        "{RANDOM}
        let out = [];
        for i in 0..{BATCHES} {{
            let b = random(i);
            if [\"proposal\", \"proposal_token\", \"contrast\"].contains(\"{method}\") && b.B == 2 {{ continue; }}   // groups of one have no anchor
            let own = {own};
            b.advantage = {advantage};
            let cfg = {cfg};
            cfg.method = \"{method}\";
            out.push([own.to_array(), slope(\"gro\", b, cfg).to_array()]);
        }}
        out"
    );
    let found = eval(&text);
    let found = found.as_array().unwrap();
    assert!(found.len() >= BATCHES / 2);
    for (i, pair) in found.iter().enumerate() {
        let own = numbers(&pair[0]);
        let gro: Vec<f64> = numbers(&pair[1]).iter().map(|x| x * constant).collect();
        assert!(largest(&own) > 1e-4, "{method}, batch {i}: the method's own gradient is nothing");
        let gap = max_gap(&own, &gro);
        assert!(gap <= 1e-5 * largest(&own), "{method}, batch {i}: off by {gap}\n{own:?}\n{gro:?}");
    }
}

/// The own script reads `advantage` as well.
fn with_advantage(name: &str, advantage: &str, cfg: &str) -> String {
    format!("{{ let own = b; own.advantage = {advantage}; slope(\"{name}\", own, {cfg}) }}")
}

#[test]
fn rloo_is_a_row() {
    same_gradient("rloo", &with_advantage("rloo", "b.a", "#{}"), "b.a", "#{ beta: 1.0 }", 1.0);
}

#[test]
fn remax_is_a_row() {
    same_gradient("remax", &with_advantage("remax", "b.a", "#{}"), "b.a", "#{ beta: 1.0 }", 1.0);
}

#[test]
fn reinforce_pp_is_a_row() {
    let own = with_advantage("reinforce_pp", "b.at", "#{ clip: 0.2 }");
    same_gradient("reinforce_pp", &own, "b.at", "#{ beta: 1.0, clip: 0.2 }", 1.0);
}

#[test]
fn grpo_is_a_row() {
    let own = with_advantage("grpo", "b.a", "#{ clip: 0.2, beta: 0.0 }");
    let by_length = "b.a / max(seq_sum(b.mask, b.mask), 1)";
    same_gradient("grpo", &own, by_length, "#{ beta: 1.0, clip: 0.2 }", 1.0);
}

#[test]
fn dpo_is_a_row() {
    same_gradient("dpo", "slope(\"dpo\", b, #{ beta: 0.3 })", "b.label", "#{ beta: 0.3 }", 2.0 * 0.3);
}

#[test]
fn cpl_is_a_row() {
    let cfg = "#{ beta: 0.7, gamma: 0.9 }";
    let advantage = "b.label * 0.9 ** arange(b.T).to_f64()";
    same_gradient("cpl", &format!("slope(\"cpl\", b, {cfg})"), advantage, cfg, 2.0 * 0.7);
}

#[test]
fn kto_is_a_row() {
    let cfg = "#{ beta: 0.2, desirable: 1.0, undesirable: 1.4 }";
    same_gradient("kto", &format!("slope(\"kto\", b, {cfg})"), "b.label", cfg, 0.2);
}

#[test]
fn awr_is_a_row() {
    let own = with_advantage("awr", "b.a", "#{ beta: 0.7, max_weight: 1e9 }");
    same_gradient("awr", &own, "b.a", "#{ beta: 0.7 }", 1.0);
}

#[test]
fn alol_is_a_row() {
    let own = with_advantage("alol", "b.a", "#{ clip: 0.9 }");
    same_gradient("alol", &own, "b.a", "#{ beta: 1.0, clip: 0.9 }", 1.0);
}

/// Maximum likelihood of whole answers; sft.rhai itself averages over tokens.
#[test]
fn sft_is_the_likelihood_of_answers() {
    let own = "{ let x = b.logp.with_grad(); grad(-mean(seq_sum(x, b.mask)), x) }";
    same_gradient("sft", own, "0 * b.a", "#{ beta: 1.0 }", 1.0);
}

/// Σ_a π(a)·A(a), the paper's equation 31, estimated from another policy's samples: differentiated, not weighted.
#[test]
fn the_surrogate_is_the_expected_advantage() {
    let own = "{ let x = b.logp.with_grad(); grad(-mean(seq_sum(exp(x - b.old_logprob) * b.a, b.mask)), x) }";
    same_gradient("surrogate", own, "b.a", "#{ beta: 1.0 }", 1.0);
}

/// A row that has no other script, by hand from arrays: `w` is an expression of the answer's mean log-prob `l`, the mean
/// of its group's others `anchor`, the advantage `a` and the token's log-prob `token`; minus w·`v` over B is the gradient.
fn by_formula(method: &str, w: &str, v: &str) {
    let own = format!(
        "{{
        let n = b.B / 2;
        let rows = [];
        let means = seq_avg(b.logp, b.mask).to_array();
        let logp = b.logp.to_array();
        let given = b.a.to_array();
        for i in 0..b.B {{
            let others = 0.0;
            for j in (i / n) * n..(i / n + 1) * n {{ if j != i {{ others += means[j][0]; }} }}
            let l = means[i][0];
            let anchor = others / (n - 1);
            let a = given[i][0];
            let row = [];
            for token in logp[i] {{ row.push(-({w}) * ({v}) / b.B); }}
            rows.push(row);
        }}
        tensor(rows, \"f64\") * b.mask
    }}"
    );
    same_gradient(method, &own, "b.a", "#{ beta: 0.7, group: b.B / 2 }", 1.0);
}

#[test]
fn the_papers_own_idea_is_its_formula() {
    by_formula("proposal", "1.0 - 1.0 / (1.0 + exp(anchor - l))", "exp(a / 0.7)");
}

#[test]
fn its_token_form_is_its_formula() {
    by_formula("proposal_token", "1.0 - 1.0 / (1.0 + exp(anchor - token))", "exp(a / 0.7)");
}

#[test]
fn graded_contrast_is_its_formula() {
    let side = "(if a > 0.0 { 1.0 } else { -1.0 })";
    by_formula("contrast", &format!("1.0 - 1.0 / (1.0 + exp(-{side} * (l - anchor)))"), "a / 0.7");
}

#[test]
fn an_unknown_method_names_the_rows() {
    let host = host();
    let text =
        format!("{RANDOM} let b = random(0); b.advantage = b.a; slope(\"gro\", b, #{{ method: \"ppo\", beta: 1.0 }})");
    let error = host.eval(&Source { label: "gro_row.rhai".into(), text }).expect_err("no such row");
    let rows = r#"["alol", "awr", "contrast", "cpl", "dpo", "grpo", "kto", "proposal", "proposal_token", "reinforce_pp", "remax", "rloo", "sft", "surrogate"]"#;
    assert!(error.message.contains(&format!("unknown method ppo, expected one of {rows}")), "{}", error.message);
}
