//! Batched decoding: prompts are run once, every answer of a prompt continues it, and rows that end leave at once.
//!
//! Owns the loop and when a row ends; `choose` picks tokens, `cache` attends. What is sampled depends on the key and
//! the row's place (prompt, sample) alone, not on which rows are decoded together.

use super::cache::{Cache, Caching, Prompts};
use super::choose::Choice;
use super::ends::Ends;
use super::mixture::Mixed;
use super::network::{Network, Sizes};
use crate::engine::handle::ModelHandle;
use crate::engine::request::{COLDEST, SampleOptions, SampleRequest, Samples};
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::gpu::{DType, Place};
use crate::kernel::awake::{awake, map_each};
use crate::kernel::softmax::Scored;
use crate::kernel::tape::Tape;
use crate::kernel::value::Value;
use crate::model::rows::{MOST_ROWS, Record, Row, Rows};
use crate::tensor::rng::Key;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

impl SampleOptions {
    fn check(&self, call: &str) -> Result<()> {
        let refuse = |name: &str, range: &str, found: String| {
            Err(Error::value(format!("{call}: {name} must be {range}, found {found}")))
        };
        let share = |p: f64| p > 0.0 && p <= 1.0;
        match self {
            s if s.n == 0 => refuse("n", "at least 1", "0".into()),
            s if s.max_tokens == 0 => refuse("max_tokens", "at least 1", "0".into()),
            s if !(s.temperature > 0.0 && s.temperature.is_finite()) => {
                refuse("temperature", "above 0 (for the most probable tokens: greedy: true)", s.temperature.to_string())
            }
            s if s.temperature < COLDEST => {
                let range = format!(
                    "at least {COLDEST:e}, below which logits leave f32 (for the most probable tokens: greedy: true)"
                );
                refuse("temperature", &range, format!("{:e}", s.temperature))
            }
            s if s.top_k == Some(0) => refuse("top_k", "at least 1", "0".into()),
            s if s.top_p.is_some_and(|p| !share(p)) => {
                refuse("top_p", "in (0, 1]", format!("{:?}", s.top_p.unwrap_or(0.0)))
            }
            s if s.min_p.is_some_and(|p| !(0.0..=1.0).contains(&p)) => {
                refuse("min_p", "in [0, 1]", format!("{:?}", s.min_p.unwrap_or(0.0)))
            }
            s if s.stop.iter().any(String::is_empty) => refuse("stop", "texts that are not empty", "\"\"".into()),
            _ => Ok(()),
        }
    }

    fn choice(&self) -> Choice {
        let Self { temperature, top_k, top_p, min_p, greedy, .. } = *self;
        Choice { temperature, top_k, top_p, min_p, greedy }
    }
}

/// One answer under way.
struct Answer {
    prompt: usize,
    key: Key,
    tokens: Vec<u32>,
    /// What the sampler saw at each token.
    seen: Vec<Scored>,
    finished: bool,
}

/// A decoder that has a say in every token, and what it reads before them: prompt by prompt, as the rows have theirs.
pub(super) struct Voice<'a> {
    pub(super) network: &'a dyn Network,
    pub(super) prompts: Vec<Arc<[u32]>>,
}

impl<'a> Voice<'a> {
    pub(super) fn new(network: &'a dyn Network, prompts: &[Vec<u32>]) -> Self {
        Self { network, prompts: prompts.iter().map(|p| Arc::from(&p[..])).collect() }
    }
}

/// Samples what `request` asks for from any decoder, a frozen one as well; of several by their mixture.
pub(super) fn sample(
    voices: &[Voice],
    mixed: Option<&Mixed>,
    request: &SampleRequest,
    settings: &Settings,
) -> Result<Samples> {
    let SampleRequest { call, prompts, places, options, .. } = request;
    options.check(call)?;
    let network = voices[0].network;
    let ends = Ends::new(network, &options.stop);
    let (places, choice) = (places.as_deref(), options.choice());
    let run = Run { call, voices, mixed, network, places, options, ends, choice, settings };
    for voice in voices {
        let each = voice.prompts.iter().enumerate();
        each.into_iter().try_for_each(|(i, prompt)| run.check_prompt(voice.network, i, prompt))?;
    }
    if network.tokenizer().is_none() && !options.stop.is_empty() {
        return Err(Error::value(format!("{call}: stop texts need a tokenizer, but the model has none"))
            .hint("leave `stop` out"));
    }
    let key = options.seed.map_or(request.key, Key::new);
    let prompts: Vec<Arc<[u32]>> = prompts.iter().map(|p| Arc::from(&p[..])).collect();
    let rows = prompts.len().saturating_mul(options.n);
    if rows > MOST_ROWS {
        let (prompts, n) = (prompts.len(), options.n);
        return Err(Error::value(format!("{call}: {prompts} prompts × n = {n} are {rows} rows, at most {MOST_ROWS}"))
            .hint("sample in several calls"));
    }
    let mut answers = Vec::with_capacity(rows);
    for wave in run.waves(rows)? {
        answers.extend(awake(network.place(), || run.decode(wave, key))?);
    }
    Ok(run.collect(answers, &prompts, &request.model))
}

struct Run<'a> {
    call: &'static str,
    voices: &'a [Voice<'a>],
    /// What several voices come to.
    mixed: Option<&'a Mixed>,
    /// The first voice's, whose tokens the rows hold.
    network: &'a dyn Network,
    /// The number of each prompt in the keys, where it is not its own.
    places: Option<&'a [usize]>,
    options: &'a SampleOptions,
    ends: Ends<'a>,
    choice: Choice,
    settings: &'a Settings,
}

impl Run<'_> {
    /// Answers decoded together: as many as keep the KV cache within its bytes.
    fn waves(&self, rows: usize) -> Result<Vec<Range<usize>>> {
        let place = self.network.place();
        let dtype = match place {
            Place::Host => DType::F32,
            Place::Gpu(_) => self.network.compute(),
        };
        let of = |network: &dyn Network| -> usize {
            let layers = (0..network.sizes().layers).map(|layer| network.heads(layer));
            layers.map(|heads| 2 * dtype.size() * heads.key * heads.dim).sum()
        };
        let token = self.voices.iter().map(|voice| of(voice.network)).sum::<usize>() as u64;
        let each = token * self.options.max_tokens as u64;
        let step = (self.settings.keep(place, 0)? / each.max(1)).clamp(1, rows.max(1) as u64) as usize;
        Ok((0..rows).step_by(step).map(|from| from..(from + step).min(rows)).collect())
    }

    /// The answers of `wave`: number i is answer i % n to prompt i / n.
    fn decode(&self, wave: Range<usize>, key: Key) -> Result<Vec<Answer>> {
        let n = self.options.n;
        let read: Vec<Prefix> =
            self.voices.iter().map(|voice| Prefix::of(voice, wave.clone(), n, self.settings)).collect::<Result<_>>()?;
        let mut streams = Vec::with_capacity(read.len());
        for (voice, prefix) in self.voices.iter().zip(&read) {
            streams.push(Stream::new(voice, prefix, self.options.max_tokens, self.settings)?);
        }
        let mut answers: Vec<Answer> = Vec::with_capacity(wave.len());
        for i in wave {
            let prompt = i / n;
            let place = self.places.map_or(prompt, |places| places[prompt]);
            let key = key.fold(place as u64).fold((i % n) as u64);
            answers.push(Answer { prompt, key, tokens: Vec::new(), seen: Vec::new(), finished: false });
        }
        let mut active: Vec<usize> = (0..answers.len()).collect();
        // Every answer starts from its prompt's logits.
        let first = streams.iter().map(|stream| stream.first(self.settings)).collect::<Result<Vec<_>>>()?;
        let at: Vec<&[usize]> = read.iter().map(|prefix| &prefix.at[..]).collect();
        self.choose(&mut answers, &mut active, (&first, &at), &mut streams)?;
        let each: Vec<usize> = (0..answers.len()).collect();
        while !active.is_empty() {
            self.settings.check()?;
            let ids: Arc<[u32]> =
                active.iter().map(|&a| *answers[a].tokens.last().expect("a token was chosen")).collect();
            let next = |stream: &mut Stream| {
                let length = |&a: &usize| stream.voice.prompts[answers[a].prompt].len() + answers[a].tokens.len();
                let positions: Vec<u32> = active.iter().map(|a| (length(a) - 1) as u32).collect();
                stream.next(ids.clone(), &positions, self.settings)
            };
            let logits = streams.iter_mut().map(next).collect::<Result<Vec<_>>>()?;
            let rows = vec![&each[..active.len()]; logits.len()];
            self.choose(&mut answers, &mut active, (&logits, &rows), &mut streams)?;
        }
        Ok(answers)
    }

    /// Chooses a token for each active answer by its row of each voice's logits, then lets those that ended leave.
    fn choose(
        &self,
        answers: &mut [Answer],
        active: &mut Vec<usize>,
        (logits, rows): (&[Value], &[&[usize]]),
        streams: &mut [Stream],
    ) -> Result<()> {
        let width = logits[0].dim(1)?;
        let numbers = logits.iter().map(Value::numbers).collect::<Result<Vec<_>>>()?;
        let numbers: Vec<&[f32]> = numbers.iter().map(|numbers| &**numbers).collect();
        let picks = map_each(active.len(), |i| {
            let answer = &answers[active[i]];
            let row = |voice: usize| &numbers[voice][rows[voice][i] * width..(rows[voice][i] + 1) * width];
            let u = answer.key.uniform(answer.tokens.len() as u64);
            match self.mixed {
                None => self.choice.pick(row(0), u),
                Some(mixed) => {
                    let rows: Vec<&[f32]> = (0..numbers.len()).map(row).collect();
                    self.choice.pick(&mixed.logits(&rows, self.choice.temperature), u)
                }
            }
        });
        let mut keep = Vec::with_capacity(active.len());
        for (&a, (token, scored)) in active.iter().zip(picks) {
            if !scored.logprob().is_finite() {
                return Err(Error::new(
                    Kind::NotFinite,
                    format!("{}: the logits for prompt {} are not finite", self.call, answers[a].prompt),
                )
                .hint("the weights have diverged: lower lr or max_norm, or load the model again"));
            }
            let answer = &mut answers[a];
            answer.tokens.push(token);
            answer.seen.push(scored);
            answer.finished = self.ends.reached(&answer.tokens);
            keep.push(!answer.finished && answer.tokens.len() < self.options.max_tokens);
        }
        if keep.contains(&false) {
            streams.iter_mut().for_each(|stream| stream.cache.retain(&keep));
            let mut keep = keep.iter();
            active.retain(|_| *keep.next().expect("one flag per answer"));
        }
        Ok(())
    }

    fn check_prompt(&self, network: &dyn Network, i: usize, prompt: &[u32]) -> Result<()> {
        let (call, max_tokens) = (self.call, self.options.max_tokens);
        let Sizes { context, vocabulary, .. } = network.sizes();
        if prompt.is_empty() {
            return Err(Error::value(format!("{call}: prompt {i} has no tokens"))
                .hint("a prompt needs at least one token to continue"));
        }
        if prompt.len() + max_tokens > context {
            return Err(Error::value(format!(
                "{call}: prompt {i} has {} tokens and max_tokens is {max_tokens}, but the model's context holds {context}",
                prompt.len()
            ))
            .hint("shorten the prompt or lower max_tokens"));
        }
        match prompt.iter().find(|&&id| id as usize >= vocabulary) {
            Some(id) => Err(Error::value(format!(
                "{call}: prompt {i} holds token {id}, but the vocabulary has {vocabulary} tokens"
            ))
            .hint("encode prompts with this model's own tokenizer")),
            None => Ok(()),
        }
    }

    fn collect(&self, answers: Vec<Answer>, prompts: &[Arc<[u32]>], model: &ModelHandle) -> Samples {
        let texts = answers.iter().map(|answer| self.ends.text(&answer.tokens)).collect();
        let finished = answers.iter().map(|a| a.finished).collect();
        let logprobs = answers.iter().map(|a| a.seen.iter().map(|token| token.logprob()).collect()).collect();
        let (id, version, temperature) = (model.id, model.version(), self.options.temperature);
        let row = |Answer { prompt, tokens, seen, .. }: Answer| {
            let prompt = prompts[prompt].clone();
            // Plain compositions score in candle's order of sums, which is not the sampler's; a mixture is no model that scores.
            if !self.settings.fused || self.mixed.is_some() {
                return Row::new(prompt, tokens);
            }
            Row::sampled(prompt, tokens, Record { model: id, version, temperature, tokens: seen })
        };
        Samples {
            rows: Rows::of(answers.into_iter().map(row).collect(), self.network.vocabulary()),
            logprobs,
            finished,
            texts,
            temperature,
        }
    }
}

/// What a voice reads before the answers of a wave.
struct Prefix {
    prompts: Prompts,
    /// Of each answer its prompt's number there: equal prompts are run once.
    at: Vec<usize>,
}

impl Prefix {
    fn of(voice: &Voice, wave: Range<usize>, n: usize, settings: &Settings) -> Result<Self> {
        let mut unique: Vec<Arc<[u32]>> = Vec::new();
        let mut place: BTreeMap<&[u32], usize> = BTreeMap::new();
        let at = wave
            .map(|i| {
                *place.entry(&voice.prompts[i / n]).or_insert_with(|| {
                    unique.push(voice.prompts[i / n].clone());
                    unique.len() - 1
                })
            })
            .collect();
        Ok(Self { prompts: Prompts::prefill(voice.network, &unique, settings)?, at })
    }
}

/// A voice under way.
struct Stream<'a> {
    voice: &'a Voice<'a>,
    prefix: &'a Prefix,
    cache: Box<dyn Cache + 'a>,
}

impl<'a> Stream<'a> {
    fn new(voice: &'a Voice<'a>, prefix: &'a Prefix, most: usize, settings: &Settings) -> Result<Self> {
        let network = voice.network;
        let heads = (0..network.sizes().layers).map(|layer| network.heads(layer)).collect();
        let tape = settings.tape(network.packs(), network.compute(), false).decoding();
        let mut cache = tape.run(Caching { prompts: &prefix.prompts, heads, rows: prefix.at.len(), most })?;
        prefix.at.iter().for_each(|&unique| cache.push(unique));
        Ok(Self { voice, prefix, cache })
    }

    /// The logits behind each prompt.
    fn first(&self, settings: &Settings) -> Result<Value> {
        let network = self.voice.network;
        let mut tape = settings.tape(network.packs(), network.compute(), false).decoding();
        network.logits(&mut tape, &self.prefix.prompts.last)
    }

    /// The logits behind one more token of each answer.
    fn next(&mut self, ids: Arc<[u32]>, positions: &[u32], settings: &Settings) -> Result<Value> {
        let network = self.voice.network;
        let mut tape = settings.tape(network.packs(), network.compute(), false).decoding();
        let cache = &mut self.cache;
        let attend = &mut |tape: &mut Tape, layer: usize, qkv| cache.attend(tape, layer, qkv);
        let hidden = network.hidden(&mut tape, ids, positions, attend)?;
        network.logits(&mut tape, &hidden.value)
    }
}
