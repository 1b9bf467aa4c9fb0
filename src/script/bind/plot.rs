//! Pictures in scripts.

use super::convert::Answer;
use crate::error::{Error, Result};
use crate::run::Session;
use crate::run::heatmap::{self, Panel};
use crate::script::options::describe;
use crate::script::registry::{Doc, Registry};
use crate::tensor::Tensor;
use rhai::{Dynamic, Map};
use std::path::Path;
use std::rc::Rc;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "heatmap(path: string, panels: map)",
        "Draws tensors [B,T] as coloured cells into an SVG file: red below 0, blue above.",
    )
    .param("path", "string", "the file, which is replaced if it is there")
    .param("panels", "map of Tensor", "a panel for each, under its name; each has a scale of its own")
    .errors("A value that is no tensor [B,T]; a path that cannot be written.")
    .example(
        "let run = open_run(#{});\nlet x = randn([4, 8]);\nheatmap(run.dir + \"/x.svg\", #{ x: x, squared: x ** 2 });\n\
         assert(x.shape == [4, 8]);",
    );
    reg.add(doc, |m| {
        let session = session.clone();
        m.set_native_fn("heatmap", move |path: &str, panels: Map| -> Answer<()> {
            session.access().write(Path::new(path))?;
            let panels = panels.iter().map(|(name, value)| panel(name, value)).collect::<Result<Vec<_>>>()?;
            Ok(heatmap::write(&panels, Path::new(path))?)
        });
    });
}

fn panel(name: &str, value: &Dynamic) -> Result<Panel> {
    let tensor = value
        .read_lock::<Tensor>()
        .ok_or_else(|| Error::value(format!("`heatmap`: {name} must be a tensor [B,T], found {}", describe(value))))?;
    Ok(Panel { title: name.to_string(), rows: tensor.to_rows()? })
}
