//! Models in scripts: loading, freezing, saving.

use crate::engine::{ModelHandle, OpenRequest};
use crate::error::{Error, Result};
use crate::model::{Adaptation, Head, LoraOptions, OpenOptions, SaveDtype};
use crate::run::{Session, Stream, device};
use crate::script::lang::native::{
    Call, FromScript, Handle, Number, OptionValue, Options, Place, Registry, Typed, options,
};
use crate::tensor::rng::Key;
use rhai::Dynamic;
use std::any::TypeId;

impl Handle for ModelHandle {
    const NAME: &'static str = "Model";
    const RECEIVER: &'static str = "model";
}

/// A model that only answers and scores; a type of its own, so that scripts cannot train it.
#[derive(Clone)]
pub struct Frozen(pub ModelHandle);

impl Handle for Frozen {
    const NAME: &'static str = "Frozen";
    const RECEIVER: &'static str = "judge";
}

/// Either of them, where a model is only asked: it is read as what it is in the engine.
#[derive(Debug, Clone)]
pub struct AnyModel(pub ModelHandle);

impl Typed for AnyModel {
    const TYPE: &'static str = "Model | Frozen";
}

impl FromScript for AnyModel {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<ModelHandle>(), TypeId::of::<Frozen>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.try_cast_result::<Frozen>() {
            Ok(Frozen(model)) => Ok(Self(model)),
            Err(value) => <ModelHandle as FromScript>::read(value, place).map(Self),
        }
    }
}

pub fn register(reg: &mut Registry) {
    reg.handle::<ModelHandle>(|model| model.to_string());
    reg.function("load_model", ["name", "options"], |call: &Call, name: String, Options(options): Options<Loading>| {
        load(call.session, &name, options)
    });
    reg.function("frozen", [], |call: &Call, model: &mut ModelHandle| call.session.engine().frozen(model));
    // Nothing about it can change: it is its own copy.
    reg.form([], |judge: &mut Frozen| judge.clone());
    reg.function("reference", [], |call: &Call, model: &mut ModelHandle| call.session.engine().reference(model));
    reg.function("merge", [], |call: &Call, model: &mut ModelHandle| call.session.engine().merge(model));
    reg.function("shifted", ["by"], |call: &Call, model: &mut ModelHandle, Number(by): Number| {
        call.session.engine().shifted(model, by)
    });
    reg.function(
        "save",
        ["dir", "options"],
        |call: &Call, model: &mut ModelHandle, dir: String, Options(options): Options<Saving>| -> Result<()> {
            call.session.engine().save(model, &call.session.access().write(&dir)?, options.dtype)
        },
    );
    reg.property("name", |model: &mut ModelHandle| model.name.clone());
    reg.form([], |judge: &mut Frozen| judge.0.name.clone());
    reg.property("parameters", |model: &mut ModelHandle| model.size);
    reg.form([], |judge: &mut Frozen| judge.0.size);
    reg.property("trained", |model: &mut ModelHandle| model.trained);
    reg.form([], |judge: &mut Frozen| judge.0.trained);
    reg.property("trainable", |model: &mut ModelHandle| model.trainable());
    reg.form([], |judge: &mut Frozen| judge.0.trainable());
}

options! {
    struct Loading {
        /// train a new adapter only, #{ rank, alpha, targets }: 16, 32 and ["all-linear"] unless given; targets are names of
        /// linear maps, like "q_proj" (of Phi-3: "qkv_proj", "gate_up_proj")
        lora: Option<Options<Lora>>,
        /// a folder with an adapter in PEFT's layout, to be trained on
        adapter: Option<String>,
        /// `value` (a number per token) or `score` (a number per row) in place of the language-model head; the stored
        /// one, or a new one. A value head begins as the stored score head. `lm+value` puts a value head beside the
        /// language model's: one trunk for policy and critic
        head: Option<Head>,
        /// random weights instead of the stored ones
        random: bool = false,
        /// cpu, cuda, cuda:N or auto; the run's device unless given
        device: Option<String>,
        /// the type that a GPU computes in, bf16 or f32; the run's unless given. Trained weights are f32 in both, and a CPU
        /// computes in f32
        dtype: Option<SaveDtype>,
    }
}

options! {
    struct Lora {
        /// the width of the adapter
        rank: usize = LoraOptions::default().rank,
        /// scales the adapter by alpha / rank
        alpha: f64 = LoraOptions::default().alpha,
        /// names of linear maps, like "q_proj"
        targets: Vec<String> = LoraOptions::default().targets,
    }
}

options! {
    pub(super) struct Saving {
        /// f32, f16 or bf16
        dtype: SaveDtype = SaveDtype::F32,
    }
}

impl OptionValue for Head {
    const TYPE: &'static str = "string";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match <String as OptionValue>::read(value, place)?.as_str() {
            "value" => Ok(Self::Value),
            "score" => Ok(Self::Score),
            "lm+value" => Ok(Self::LmValue),
            other => Err(Error::unknown("head", other, &["value", "score", "lm+value"])),
        }
    }
}

impl OptionValue for SaveDtype {
    const TYPE: &'static str = "string";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        Self::parse(&<String as OptionValue>::read(value, place)?)
    }

    fn written(&self) -> String {
        let name = match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        };
        format!("{name:?}")
    }
}

fn load(session: &Session, name: &str, options: Loading) -> Result<ModelHandle> {
    let Loading { lora, adapter, head, random, device: place, dtype } = options;
    let adaptation = match (lora, adapter) {
        (None, None) => Adaptation::None,
        (Some(Options(Lora { rank, alpha, targets })), None) => Adaptation::New(LoraOptions { rank, alpha, targets }),
        (None, Some(dir)) => Adaptation::Stored(session.access().read(&dir)?),
        (Some(_), Some(_)) => {
            return Err(Error::value(
                "`load_model`: `lora` starts a new adapter and `adapter` reads one: give one of them",
            ));
        }
    };
    let place = place.map_or(Ok(session.place()), |name| device::parse(&name))?;
    let compute = dtype.map(|dtype| dtype.compute(&place)).transpose()?;
    // A call that draws nothing takes no key, so that others keep theirs.
    let draws = random || head.is_some() || matches!(adaptation, Adaptation::New(_));
    let key = if draws { session.key(Stream::Init) } else { Key::new(session.seed()) };
    let compute = compute.unwrap_or(session.compute());
    let options = OpenOptions { random, head, adaptation, key, compute };
    let model = session.engine().open(&OpenRequest::Stored { name: session.access().read(name)?, options, place })?;
    session.opened(&model);
    for note in &model.notes {
        session.reporter().note(&format!("{name}: {note}"));
    }
    Ok(model)
}
