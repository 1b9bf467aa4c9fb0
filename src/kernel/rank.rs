//! Linear → rank: how many tokens are likelier than a given one, from a chunk of the logits h·Wᵀ at a time. Soft caps and
//! temperatures change no order, so none is asked for.

use super::awake::each_block;
use super::device::chunks::read_chunks;
use super::form::Routine;
use super::gemm::Packed;
use super::host;
use super::logprob::{Logits, ROWS, Targets};
use super::simd::simd;
use super::tape::{Tape, Var};
use super::value::Value;
use crate::error::Result;
use candle_core::DType;
use std::ops::Range;

/// For each pair of `targets` the rank of its token at its row of h `[U,H]` by W `[V,H]`: 0 for the likeliest, of equally
/// likely tokens the one of the lower id.
///
/// # Errors
/// An interruption; a device that has failed.
pub fn ranks(tape: &Tape, h: &Value, weight: &Value, targets: &Targets) -> Result<Vec<u32>> {
    let [h, weight] = [h, weight].map(|value| tape.constant(value.clone()));
    tape.run(Rank { tape, h: &h, weight: &weight, targets })
}

/// The rank of a token among a whole row of logits.
pub fn rank_of(logits: &[f32], token: usize) -> u32 {
    above(logits, logits[token], token)
}

struct Rank<'a> {
    tape: &'a Tape,
    h: &'a Var,
    weight: &'a Var,
    targets: &'a Targets,
}

/// What is done with a chunk of logits, row-major: its rows, its columns, the numbers.
pub(super) type Seen<'a> = dyn FnMut(Range<usize>, Range<usize>, &[f32]) + 'a;

impl Routine for Rank<'_> {
    type Out = Vec<u32>;

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        [&self.h.value, &self.weight.value]
    }

    fn host(self) -> Result<Vec<u32>> {
        let Self { tape, h, weight, targets } = self;
        let (h, numbers) = (host::read(h.tensor()?)?, host::read(weight.tensor()?)?);
        let logits = Logits::new(tape, &h, (weight, &numbers), None)?;
        counted(targets, |seen| {
            let (mut packed, mut z) = (Packed::scratch(), Vec::new());
            for columns in logits.columns() {
                let block = logits.block(columns, &mut packed);
                for chunk in block.chunks() {
                    tape.stop().check()?;
                    chunk.logits(&mut z);
                    seen(chunk.rows.clone(), block.columns.clone(), &z);
                }
            }
            Ok(())
        })
    }

    fn device(self) -> Result<Vec<u32>> {
        let Self { tape, h, weight, targets } = self;
        counted(targets, |seen| read_chunks(tape, [h, weight], seen))
    }

    fn plain(self) -> Result<Vec<u32>> {
        let Self { h, weight, targets, .. } = self;
        let (rows, vocabulary) = (h.value.dim(0)?, weight.value.dim(0)?);
        let logits = h.tensor()?.matmul(&weight.tensor()?.t()?)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        counted(targets, |seen| {
            seen(0..rows, 0..vocabulary, &logits);
            Ok(())
        })
    }
}

/// Goes through all logits twice: for those of the tokens, and for how many are above them.
fn counted(targets: &Targets, each: impl Fn(&mut Seen) -> Result<()>) -> Result<Vec<u32>> {
    let of = |rows: &Range<usize>| {
        let at = |row: usize| targets.rows.partition_point(|&r| (r as usize) < row);
        at(rows.start)..at(rows.end)
    };
    let mut own = vec![f32::NAN; targets.len()];
    each(&mut |rows, columns, z| {
        for pair in of(&rows) {
            let token = targets.tokens[pair] as usize;
            if columns.contains(&token) {
                let row = targets.rows[pair] as usize - rows.start;
                own[pair] = z[row * columns.len() + token - columns.start];
            }
        }
    })?;
    let mut ranks = vec![0; targets.len()];
    each(&mut |rows, columns, z| {
        let pairs = of(&rows);
        each_block(&mut ranks[pairs.clone()], ROWS, |i, block| {
            for (rank, pair) in block.iter_mut().zip(pairs.start + i * ROWS..) {
                let row = (targets.rows[pair] as usize - rows.start) * columns.len();
                // Of a token before these columns no place, of one behind them all places are before it.
                let token = targets.tokens[pair] as usize;
                let place = token.saturating_sub(columns.start).min(columns.len());
                let skip = usize::from(columns.contains(&token));
                let (before, behind) = z[row..row + columns.len()].split_at(place);
                *rank += at_least(before, own[pair]) + more(&behind[skip..], own[pair]);
            }
        });
    })?;
    Ok(ranks)
}

fn above(row: &[f32], z: f32, token: usize) -> u32 {
    at_least(&row[..token], z) + more(&row[token + 1..], z)
}

simd! {
    fn at_least(row: &[f32], z: f32) -> u32 {
        row.iter().map(|x| u32::from(*x >= z)).sum()
    }
}

simd! {
    fn more(row: &[f32], z: f32) -> u32 {
        row.iter().map(|x| u32::from(*x > z)).sum()
    }
}
