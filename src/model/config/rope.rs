//! How `config.json` states the rotary embedding: in transformers 4 `rope_theta` and `rope_scaling`, in transformers 5
//! `rope_parameters`; in GPT-NeoX `rotary_emb_base` and `rotary_pct`.

use super::keys::{Keys, shown, unsupported};
use crate::error::{Error, Result};
use crate::kernel::rotary::Scaling;
use crate::model::trunk::Rotation;
use serde_json::{Map, Value};

const SUPPORTED: &str = "rope_type `default`, `linear`, `llama3`, and `longrope` of Phi-3";

/// The rotary embedding as the configuration states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// Share of a head's dimensions that are turned.
    pub share: f64,
    pub scaling: Scaling,
}

impl Rope {
    /// For heads of that width.
    pub(super) fn rotation(self, head_dim: usize) -> Rotation {
        let dims = (head_dim as f64 * self.share) as usize;
        Rotation { dims, theta: self.theta, scaling: self.scaling }
    }
}

/// A family's names outside of `rope_parameters`, and its defaults.
pub(super) struct Spelling {
    pub theta_key: &'static str,
    pub share_key: &'static str,
    pub theta: f64,
    pub share: f64,
    /// Where the family knows LongRoPE.
    pub longrope: Option<LongRope>,
}

impl Default for Spelling {
    fn default() -> Self {
        let (theta_key, share_key) = ("rope_theta", "partial_rotary_factor");
        Self { theta_key, share_key, theta: 10_000.0, share: 1.0, longrope: None }
    }
}

/// Tokens of a row in pretraining and at most.
#[derive(Clone, Copy)]
pub(super) struct LongRope {
    pub original: usize,
    pub max: usize,
}

/// Reads the one rotary embedding of a model.
pub(super) fn read(keys: &mut Keys, spelling: &Spelling) -> Result<Rope> {
    let tables = [("rope_scaling", keys.object("rope_scaling")?), ("rope_parameters", keys.object("rope_parameters")?)];
    let given = tables.into_iter().filter_map(|(name, table)| Some(Table { name, table: table? }));
    stated(keys, spelling, given)
}

/// Gemma 3's two: that of layers that see everything, and that of those with a window.
pub(super) fn read_pair(keys: &mut Keys) -> Result<[Rope; 2]> {
    let global = Spelling { theta: 1e6, ..Spelling::default() };
    let local = Spelling { theta_key: "rope_local_base_freq", ..Spelling::default() };
    let inside = keys.object("rope_parameters")?;
    let of = |kind: &str| inside.and_then(|table| table.get(kind)).and_then(Value::as_object);
    let kinds = ["full_attention", "sliding_attention"].map(of);
    if kinds.iter().all(Option::is_none) {
        return Ok([read(keys, &global)?, stated(keys, &local, None)?]);
    }
    keys.absent("rope_scaling", "null beside rope_parameters")?;
    let [of_global, of_local] = kinds.map(|table| table.map(|table| Table { name: "rope_parameters", table }));
    Ok([stated(keys, &global, of_global)?, stated(keys, &local, of_local)?])
}

/// By the keys outside of tables and by those inside.
fn stated<'a>(keys: &mut Keys, spelling: &Spelling, tables: impl IntoIterator<Item = Table<'a>>) -> Result<Rope> {
    let mut rope = Rope { theta: spelling.theta, share: spelling.share, scaling: Scaling::None };
    let outside = (keys.number(spelling.theta_key)?, keys.number(spelling.share_key)?);
    rope.theta = outside.0.unwrap_or(rope.theta);
    rope.share = outside.1.unwrap_or(rope.share);
    for table in tables {
        let name = table.name;
        for (key, into, outside) in
            [("rope_theta", &mut rope.theta, outside.0), ("partial_rotary_factor", &mut rope.share, outside.1)]
        {
            let Some(inside) = table.number(key)? else { continue };
            if let Some(outside) = outside.filter(|&outside| outside != inside) {
                let known = if key == "rope_theta" { spelling.theta_key } else { spelling.share_key };
                return Err(Error::model(format!("config.json: {known} is {outside}, but {inside} in {name}"))
                    .hint("keep one of them"));
            }
            *into = inside;
        }
        let scaling = table.scaling(spelling.longrope)?;
        if scaling != Scaling::None && rope.scaling != Scaling::None && scaling != rope.scaling {
            return Err(Error::model("config.json: rope_scaling and rope_parameters differ").hint("keep one of them"));
        }
        if scaling != Scaling::None {
            rope.scaling = scaling;
        }
    }
    Ok(rope)
}

/// One of the two objects.
struct Table<'a> {
    name: &'static str,
    table: &'a Map<String, Value>,
}

impl Table<'_> {
    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.table.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| {
                let name = self.name;
                Error::model(format!("config.json: {key} in {name} is {}, expected a number", shown(value)))
            }),
        }
    }

    /// A number that the scaling cannot do without.
    fn needed(&self, kind: &str, key: &str) -> Result<f64> {
        let found = self.number(key)?;
        found.filter(|x| x.is_finite() && *x > 0.0).ok_or_else(|| {
            let found = found.map_or("is missing".to_string(), |x| format!("is {x}"));
            Error::model(format!("config.json: {key} {found} in {} of type `{kind}`", self.name))
                .hint("expected a positive number")
        })
    }

    /// The frequencies' factors for rows as long as pretraining's; those for longer ones are never reached.
    fn longrope(&self, known: LongRope) -> Result<Scaling> {
        let numbers = |key: &str| -> Result<Vec<f64>> {
            let list = self.table.get(key).and_then(Value::as_array);
            let list = list.map(|list| list.iter().map(|v| v.as_f64().filter(|x| x.is_finite() && *x > 0.0)).collect());
            list.flatten().ok_or_else(|| {
                Error::model(format!("config.json: {key} in {} is not a list of positive numbers", self.name))
            })
        };
        let factors = numbers("short_factor")?;
        numbers("long_factor")?;
        let factor = self.number("factor")?.unwrap_or(known.max as f64 / known.original as f64);
        let magnitude = match self.number("attention_factor")? {
            Some(stated) => stated,
            None if factor > 1.0 => (1.0 + factor.ln() / (known.original as f64).ln()).sqrt(),
            None => 1.0,
        };
        Ok(Scaling::Factors { factors, magnitude: magnitude as f32 })
    }

    fn scaling(&self, longrope: Option<LongRope>) -> Result<Scaling> {
        let kind = match self.table.get("rope_type").or(self.table.get("type")) {
            None => "default",
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(unsupported(&format!("rope_type in {}", self.name), &shown(other), SUPPORTED)),
        };
        let (scaling, own): (Scaling, &[&str]) = match kind {
            "default" => (Scaling::None, &[]),
            "linear" => (Scaling::Linear { factor: self.needed(kind, "factor")? }, &["factor"]),
            "llama3" => (
                Scaling::Llama3 {
                    factor: self.needed(kind, "factor")?,
                    low_freq_factor: self.needed(kind, "low_freq_factor")?,
                    high_freq_factor: self.needed(kind, "high_freq_factor")?,
                    original_max_positions: self.needed(kind, "original_max_position_embeddings")?,
                },
                &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
            ),
            // Older files call it `su`.
            "longrope" | "su" if longrope.is_some() => (
                self.longrope(longrope.expect("just seen"))?,
                &["short_factor", "long_factor", "factor", "attention_factor", "original_max_position_embeddings"],
            ),
            other => return Err(unsupported(&format!("rope_type in {}", self.name), &format!("`{other}`"), SUPPORTED)),
        };
        if let Scaling::Llama3 { low_freq_factor, high_freq_factor, .. } = scaling
            && low_freq_factor >= high_freq_factor
        {
            return Err(Error::model(format!(
                "config.json: low_freq_factor {low_freq_factor} is not below high_freq_factor {high_freq_factor}"
            )));
        }
        let general = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        let strange = self
            .table
            .iter()
            .find(|(key, value)| !value.is_null() && !general.contains(&key.as_str()) && !own.contains(&key.as_str()));
        match strange {
            None => Ok(scaling),
            Some((key, value)) => Err(unsupported(&format!("{} with {key} =", self.name), &shown(value), SUPPORTED)),
        }
    }
}
