//! Numbers in JSON to the last bit, for serde's `with`: as their shortest text, since JSON has no infinities and readers of
//! it round.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(x)
}

pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
    number::<D::Error>(&String::deserialize(from)?)
}

fn number<E: Error>(text: &str) -> Result<f64, E> {
    text.parse().map_err(|_| E::custom(format!("{text:?} is not a number")))
}

/// The same of one that may be missing.
pub mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(x: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        x.map(|x| x.to_string()).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<f64>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| super::number(&text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Numbers {
        #[serde(with = "super")]
        x: f64,
        #[serde(with = "super::optional")]
        y: Option<f64>,
    }

    #[test]
    fn every_bit_comes_back() {
        for x in [0.1 + 0.2, -0.0, 5e-324, f64::MAX, f64::NEG_INFINITY, f64::NAN] {
            for y in [None, Some(x)] {
                let text = serde_json::to_string(&Numbers { x, y }).expect("JSON");
                let back: Numbers = serde_json::from_str(&text).expect("its own");
                assert_eq!(back.x.to_bits(), x.to_bits(), "{text}");
                assert_eq!(back.y.map(f64::to_bits), y.map(f64::to_bits), "{text}");
            }
        }
        assert!(serde_json::from_str::<Numbers>(r#"{"x": "one", "y": null}"#).is_err());
    }
}
