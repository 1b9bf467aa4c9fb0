//! Running one plan on one seed, as a user would from the command line, and reading what it left.
//! Owns the folders below target/results: an outcome is read again as long as the script and its settings are the same.

use crate::Result;
use crate::plan::{Measured, Plan, SCRIPTS};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Answers to held-out prompts that a policy is measured on.
const MEASURED: usize = 512;
const POLL: Duration = Duration::from_millis(20);

/// What a run came to.
#[derive(Clone)]
pub struct Outcome {
    /// Of the whole command, model loading and the script's own evaluations included.
    pub seconds: f64,
    /// Largest resident set, in MB.
    pub peak: f64,
    /// Lines of `metrics.jsonl`.
    pub lines: Vec<BTreeMap<String, f64>>,
    /// What `measure.rhai` found.
    pub measured: BTreeMap<String, f64>,
}

impl Outcome {
    /// (step, value) of one metric.
    pub fn series(&self, name: &str) -> Vec<(f64, f64)> {
        self.lines.iter().filter_map(|line| Some((*line.get("step")?, *line.get(name)?))).collect()
    }

    /// Tokens that the policy sampled over the run.
    pub fn sampled(&self) -> f64 {
        self.series("sampled").last().map_or(0.0, |point| point.1)
    }
}

pub struct Runner {
    root: PathBuf,
    store: PathBuf,
}

impl Runner {
    pub fn new(root: &Path) -> Self {
        let target = Path::new(env!("CARGO_BIN_EXE_rhopo")).ancestors().nth(2).unwrap_or(root);
        Self { root: root.to_path_buf(), store: target.join("results") }
    }

    /// `tiny` itself on a task.
    pub fn start(&self, task: &'static str) -> Result<Outcome> {
        let dir = self.folder(&format!("start-{task}"));
        let tokens = SCRIPTS.iter().filter(|plan| plan.task == task).map(|plan| plan.max_tokens).max();
        let sets = self.measuring("tiny", task, tokens.unwrap_or(16));
        if !dir.join("metrics.jsonl").is_file() {
            self.rhopo(&self.measure(), &sets, 0, &dir)?;
        }
        let measured = last(&read(&dir)?);
        Ok(Outcome { seconds: 0.0, peak: 0.0, lines: Vec::new(), measured })
    }

    /// `tiny` itself, by a reward model's scores too.
    pub fn judged_start(&self, judge: &Plan, seed: u64, max_tokens: usize) -> Result<Outcome> {
        // In the reward model's own folder, so that it goes with that.
        let dir = self.dir(judge, seed).join("start");
        if !dir.join("metrics.jsonl").is_file() {
            let mut sets = self.measuring("tiny", judge.task, max_tokens);
            sets.push(format!("judge={}", self.model(judge, seed)));
            self.rhopo(&self.measure(), &sets, seed, &dir)?;
        }
        Ok(Outcome { seconds: 0.0, peak: 0.0, lines: Vec::new(), measured: last(&read(&dir)?) })
    }

    /// What a script of `examples/` logs, unless that is there.
    pub fn example(&self, name: &str) -> Result<Vec<BTreeMap<String, f64>>> {
        let script = self.root.join("examples").join(format!("{name}.rhai"));
        let (dir, text) = (self.folder(&format!("example-{name}")), fs::read_to_string(&script)?);
        if fs::read_to_string(dir.join("key")).ok().as_ref() != Some(&text) {
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            fs::create_dir_all(&dir)?;
            self.rhopo(&script, &[], 0, &dir.join("run"))?;
            fs::write(dir.join("key"), text)?;
        }
        read(&dir.join("run"))
    }

    /// Runs a plan unless its outcome is there.
    pub fn run(&self, plan: &Plan, seed: u64) -> Result<()> {
        if self.read(plan, seed).is_some() {
            eprintln!("{} --seed {seed}: there already", plan.name);
            return Ok(());
        }
        for of in teacher(plan).into_iter().chain(plan.judge) {
            self.run(of, seed)?;
        }
        let (dir, text) = (self.dir(plan, seed), self.text(plan)?);
        self.run_in(plan, seed, &dir, &text)?;
        Ok(fs::write(dir.join("key"), self.key(plan)?)?)
    }

    /// The outcome of a plan, if it is there and the script and its settings are the same.
    pub fn read(&self, plan: &Plan, seed: u64) -> Option<Outcome> {
        let dir = self.dir(plan, seed);
        if fs::read_to_string(dir.join("key")).ok()? != self.key(plan).ok()? {
            return None;
        }
        let cost = fs::read_to_string(dir.join("cost")).ok()?;
        let (seconds, peak) = cost.trim().split_once(' ')?;
        let measured = match plan.measured {
            Measured::Own(_) => BTreeMap::new(),
            Measured::Policy | Measured::Adapter => last(&read(&dir.join("measured")).ok()?),
        };
        let lines = read(&dir.join("run")).ok()?;
        Some(Outcome { seconds: seconds.parse().ok()?, peak: peak.parse().ok()?, lines, measured })
    }

    fn dir(&self, plan: &Plan, seed: u64) -> PathBuf {
        self.folder(&format!("{}-{}-{seed}", plan.task, plan.name))
    }

    /// The folder of the model that a plan left.
    fn model(&self, plan: &Plan, seed: u64) -> String {
        self.dir(plan, seed).join("run/model").display().to_string()
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.store.join(name.replace([' ', ',', ':', '='], "_"))
    }

    /// The script as it runs: the shipped one, edited.
    fn text(&self, plan: &Plan) -> Result<String> {
        let path = self.root.join("scripts").join(format!("{}.rhai", plan.script));
        let mut text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        for (from, to) in plan.edits {
            if !text.contains(from) {
                return Err(format!("{}: {} has no {from:?}", plan.name, path.display()).into());
            }
            text = text.replace(from, to);
        }
        Ok(text)
    }

    /// What an outcome belongs to.
    fn key(&self, plan: &Plan) -> Result<String> {
        let own = format!("{} {:?}\n{}", plan.task, plan.sets, self.text(plan)?);
        match plan.judge {
            None => Ok(own),
            Some(judge) => Ok(format!("{own}\n{}", self.key(judge)?)),
        }
    }

    fn run_in(&self, plan: &Plan, seed: u64, dir: &Path, text: &str) -> Result<()> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        let script = dir.join(format!("{}.rhai", plan.script));
        fs::write(&script, text)?;
        let mut sets: Vec<String> = plan.sets.iter().map(ToString::to_string).collect();
        sets.push(format!("task={}", plan.task));
        sets.extend(teacher(plan).map(|of| format!("teacher={}", self.model(of, seed))));
        let judge = plan.judge.map(|of| self.model(of, seed));
        if let Some(judge) = &judge {
            sets.push(format!("reward={judge}"));
            // A critic begins as what it foresees.
            sets.extend(text.contains("\n    critic: ").then(|| format!("critic={judge}")));
        }
        let (seconds, peak) = self.rhopo(&script, &sets, seed, &dir.join("run"))?;
        fs::write(dir.join("cost"), format!("{seconds:.2} {peak:.0}\n"))?;
        let model = self.model(plan, seed);
        let mut sets = match plan.measured {
            Measured::Own(_) => return Ok(()),
            Measured::Policy => self.measuring(&model, plan.task, plan.max_tokens),
            Measured::Adapter => {
                let mut sets = self.measuring("tiny", plan.task, plan.max_tokens);
                sets.push(format!("adapter={model}"));
                sets
            }
        };
        sets.extend(judge.map(|judge| format!("judge={judge}")));
        self.rhopo(&self.measure(), &sets, seed, &dir.join("measured"))?;
        Ok(())
    }

    fn measure(&self) -> PathBuf {
        self.root.join("benches/results/measure.rhai")
    }

    fn measuring(&self, model: &str, task: &str, max_tokens: usize) -> Vec<String> {
        vec![
            format!("model={model}"),
            format!("task={task}"),
            format!("n={MEASURED}"),
            format!("max_tokens={max_tokens}"),
        ]
    }

    /// Seconds and the largest resident set in MB.
    fn rhopo(&self, script: &Path, sets: &[String], seed: u64, out: &Path) -> Result<(f64, f64)> {
        let seed = seed.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        command.current_dir(&self.root).arg("run").arg(script).args(["--seed", &seed, "--out"]).arg(out);
        command.arg("--stdlib").arg(self.root.join("stdlib"));
        if !sets.is_empty() {
            command.arg("--set").args(sets);
        }
        eprintln!("{} --seed {seed} {}", script.display(), sets.join(" "));
        let log = out.with_extension("log");
        let started = Instant::now();
        let child = command.stdout(fs::File::create(&log)?).stderr(fs::File::create(out.with_extension("err"))?);
        let (status, peak) = wait(child.stdin(Stdio::null()).spawn()?)?;
        if !status.success() {
            let said = fs::read_to_string(out.with_extension("err"))?;
            return Err(format!("{} ended with {status}:\n{said}", script.display()).into());
        }
        Ok((started.elapsed().as_secs_f64(), peak))
    }
}

fn teacher(plan: &Plan) -> Option<&'static Plan> {
    SCRIPTS.iter().find(|of| Some(of.name) == plan.teacher)
}

/// Waits, and looks at the child's peak until it ends.
fn wait(mut child: Child) -> Result<(std::process::ExitStatus, f64)> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        peak = kib.map_or(peak, |kib| f64::max(peak, kib / 1024.0));
        match child.try_wait()? {
            Some(status) => return Ok((status, peak)),
            None => std::thread::sleep(POLL),
        }
    }
}

fn read(dir: &Path) -> Result<Vec<BTreeMap<String, f64>>> {
    let path = dir.join("metrics.jsonl");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let line = |line: &str| -> Result<BTreeMap<String, f64>> {
        let object: BTreeMap<String, Value> = serde_json::from_str(line)?;
        Ok(object.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect())
    };
    text.lines().map(line).collect()
}

/// The last value of each metric.
fn last(lines: &[BTreeMap<String, f64>]) -> BTreeMap<String, f64> {
    lines.iter().flatten().map(|(name, value)| (name.clone(), *value)).collect()
}
