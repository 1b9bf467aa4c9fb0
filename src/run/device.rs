//! Devices by name.

use crate::error::{Error, Kind, Result};
use crate::gpu::{self, Place};

const NAMES: [&str; 3] = ["auto", "cpu", "cuda"];

/// `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, and `emulated` in builds that have it.
///
/// # Errors
/// An unknown name; a device that there is not, or whose libraries are not found.
pub fn parse(name: &str) -> Result<Place> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let index = number.parse::<usize>().map_err(|_| {
        Error::new(Kind::Device, format!("device `{name}`: `{number}` is no number")).hint("write it as cuda:0")
    })?;
    match kind {
        "auto" => Ok(gpu::open(0).map_or(Place::Host, Place::Gpu)),
        "cpu" => Ok(Place::Host),
        "cuda" => Ok(Place::Gpu(gpu::open(index)?)),
        #[cfg(feature = "emulate")]
        "emulated" => Ok(Place::Gpu(gpu::Gpu::emulated(0))),
        _ => Err(Error { kind: Kind::Device, ..Error::unknown("device", name, &NAMES) }),
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
    }
}
