//! Which runs are one curve of a picture, and what it is called there: what differs between the curves.

use crate::error::{Error, Result};
use crate::run::summary::Summary;
use serde_json::Value;

pub const SEED: &str = "seed";
/// Of what else a run was set to: what may change its numbers.
const SETTINGS: [&str; 2] = ["device", "dtype"];

/// Runs that differ in the hyper-parameter of the band alone, or one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub label: String,
    /// Places among all runs.
    pub runs: Vec<usize>,
}

/// What a run is known by.
type Identity = Vec<(String, Value)>;

/// The groups, in the order of their first runs.
///
/// # Errors
/// A band over what no run has.
pub fn groups(runs: &[Summary], band: Option<&str>) -> Result<Vec<Group>> {
    if let Some(band) = band {
        let mut known: Vec<&str> = runs.iter().flat_map(Summary::arguments).map(|(name, _)| name).collect();
        known.insert(0, SEED);
        known.dedup();
        if !known.contains(&band) {
            return Err(Error::unknown("hyper-parameter", band, &known));
        }
    }
    let identities: Vec<Identity> = runs.iter().map(|run| identity(run, band)).collect();
    let mut found: Vec<Vec<usize>> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let same = |first: usize| identities[first] == identities[i] && runs[first].text == run.text;
        match found.iter_mut().find(|group| band.is_some() && same(group[0])) {
            Some(group) => group.push(i),
            None => found.push(vec![i]),
        }
    }
    let firsts: Vec<usize> = found.iter().map(|group| group[0]).collect();
    let labels = labels(runs, &identities, &firsts);
    Ok(labels.into_iter().zip(found).map(|(label, runs)| Group { label, runs }).collect())
}

/// All that is told apart, but for what a band is over.
fn identity(run: &Summary, band: Option<&str>) -> Identity {
    let settings = run.settings().into_iter().filter(|(name, _)| SETTINGS.contains(&name.as_str()));
    let arguments = run.arguments().into_iter().map(|(name, value)| (name.to_string(), value.clone()));
    let seed = run.seed().map(|seed| (SEED.to_string(), Value::from(seed)));
    let all = std::iter::once(("script".to_string(), Value::from(run.script())));
    let all = all.chain(settings).chain(arguments).chain(seed);
    all.filter(|(name, _)| band.is_none_or(|band| band != name)).collect()
}

/// `clip=0.1, lr=0.0002`: what differs from another curve; the folder where that is nothing, or not enough.
fn labels(runs: &[Summary], identities: &[Identity], firsts: &[usize]) -> Vec<String> {
    let mut differing: Vec<&str> = Vec::new();
    for (n, &a) in firsts.iter().enumerate() {
        for &b in &firsts[..n] {
            // Scripts have hyper-parameters of their own: what one lacks tells nothing.
            let alike = runs[a].script() == runs[b].script();
            for (name, value) in identities[a].iter().chain(&identities[b]) {
                let other = |of: usize| identities[of].iter().find(|(known, _)| known == name).map(|(_, value)| value);
                let own = name == "script" || name == SEED || SETTINGS.contains(&name.as_str());
                let differs = (alike || own) && (other(a) != Some(value) || other(b) != Some(value));
                if differs && !differing.contains(&name.as_str()) {
                    differing.push(name);
                }
            }
        }
    }
    let label = |&first: &usize| {
        let parts = identities[first].iter().filter(|(name, _)| differing.contains(&name.as_str()));
        parts.map(|(name, value)| format!("{name}={}", shown(value))).collect::<Vec<_>>().join(", ")
    };
    let plain: Vec<String> = firsts.iter().map(label).collect();
    let unique = |label: &String| !label.is_empty() && plain.iter().filter(|other| *other == label).count() == 1;
    let full = plain.iter().zip(firsts).map(|(label, &first)| match (unique(label), label.is_empty()) {
        (true, _) => label.clone(),
        (false, true) if firsts.len() == 1 => runs[first].script().to_string(),
        (false, true) => runs[first].name(),
        (false, false) => format!("{label} ({})", runs[first].name()),
    });
    full.collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    /// Runs of these scripts, arguments and seeds.
    fn runs(of: &[(&str, Value, u64)]) -> Vec<Summary> {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |(i, (script, args, seed)): (usize, &(&str, Value, u64))| {
            let folder = dir.path().join(format!("r{i}"));
            fs::create_dir(&folder).expect("made");
            let config = json!({ "script": script, "args": args, "seed": seed, "device": "cpu", "threads": i });
            fs::write(folder.join("config.json"), config.to_string()).expect("written");
            fs::write(folder.join("metrics.jsonl"), "").expect("written");
            fs::write(folder.join("script.rhai"), script).expect("written");
            Summary::read(&crate::files::anywhere(&folder)).expect("a run")
        };
        of.iter().enumerate().map(read).collect()
    }

    fn grouped(runs: &[Summary], band: Option<&str>) -> Vec<(String, Vec<usize>)> {
        groups(runs, band).expect("groups").into_iter().map(|group| (group.label, group.runs)).collect()
    }

    #[test]
    fn a_band_joins_runs_that_differ_in_it_alone() {
        let clip = |clip: f64, seed: u64| ("grpo", json!({ "clip": clip, "lr": 0.1, "seed": seed }), seed);
        let runs = runs(&[clip(0.1, 0), clip(0.1, 1), clip(0.3, 0), clip(0.3, 1)]);
        let named = |label: &str, runs: &[usize]| (label.to_string(), runs.to_vec());
        let seeds = [named("clip=0.1", &[0, 1]), named("clip=0.3", &[2, 3])];
        assert_eq!(grouped(&runs, Some(SEED)), seeds);
        assert_eq!(grouped(&runs, Some("clip")), [named("seed=0", &[0, 2]), named("seed=1", &[1, 3])]);
        let each = grouped(&runs, None);
        assert_eq!((each.len(), each[3].0.as_str()), (4, "clip=0.3, seed=1"));
        assert_eq!(groups(&runs, Some("clipp")).expect_err("no such").hint.as_deref(), Some("did you mean `clip`?"));
    }

    #[test]
    fn curves_that_nothing_tells_apart_have_the_names_of_their_folders() {
        let same = || ("grpo", json!({ "clip": 0.1 }), 3);
        let labels = |of: &[(&str, Value, u64)]| grouped(&runs(of), None).into_iter().map(|(label, _)| label);
        assert_eq!(labels(&[same(), same()]).collect::<Vec<_>>(), ["r0", "r1"]);
        assert_eq!(labels(&[same()]).collect::<Vec<_>>(), ["grpo"]);
        let other = ("rloo", json!({ "tau": 1.0 }), 3);
        assert_eq!(labels(&[same(), other]).collect::<Vec<_>>(), ["script=grpo", "script=rloo"]);
        let wide = ("grpo", json!({ "clip": "a\tb" }), 3);
        assert_eq!(
            labels(&[same(), same(), wide]).collect::<Vec<_>>(),
            ["clip=0.1 (r0)", "clip=0.1 (r1)", "clip=a\tb"]
        );
    }
}
