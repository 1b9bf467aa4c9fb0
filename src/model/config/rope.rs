//! How `config.json` states the rotary embedding: in transformers 4 `rope_theta` and `rope_scaling`, in transformers 5
//! `rope_parameters`; in GPT-NeoX `rotary_emb_base` and `rotary_pct`.

use super::keys::{Keys, shown, unsupported};
use crate::error::{Error, Result};
use crate::kernel::rotary::Scaling;
use serde_json::{Map, Value};

const SUPPORTED: &str = "rope_type `default`, `linear` or `llama3`";

/// The rotary embedding as the configuration states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// Share of a head's dimensions that are turned.
    pub share: f64,
    pub scaling: Scaling,
}

/// Reads the rotary embedding; `theta_key` and `share_key` are the family's names outside of `rope_parameters`.
pub(super) fn read(keys: &mut Keys, theta_key: &'static str, share_key: &'static str, share: f64) -> Result<Rope> {
    let mut rope = Rope { theta: 10_000.0, share, scaling: Scaling::None };
    let outside = (keys.number(theta_key)?, keys.number(share_key)?);
    rope.theta = outside.0.unwrap_or(rope.theta);
    rope.share = outside.1.unwrap_or(rope.share);
    let tables = [("rope_scaling", keys.object("rope_scaling")?), ("rope_parameters", keys.object("rope_parameters")?)];
    for (name, table) in tables {
        let Some(table) = table else { continue };
        let table = Table { name, table };
        for (key, into, outside) in
            [("rope_theta", &mut rope.theta, outside.0), ("partial_rotary_factor", &mut rope.share, outside.1)]
        {
            let Some(inside) = table.number(key)? else { continue };
            if let Some(outside) = outside.filter(|&outside| outside != inside) {
                let known = if key == "rope_theta" { theta_key } else { share_key };
                return Err(Error::model(format!("config.json: {known} is {outside}, but {inside} in {name}"))
                    .hint("keep one of them"));
            }
            *into = inside;
        }
        let scaling = table.scaling()?;
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

    fn scaling(&self) -> Result<Scaling> {
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
