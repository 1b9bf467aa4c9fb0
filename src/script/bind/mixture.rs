//! Mixtures of models in scripts: what `sample` draws from where several have a say.

use super::choices::Answering;
use super::encode::{AnyPrompts, read_prompts};
use super::model::{AnyModel, Frozen};
use crate::data::{Batch, Prompts};
use crate::engine::{Member, Mixing, MixtureRequest, ModelHandle, SampleOptions, SampleRequest};
use crate::error::{Error, Result};
use crate::run::{Session, Stream};
use crate::script::lang::native::{FromScript, Handle, OptionValue, Options, Place, Registry, Typed, number, options};
use crate::script::lang::value::describe;
use crate::tensor::Device;
use rhai::{Array, Dynamic, Map};
use std::any::TypeId;
use std::rc::Rc;

/// What `mixture` makes.
#[derive(Clone)]
pub struct Mixture {
    kind: Mixing,
    members: Rc<Vec<Part>>,
}

/// A member; without prompts of its own it reads those of the call.
struct Part {
    model: ModelHandle,
    prompts: Option<Prompts>,
    weight: f64,
}

impl Handle for Mixture {
    const NAME: &'static str = "Mixture";
    const RECEIVER: &'static str = "mixture";
}

options! {
    struct Kinds {
        /// geometric, the softmax of the weighted logits, or linear, the weighted mean of the probabilities
        kind: Mixing = Mixing::Geometric,
    }
}

impl OptionValue for Mixing {
    const TYPE: &'static str = "string";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match <String as OptionValue>::read(value, place)?.as_str() {
            "geometric" => Ok(Self::Geometric),
            "linear" => Ok(Self::Linear),
            other => Err(Error::unknown("kind of mixture", other, &["geometric", "linear"])),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Geometric => "\"geometric\"".into(),
            Self::Linear => "\"linear\"".into(),
        }
    }
}

pub fn register(reg: &mut Registry) {
    reg.handle::<Mixture>(|mixture| format!("Mixture({:?}, {} members)", mixture.kind, mixture.members.len()));
    reg.function("mixture", ["members", "options"], |Parts(parts): Parts, Options(Kinds { kind }): Options<Kinds>| {
        made(parts, kind)
    });
}

fn made(parts: Vec<Part>, kind: Mixing) -> Result<Mixture> {
    if parts.is_empty() {
        return Err(Error::value("mixture was given no member").hint(EXAMPLE));
    }
    if kind == Mixing::Linear {
        if let Some((i, part)) = parts.iter().enumerate().find(|(_, part)| part.weight < 0.0) {
            return Err(Error::value(format!("mixture: member {i} has the weight {}, which no share is", part.weight))
                .hint("weights of a linear mixture are 0 or more; a geometric one takes negative ones"));
        }
        if parts.iter().all(|part| part.weight == 0.0) {
            return Err(Error::value("mixture: all weights are 0").hint(EXAMPLE));
        }
    }
    Ok(Mixture { kind, members: Rc::new(parts) })
}

const EXAMPLE: &str = "mixture([#{ model: a, weight: 0.5 }, #{ model: b, weight: 0.5 }], #{ kind: \"linear\" })";

/// An array of maps.
struct Parts(Vec<Part>);

impl Typed for Parts {
    const TYPE: &'static str = "array";
}

impl FromScript for Parts {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let items = <Array as FromScript>::read(value, place)?;
        items.into_iter().enumerate().map(|(i, item)| part(i, item, place)).collect::<Result<_>>().map(Self)
    }
}

fn part(i: usize, item: Dynamic, place: Place<'_>) -> Result<Part> {
    let found = describe(&item);
    let wrong = |what: String| Error::value(format!("`mixture`: member {i} {what}")).hint(EXAMPLE);
    let map = item.try_cast::<Map>().ok_or_else(|| wrong(format!("must be a map, found {found}")))?;
    const KNOWN: [&str; 3] = ["model", "prompts", "weight"];
    if let Some(key) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Error::unknown(&format!("key of `mixture`, member {i}:"), key, &KNOWN));
    }
    let of = |key: &str| map.get(key).filter(|value| !value.is_unit()).cloned();
    let model = of("model").ok_or_else(|| wrong("has no `model`".into()))?;
    let AnyModel(model) = match model.is::<ModelHandle>() || model.is::<Frozen>() {
        true => <AnyModel as FromScript>::read(model, place)?,
        false => return Err(wrong(format!("has as its `model` {}", describe(&model)))),
    };
    let weight = of("weight").ok_or_else(|| wrong("has no `weight`".into()))?;
    let weight = match number(&weight).filter(|weight| (*weight as f32).is_finite()) {
        Some(weight) => weight,
        None => return Err(wrong(format!("has the weight {weight}, expected a finite number"))),
    };
    let prompts = of("prompts").map(|value| match value.try_cast_result::<AnyPrompts>() {
        Ok(AnyPrompts::Fresh(prompts)) => Ok(prompts),
        Ok(AnyPrompts::Reset(_)) => Err(wrong("has states of rows as its prompts, expected texts".into())),
        Err(value) => read_prompts(place.function, &value),
    });
    Ok(Part { model, prompts: prompts.transpose()?, weight })
}

/// Answers of the mixture; the rows have the prompts of the call.
pub(super) fn sample(session: &Session, mixture: &Mixture, prompts: &AnyPrompts, options: Answering) -> Result<Batch> {
    let special = options.special;
    let options = SampleOptions::from(options);
    let AnyPrompts::Fresh(prompts) = prompts else {
        return Err(Error::value("`sample`: a mixture goes on from prompts, not from states of rows"));
    };
    let model = &mixture.members[0].model;
    prompts.measure_origin(model, options.max_tokens, special)?;
    let ids = prompts.encode(model, special)?;
    let read = |(i, part): (usize, &Part)| {
        let own = match &part.prompts {
            None => prompts.encode(&part.model, special)?,
            Some(own) => own.encode(&part.model, special)?,
        };
        let all = match own.len() {
            1 => vec![own[0].clone(); ids.len()],
            n if n == ids.len() => own,
            n => {
                let expected = ids.len();
                return Err(Error::value(format!(
                    "`sample`: member {i} of the mixture has {n} prompts for {expected}"
                ))
                .hint("give a member one prompt for each of the call's, or a single one for all"));
            }
        };
        Ok(Member { model: part.model.clone(), prompts: all, weight: part.weight })
    };
    let members = mixture.members.iter().enumerate().map(read).collect::<Result<_>>()?;
    let (n, key) = (options.n, session.key(Stream::Sample));
    let sample = SampleRequest { call: "sample", model: model.clone(), prompts: ids, places: None, options, key };
    let samples = session.sample_mixture(&MixtureRequest { kind: mixture.kind, members, sample })?;
    Batch::from_samples(samples, prompts, n, &Device::Cpu)
}
