//! What a person is told before a command runs: help, completions and the manual, all of one declaration.

use super::commands::{rhopo, well};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Every command that help knows, as words behind `rhopo`.
fn commands(dir: &Path, above: &[&str]) -> Vec<Vec<String>> {
    let help = well(dir, &[above, &["--help"]].concat());
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut found = Vec::new();
    for name in names {
        let path: Vec<&str> = above.iter().copied().chain([name]).collect();
        found.push(path.iter().map(|word| (*word).to_string()).collect());
        found.extend(commands(dir, &path));
    }
    found
}

/// The command lines below `Examples:`, as words; of a line for a shell what is rhopo's in it.
fn examples(dir: &Path, command: &[&str]) -> Vec<Vec<String>> {
    let help = well(dir, &[command, &["--help"]].concat());
    let block = help.split("Examples:\n").nth(1).expect("every help has examples").split("\n\n").next();
    let line = |line: &str| {
        let own = &line[line.find("rhopo").expect("it calls rhopo")..];
        let own = own.split(['|', '#', ')']).next().unwrap_or_default();
        own.split_whitespace().skip(1).map(str::to_string).collect()
    };
    block.into_iter().flat_map(str::lines).map(line).collect()
}

#[test]
fn examples_that_take_no_time_run_as_they_stand() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut ran = 0;
    for command in
        [&["list"][..], &["new"], &["check"], &["test"], &["doc"], &["definitions"], &["man"], &["completions"]]
    {
        for words in examples(dir.path(), command) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            well(dir.path(), &words);
            ran += 1;
            if words == ["new", "mine"] {
                let path = dir.path().join("mine.rhai");
                let text = std::fs::read_to_string(&path).expect("written");
                std::fs::write(path, text + "\nfn test_clip() { assert_close(clip(3.0, 0.0, 1.0), 1.0); }\n")
                    .expect("added");
            }
        }
    }
    for command in [&["inspect", "tiny"][..], &["gpu", "info"]] {
        let wanted: Vec<String> = command.iter().map(|word| (*word).to_string()).collect();
        assert!(
            examples(dir.path(), &command[..command.len() - usize::from(command[0] == "inspect")]).contains(&wanted)
        );
        well(dir.path(), command);
        ran += 1;
    }
    assert!(ran > 18, "{ran}");
}

#[test]
fn help_is_printed_to_standard_output_and_errors_to_the_other() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(well(dir.path(), &["help", "run"]).contains("Usage: rhopo run"));
    assert!(well(dir.path(), &["--version"]).starts_with("rhopo "));
    let said = rhopo(dir.path(), &["comparre"]);
    assert!(said.code == 2 && said.out.is_empty(), "{}", said.out);
    assert!(said.err.contains("unrecognized subcommand 'comparre'") && said.err.contains("'compare'"), "{}", said.err);
    let said = rhopo(dir.path(), &[]);
    assert!(said.code == 2 && said.err.contains("Usage: rhopo"), "{}", said.err);
}

/// The answers as `fish` gets them: a candidate a line, with what it is.
fn completed(dir: &Path, words: &[&str]) -> Vec<(String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).env("RHOPO_COMPLETE", "fish").args(["--", "rhopo"]).args(words);
    let out = command.output().expect("rhopo starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let pair = |line: &str| {
        let (name, about) = line.split_once('\t').unwrap_or((line, ""));
        (name.to_string(), about.to_string())
    };
    text.lines().map(pair).collect()
}

#[test]
fn commands_options_scripts_tasks_and_files_are_completed() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("grown.rhai"), "1").expect("written");
    std::fs::write(dir.path().join("grown.txt"), "1").expect("written");
    let names = |words: &[&str]| completed(dir.path(), words).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&["comp"]), ["compare", "completions"]);
    assert_eq!(names(&["run", "--see"]), ["--seed"]);
    let found = completed(dir.path(), &["run", "gr"]);
    let name = |wanted: &str| found.iter().find(|(name, _)| name == wanted);
    assert!(name("grpo").is_some_and(|(_, about)| about.starts_with("GRPO: ")), "{found:?}");
    assert!(name("grown.rhai").is_some() && name("grown.txt").is_none(), "{found:?}");
    assert_eq!(names(&["compare", "dpo", "--task", "arith"]), ["arithmetic"]);
    assert_eq!(names(&["inspect", "tin"]), ["tiny"]);
    assert!(names(&["doc", "kl::k"]).contains(&"kl::k3".to_string()));
    assert_eq!(names(&["gpu", "check", "ker"]), ["kernels"]);
}

#[test]
fn every_shell_gets_a_script() {
    let dir = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = well(dir.path(), &["completions", shell]);
        assert!(script.contains("RHOPO_COMPLETE") && script.contains("rhopo"), "{shell}: {script}");
    }
    assert!(rhopo(dir.path(), &["completions", "tcsh"]).err.contains("bash, zsh, fish, powershell, elvish"));
}

#[cfg(unix)]
#[test]
fn bash_completes_a_scripts_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let typed = "source <(\"$RHOPO\" completions bash); COMP_WORDS=(rhopo run dr_g); COMP_CWORD=2; COMP_TYPE=9\n\
                 _clap_complete_rhopo rhopo dr_g run; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", typed]).current_dir(dir.path()).env("RHOPO", env!("CARGO_BIN_EXE_rhopo"));
    let out = command.output().expect("bash starts");
    let said = String::from_utf8_lossy(&out.stdout);
    assert_eq!(said.trim(), "dr_grpo", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let dir = tempfile::tempdir().expect("a folder");
    let page = well(dir.path(), &["man"]);
    for part in [".TH RHOPO 1", ".SH SYNOPSIS", "rhopo\\-run(1)", ".SH EXAMPLES", "rhopo run grpo", ".SH ENVIRONMENT"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    well(dir.path(), &["man", "pages"]);
    let entries = std::fs::read_dir(dir.path().join("pages")).expect("written").map(|entry| entry.expect("an entry"));
    let written: BTreeSet<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let commands = commands(dir.path(), &[]);
    let named = commands.iter().map(|words| format!("rhopo-{}.1", words.join("-")));
    assert_eq!(written, named.chain(["rhopo.1".to_string()]).collect());
    let run = std::fs::read_to_string(dir.path().join("pages/rhopo-run.1")).expect("written");
    assert!(run.contains("\\-\\-checkpoint") && run.contains("\\-\\-resume runs/first"), "{run}");
}
