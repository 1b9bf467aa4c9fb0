//! Devices by name.

use crate::error::{Error, Kind, Result};
use crate::tensor::Device;

const NAMES: [&str; 3] = ["cpu", "cuda", "metal"];

/// `cpu`, `cuda`, `cuda:1`, `metal`.
pub fn parse(name: &str) -> Result<Device> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let index = number.parse::<usize>().map_err(|_| {
        Error::new(Kind::Device, format!("device `{name}`: `{number}` is no number")).hint("write it as cuda:0")
    })?;
    let open = |device: std::result::Result<Device, _>| {
        device.map_err(|e| {
            let what = format!("device `{name}` cannot be used: {}", Error::from(e).what);
            Error::new(Kind::Device, what).hint("use --device cpu")
        })
    };
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" => open(Device::new_cuda(index)),
        "metal" => open(Device::new_metal(index)),
        _ => Err(Error { kind: Kind::Device, ..Error::unknown("device", name, &NAMES) }),
    }
}

/// The name of a device's kind.
pub fn name(device: &Device) -> &'static str {
    match device {
        Device::Cpu => NAMES[0],
        Device::Cuda(_) => NAMES[1],
        Device::Metal(_) => NAMES[2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!(name(&parse("cpu").expect("a device")), "cpu");
        let e = parse("cudo").expect_err("unknown");
        assert_eq!(
            (e.to_string().as_str(), e.hint.as_deref()),
            ("unknown device `cudo`", Some("did you mean `cuda`?"))
        );
        parse("cuda:x").expect_err("no number");
    }
}
