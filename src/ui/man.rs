//! `rhopo man`: pages of the manual, made of the same declaration as the command line.

use crate::error::{Error, Kind, Result};
use crate::script::lang::loader::Loader;
use crate::ui::out;
use crate::ui::pages::write_pages;
use crate::ui::terminal::report;
use clap::Command;
use clap_mangen::Man;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `rhopo man`.
#[derive(Debug, Clone, clap::Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this folder instead
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub folder: Option<PathBuf>,
}

/// Prints the page of the program, or writes the pages of all commands.
pub(super) fn man(args: &ManArgs, command: Command) -> ExitCode {
    let done = pages(command).and_then(|pages| match &args.folder {
        Some(folder) => write_pages(folder, pages),
        None => {
            out::line(pages.first().map_or("", |(_, text)| text.trim_end()));
            Ok(())
        }
    });
    done.inspect_err(|e| report(&e.clone().into(), &Loader::default()))
        .map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// File names and texts, the program's own page first.
fn pages(command: Command) -> Result<Vec<(String, String)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut found = Vec::new();
    add(&command, &mut found)?;
    Ok(found)
}

fn add(command: &Command, found: &mut Vec<(String, String)>) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_string();
    let text = page(command, &name).map_err(|e| Error::new(Kind::Internal, format!("the page {name}: {e}")))?;
    found.push((format!("{name}.1"), text));
    command.get_subcommands().filter(|inner| !inner.is_hide_set()).try_for_each(|inner| add(inner, found))
}

fn page(command: &Command, name: &str) -> std::io::Result<String> {
    let man = Man::new(command.clone()).title(name.to_uppercase()).source(concat!("rhopo ", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    man.render_name_section(&mut roff)?;
    man.render_synopsis_section(&mut roff)?;
    man.render_description_section(&mut roff)?;
    man.render_options_section(&mut roff)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut roff)?;
    }
    let below = command.get_after_help().map(|text| sections(&text.to_string())).unwrap_or_default();
    Ok(String::from_utf8_lossy(&roff).into_owned() + below.as_str())
}

/// Blocks of a heading and lines, as sections whose lines stay as they are.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for block in text.split("\n\n") {
        let (heading, lines) = block.split_once('\n').unwrap_or((block, ""));
        let _ = writeln!(roff, ".SH {}\n.nf", heading.trim_end_matches(':').to_uppercase());
        for line in lines.lines() {
            let _ = writeln!(roff, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"));
        }
        roff += ".fi\n";
    }
    roff
}
