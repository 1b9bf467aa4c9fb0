//! How a tensor prints: shape, type, device and the corners of its values.

use crate::tensor::{DType, Tensor, shape};
use std::fmt;

/// Axes longer than this show their first and last three entries.
const SHOWN: usize = 6;

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let dtype = if self.dtype() == DType::F64 { "f64" } else { "f32" };
        let device = match self.device().location() {
            candle_core::DeviceLocation::Cpu => "cpu".to_string(),
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        };
        let grad = if self.requires_grad() { " grad" } else { "" };
        write!(f, "Tensor {} {dtype} {device}{grad} ", shape::show(self.dims()))?;
        let values = self.to_vec().map_err(|_| fmt::Error)?;
        block(f, self.dims(), &values, 1)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn block(f: &mut fmt::Formatter, dims: &[usize], values: &[f64], depth: usize) -> fmt::Result {
    let Some((&n, rest)) = dims.split_first() else {
        return write!(f, "{}", number(values[0]));
    };
    let width: usize = rest.iter().product();
    let separator = if rest.is_empty() { ", ".to_string() } else { format!(",\n{}", " ".repeat(depth)) };
    // The rows of a matrix start on a line of their own, so that columns stand below each other.
    f.write_str(if depth == 1 && !rest.is_empty() { "\n[" } else { "[" })?;
    let mut first = true;
    for i in 0..n {
        if n > SHOWN && (SHOWN / 2..n - SHOWN / 2).contains(&i) {
            if i == SHOWN / 2 {
                write!(f, "{separator}…")?;
            }
            continue;
        }
        if !first {
            f.write_str(&separator)?;
        }
        first = false;
        block(f, rest, &values[i * width..(i + 1) * width], depth + 1)?;
    }
    f.write_str("]")
}

fn number(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || !x.is_finite() || (x.fract() == 0.0 && size < 1e6) {
        format!("{x}")
    } else if (1e-3..1e6).contains(&size) {
        format!("{x:.4}")
    } else {
        format!("{x:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    #[test]
    fn small_tensors_print_whole_and_large_ones_by_their_corners() {
        let x = Tensor::from_vec(vec![1.0, -0.5, f32::NAN, 1e-9], &[2, 2], &Device::Cpu).unwrap();
        assert_eq!(x.to_string(), "Tensor [2,2] f32 cpu \n[[1, -0.5000],\n [NaN, 1.000e-9]]");
        let x = Tensor::arange(100, &Device::Cpu).unwrap();
        assert_eq!(x.with_grad().to_string(), "Tensor [1,100] f32 cpu grad \n[[0, 1, 2, …, 97, 98, 99]]");
        let x = Tensor::full(&[9, 1], 2.0, &Device::Cpu).unwrap();
        assert_eq!(x.to_string(), "Tensor [9,1] f32 cpu \n[[2],\n [2],\n [2],\n …,\n [2],\n [2],\n [2]]");
        assert_eq!(Tensor::scalar(1.25, &Device::Cpu).unwrap().to_string(), "Tensor [] f32 cpu 1.2500");
    }
}
