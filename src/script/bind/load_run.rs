//! `load_run`: what the folder of a run says, as a script has use for it.

use crate::error::Result;
use crate::files::Location;
use crate::run::report::Reporter;
use crate::run::summary::{self, Summary};
use crate::script::lang::native::{Call, Registry};
use crate::script::lang::order;
use crate::script::lang::value::from_json;
use crate::tensor::{Device, Tensor};
use rhai::{Dynamic, Map};

pub fn register(reg: &mut Registry) {
    reg.function("load_run", ["dir"], |call: &Call, dir: String| -> Result<Map> {
        load(&call.session.access().read(&dir)?, call.session.reporter())
    });
}

fn load(dir: &Location, reporter: &dyn Reporter) -> Result<Map> {
    let run = Summary::read(dir)?;
    if let Some(damage) = run.damage() {
        reporter.note(&damage);
    }
    let args = run.arguments().into_iter().map(|(name, value)| (name.into(), from_json(value)));
    let last = run.last.iter().map(|(name, x)| (name.as_str().into(), Dynamic::from(*x)));
    let mut metrics = Vec::new();
    for curve in summary::curves(dir)? {
        let (steps, values): (Vec<f64>, Vec<f64>) = curve.points.into_iter().unzip();
        let points = [("step", steps), ("value", values)].map(|(name, column)| {
            let rows = column.len();
            Ok((name.into(), Dynamic::from(Tensor::from_vec_f64(column, &[rows, 1], &Device::Cpu)?)))
        });
        let points = points.into_iter().collect::<Result<Map>>()?;
        metrics.push((curve.name.into(), points.into()));
    }
    Ok(Map::from([
        ("dir".into(), dir.display().to_string().into()),
        ("script".into(), run.script().into()),
        ("text".into(), run.text.as_str().into()),
        ("state".into(), run.state.name().into()),
        ("step".into(), (run.step as rhai::INT).into()),
        ("seed".into(), run.seed().map_or(Dynamic::UNIT, |seed| from_json(&seed.into()))),
        ("args".into(), order::map(args)),
        ("last".into(), order::map(last)),
        ("metrics".into(), order::map(metrics)),
    ]))
}
