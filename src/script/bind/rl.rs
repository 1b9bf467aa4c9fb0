//! Masked reductions, pairs, advantages, divergences and clipping in scripts.

use crate::error::Result;
use crate::rl::{self, advantage, divergence, mask, pairs};
use crate::run::Session;
use crate::script::bind::convert::{Answer, at, count, float};
use crate::script::bind::tensor::ternary;
use crate::script::registry::{Doc, Registry};
use crate::tensor::{Tensor, ops};
use rhai::{Dynamic, INT, Map, NativeCallContext};
use std::rc::Rc;

pub fn register(reg: &mut Registry, _session: &Rc<Session>) {
    reductions(reg);
    on_tokens(reg);
    pairs_of_rows(reg);
    clipping(reg);
    divergences(reg);
    groups(reg);
    returns(reg);
}

type Masked = fn(&Tensor, &Tensor) -> Result<Tensor>;

fn reductions(reg: &mut Registry) {
    let all: [(&'static str, Masked, Doc); 5] = [
        (
            "seq_sum",
            mask::seq_sum,
            Doc::new("seq_sum(x: Tensor, mask: Tensor) -> Tensor", "The sum over each row's masked tokens, [B,1].")
                .example("let mask = tensor([[1, 1, 0], [1, 0, 0]]);\nassert(seq_sum(tensor([[1, 2, 3], [4, 5, 6]]), mask).to_array() == [[3.0], [4.0]]);"),
        ),
        (
            "seq_avg",
            mask::seq_avg,
            Doc::new("seq_avg(x: Tensor, mask: Tensor) -> Tensor", "The mean over each row's masked tokens, [B,1]; 0 for a row without any.")
                .example("let mask = tensor([[1, 1, 0], [0, 0, 0]]);\nassert(seq_avg(tensor([[1, 2, 3], [4, 5, 6]]), mask).to_array() == [[1.5], [0.0]]);"),
        ),
        (
            "seq_mean",
            mask::seq_mean,
            Doc::new("seq_mean(x: Tensor, mask: Tensor) -> Tensor", "The mean per answer, then over all B answers: every answer weighs the same.")
                .source("GRPO, Shao et al. 2024, arXiv:2402.03300, eq. 3")
                .example("let mask = tensor([[1, 1, 0], [1, 0, 0]]);\nassert(seq_mean(tensor([[1, 2, 3], [4, 5, 6]]), mask).item() == 2.75);"),
        ),
        (
            "token_mean",
            mask::token_mean,
            Doc::new("token_mean(x: Tensor, mask: Tensor) -> Tensor", "Σxm/Σm over the batch: every token weighs the same.")
                .source("DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 8")
                .example("let mask = tensor([[1, 1, 0], [1, 0, 0]]);\nassert(token_mean(tensor([[1, 2, 3], [6, 5, 6]]), mask).item() == 3.0);"),
        ),
        (
            "whiten",
            mask::whiten,
            Doc::new("whiten(x: Tensor, mask: Tensor) -> Tensor", "(x - mean)/(std + 1e-8) over the masked cells (biased variance), 0 outside the mask.")
                .example("let x = whiten(tensor([[1, 3, 99]], \"f64\"), tensor([[1, 1, 0]]));\nassert(max(abs(x - tensor([[-1, 1, 0]]))).item() < 1e-6);"),
        ),
    ];
    for (name, run, doc) in all {
        let doc = doc
            .param("x", "[B,T]", "values per token; [B,1] counts for every token of its row")
            .param("mask", "[B,T]", "1 where a token counts, 0 where what stands there does not matter")
            .errors("Shapes that differ.");
        reg.add(doc, |m| {
            m.set_native_fn(name, move |x: Tensor, mask: Tensor| Ok(run(&x, &mask)?));
        });
    }
}

fn on_tokens(reg: &mut Registry) {
    let doc = Doc::new(
        "const_mean(x: Tensor, mask: Tensor, len: number) -> Tensor",
        "Σxm/(B·len): divided by a constant, not by the answers' lengths.",
    )
    .source("Dr. GRPO, Liu et al. 2025, arXiv:2503.20783")
    .param("x", "[B,T]", "values per token")
    .param("mask", "[B,T]", "1 where a token counts")
    .param("len", "number, tokens", "usually the token limit of the samples")
    .errors("Shapes that differ, and a len that is not positive.")
    .example("let mask = tensor([[1, 1, 0], [1, 0, 0]]);\nassert(const_mean(ones([2, 3]), mask, 6).item() == 0.25);");
    reg.add(doc, |m| {
        m.set_native_fn("const_mean", |x: Tensor, mask: Tensor, len: Dynamic| {
            Ok(mask::const_mean(&x, &mask, float("const_mean", "len", &len)?)?)
        });
    });
    let doc = Doc::new("at_last(r: Tensor, mask: Tensor) -> Tensor", "Puts each row's number on its last masked token; 0 elsewhere, [B,T].")
        .param("r", "[B,1]", "such as the reward of each answer")
        .param("mask", "[B,T]", "1 where a token counts")
        .errors("An r that is not one number per row of the mask.")
        .example("let mask = tensor([[1, 1, 0], [1, 0, 0]]);\nassert(at_last(tensor([[5], [7]]), mask).to_array() == [[0.0, 5.0, 0.0], [7.0, 0.0, 0.0]]);");
    reg.add(doc, |m| {
        m.set_native_fn("at_last", |r: Tensor, mask: Tensor| Ok(mask::at_last(&r, &mask)?));
    });
}

fn pairs_of_rows(reg: &mut Registry) {
    type OfRows = fn(&Tensor) -> Result<Tensor>;
    let all: [(&'static str, OfRows, Doc); 3] = [
        (
            "pair_first",
            pairs::first,
            Doc::new("pair_first(x: Tensor) -> Tensor", "Rows 0, 2, 4, …: the first, or preferred, of each pair.")
                .example("assert(pair_first(tensor([[1], [2], [3], [4]])).to_array() == [[1.0], [3.0]]);"),
        ),
        (
            "pair_second",
            pairs::second,
            Doc::new("pair_second(x: Tensor) -> Tensor", "Rows 1, 3, 5, …: the second of each pair.")
                .example("assert(pair_second(tensor([[1], [2], [3], [4]])).to_array() == [[2.0], [4.0]]);"),
        ),
        (
            "pair_diff",
            pairs::diff,
            Doc::new("pair_diff(x: Tensor) -> Tensor", "The first of each pair minus the second.")
                .example("assert(pair_diff(tensor([[1], [2], [7], [4]])).to_array() == [[-1.0], [3.0]]);"),
        ),
    ];
    for (name, run, doc) in all {
        let doc =
            doc.param("x", "[B,1] or [B,T]", "pairs are adjacent rows 2k and 2k+1").errors("An odd number of rows.");
        reg.add(doc, |m| {
            m.set_native_fn(name, move |x: Tensor| Ok(run(&x)?));
        });
    }
}

fn clipping(reg: &mut Registry) {
    let doc = Doc::new("clip(x, lo, hi) -> Tensor", "x kept between lo and hi; the gradient passes inside and at the bounds.")
        .param("x", "tensor or number", "such as the ratio of policies")
        .param("lo, hi", "tensor or number", "bounds, numbers or tensors that broadcast with x")
        .errors("Shapes that do not fit each other; numbers as bounds of which the lower is above the upper.")
        .example("let x = tensor([0, 1, 2]);\nassert(clip(x, 0.5, 1).to_array() == [0.5, 1.0, 1.0]);\nassert(clip(x, -1, x - 1).to_array() == [-1.0, 0.0, 1.0]);\nassert(clip(7, 0, 5.0) == 5.0);");
    reg.add(doc, |m| ternary(m, "clip", rl::clip, ops::CLIP.value));
}

fn divergences(reg: &mut Registry) {
    let all: [(&'static str, Masked, Doc); 3] = [
        (
            "k1",
            divergence::k1,
            Doc::new("kl::k1(logp: Tensor, ref: Tensor) -> Tensor", "logp - ref: unbiased, of high variance, negative at times.")
                .example("assert(kl::k1(tensor([[-1]]), tensor([[-3]])).to_array() == [[2.0]]);"),
        ),
        (
            "k2",
            divergence::k2,
            Doc::new("kl::k2(logp: Tensor, ref: Tensor) -> Tensor", "(logp - ref)²/2: biased; in expectation its gradient is the divergence's.")
                .example("assert(kl::k2(tensor([[-1]]), tensor([[-3]])).to_array() == [[2.0]]);"),
        ),
        (
            "k3",
            divergence::k3,
            Doc::new("kl::k3(logp: Tensor, ref: Tensor) -> Tensor", "e^(ref - logp) - (ref - logp) - 1: unbiased and never negative.")
                .example("let same = tensor([[-1, -2]]);\nassert(kl::k3(same, same).to_array() == [[0.0, 0.0]]);\nassert(min(kl::k3(same, same * 2)).item() > 0.0);"),
        ),
    ];
    for (name, run, doc) in all {
        let doc = doc
            .param("logp", "[B,T]", "log-probabilities of the sampled tokens under the policy")
            .param("ref", "[B,T]", "the same tokens' under the reference")
            .errors("Shapes that differ.")
            .source("Schulman 2020, Approximating KL divergence");
        reg.add_to("kl", doc, |m| {
            m.set_native_fn(name, move |ctx: NativeCallContext, logp: Tensor, reference: Tensor| {
                run(&logp, &reference).map_err(|e| at(&ctx, e))
            });
        });
    }
}

fn groups(reg: &mut Registry) {
    type Grouped = fn(&Tensor, usize) -> Result<Tensor>;
    let all: [(&'static str, Grouped, Doc); 4] = [
        (
            "group",
            advantage::group,
            Doc::new("advantage::group(reward: Tensor, n: int) -> Tensor", "(r - mean)/(std + 1e-4) within each group, Bessel-corrected.")
                .source("GRPO, Shao et al. 2024, arXiv:2402.03300")
                .example("let a = advantage::group(tensor([[0], [1], [5], [5]]), 2);\nassert(abs(a[1].item() - 0.707) < 1e-3);\nassert(a[2].item() == 0.0);"),
        ),
        (
            "group_center",
            advantage::group_center,
            Doc::new("advantage::group_center(reward: Tensor, n: int) -> Tensor", "r - mean within each group.")
                .source("Dr. GRPO, Liu et al. 2025, arXiv:2503.20783")
                .example("assert(advantage::group_center(tensor([[0], [1], [5], [5]]), 2).to_array() == [[-0.5], [0.5], [0.0], [0.0]]);"),
        ),
        (
            "rloo",
            advantage::rloo,
            Doc::new("advantage::rloo(reward: Tensor, n: int) -> Tensor", "r minus the mean of the other rewards of its group.")
                .source("RLOO, Ahmadian et al. 2024, arXiv:2402.14740")
                .example("assert(advantage::rloo(tensor([[0], [1], [2]]), 3).to_array() == [[-1.5], [0.0], [1.5]]);"),
        ),
        (
            "max_rl",
            advantage::max_rl,
            Doc::new(
                "advantage::max_rl(reward: Tensor, n: int) -> Tensor",
                "(r - mean)/mean within each group, 0 where the mean is not positive: hard prompts weigh more.",
            )
            .source("MaxRL, Tajwar et al. 2026, arXiv:2602.02710")
            .example("assert(advantage::max_rl(tensor([[0], [1], [0], [0]]), 2).to_array() == [[-1.0], [1.0], [0.0], [0.0]]);"),
        ),
    ];
    for (name, run, doc) in all {
        let path = doc.signature.split('(').next().unwrap_or(name);
        let doc = doc
            .param("reward", "[B,1]", "the answers to one prompt are n adjacent rows")
            .param("n", "int, rows", "answers per prompt, at least 2")
            .errors("n below 2, rows that do not divide into groups of n, a reward that is NaN or infinite (names the row).");
        reg.add_to("advantage", doc, |m| {
            m.set_native_fn(name, move |ctx: NativeCallContext, reward: Tensor, n: INT| {
                count(path, "n", n).and_then(|n| run(&reward, n)).map_err(|e| at(&ctx, e))
            });
        });
    }
}

fn returns(reg: &mut Registry) {
    let doc = Doc::new("advantage::gae(reward, value, mask, gamma, lambda) -> map", "Generalised advantage estimation: #{ advantage, ret }, both [B,T].")
        .source("Schulman et al. 2015, arXiv:1506.02438, eq. 16")
        .param("reward", "[B,T]", "reward per token")
        .param("value", "[B,T]", "the value function's estimate before each token")
        .param("mask", "[B,T]", "tokens outside it are skipped: value and trace pass through them")
        .param("gamma", "number", "discount per token")
        .param("lambda", "number", "0: one step ahead, 1: all the rest of the answer")
        .errors("Shapes that differ; a masked reward or value that is not finite (names the row).")
        .example("let out = advantage::gae(tensor([[0, 1]]), tensor([[0.5, 0.25]]), ones([1, 2]), 1, 1);\nassert(out.advantage.to_array() == [[0.5, 0.75]]);\nassert(out.ret.to_array() == [[1.0, 1.0]]);");
    reg.add_to("advantage", doc, |m| {
        m.set_native_fn(
            "gae",
            |ctx: NativeCallContext,
             reward: Tensor,
             value: Tensor,
             mask: Tensor,
             gamma: Dynamic,
             lambda: Dynamic|
             -> Answer<Map> {
                let number = |name: &str, value: &Dynamic| float("advantage::gae", name, value);
                let run =
                    || advantage::gae(&reward, &value, &mask, number("gamma", &gamma)?, number("lambda", &lambda)?);
                let out = run().map_err(|e| at(&ctx, e))?;
                Ok(Map::from([
                    ("advantage".into(), Dynamic::from(out.advantage)),
                    ("ret".into(), Dynamic::from(out.ret)),
                ]))
            },
        );
    });
    let doc = Doc::new(
        "advantage::to_go(reward: Tensor, mask: Tensor, gamma: number) -> Tensor",
        "The discounted sum of this and all later masked rewards, [B,T].",
    )
    .param("reward", "[B,T]", "reward per token")
    .param("mask", "[B,T]", "tokens outside it are skipped and get 0")
    .param("gamma", "number", "discount per token")
    .errors("Shapes that differ; a masked reward that is not finite (names the row).")
    .example("assert(advantage::to_go(tensor([[1, 2, 4]]), ones([1, 3]), 0.5).to_array() == [[3.0, 4.0, 4.0]]);");
    reg.add_to("advantage", doc, |m| {
        m.set_native_fn("to_go", |ctx: NativeCallContext, reward: Tensor, mask: Tensor, gamma: Dynamic| {
            let gamma = float("advantage::to_go", "gamma", &gamma);
            gamma.and_then(|gamma| advantage::to_go(&reward, &mask, gamma)).map_err(|e| at(&ctx, e))
        });
    });
}
