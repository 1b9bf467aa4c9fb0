//! Weights as values in scripts: gradients that are added and scaled, steps along one, snapshots, averages, mixes.

use crate::data::Batch;
use crate::engine::{self, Fisher, FisherRequest, Gradient, ModelHandle, Snapshot};
use crate::error::{Error, Result};
use crate::script::lang::native::{Call, FromScript, Handle, Number, Place, Registry, Typed, number};
use crate::script::lang::value::describe;
use rhai::{Array, Dynamic, FLOAT, INT};
use std::any::TypeId;

impl Handle for Fisher {
    const NAME: &'static str = "Fisher";
    const RECEIVER: &'static str = "f";
}

impl Handle for Snapshot {
    const NAME: &'static str = "Snapshot";
    const RECEIVER: &'static str = "s";
}

pub fn register(reg: &mut Registry) {
    reg.handle::<Snapshot>(|s| format!("Snapshot({}, {} parameters)", s.model.name, s.state.tensors.len()));
    reg.handle::<Fisher>(|f| {
        let FisherRequest { model, rows, .. } = f.request();
        format!("Fisher({}, {} rows)", model.name, rows.len())
    });
    operators(reg);
    reg.function("fisher", ["policy", "b"], |policy: ModelHandle, b: Batch| -> Result<Fisher> {
        let rows = b.require_rows("fisher")?;
        Fisher::new(&policy, rows, b.temperature(), &b.tensor("mask")?.to_vec()?)
    });
    reg.function("times", ["g"], |call: &Call, f: &mut Fisher, g: Gradient| f.times(&g, call.session.engine()));
    reg.function("shift", ["g", "c"], |call: &Call, model: &mut ModelHandle, g: Gradient, Number(c): Number| {
        engine::shift(call.session.engine(), model, &g, c)
    });
    reg.function("snapshot", [], |call: &Call, model: &mut ModelHandle| Snapshot::of(call.session.engine(), model));
    reg.function("restore", ["s"], |call: &Call, model: &mut ModelHandle, s: Snapshot| {
        s.restore(call.session.engine(), model)
    });
    reg.function("average", ["models", "weights"], |call: &Call, models: Models, weights: Weights| {
        engine::average(call.session.engine(), &models.0, &weights.0)
    });
    reg.function(
        "mix",
        ["policy", "share"],
        |call: &Call, model: &mut ModelHandle, policy: ModelHandle, Number(share): Number| {
            engine::mix(call.session.engine(), model, &policy, share)
        },
    );
}

/// A gradient or a number.
enum Factor {
    Gradient(Gradient),
    Number(f64),
}

impl Typed for Factor {
    const TYPE: &'static str = "Gradient | number";
}

impl FromScript for Factor {
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match number(&value) {
            Some(x) => Ok(Self::Number(x)),
            None => <Gradient as FromScript>::read(value, place).map(Self::Gradient),
        }
    }
}

fn operators(reg: &mut Registry) {
    let (g, int, float) = (TypeId::of::<Gradient>(), TypeId::of::<INT>(), TypeId::of::<FLOAT>());
    let (both, before, behind) = ([[g, g]], [[int, g], [float, g]], [[g, int], [g, float]]);
    reg.operator("+", &both, |call: &Call, a: Gradient, b: Gradient| a.plus(1.0, &b, call.session.engine()));
    reg.operator("-", &both, |call: &Call, a: Gradient, b: Gradient| a.plus(-1.0, &b, call.session.engine()));
    let scaled = [before, behind].concat();
    reg.operator("*", &scaled, |call: &Call, a: Factor, b: Factor| match (a, b) {
        (Factor::Gradient(g), Factor::Number(c)) | (Factor::Number(c), Factor::Gradient(g)) => {
            g.times(c, call.session.engine())
        }
        _ => Err(product()),
    });
    reg.operator("/", &behind, |call: &Call, a: Gradient, b: Number| match b.0 {
        0.0 => Err(Error::value("a gradient was divided by 0")),
        by => a.times(1.0 / by, call.session.engine()),
    });
    reg.hidden_on("-", ["x"], &[[g]], |call: &Call, x: Gradient| x.times(-1.0, call.session.engine()));
    // What a reader could take in two ways is refused by name.
    reg.hidden_on("*", ["a", "b"], &both, |_: Gradient, _: Gradient| -> Result<Gradient> { Err(product()) });
    for sign in ["+", "-"] {
        reg.hidden_on(sign, ["a", "b"], &scaled, move |_: Factor, _: Factor| -> Result<Gradient> {
            let what = format!("`{sign}` takes two gradients, found a gradient and a number");
            Err(Error::value(what).hint("a number scales a gradient: 0.5 * g"))
        });
    }
    reg.hidden_on("/", ["a", "b"], &[&both[..], &before].concat(), |_: Factor, _: Factor| -> Result<Gradient> {
        Err(Error::value("`/` divides a gradient by a number, and nothing by a gradient").hint("g / g.norm()"))
    });
}

fn product() -> Error {
    Error::value("`*` takes a gradient and a number, found two gradients").hint("their inner product is g.dot(h)")
}

/// An array of models.
struct Models(Vec<ModelHandle>);

impl Typed for Models {
    const TYPE: &'static str = "array";
}

impl FromScript for Models {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let items = <Array as FromScript>::read(value, place)?;
        let model = |item: Dynamic| {
            item.try_cast_result().map_err(|item| place.wrong("an array of models that load_model opened", &item))
        };
        items.into_iter().map(model).collect::<Result<_>>().map(Self)
    }
}

/// An array of numbers.
struct Weights(Vec<f64>);

impl Typed for Weights {
    const TYPE: &'static str = "array";
}

impl FromScript for Weights {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let items = <Array as FromScript>::read(value, place)?;
        let weight = |item: &Dynamic| {
            number(item).ok_or_else(|| {
                let (function, name) = (place.function, place.name);
                Error::value(format!("`{function}`: {name} must be numbers, found {} among them", describe(item)))
            })
        };
        items.iter().map(weight).collect::<Result<_>>().map(Self)
    }
}
