//! Where a model's numbers lie.

use super::device::Gpu;

/// Where a model's numbers lie and its operations run.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Place {
    /// In the host's memory.
    #[default]
    Host,
    Gpu(Gpu),
}

impl Place {
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host)
    }

    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Host => None,
            Self::Gpu(gpu) => Some(gpu),
        }
    }
}

/// As `--device` names it.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("cpu"),
            Self::Gpu(gpu) => f.write_str(gpu.name()),
        }
    }
}
