//! A sweep as a job array of Slurm: a script with a task for each run.

use crate::error::{Error, Kind, Result};
use crate::files::{self, Location};
use crate::run::sweep::{Plan, Search};
use std::path::Path;

const SCRIPT: &str = "sweep.sbatch";

/// Writes the script into the sweep's folder. `program` is this one; `most` is how many tasks may run at once.
///
/// # Errors
/// A search that learns; a file that cannot be written.
pub(super) fn write(plan: &Plan, folder: &Location, program: &Path, most: Option<u16>) -> Result<Location> {
    let here = here()?;
    let path = folder.join(SCRIPT);
    files::write(&path, text(plan, folder, program, &here, most)?)?;
    Ok(path)
}

fn here() -> Result<std::path::PathBuf> {
    std::env::current_dir().map_err(|e| Error::new(Kind::File, format!("the current folder is not known: {e}")))
}

/// Whether a sweep can be an array in a folder, before it begins.
///
/// # Errors
/// A search that learns; a folder whose name cannot be said.
pub(super) fn check(plan: &Plan, folder: Option<&Path>) -> Result<()> {
    independent(plan)?;
    output(&here()?.join(folder.unwrap_or(Path::new("")))).map(drop)
}

fn independent(plan: &Plan) -> Result<()> {
    match plan.search {
        Search::Grid | Search::Random => Ok(()),
        Search::Tpe => {
            Err(Error::value("--slurm: a search that learns proposes a trial from the results of those before it")
                .hint("the tasks of an array know nothing of each other: choose --search random or grid"))
        }
    }
}

fn text(plan: &Plan, folder: &Path, program: &Path, here: &Path, most: Option<u16>) -> Result<String> {
    independent(plan)?;
    let quoted = |path: &Path| shell_words::quote(&path.display().to_string()).into_owned();
    let output = output(&here.join(folder))?;
    let most = most.map(|most| format!("%{most}")).unwrap_or_default();
    let cores = plan.threads.map(|n| format!("#SBATCH --cpus-per-task={n}\n")).unwrap_or_default();
    let name: String = plan.script.chars().filter(|c| c.is_alphanumeric() || "-_.".contains(*c)).collect();
    let (last, here, folder, program) = (plan.runs() - 1, quoted(here), quoted(folder), quoted(program));
    Ok(format!(
        "#!/bin/bash\n\
         # A task for each run. Add what your cluster needs (--partition, --gres, --time, --mem), then: sbatch {folder}/{SCRIPT}\n\
         # A run that was cut short is continued when the array, or its tasks, are submitted again.\n\
         #SBATCH --job-name=sweep-{name}\n\
         #SBATCH --array=0-{last}{most}\n\
         {cores}\
         #SBATCH --output=\"{output}\"\n\
         # Two minutes before the time is over each run ends in order, and is stored.\n\
         #SBATCH --signal=B:USR1@120\n\
         cd {here} || exit 1\n\
         exec {program} sweep --resume {folder} --only \"$SLURM_ARRAY_TASK_ID\"\n"
    ))
}

/// Where the tasks' output goes, as Slurm reads it: in double quotes, `\` before what would end them, `%%` for `%`.
///
/// # Errors
/// A line break, which would end the line.
fn output(folder: &Path) -> Result<String> {
    let folder = folder.display().to_string();
    if folder.chars().any(char::is_control) {
        return Err(Error::value("--slurm: the folder's name has a line break, or another control character")
            .hint("a line of #SBATCH cannot hold it: choose a plain name with --out"));
    }
    let folder = folder.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    Ok(format!("{folder}/output/slurm-%A_%a.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::sweep::{Axis, Goal};

    #[test]
    fn the_script_has_a_task_for_each_run_and_paths_are_quoted() {
        let plan = Plan {
            script: "my script.rhai".into(),
            axes: vec![Axis::parse("x", "1,2").expect("values")],
            search: Search::Grid,
            seed: 0,
            seeds: 3,
            trials: 0,
            goal: Goal { metric: "eval".into(), maximize: true },
            options: Vec::new(),
            threads: Some(8),
            ahead: 1,
            points: Vec::new(),
        };
        let plan = plan.filled(None).expect("a plan");
        let of =
            |plan: &Plan, most| text(plan, Path::new("runs/a b"), Path::new("/opt/r'x"), Path::new("/home/me"), most);
        let script = of(&plan, Some(4)).expect("a script");
        for line in [
            "#SBATCH --array=0-5%4",
            "#SBATCH --cpus-per-task=8",
            "#SBATCH --output=\"/home/me/runs/a b/output/slurm-%A_%a.txt\"",
            "#SBATCH --job-name=sweep-myscript.rhai",
            "exec '/opt/r'\\''x' sweep --resume 'runs/a b' --only \"$SLURM_ARRAY_TASK_ID\"",
        ] {
            assert!(script.lines().any(|found| found == line), "{line}: {script}");
        }
        assert_eq!(output(Path::new("/a\"b\\c%d")).expect("a path"), "/a\\\"b\\\\c%%d/output/slurm-%A_%a.txt");
        assert!(output(Path::new("a\ntouch X")).expect_err("a line break").what.contains("a line break"));
        let plain = of(&Plan { threads: None, ..plan.clone() }, None).expect("a script");
        assert!(plain.contains("--array=0-5\n") && !plain.contains("cpus"), "{plain}");
        let e = of(&Plan { search: Search::Tpe, ..plan }, None).expect_err("it learns");
        assert!(e.what.contains("a search that learns"), "{e}");
    }
}
