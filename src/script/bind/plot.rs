//! Pictures in scripts.

use crate::error::{Error, Result};
use crate::run::heatmap::{self, Panel};
use crate::script::lang::native::{Call, Registry};
use crate::script::lang::value::describe;
use crate::tensor::Tensor;
use rhai::{Dynamic, Map};

pub fn register(reg: &mut Registry) {
    reg.function("heatmap", ["path", "panels"], |call: &Call, path: String, panels: Map| -> Result<()> {
        let path = call.session.access().write(&path)?;
        let panels = panels.iter().map(|(name, value)| panel(name, value)).collect::<Result<Vec<_>>>()?;
        heatmap::write(&panels, &path)
    });
}

fn panel(name: &str, value: &Dynamic) -> Result<Panel> {
    let tensor = value
        .read_lock::<Tensor>()
        .ok_or_else(|| Error::value(format!("`heatmap`: {name} must be a tensor [B,T], found {}", describe(value))))?;
    Ok(Panel { title: name.to_string(), rows: tensor.to_rows()? })
}
