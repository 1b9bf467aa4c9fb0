//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): y = W·x + s·B·(A·x), s = alpha / rank, in PEFT's layout.
//!
//! Owns `adapter_config.json`, the names and shapes of A and B, and their first values; which maps are adapted is
//! `targets`' affair. The decoder computes with them; `open` and `save` read and write the files.

mod targets;

use super::config::{Config, Layout, Linear, VALUE_HEAD};
use super::trunk::Head;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::tensor::rng::Key;
use candle_core::Tensor;
use serde_json::{Map, Value, json};
use targets::Targets;

/// What the names in an adapter's file begin with.
pub const PREFIX: &str = "base_model.model.";

/// Every linear map of the layers.
const ALL: &str = "all-linear";

/// Keys of `adapter_config.json` that do not change what an adapter computes.
const WITHOUT_EFFECT: [&str; 16] = [
    "auto_mapping",
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
    "init_lora_weights",
    "bias",
    "ephemeral_gpu_offload",
    "runtime_config",
];

/// What to start a new adapter with.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraOptions {
    pub rank: usize,
    /// Scales the adapter by alpha / rank.
    pub alpha: f64,
    /// Names of linear maps (`q_proj`), or `all-linear`.
    pub targets: Vec<String>,
}

impl Default for LoraOptions {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, targets: vec![ALL.into()] }
    }
}

/// An adapter's configuration, checked against the model that it adapts.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub rank: usize,
    pub alpha: f64,
    /// Scales by alpha / √rank instead (Kalajdzievski 2023, arXiv:2312.03732).
    pub rank_stabilised: bool,
    targets: Targets,
    /// The model that it was made for, as the file names it.
    pub base: Option<String>,
    /// Weights of the model itself that the adapter's file replaces: embeddings that were trained beside it.
    pub replaced: Vec<String>,
    /// The file as it was, carried through to `save`.
    source: Map<String, Value>,
}

impl Adapter {
    /// # Errors
    /// Rank 0 or beyond what the weights can use, an alpha that is not positive, a target that the model does not have.
    pub fn new(options: &LoraOptions, config: &Config, base: String) -> Result<Self> {
        if options.targets.is_empty() {
            return Err(Error::value("lora: targets is empty: nothing would be trained").hint(format!(
                "the linear maps of {}: {}, or all-linear",
                config.architecture,
                config.modules().join(", ")
            )));
        }
        let all = options.targets.iter().any(|target| target == ALL);
        let mut names = if all { config.modules() } else { options.targets.clone() };
        names.sort();
        names.dedup();
        let adapter = Self {
            rank: options.rank,
            alpha: options.alpha,
            rank_stabilised: false,
            targets: Targets::named(names),
            base: Some(base),
            replaced: Vec::new(),
            source: Map::new(),
        };
        adapter.check(config)?;
        adapter.targets.check_each(config)?;
        Ok(adapter)
    }

    /// Reads the object of an `adapter_config.json`.
    ///
    /// # Errors
    /// Another kind of adapter than LoRA, a feature that is not computed, targets that the model does not have.
    pub fn from_json(value: &Value, config: &Config) -> Result<Self> {
        let source = value.as_object().ok_or_else(|| Error::model("adapter_config.json does not hold an object"))?;
        let text = |key: &str| source.get(key).and_then(Value::as_str);
        match text("peft_type") {
            Some("LORA") => {}
            other => {
                return Err(Error::model(format!(
                    "adapter_config.json: peft_type is {}, expected LORA",
                    other.unwrap_or("missing")
                )));
            }
        }
        let number = |key: &str| {
            source.get(key).and_then(Value::as_f64).ok_or_else(|| {
                Error::model(format!("adapter_config.json: {key} is not a number"))
                    .hint("it must hold r and lora_alpha")
            })
        };
        refuse_unsupported(source, config)?;
        let adapter = Self {
            rank: number("r")?.max(0.0) as usize,
            alpha: number("lora_alpha")?,
            rank_stabilised: source.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            targets: Targets::read(source, config)?,
            base: text("base_model_name_or_path").map(str::to_string),
            replaced: Vec::new(),
            source: source.clone(),
        };
        adapter.check(config)?;
        Ok(adapter)
    }

    /// The object of `adapter_config.json` to write.
    pub fn to_json(&self, config: &Config) -> Value {
        let mut out = self.source.clone();
        let (task, head) = match config.head {
            Head::Lm | Head::LmValue => ("CAUSAL_LM", None),
            Head::Score => ("SEQ_CLS", Some(config.names.score_head)),
            Head::Value => ("TOKEN_CLS", Some(config.names.value_head)),
        };
        let settings = [
            ("peft_type", json!("LORA")),
            ("task_type", json!(task)),
            ("base_model_name_or_path", json!(self.base)),
            ("r", json!(self.rank)),
            ("lora_alpha", if self.alpha.fract() == 0.0 { json!(self.alpha as i64) } else { json!(self.alpha) }),
            ("lora_dropout", json!(0.0)),
            ("bias", json!("none")),
            ("use_rslora", json!(self.rank_stabilised)),
            ("fan_in_fan_out", json!(config.names.layout == Layout::InOut)),
            ("target_modules", self.targets.to_json()),
            ("modules_to_save", head.map_or(Value::Null, |head| json!([head]))),
            ("inference_mode", json!(true)),
        ];
        for (key, value) in settings {
            out.insert(key.into(), value);
        }
        // PEFT has no task of both heads, and reads over a key that it does not know.
        match config.head == Head::LmValue {
            true => drop(out.insert(VALUE_HEAD.into(), json!(true))),
            false => drop(out.shift_remove(VALUE_HEAD)),
        }
        Value::Object(out)
    }

    /// s
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// Whether the map of that name is adapted.
    pub fn adapts(&self, linear: &str) -> bool {
        self.targets.hold(linear)
    }

    /// The adapted maps of all layers.
    pub fn linears(&self, config: &Config) -> Vec<Linear> {
        (0..config.blocks.len())
            .flat_map(|layer| config.linears(layer))
            .filter(|linear| self.adapts(&linear.name))
            .collect()
    }

    /// Name and shape of A `[rank,in]` and B `[out,rank]` of every adapted map, sorted by name.
    pub fn parameters(&self, config: &Config) -> Vec<(String, Vec<usize>)> {
        let pair = |linear: Linear| {
            let [a, b] = names(&linear.name);
            [(a, vec![self.rank, linear.inputs]), (b, vec![linear.outputs, self.rank])]
        };
        let mut all: Vec<_> = self.linears(config).into_iter().flat_map(pair).collect();
        all.sort();
        all
    }

    fn check(&self, config: &Config) -> Result<()> {
        let most = config.hidden_size.min(config.blocks[0].mlp.width);
        if self.rank == 0 || self.rank > most {
            return Err(Error::value(format!("lora: rank is {}, expected 1 to {most}", self.rank))
                .hint("a rank above the width adapts nothing more than the weights themselves"));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(Error::value(format!("lora: alpha is {}, expected a positive number", self.alpha)));
        }
        match self.linears(config).is_empty() {
            true => Err(self.targets.unmatched(config)),
            false => Ok(()),
        }
    }
}

/// Whether an adapter was trained beside a value head and a language model's.
pub(super) fn has_value_head(source: &Value) -> bool {
    source.get(VALUE_HEAD) == Some(&Value::Bool(true))
}

/// A folder by its absolute path: the adapter will be opened from elsewhere.
pub(super) fn lasting(base: &Location) -> String {
    let found = files::real(base).and_then(|path| path.to_str().map(str::to_string));
    found.unwrap_or_else(|| base.display().to_string())
}

/// The names of A and B of a map.
pub fn names(linear: &str) -> [String; 2] {
    [format!("{linear}.lora_A.weight"), format!("{linear}.lora_B.weight")]
}

/// A's and B's first numbers: A uniform in ±1/√in, B zero, so that a new adapter changes nothing (section 4.1).
pub fn first_values(name: &str, shape: &[usize], key: Key) -> Vec<f32> {
    let count = shape.iter().product::<usize>();
    if name.ends_with(".lora_B.weight") {
        return vec![0.0; count];
    }
    let bound = 1.0 / (shape[1] as f64).sqrt();
    (0..count as u64).map(|i| ((2.0 * key.uniform(i) - 1.0) * bound) as f32).collect()
}

/// W + s·B·A in the weight's own layout.
pub fn merged(weight: &Tensor, a: &Tensor, b: &Tensor, scale: f64, layout: Layout) -> Result<Tensor> {
    let change = (b.matmul(a)? * scale)?;
    let change = match layout {
        Layout::OutIn => change,
        Layout::InOut => change.t()?,
    };
    Ok((weight + change)?.contiguous()?)
}

fn refuse_unsupported(source: &Map<String, Value>, config: &Config) -> Result<()> {
    let read = [
        "r",
        "lora_alpha",
        "use_rslora",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        VALUE_HEAD,
    ];
    let refuse = |key: &str, value: &Value| {
        Err(Error::model(format!("adapter_config.json: {key} = {value} is not supported"))
            .hint("supported: plain LoRA, one rank and alpha for all targets, without biases"))
    };
    for (key, value) in source {
        let key = key.as_str();
        match key {
            "bias" if value.as_str().is_some_and(|bias| bias != "none") => return refuse(key, value),
            // Others change the base weights themselves, which the adapter's file does not hold.
            "init_lora_weights" if value.as_str().is_some_and(|kind| !["gaussian", "orthogonal"].contains(&kind)) => {
                return refuse(key, value);
            }
            "modules_to_save" => {
                let heads = [config.names.score_head, config.names.value_head];
                let fine = |name: &Value| {
                    !config.head.has(Head::Lm)
                        && name.as_str().is_some_and(|name| heads.contains(&name) || name == "classifier")
                };
                if value.as_array().is_some_and(|names| !names.iter().all(fine)) {
                    return refuse(key, value);
                }
            }
            _ => {}
        }
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !off && !read.contains(&key) && !WITHOUT_EFFECT.contains(&key) {
            return refuse(key, value);
        }
    }
    Ok(())
}
