//! The machine that a run is on, as its `config.json` says: processor, cores, memory, GPU.
//! Owns what is recorded; what the machine can do at most is measured by `machine.rs`.

use crate::budget::memory;
use crate::files;
use crate::gpu::Place;
use serde_json::{Map, Value, json};

/// The key in `config.json`, and that of the machines on which a run went on.
pub const MACHINE: &str = "machine";
pub const LATER: &str = "machines";

/// What is known of this machine; what the system does not say is left out.
pub fn describe(place: &Place) -> Value {
    let mut about = Map::new();
    about.extend(processor().map(|name| ("cpu".to_string(), json!(name))));
    about.extend(std::thread::available_parallelism().ok().map(|n| ("cores".to_string(), json!(n.get()))));
    about.extend(memory::total().map(|bytes| ("memory_bytes".to_string(), json!(bytes))));
    about.insert("system".into(), json!(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)));
    if let Some(gpu) = place.gpu() {
        let facts = gpu.facts();
        about.insert("gpu".into(), json!(facts.name));
        about.insert("gpu_memory_bytes".into(), json!(facts.memory));
    }
    Value::Object(about)
}

/// Adds the machine on which a run goes on after `step` to its configuration, where it is another than before; says whether it
/// is.
pub fn note(config: &mut Value, now: &Value, step: u64) -> bool {
    let later = config[LATER].as_array().and_then(|all| all.last()).map(|last| &last[MACHINE]);
    let Some(object) = config.as_object().filter(|object| later.or(object.get(MACHINE)) != Some(now)) else {
        return false;
    };
    let mut all = object.get(LATER).and_then(Value::as_array).cloned().unwrap_or_default();
    all.push(json!({ "step": step, MACHINE: now }));
    config[LATER] = json!(all);
    true
}

/// What the processor calls itself (Linux).
fn processor() -> Option<String> {
    let text = files::text(&files::anywhere("/proc/cpuinfo")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(name.trim_start_matches([' ', '\t', ':']).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_cores_and_a_system() {
        let about = describe(&Place::Host);
        assert!(about["cores"].as_u64().is_some_and(|n| n > 0) && about["system"].is_string(), "{about}");
        assert!(about.get("gpu").is_none());
        #[cfg(target_os = "linux")]
        assert!(about["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{about}");
    }

    #[test]
    fn another_machine_is_noted_once() {
        let (one, other) = (json!({ "cores": 2 }), json!({ "cores": 8 }));
        let mut config = json!({ "seed": 1, "machine": one });
        assert!(!note(&mut config, &one, 3));
        assert!(note(&mut config, &other, 5) && !note(&mut config, &other, 7));
        assert!(note(&mut config, &one, 9), "back again");
        let steps: Vec<_> = config["machines"].as_array().expect("a list").iter().map(|m| m["step"].clone()).collect();
        assert_eq!(steps, [5, 9]);
    }
}
