//! Masked reductions, pairs, advantages, divergences and clipping in scripts; `pages/objectives.md` says what each means.

use super::convert::Operand;
use super::tensor::of_three;
use crate::error::Result;
use crate::rl::{self, advantage, divergence, mask, pairs};
use crate::script::lang::native::{Number, Registry};
use crate::tensor::{Tensor, ops};
use rhai::{Dynamic, Map};

pub fn register(reg: &mut Registry) {
    reductions(reg);
    pairs_of_rows(reg);
    reg.function("clip", ["x", "lo", "hi"], |x: Operand, lo: Operand, hi: Operand| {
        of_three([x, lo, hi], rl::clip, ops::CLIP.value)
    });
    divergences(reg);
    groups(reg);
    returns(reg);
}

type OfTwo = fn(&Tensor, &Tensor) -> Result<Tensor>;

fn reductions(reg: &mut Registry) {
    let all: [(&str, OfTwo); 5] = [
        ("seq_sum", mask::seq_sum),
        ("seq_avg", mask::seq_avg),
        ("seq_mean", mask::seq_mean),
        ("token_mean", mask::token_mean),
        ("whiten", mask::whiten),
    ];
    for (name, run) in all {
        reg.function(name, ["x", "mask"], move |x: Tensor, mask: Tensor| run(&x, &mask));
    }
    reg.function("const_mean", ["x", "mask", "len"], |x: Tensor, mask: Tensor, len: Number| {
        mask::const_mean(&x, &mask, len.0)
    });
    reg.function("at_last", ["r", "mask"], |r: Tensor, mask: Tensor| mask::at_last(&r, &mask));
}

type OfRows = fn(&Tensor) -> Result<Tensor>;

fn pairs_of_rows(reg: &mut Registry) {
    let all: [(&str, OfRows); 3] =
        [("pair_first", pairs::first), ("pair_second", pairs::second), ("pair_diff", pairs::diff)];
    for (name, run) in all {
        reg.function(name, ["x"], move |x: Tensor| run(&x));
    }
}

fn divergences(reg: &mut Registry) {
    let all: [(&str, OfTwo); 3] = [("kl::k1", divergence::k1), ("kl::k2", divergence::k2), ("kl::k3", divergence::k3)];
    for (path, run) in all {
        reg.function(path, ["logp", "ref"], move |logp: Tensor, reference: Tensor| run(&logp, &reference));
    }
}

type Grouped = fn(&Tensor, usize) -> Result<Tensor>;

fn groups(reg: &mut Registry) {
    reg.function("group_mean", ["x", "n"], |x: Tensor, n: usize| rl::group_mean(&x, n));
    let all: [(&str, Grouped); 4] = [
        ("advantage::group", advantage::group),
        ("advantage::group_center", advantage::group_center),
        ("advantage::rloo", advantage::rloo),
        ("advantage::max_rl", advantage::max_rl),
    ];
    for (path, run) in all {
        reg.function(path, ["reward", "n"], move |reward: Tensor, n: usize| run(&reward, n));
    }
}

fn returns(reg: &mut Registry) {
    reg.function(
        "advantage::gae",
        ["reward", "value", "mask", "gamma", "lambda"],
        |reward: Tensor, value: Tensor, mask: Tensor, gamma: Number, lambda: Number| -> Result<Map> {
            let out = advantage::gae(&reward, &value, &mask, gamma.0, lambda.0)?;
            Ok(Map::from([("advantage".into(), Dynamic::from(out.advantage)), ("ret".into(), Dynamic::from(out.ret))]))
        },
    );
    reg.function("advantage::to_go", ["reward", "mask", "gamma"], |reward: Tensor, mask: Tensor, gamma: Number| {
        advantage::to_go(&reward, &mask, gamma.0)
    });
}
