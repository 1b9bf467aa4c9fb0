//! Devices by name.

use crate::error::{Error, Kind, Result};
use crate::gpu::{self, Place};

const NAMES: &[&str] =
    if cfg!(feature = "emulate") { &["auto", "cpu", "cuda", "emulated"] } else { &["auto", "cpu", "cuda"] };

/// `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, and `emulated` in builds that have it.
///
/// # Errors
/// An unknown name; a device that there is not, or whose libraries are not found.
pub fn parse(name: &str) -> Result<Place> {
    match name.split_once(':').map_or((name, None), |(kind, number)| (kind, Some(number))) {
        ("auto", None) => Ok(gpu::open(0).map_or(Place::Host, Place::Gpu)),
        ("cpu", None) => Ok(Place::Host),
        ("cuda", number) => {
            let index = number.unwrap_or("0").parse::<usize>().map_err(|_| {
                let what = format!("device `{name}`: expected a number from 0 up behind `cuda:`");
                Error::new(Kind::Device, what).hint("write it as cuda:0")
            })?;
            Ok(Place::Gpu(gpu::open(index)?))
        }
        #[cfg(feature = "emulate")]
        ("emulated", None) => Ok(Place::Gpu(gpu::opened(name, || Ok(gpu::Gpu::emulated(0)))?)),
        ("gpu", None) => Err(Error::new(Kind::Device, "unknown device `gpu`").hint("write it as cuda, or cuda:1")),
        _ => Err(Error { kind: Kind::Device, ..Error::unknown("device", name, NAMES) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!(parse("cpu").expect("a device").to_string(), "cpu");
        let e = parse("cudo").expect_err("unknown");
        assert_eq!(
            (e.to_string().as_str(), e.hint.as_deref()),
            ("unknown device `cudo`", Some("did you mean `cuda`?"))
        );
        parse("cuda:x").expect_err("no number");
        parse("cpu:1").expect_err("there is one");
        assert_eq!(parse("gpu").expect_err("unknown").hint.as_deref(), Some("write it as cuda, or cuda:1"));
    }

    /// Arrays of two devices cannot meet: a name must mean one.
    #[cfg(feature = "emulate")]
    #[test]
    fn a_name_is_one_device() {
        assert!(parse("emulated").expect("a device") == parse("emulated").expect("the same"));
    }
}
