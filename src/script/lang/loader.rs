//! Where scripts come from: a path, `./scripts`, those in the binary; and what `import` finds.
//! Keeps the text of everything that was loaded, so that errors can show their lines.

use crate::error::{Error, Result, nearest};
use crate::files::{self, Location};
use crate::run::access::Access;
use crate::script::lang::no_value;
use rhai::{AST, Engine, EvalAltResult, FnNamespace, Module, ModuleResolver, Position, Scope, Shared};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Scripts and modules that the binary carries; a test holds that none is forgotten.
const SCRIPTS: &[(&str, &str)] = &[
    ("a2c", include_str!("../../../scripts/a2c.rhai")),
    ("a_star_po", include_str!("../../../scripts/a_star_po.rhai")),
    ("alol", include_str!("../../../scripts/alol.rhai")),
    ("apo_down", include_str!("../../../scripts/apo_down.rhai")),
    ("apo_zero", include_str!("../../../scripts/apo_zero.rhai")),
    ("awr", include_str!("../../../scripts/awr.rhai")),
    ("best_of_n", include_str!("../../../scripts/best_of_n.rhai")),
    ("cdpo", include_str!("../../../scripts/cdpo.rhai")),
    ("cispo", include_str!("../../../scripts/cispo.rhai")),
    ("cpi", include_str!("../../../scripts/cpi.rhai")),
    ("cpl", include_str!("../../../scripts/cpl.rhai")),
    ("cpo", include_str!("../../../scripts/cpo.rhai")),
    ("dapo", include_str!("../../../scripts/dapo.rhai")),
    ("discopop", include_str!("../../../scripts/discopop.rhai")),
    ("distill", include_str!("../../../scripts/distill.rhai")),
    ("dpo", include_str!("../../../scripts/dpo.rhai")),
    ("dppo", include_str!("../../../scripts/dppo.rhai")),
    ("dr_grpo", include_str!("../../../scripts/dr_grpo.rhai")),
    ("dr_po", include_str!("../../../scripts/dr_po.rhai")),
    ("dual_clip", include_str!("../../../scripts/dual_clip.rhai")),
    ("ema_dpo", include_str!("../../../scripts/ema_dpo.rhai")),
    ("gkd", include_str!("../../../scripts/gkd.rhai")),
    ("gmpo", include_str!("../../../scripts/gmpo.rhai")),
    ("gro", include_str!("../../../scripts/gro.rhai")),
    ("grpo", include_str!("../../../scripts/grpo.rhai")),
    ("grpo_lora", include_str!("../../../scripts/grpo_lora.rhai")),
    ("grpo_plus", include_str!("../../../scripts/grpo_plus.rhai")),
    ("gspo", include_str!("../../../scripts/gspo.rhai")),
    ("ipo", include_str!("../../../scripts/ipo.rhai")),
    ("ipo_md", include_str!("../../../scripts/ipo_md.rhai")),
    ("kto", include_str!("../../../scripts/kto.rhai")),
    ("max_rl", include_str!("../../../scripts/max_rl.rhai")),
    ("nash_md", include_str!("../../../scripts/nash_md.rhai")),
    ("npg", include_str!("../../../scripts/npg.rhai")),
    ("online_dpo", include_str!("../../../scripts/online_dpo.rhai")),
    ("opd", include_str!("../../../scripts/opd.rhai")),
    ("orpo", include_str!("../../../scripts/orpo.rhai")),
    ("ppo", include_str!("../../../scripts/ppo.rhai")),
    ("ppo_clip_kl", include_str!("../../../scripts/ppo_clip_kl.rhai")),
    ("ppo_penalty", include_str!("../../../scripts/ppo_penalty.rhai")),
    ("ppo_pp", include_str!("../../../scripts/ppo_pp.rhai")),
    ("ppo_ptx", include_str!("../../../scripts/ppo_ptx.rhai")),
    ("ppo_shared", include_str!("../../../scripts/ppo_shared.rhai")),
    ("rebel", include_str!("../../../scripts/rebel.rhai")),
    ("refuel", include_str!("../../../scripts/refuel.rhai")),
    ("reinforce", include_str!("../../../scripts/reinforce.rhai")),
    ("reinforce_pp", include_str!("../../../scripts/reinforce_pp.rhai")),
    ("reinforce_pp_baseline", include_str!("../../../scripts/reinforce_pp_baseline.rhai")),
    ("remax", include_str!("../../../scripts/remax.rhai")),
    ("rest", include_str!("../../../scripts/rest.rhai")),
    ("reward_model", include_str!("../../../scripts/reward_model.rhai")),
    ("rloo", include_str!("../../../scripts/rloo.rhai")),
    ("rso", include_str!("../../../scripts/rso.rhai")),
    ("sapo", include_str!("../../../scripts/sapo.rhai")),
    ("self_distill", include_str!("../../../scripts/self_distill.rhai")),
    ("sft", include_str!("../../../scripts/sft.rhai")),
    ("simpo", include_str!("../../../scripts/simpo.rhai")),
    ("slic", include_str!("../../../scripts/slic.rhai")),
    ("spin", include_str!("../../../scripts/spin.rhai")),
    ("trpo", include_str!("../../../scripts/trpo.rhai")),
];
pub const STDLIB: &[(&str, &str)] = &[
    ("diagnostics", include_str!("../../../stdlib/diagnostics.rhai")),
    ("evaluation", include_str!("../../../stdlib/evaluation.rhai")),
    ("gro", include_str!("../../../stdlib/gro.rhai")),
    ("judge", include_str!("../../../stdlib/judge.rhai")),
    ("offline", include_str!("../../../stdlib/offline.rhai")),
    ("optim", include_str!("../../../stdlib/optim.rhai")),
    ("pairing", include_str!("../../../stdlib/pairing.rhai")),
    ("reward", include_str!("../../../stdlib/reward.rhai")),
    ("schedule", include_str!("../../../stdlib/schedule.rhai")),
    ("teaching", include_str!("../../../stdlib/teaching.rhai")),
    ("trust_region", include_str!("../../../stdlib/trust_region.rhai")),
];

/// Bytes of a script: the parser takes far more than linear time for some long texts.
const LARGEST: u64 = 1 << 20;

type Fallible<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A script's text and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What errors call it: the path, or `grpo.rhai` for an embedded one.
    pub label: String,
    pub text: String,
}

impl Source {
    /// `grpo` for `scripts/grpo.rhai`.
    pub fn stem(&self) -> String {
        Path::new(&self.label).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What a script says about itself in its first line: `//! GRPO: group-relative …`.
    pub fn summary(&self) -> &str {
        self.text.lines().next().and_then(|line| line.strip_prefix("//!")).map_or("", str::trim)
    }
}

/// Finds scripts and modules.
#[derive(Debug, Default)]
pub struct Loader {
    stdlib: Option<PathBuf>,
    /// What errors show.
    texts: RefCell<BTreeMap<String, String>>,
    /// Files as they were read last.
    files: RefCell<BTreeMap<String, String>>,
    /// Tasks and rewards among them, and modules: whether no script imports them.
    apart: RefCell<BTreeMap<String, bool>>,
    /// Files as they were when the run that goes on was stored; each is read once so.
    then: RefCell<BTreeMap<String, String>>,
    modules: RefCell<BTreeMap<String, Shared<Module>>>,
    /// Raised whenever modules have to be made again.
    generation: Cell<u64>,
    access: RefCell<Access>,
    /// Modules that are being made, each imported by the one before.
    loading: RefCell<Vec<PathBuf>>,
}

impl Loader {
    /// `stdlib` is a folder that goes before the embedded modules. Until it is
    /// told otherwise, files are those below the current folder.
    pub fn new(stdlib: Option<PathBuf>) -> Rc<Self> {
        Rc::new(Self { stdlib, access: RefCell::new(Access::reading(&[])), ..Self::default() })
    }

    /// From here on files that scripts may read are found, and no others.
    pub fn confine(&self, access: &Access) {
        *self.access.borrow_mut() = access.clone();
    }

    /// The script called `name`: a path, with or without `.rhai`, one of `./scripts`, or an embedded one.
    pub fn find(&self, name: &str) -> Result<Source> {
        self.find_as("script", name)
    }

    /// The file at `path`, which may leave `.rhai` out; none of those that are known by name.
    ///
    /// # Errors
    /// No such file, or one that scripts may not read.
    pub fn file(&self, noun: &str, path: &str) -> Result<Source> {
        let places = [PathBuf::from(path), with_extension(path)];
        let found = places.iter().find(|path| self.has(path));
        let source = self.read(found.ok_or_else(|| {
            Error::file(format!("there is no {noun} {path}")).hint("a path is taken from the current folder")
        })?)?;
        self.apart.borrow_mut().entry(source.label.clone()).or_insert(true);
        Ok(source)
    }

    /// `noun` is what errors call it.
    fn find_as(&self, noun: &str, name: &str) -> Result<Source> {
        let places = [PathBuf::from(name), with_extension(name), Path::new("scripts").join(with_extension(name))];
        if let Some(path) = places.iter().find(|path| self.has(path)) {
            return self.read(path);
        }
        let bare = name.strip_suffix(".rhai").unwrap_or(name);
        if let Some((_, text)) = SCRIPTS.iter().find(|(known, _)| *known == bare) {
            return Ok(self.keep(format!("{bare}.rhai"), (*text).to_string()));
        }
        let known: Vec<String> = list(&self.access.borrow()).iter().map(Source::stem).collect();
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        if name.contains(['/', '\\']) || (name.ends_with(".rhai") && nearest(bare, &names).is_none()) {
            let e = Error::file(format!("there is no {noun} {name}"));
            return Err(e.hint("a path is taken from the current folder; `rhopo list` shows the scripts known by name"));
        }
        Err(Error::unknown(noun, bare, &known))
    }

    /// Files are first found as they were then.
    pub fn as_of_then(&self, files: impl IntoIterator<Item = (String, String)>) {
        self.then.borrow_mut().extend(files);
    }

    /// The files that were read, with their texts.
    pub fn files(&self) -> BTreeMap<String, String> {
        self.files.borrow().clone()
    }

    /// Remembers a text that is no file under its label.
    pub fn keep(&self, label: String, text: String) -> Source {
        self.texts.borrow_mut().insert(label.clone(), text.clone());
        Source { label, text }
    }

    /// The text of a source that was loaded.
    pub fn text(&self, label: &str) -> Option<String> {
        self.texts.borrow().get(label).cloned()
    }

    /// Reads every file again that was loaded; modules are made anew where one has changed. Returns what has changed;
    /// a file that cannot be read now counts as it was.
    pub fn refresh(&self) -> Vec<String> {
        let known = self.files.borrow().clone();
        let edited = |(label, text): (String, String)| {
            let path = Path::new(&label);
            (files::is_file(&self.at(path)) && self.read(path).is_ok_and(|now| now.text != text)).then_some(label)
        };
        let changed: Vec<String> = known.into_iter().filter_map(edited).collect();
        if !changed.is_empty() {
            self.modules.borrow_mut().clear();
            self.generation.set(self.generation.get() + 1);
        }
        changed
    }

    /// Whether a file is a task's or a reward's alone, which follow it themselves.
    pub fn stands_apart(&self, label: &str) -> bool {
        self.apart.borrow().get(label) == Some(&true)
    }

    /// A number that changes whenever a file that was loaded has.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn begin_module(&self, label: &str) -> Result<Loading<'_>> {
        const DEEPEST: usize = 32;
        // Links and dots give one file many names.
        let path = files::real(&self.at(Path::new(label))).unwrap_or_else(|| PathBuf::from(label));
        let mut loading = self.loading.borrow_mut();
        if loading.contains(&path) {
            return Err(Error::value(format!("{label} imports itself, or modules that import it"))
                .hint("move what both need into a module of its own"));
        }
        if loading.len() >= DEEPEST {
            return Err(Error::value(format!("modules import each other {DEEPEST} deep")));
        }
        loading.push(path);
        Ok(Loading(self))
    }

    /// Whether there is such a file, now or as of then.
    fn has(&self, path: &Path) -> bool {
        files::is_file(&self.at(path)) || self.then.borrow().contains_key(&path.display().to_string())
    }

    fn at(&self, path: &Path) -> Location {
        self.access.borrow().at(path)
    }

    fn read(&self, path: &Path) -> Result<Source> {
        let label = path.display().to_string();
        if let Some(text) = self.then.borrow_mut().remove(&label) {
            self.files.borrow_mut().insert(label.clone(), text.clone());
            return Ok(self.keep(label, text));
        }
        let file = files::open(&self.access.borrow().read(path)?)?;
        let size = file.size();
        if size > LARGEST {
            let what = format!("{} is too long for a script: {size} bytes, at most {LARGEST}", path.display());
            return Err(Error::file(what).hint("data goes into a file for load_data"));
        }
        // Editors on Windows begin files with a byte-order mark.
        let text = file.text()?.trim_start_matches('\u{feff}').to_string();
        self.files.borrow_mut().insert(label.clone(), text.clone());
        Ok(self.keep(label, text))
    }

    /// What `import "path"` in the script `from` means.
    pub fn module(&self, path: &str, from: Option<&str>) -> Result<Source> {
        if let Some(name) = path.strip_prefix("std/") {
            return self.standard(name);
        }
        let beside = files::beside(&self.at(Path::new(from.unwrap_or_default())), with_extension(path));
        if self.has(&beside) {
            let module = self.read(&beside)?;
            self.apart.borrow_mut().insert(module.label.clone(), false);
            return Ok(module);
        }
        self.find_as("module", path).map_err(|e| {
            let known: Vec<String> = STDLIB.iter().map(|(known, _)| format!("std/{known}")).collect();
            let hint = "a module is a file beside the script, a script known by name, or one of";
            Error { hint: Some(format!("{hint} {}", known.join(", "))), ..e }
        })
    }

    fn standard(&self, name: &str) -> Result<Source> {
        let own = self.stdlib.as_ref().map(|folder| folder.join(with_extension(name)));
        if let Some(path) = own.filter(|path| self.has(path)) {
            return self.read(&path);
        }
        let found = STDLIB.iter().find(|(known, _)| *known == name);
        let known: Vec<String> = STDLIB.iter().map(|(known, _)| format!("std/{known}")).collect();
        let (_, text) = found.ok_or_else(|| Error::unknown("module", &format!("std/{name}"), &known))?;
        Ok(self.keep(format!("std/{name}.rhai"), (*text).to_string()))
    }
}

/// Every script that can be run by name, those of `./scripts` before embedded ones of the same name.
pub fn list(access: &Access) -> Vec<Source> {
    let mut found = BTreeMap::new();
    for (name, text) in SCRIPTS {
        found.insert((*name).to_string(), Source { label: format!("{name}.rhai"), text: (*text).to_string() });
    }
    let entries = files::entries(&access.at("scripts")).unwrap_or_default();
    for path in entries.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rhai")) {
        if let Ok(text) = files::text(&path) {
            let source = Source { label: path.display().to_string(), text };
            found.insert(source.stem(), source);
        }
    }
    found.into_values().collect()
}

fn with_extension(name: &str) -> PathBuf {
    PathBuf::from(if name.ends_with(".rhai") { name.to_string() } else { format!("{name}.rhai") })
}

/// Compiles a source so that its errors carry its label. Refuses the value of what gives none.
pub fn compile(engine: &Engine, source: &Source) -> Fallible<AST> {
    let mut ast = engine.compile(&source.text)?;
    if let Some((e, pos)) = no_value::used(&ast) {
        return Err(located(e, pos));
    }
    ast.set_source(source.label.as_str());
    Ok(ast)
}

/// `import` through a loader; a module is evaluated once per run.
pub struct Resolver(pub Rc<Loader>);

impl ModuleResolver for Resolver {
    fn resolve(&self, engine: &Engine, from: Option<&str>, path: &str, pos: Position) -> Fallible<Shared<Module>> {
        let source = self.0.module(path, from).map_err(|e| located(e, pos))?;
        if let Some(module) = self.0.modules.borrow().get(&source.label) {
            return Ok(module.clone());
        }
        let _loading = self.0.begin_module(&source.label).map_err(|e| located(e, pos))?;
        // The label, not the path as written: it is what finds the text again.
        let inside = |e| EvalAltResult::ErrorInModule(source.label.clone(), e, pos);
        let ast = compile(engine, &source).map_err(inside)?;
        let mut module = Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(inside)?;
        expose_closures(&mut module);
        let module: Shared<Module> = module.into();
        self.0.modules.borrow_mut().insert(source.label, module.clone());
        Ok(module)
    }
}

/// A closure that comes out of a module is called by its made-up name: it must be found wherever the module is imported.
// Rhai has no other way to change where a function of a script is seen; its version is pinned by the lock file.
#[allow(deprecated)]
fn expose_closures(module: &mut Module) {
    let closures: Vec<_> =
        module.iter_script_fn_info().filter(|f| f.2.starts_with("anon$")).map(|f| f.4.clone()).collect();
    for closure in closures {
        // The number that a function is filed under depends on the function alone.
        let filed = Module::new().set_script_fn(closure);
        module.update_fn_namespace(filed, FnNamespace::Global);
    }
    module.build_index();
}

/// A module is being made as long as this lives.
struct Loading<'a>(&'a Loader);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.loading.borrow_mut().pop();
    }
}

fn located(e: Error, pos: Position) -> Box<EvalAltResult> {
    let mut located: Box<EvalAltResult> = e.into();
    located.set_position(pos);
    located
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(folder: &str) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let mut stems: Vec<_> =
            entries.map(|e| e.path().file_stem().expect("a name").to_string_lossy().into()).collect();
        stems.sort();
        stems
    }

    #[test]
    fn every_shipped_file_is_embedded() {
        assert_eq!(stems("scripts"), SCRIPTS.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
        assert_eq!(stems("stdlib"), STDLIB.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_stdlib_folder_goes_before_the_embedded_one() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("reward.rhai"), "// mine").expect("written");
        let loader = Loader::new(Some(dir.path().to_path_buf()));
        loader.confine(&Access::everything());
        assert_eq!(loader.module("std/reward", None).expect("found").text, "// mine");
        assert!(Loader::new(None).module("std/reward", None).expect("found").text.contains("overlong"));
        let e = loader.module("std/rewards", None).expect_err("unknown");
        assert_eq!(e.hint.as_deref(), Some("did you mean `std/reward`?"));
    }
}
