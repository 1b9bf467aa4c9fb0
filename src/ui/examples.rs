//! The examples that `--help` of each command and its page of the manual end with.

use clap::Command;

/// What heads them.
pub(super) const HEADING: &str = "Examples:";

/// A command and lines that a person would type; the program itself is the empty name.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("", &["rhopo run grpo", "rhopo new mine --from grpo", "rhopo compare grpo dr_grpo", "rhopo help run"]),
    (
        "run",
        &[
            "rhopo run grpo",
            "rhopo run grpo --set group=16 lr=2e-5 --seed 3 --out runs/first",
            "rhopo run mine.rhai --watch",
            "rhopo run --resume runs/first",
        ],
    ),
    (
        "sweep",
        &[
            "rhopo sweep grpo --set clip=0.1,0.3 lr=1e-4,2e-4 --seeds 3 --jobs 2",
            "rhopo sweep grpo --set lr=1e-5..1e-3 --search tpe --trials 20",
            "rhopo sweep --resume runs/sweep",
            "rhopo sweep grpo --set clip=0.1,0.2,0.3 --seeds 8 --slurm --jobs 4",
        ],
    ),
    ("replay", &["rhopo replay runs/first", "rhopo replay runs/first --from 100 --steps 20"]),
    (
        "runs",
        &[
            "rhopo runs",
            "rhopo runs --where 'clip > 0.1 && state == \"finished\"' --sort -eval",
            "rhopo runs sweep --json",
        ],
    ),
    ("report", &["rhopo report runs/first", "rhopo report runs/first -o first.html"]),
    ("diff", &["rhopo diff runs/first runs/second"]),
    (
        "plot",
        &[
            "rhopo plot runs/first runs/second",
            "rhopo plot runs --y reward --y eval --band seed -o seeds.png",
            "rhopo plot runs --where 'script == \"grpo\"' --x sampled --smooth 9",
        ],
    ),
    ("repl", &["rhopo repl", "rhopo repl mine.rhai --seed 3"]),
    ("list", &["rhopo list"]),
    ("new", &["rhopo new mine", "rhopo new longer --from dapo", "rhopo new sums --task"]),
    ("check", &["rhopo check grpo", "rhopo check mine.rhai --json"]),
    ("compare", &["rhopo compare grpo dr_grpo", "rhopo compare grpo gspo --stale 8 --svg gspo.svg"]),
    ("test", &["rhopo test", "rhopo test mine.rhai --only clip"]),
    ("doc", &["rhopo doc", "rhopo doc kl::k3", "rhopo doc metrics", "rhopo doc --write docs/reference"]),
    ("definitions", &["rhopo definitions definitions"]),
    ("inspect", &["rhopo inspect tiny", "rhopo inspect my-model", "rhopo inspect Qwen/Qwen2.5-0.5B"]),
    ("bench", &["rhopo bench", "rhopo bench real --steps 3 --threads 2"]),
    ("gpu", &["rhopo gpu info", "rhopo gpu check intrinsics"]),
    ("gpu info", &["rhopo gpu info"]),
    ("gpu build", &["rhopo gpu build --arch sm_80 --arch sm_90a"]),
    ("gpu check", &["rhopo gpu check intrinsics", "rhopo gpu check models my-model --device cuda:1"]),
    ("gpu bench", &["rhopo gpu bench --size 1.5B"]),
    ("gpu table", &["rhopo gpu table device-report"]),
    (
        "completions",
        &[
            "source <(rhopo completions bash)         # in ~/.bashrc",
            "source <(rhopo completions zsh)          # in ~/.zshrc",
            "rhopo completions fish | source          # in ~/.config/fish/config.fish",
            "eval (rhopo completions elvish | slurp)  # in ~/.config/elvish/rc.elv",
            "rhopo completions powershell | Out-String | Invoke-Expression  # in $PROFILE",
        ],
    ),
    ("man", &["rhopo man | man -l -", "rhopo man ~/.local/share/man/man1"]),
];

/// The command, and those below it, with their examples.
pub(super) fn added(command: Command) -> Command {
    below(command, "")
}

fn below(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_string()).collect();
    for name in names {
        let path = format!("{path} {name}");
        command = command.mut_subcommand(&name, |inner| below(inner, path.trim()));
    }
    let Some((_, lines)) = EXAMPLES.iter().find(|(known, _)| *known == path) else { return command };
    let own = command.get_after_help().map(|text| format!("\n\n{text}")).unwrap_or_default();
    command.after_help(format!("{HEADING}\n  {}{own}", lines.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::cli;

    fn paths(command: &Command, path: &str) -> Vec<String> {
        let inner = command.get_subcommands().flat_map(|inner| paths(inner, &format!("{path} {}", inner.get_name())));
        std::iter::once(path.trim().to_string()).chain(inner).collect()
    }

    #[test]
    fn every_command_has_examples_that_it_understands() {
        let known: Vec<&str> = EXAMPLES.iter().map(|(path, _)| *path).collect();
        assert_eq!(paths(&cli::command(), ""), known);
        for (path, lines) in EXAMPLES {
            for line in *lines {
                // What a shell does with it: the words of the part that is rhopo's.
                let own = line.split_once('#').map_or(*line, |(own, _)| own).replace(['(', ')'], " ");
                let own = own.split(" | ").next().unwrap_or_default();
                let words = shell_words::split(&own[own.find("rhopo").expect("it calls rhopo")..]).expect("words");
                assert!(words.join(" ").starts_with(format!("rhopo {path}").trim()), "{path}: {line}");
                let read = cli::command().try_get_matches_from(words);
                let asked = |e: &clap::Error| e.kind() == clap::error::ErrorKind::DisplayHelp;
                assert!(read.as_ref().map_or_else(asked, |_| true), "{line}: {}", read.expect_err("not understood"));
            }
        }
    }
}
