//! The engine is a seam: another one, which counts what it is asked and passes it on, runs a script to the same numbers.

use rhopo::engine::{
    Engine, FisherRequest, ForwardRequest, Gradient, MixtureRequest, ModelHandle, Moments, OpenRequest, Plane,
    SampleRequest, Samples, Settings, Solo, State, Stateful, StepRequest, Upstream, local,
};
use rhopo::error::Result;
use rhopo::files::Location;
use rhopo::gpu::Place;
use rhopo::model::SaveDtype;
use rhopo::model::rows::Rows;
use rhopo::run::{Launch, names};
use rhopo::script::builder::HostBuilder;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Counts and forwards.
struct Counting {
    inner: Solo,
    asked: RefCell<BTreeMap<&'static str, usize>>,
}

impl Counting {
    fn inner(&self, call: &'static str) -> &Solo {
        *self.asked.borrow_mut().entry(call).or_default() += 1;
        &self.inner
    }
}

impl Engine for Counting {
    fn settings(&self) -> &Settings {
        self.inner.settings()
    }

    fn open(&self, request: &OpenRequest) -> Result<ModelHandle> {
        self.inner("open").open(request)
    }

    fn frozen(&self, model: &ModelHandle) -> Result<ModelHandle> {
        self.inner("frozen").frozen(model)
    }

    fn reference(&self, model: &ModelHandle) -> Result<ModelHandle> {
        self.inner("reference").reference(model)
    }

    fn merge(&self, model: &ModelHandle) -> Result<ModelHandle> {
        self.inner("merge").merge(model)
    }

    fn shifted(&self, model: &ModelHandle, by: f64) -> Result<ModelHandle> {
        self.inner("shifted").shifted(model, by)
    }

    fn save(&self, model: &ModelHandle, dir: &Location, dtype: SaveDtype) -> Result<()> {
        self.inner("save").save(model, dir, dtype)
    }

    fn sample(&self, request: &SampleRequest) -> Result<Samples> {
        self.inner("sample").sample(request)
    }

    fn sample_mixture(&self, request: &MixtureRequest) -> Result<Samples> {
        self.inner("sample_mixture").sample_mixture(request)
    }

    fn forward(&self, request: &ForwardRequest) -> Result<Plane> {
        self.inner("forward").forward(request)
    }

    fn backward(&self, upstream: &[Upstream]) -> Result<Vec<Gradient>> {
        self.inner("backward").backward(upstream)
    }

    fn dot(&self, g: &Gradient, h: &Gradient) -> Result<f64> {
        self.inner("dot").dot(g, h)
    }

    fn fisher(&self, request: &FisherRequest, v: &Gradient) -> Result<Gradient> {
        self.inner("fisher").fisher(request, v)
    }

    fn combine(&self, terms: &[(f64, Gradient)]) -> Result<Gradient> {
        self.inner("combine").combine(terms)
    }

    fn gradient(&self, model: &ModelHandle, state: &State) -> Result<Gradient> {
        self.inner("gradient").gradient(model, state)
    }

    fn shift(&self, g: &Gradient, c: f64) -> Result<()> {
        self.inner("shift").shift(g, c)
    }

    fn average(&self, models: &[(f64, ModelHandle)]) -> Result<ModelHandle> {
        self.inner("average").average(models)
    }

    fn mix(&self, into: &ModelHandle, share: f64, other: &ModelHandle) -> Result<()> {
        self.inner("mix").mix(into, share, other)
    }

    fn moments(&self, models: &[ModelHandle]) -> Result<Moments> {
        self.inner("moments").moments(models)
    }

    fn step(&self, request: &StepRequest) -> Result<f64> {
        self.inner("step").step(request)
    }

    fn state(&self, of: Stateful) -> Result<State> {
        self.inner("state").state(of)
    }

    fn restore(&self, of: Stateful, state: &State) -> Result<()> {
        self.inner("restore").restore(of, state)
    }

    fn memory(&self, model: &ModelHandle, rows: &Rows) -> Result<Vec<(&'static str, u64)>> {
        self.inner("memory").memory(model, rows)
    }
}

/// What a script logged, without the seconds, and the model that it saved.
fn run(script: &str, sets: &[(&str, &str)], engine: Rc<dyn Engine>) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let sets = sets.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let launch = Launch { sets, out: Some(out.clone()), ..Launch::on(engine, Place::Host) };
    HostBuilder::new().launch(launch).build().run_named(script).unwrap_or_else(|e| panic!("{script}: {}", e.message));
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut numbers: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        numbers.retain(|name, _| names::is_exact(name));
        serde_json::to_string(&numbers).unwrap()
    };
    let logged: Vec<String> = lines.lines().map(line).collect();
    (logged.join("\n"), std::fs::read(out.join("model/model.safetensors")).unwrap())
}

fn asked(script: &str, sets: &[(&str, &str)]) -> Vec<(&'static str, usize)> {
    let counting = Rc::new(Counting { inner: Solo::new(Settings::default()), asked: RefCell::default() });
    assert!(run(script, sets, counting.clone()) == run(script, sets, local(Settings::default())), "{script}");
    counting.asked.take().into_iter().collect()
}

#[test]
fn a_second_engine_runs_scripts_to_the_same_numbers() {
    let grpo = asked("grpo", &[("steps", "2"), ("prompts", "8"), ("minibatch", "32")]);
    // Two batches of 64 rows in two mini-batches each: an update looks at each of these, and the reference at each
    // batch; an evaluation before and after samples as well.
    let expected = [
        ("backward", 4),
        ("forward", 2 + 4),
        ("frozen", 1),
        ("moments", 1),
        ("open", 1),
        ("sample", 2 + 2),
        ("save", 1),
        // When the loop begins: a run that goes on knows its weights by their hash.
        ("state", 1),
        ("step", 4),
    ];
    assert_eq!(grpo, expected);
    // Dialogues are sampled turn by turn.
    let refuel = asked("refuel", &[("steps", "1"), ("prompts", "4"), ("task", "guess:max=8")]);
    assert!(refuel.iter().any(|&(call, times)| call == "sample" && times > 4), "{refuel:?}");
}
