//! Devices that are in use, by name: whoever names one gets the same, so that what lies on it can be used together.
//!
//! Owns the list and nothing on it. A device that is made without a name, as tests do, is not on it.

use super::device::Gpu;
use crate::error::Result;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static OPENED: Mutex<BTreeMap<String, Gpu>> = Mutex::new(BTreeMap::new());

/// The device of this name, opened where nobody has named it yet.
///
/// # Errors
/// Those of `open`; another call will try again.
pub fn opened(name: &str, open: impl FnOnce() -> Result<Gpu>) -> Result<Gpu> {
    let mut all = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = all.get(name) {
        return Ok(gpu.clone());
    }
    let gpu = open()?;
    all.insert(name.to_string(), gpu.clone());
    Ok(gpu)
}
