//! GGUF files from models in the Hugging Face layout, by candle's own writer, as llama.cpp's converter makes them.

use crate::common::{fixtures, json};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use rhopo::tensor::rng::Key;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

/// Adds a random tensor: name, shape, mean, standard deviation.
type Add<'a> = dyn FnMut(String, &[usize], f64, f64) + 'a;

/// A file to be: tests change what they like before it is written.
#[derive(Clone)]
pub struct Gguf {
    pub metadata: BTreeMap<String, Value>,
    /// By their names in GGUF files.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Gguf {
    /// One of the fixture models, stored as `family`.
    pub fn fixture(name: &str, family: &str) -> Self {
        let folder = fixtures().join("models").join(name);
        let mut tensors = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
            let file = entry.file_name().unwrap().to_string_lossy();
            if file.starts_with("model") && file.ends_with(".safetensors") {
                tensors.extend(candle_core::safetensors::load(&entry, &Device::Cpu).unwrap());
            }
        }
        let mut made = Self::model(&json(&format!("models/{name}/config.json")), tensors, family);
        made.tokenizer(name);
        made
    }

    /// A random model of `family` with untied weights, and the tokens of the qwen2 fixture.
    pub fn random(family: &str, width: usize, heads: [usize; 2], dim: usize, inner: usize) -> Self {
        let (vocabulary, layers) = (384, 2);
        let config = serde_json::json!({
            "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads[0], "num_key_value_heads": heads[1], "head_dim": dim,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        });
        let mut tensors = BTreeMap::new();
        let mut draw = 0;
        let mut add = |name: String, dims: &[usize], mean: f64, std: f64| {
            draw += 1;
            let values =
                rhopo::tensor::Tensor::randn(dims, Key::new(3).fold(draw), &Device::Cpu).unwrap().to_vec().unwrap();
            let values: Vec<f32> = values.into_iter().map(|v| (mean + std * v) as f32).collect();
            tensors.insert(name, Tensor::from_vec(values, dims, &Device::Cpu).unwrap());
        };
        let linear = |name: String, dims: [usize; 2], add: &mut Add| {
            add(format!("{name}.weight"), &dims, 0.0, 1.2 / (dims[1] as f64).sqrt());
            if family == "qwen2" && ["q_proj", "k_proj", "v_proj"].iter().any(|p| name.ends_with(p)) {
                add(format!("{name}.bias"), &dims[..1], 0.0, 0.1);
            }
        };
        let (query, key) = (heads[0] * dim, heads[1] * dim);
        for i in 0..layers {
            let at = |name: &str| format!("model.layers.{i}.{name}");
            linear(at("self_attn.q_proj"), [query, width], &mut add);
            linear(at("self_attn.k_proj"), [key, width], &mut add);
            linear(at("self_attn.v_proj"), [key, width], &mut add);
            linear(at("self_attn.o_proj"), [width, query], &mut add);
            linear(at("mlp.gate_proj"), [inner, width], &mut add);
            linear(at("mlp.up_proj"), [inner, width], &mut add);
            linear(at("mlp.down_proj"), [width, inner], &mut add);
            add(at("input_layernorm.weight"), &[width], 1.0, 0.1);
            add(at("post_attention_layernorm.weight"), &[width], 1.0, 0.1);
            if family == "qwen3" {
                add(at("self_attn.q_norm.weight"), &[dim], 1.0, 0.1);
                add(at("self_attn.k_norm.weight"), &[dim], 1.0, 0.1);
            }
        }
        add("model.embed_tokens.weight".into(), &[vocabulary, width], 0.0, 0.15);
        add("lm_head.weight".into(), &[vocabulary, width], 0.0, 1.2 / (width as f64).sqrt());
        add("model.norm.weight".into(), &[width], 1.0, 0.1);
        let mut made = Self::model(&config, tensors, family);
        made.tokenizer("qwen2");
        made
    }

    fn model(config: &Json, tensors: impl IntoIterator<Item = (String, Tensor)>, family: &str) -> Self {
        let heads = config["num_attention_heads"].as_u64().unwrap() as usize;
        let kv_heads = config["num_key_value_heads"].as_u64().unwrap() as usize;
        let width = config["hidden_size"].as_u64().unwrap() as usize;
        let dim = config["head_dim"].as_u64().map_or(width / heads, |d| d as usize);
        let rope = |key: &str| config.get(key).or(config["rope_parameters"].get(key)).and_then(Json::as_f64);
        let theta = rope("rope_theta").unwrap();
        let mut made = Self { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
        made.set("general.architecture", Value::String(family.into()));
        made.set("general.dtype", Value::U32(0)); // candle's Qwen3 computes angles in f16 without it
        let mut count = |key: &str, n: usize| made.set(&format!("{family}.{key}"), Value::U32(n as u32));
        count("block_count", config["num_hidden_layers"].as_u64().unwrap() as usize);
        count("context_length", config["max_position_embeddings"].as_u64().unwrap() as usize);
        count("embedding_length", width);
        count("feed_forward_length", config["intermediate_size"].as_u64().unwrap() as usize);
        count("attention.head_count", heads);
        count("attention.head_count_kv", kv_heads);
        count("attention.key_length", dim);
        count("attention.value_length", dim);
        count("rope.dimension_count", dim);
        if let Some(window) = config["sliding_window"].as_u64() {
            count("attention.sliding_window", window as usize);
        }
        made.set(&format!("{family}.rope.freq_base"), Value::F32(theta as f32));
        let eps = config["rms_norm_eps"].as_f64().unwrap();
        made.set(&format!("{family}.attention.layer_norm_rms_epsilon"), Value::F32(eps as f32));
        if config["rope_scaling"]["rope_type"] == "llama3" {
            let factors = llama3_factors(&config["rope_scaling"], dim, theta);
            let n = factors.len();
            made.tensors.insert("rope_freqs.weight".into(), Tensor::from_vec(factors, n, &Device::Cpu).unwrap());
        }
        for (name, tensor) in tensors {
            let tensor = tensor.to_dtype(DType::F32).unwrap();
            let turned = family == "llama" && (name.contains("q_proj") || name.contains("k_proj"));
            let tensor = if turned { interleave(&tensor, dim) } else { tensor };
            made.tensors.insert(gguf_name(&name), tensor);
        }
        made
    }

    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.insert(key.into(), value);
    }

    /// The tokenizer of a fixture, as metadata.
    fn tokenizer(&mut self, fixture: &str) {
        let tokenizer = json(&format!("models/{fixture}/tokenizer.json"));
        let config = json(&format!("models/{fixture}/tokenizer_config.json"));
        let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
        let mut tokens: Vec<(u64, &str)> = vocab.iter().map(|(t, id)| (id.as_u64().unwrap(), t.as_str())).collect();
        tokens.sort_unstable();
        let special: Vec<&str> =
            tokenizer["added_tokens"].as_array().unwrap().iter().map(|t| t["content"].as_str().unwrap()).collect();
        let kinds = tokens.iter().map(|(_, t)| Value::I32(if special.contains(t) { 3 } else { 1 }));
        let merge = |m: &Json| Value::String(format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()));
        let merges = tokenizer["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
        let id = |name: &str| vocab.get(config[name].as_str()?).map(|id| Value::U32(id.as_u64().unwrap() as u32));
        self.set("tokenizer.ggml.model", Value::String("gpt2".into()));
        self.set("tokenizer.ggml.pre", Value::String("gpt-2".into()));
        self.set("tokenizer.ggml.token_type", Value::Array(kinds.collect()));
        self.set("tokenizer.ggml.merges", Value::Array(merges));
        self.set("tokenizer.ggml.eos_token_id", id("eos_token").unwrap());
        if let Some(id) = id("bos_token") {
            self.set("tokenizer.ggml.bos_token_id", id);
            self.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
        }
        if let Ok(template) =
            std::fs::read_to_string(fixtures().join("models").join(fixture).join("chat_template.jinja"))
        {
            self.set("tokenizer.chat_template", Value::String(template));
        }
        let tokens = tokens.into_iter().map(|(_, t)| Value::String(t.into())).collect();
        self.set("tokenizer.ggml.tokens", Value::Array(tokens));
    }

    /// The model whose numbers are those that a file in `format` holds.
    pub fn rounded(&self, format: GgmlDType) -> Self {
        let tensors = self.quantised(format).into_iter();
        let tensors = tensors.map(|(name, t)| (name, t.dequantize(&Device::Cpu).unwrap())).collect();
        Self { metadata: self.metadata.clone(), tensors }
    }

    fn quantised(&self, format: GgmlDType) -> Vec<(String, QTensor)> {
        let quantise = |(name, tensor): (&String, &Tensor)| {
            let fits = tensor.rank() == 2 && tensor.dims()[1] % format.block_size() == 0;
            (name.clone(), QTensor::quantize(tensor, if fits { format } else { GgmlDType::F32 }).unwrap())
        };
        self.tensors.iter().map(quantise).collect()
    }

    /// Writes the file, matrices in `format` where their rows hold whole blocks of it, everything else in f32.
    pub fn write(&self, path: &Path, format: GgmlDType) {
        let tensors = self.quantised(format);
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let metadata: Vec<(&str, &Value)> = self.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let mut file = std::fs::File::create(path).unwrap();
        gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    }
}

fn gguf_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let (layer, name) = name.strip_prefix("model.layers.").unwrap().split_once('.').unwrap();
    let (part, kind) = name.rsplit_once('.').unwrap();
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => panic!("{other} has no name in GGUF files"),
    };
    format!("blk.{layer}.{part}.{kind}")
}

/// Rows of each head, its two halves side by side → pair by pair: `[heads, 2, dim/2, …]` → `[heads, dim/2, 2, …]`.
fn interleave(x: &Tensor, dim: usize) -> Tensor {
    let dims = x.dims();
    let rest: usize = dims[1..].iter().product();
    let halves = x.reshape((dims[0] / dim, 2, dim / 2, rest)).unwrap();
    halves.transpose(1, 2).unwrap().contiguous().unwrap().reshape(dims).unwrap()
}

/// What each frequency is divided by, as the converter writes it for Llama 3.1 and later.
fn llama3_factors(scaling: &Json, dim: usize, theta: f64) -> Vec<f32> {
    let get = |key: &str| scaling[key].as_f64().unwrap();
    let (low, high, factor) = (get("low_freq_factor"), get("high_freq_factor"), get("factor"));
    let original = get("original_max_position_embeddings");
    let one = |i: usize| {
        let wave = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / dim as f64);
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor
        } else {
            let smooth = (original / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..dim / 2).map(|i| one(i) as f32).collect()
}
