//! The schedules and diagnostics of the script library, against numbers worked out by hand.

use crate::common::host;
use rhopo::script::lang::loader::Source;

fn eval(text: &str) {
    let host = host();
    let text = format!("import \"std/schedule\" as schedule;\nimport \"std/diagnostics\" as diagnostics;\n{text}");
    let _ = host.eval(&Source { label: "case.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}"));
}

#[test]
fn schedules_begin_and_end_where_they_say() {
    eval(
        "assert_eq(schedule::linear(1, 4), 1.0);\nassert_eq(schedule::linear(4, 4), 0.25);\n\
         assert_eq(schedule::cosine(1, 4), 1.0);\nassert_close(schedule::cosine(3, 4), 0.5);\n\
         assert_close(schedule::cosine(4, 4), 0.5 - 0.25 * sqrt(2.0));\n\
         assert_eq(schedule::warmup(1, 4), 0.25);\nassert_eq(schedule::warmup(4, 4), 1.0);\n\
         assert_eq(schedule::warmup(9, 4), 1.0);\nassert_eq(schedule::warmup(1, 0), 1.0);",
    );
}

#[test]
fn the_coefficient_adapts_outside_a_factor_of_one_and_a_half() {
    eval(
        "assert_eq(schedule::adapt(0.4, 0.0066, 0.01), 0.2);\nassert_eq(schedule::adapt(0.4, 0.0067, 0.01), 0.4);\n\
         assert_eq(schedule::adapt(0.4, 0.0149, 0.01), 0.4);\nassert_eq(schedule::adapt(0.4, 0.0151, 0.01), 0.8);",
    );
}

#[test]
fn clipped_counts_the_tokens_without_a_gradient() {
    // Ratios 1.5, 0.5, 1.5 and 0.5 under A > 0, A > 0, A < 0 and A < 0; a ratio inside; a token outside the mask.
    eval(
        "let b = batch(#{ mask: [[1, 1, 1], [1, 1, 0], [1, 1, 1]], old_logprob: zeros([3, 3]),\n\
                          advantage: [[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 2.0]] });\n\
         let logp = log(tensor([[1.5, 0.5, 1.1], [1.5, 0.5, 0.5], [9.0, 0.1, 1.25]])).with_grad();\n\
         assert_close(diagnostics::clipped(logp, b, 0.2, 0.28), 2.0 / 8);\n\
         assert_close(diagnostics::clipped(logp, b, 0.2, 0.2), 3.0 / 8);\n\
         b.advantage = [1, -1, 0];\n\
         assert_close(diagnostics::clipped(logp, b, 0.2, 0.28), 2.0 / 8);\n\
         // The share of tokens whose loss has no gradient, as the loss itself says it.\n\
         let still = grad(script(\"dapo\").call(\"loss\", [logp, b, #{ clip_low: 0.2, clip_high: 0.28 }]), logp) == 0;\n\
         let alive = b.mask * (b.advantage != 0);\n\
         assert_close(seq_sum(still, alive), [[1.0], [1.0], [0.0]]);",
    );
}

#[test]
fn groups_of_equal_rewards_are_dead() {
    eval(
        "assert_close(diagnostics::dead_groups(tensor([[1], [1], [0], [1], [0.3], [0.3]]), 2), 2.0 / 3);\n\
         // The first reward of the second group is its mean: it is alive all the same.\n\
         assert_close(diagnostics::dead_groups(tensor([[0.1], [0.1], [0.1], [0.5], [0], [1]]), 3), 0.5);",
    );
}

#[test]
fn the_effective_sample_size_is_between_one_row_and_all() {
    eval(
        "let b = batch(#{ mask: ones([4, 2]), old_logprob: full([4, 2], -1.0).to_f64() });\n\
         assert_close(diagnostics::effective_sample_size(b.old_logprob, b), 4.0);\n\
         // Weights 1, 1, 2 and 0 (nearly): (Σ w)² / Σ w² = 16 / 6. Far larger ones do not overflow.\n\
         let apart = tensor([[0, 0], [0, 0], [0, 0.6931471805599453], [0, -200]], \"f64\");\n\
         assert_close(diagnostics::effective_sample_size(b.old_logprob + apart, b), 16.0 / 6);\n\
         assert_close(diagnostics::effective_sample_size(b.old_logprob + apart + 2000, b), 16.0 / 6);",
    );
}

#[test]
fn explained_variance_is_one_for_the_return_and_zero_for_a_constant() {
    eval(
        "let mask = tensor([[1, 1, 0], [1, 1, 1]]);\nlet ret = tensor([[1, 2, 900], [0, 1, 3]]);\n\
         assert_close(diagnostics::explained_variance(ret + 5, ret, mask), 1.0);\n\
         assert_close(diagnostics::explained_variance(0 * ret + 7, ret, mask), 0.0);\n\
         assert_close(diagnostics::explained_variance(-ret, ret, mask), -3.0);",
    );
}
