//! What the kernels of `src/gpu/` need at build time. With the feature `cuda`: their texts are embedded. With `emulate`:
//! the emulator is compiled, and every kernel with every set of definitions that `src/gpu/list.rs` has, for the CPU.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    embed::texts();
    #[cfg(feature = "emulate")]
    emulate::build();
}

/// The texts of the files that `src/gpu/list.rs` names, and of the headers that they include.
#[cfg(feature = "cuda")]
mod embed {
    use std::fs;
    use std::path::{Path, PathBuf};

    include!("src/gpu/list.rs");

    /// Writes the tables that `src/gpu/cuda/source.rs` includes.
    pub fn texts() {
        println!("cargo:rerun-if-changed=src/gpu/list.rs");
        println!("cargo:rerun-if-changed=src/gpu/kernels");
        let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("Cargo sets CARGO_MANIFEST_DIR"))
            .join("src/gpu/kernels");
        let files = LIST.iter().map(|(file, _)| (file.to_string(), folder.join(file).with_extension("cu")));
        let entries = fs::read_dir(&folder).expect("the kernels' folder").map(|entry| entry.expect("an entry").path());
        let mut headers: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "cuh")).collect();
        headers.sort();
        let named = |path: &PathBuf| path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let texts = table("/// (file, text)\nconst FILES", files)
            + &table("\n/// (name, text)\npub const HEADERS", headers.iter().map(|path| (named(path), path.clone())));
        let out = std::env::var("OUT_DIR").expect("Cargo sets OUT_DIR");
        fs::write(Path::new(&out).join("kernel_texts.rs"), texts).expect("the folder can be written");
    }

    fn table(head: &str, rows: impl Iterator<Item = (String, PathBuf)>) -> String {
        let row = |(name, path): (String, PathBuf)| {
            format!("    ({name:?}, include_str!({:?})),\n", path.display().to_string())
        };
        format!("{head}: &[(&str, &str)] = &[\n{}];\n", rows.map(row).collect::<String>())
    }
}

#[cfg(feature = "emulate")]
mod emulate {
    use std::fmt::Write;
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    include!("src/gpu/list.rs");

    const EMULATOR: &str = "src/gpu/emulator";
    const KERNELS: &str = "src/gpu/kernels";
    /// What the emulator's own tests run.
    const MISTAKES: (&str, &[&str]) = ("mistakes", &["MISTAKE=0", "MISTAKE=1"]);

    /// Compiles what changed since the last time, and links all of it.
    pub fn build() {
        let out = PathBuf::from(env::var("OUT_DIR").expect("Cargo sets OUT_DIR"));
        for watched in [EMULATOR, KERNELS, "src/gpu/list.rs"] {
            println!("cargo:rerun-if-changed={watched}");
        }
        let headers = headers();
        let mut sources: Vec<_> =
            files(EMULATOR, &["cpp"]).into_iter().map(|file| (file.clone(), text(&file))).collect();
        let mut names = Vec::new();
        let kernels = LIST.iter().map(|listed| (KERNELS, listed));
        for (folder, (file, definitions)) in kernels.chain([(EMULATOR, &MISTAKES)]) {
            let kernels = text(format!("{folder}/{file}.cu"));
            for definitions in *definitions {
                let name = identifier(&format!("{file} {definitions}"));
                let generated = specialisation(file, definitions, &name, &kernels);
                sources.push((written(&out, &name, &generated), generated + &kernels));
                names.push(name);
            }
        }
        let generated = table(&names);
        sources.push((written(&out, "table", &generated), generated));

        let mut objects = Vec::new();
        let mut stale = Vec::new();
        for (source, contents) in sources {
            let mut hasher = DefaultHasher::new();
            (&headers, &contents, text("build.rs")).hash(&mut hasher);
            let stem = source.file_stem().expect("a source has a name").to_string_lossy().into_owned();
            let stamp = out.join(format!("{stem}.stamp"));
            let hash = format!("{:016x}", hasher.finish());
            match fs::read_to_string(&stamp).ok().as_deref().and_then(|s| s.split_once('\n')) {
                Some((old, object)) if old == hash && Path::new(object).exists() => objects.push(PathBuf::from(object)),
                _ => stale.push((source, stamp, hash)),
            }
        }
        let files = stale.iter().map(|(source, ..)| source);
        for (object, (_, stamp, hash)) in compiler().files(files).compile_intermediates().into_iter().zip(&stale) {
            write(stamp, &format!("{hash}\n{}", object.display()));
            objects.push(object);
        }
        compiler().objects(objects).compile("rhopo_emulator");
    }

    /// A fused multiply-add happens where a kernel says `fmaf`, and nowhere else.
    fn compiler() -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(2).debug(false).warnings(false).include(EMULATOR).include(KERNELS);
        build.define("RHOPO_EMULATED", None).flag("-ffp-contract=off").flag("-w");
        build
    }

    /// The source of one compilation: definitions, the file in a namespace of its own, and a list of its kernels.
    fn specialisation(file: &str, definitions: &str, name: &str, kernels: &str) -> String {
        let mut s = "#include \"emulator.h\"\n".to_owned();
        for definition in definitions.split_whitespace() {
            let _ = writeln!(s, "#define {}", definition.replacen('=', " ", 1));
        }
        s += "#include \"prelude.cuh\"\n";
        let kernels = kernels_of(kernels);
        assert!(!kernels.is_empty(), "{file}.cu has no KERNEL");
        for (kernel, _) in &kernels {
            let _ = writeln!(s, "static const emu::Absent {kernel};");
        }
        let _ = writeln!(s, "namespace {name}_code {{\n#include \"{file}.cu\"\nstatic const emu::Entry entries[] = {{");
        for (kernel, parameters) in &kernels {
            let _ = writeln!(s, "emu::entry(\"{file}\", \"{definitions}\", \"{kernel}\", \"{parameters}\", {kernel}),");
        }
        let _ = writeln!(s, "{{}}}};\n}}\nextern const emu::Entry* const {name} = {name}_code::entries;");
        s
    }

    fn table(names: &[String]) -> String {
        let mut s = "#include \"emulator.h\"\n".to_owned();
        for name in names {
            let _ = writeln!(s, "extern const emu::Entry* const {name};");
        }
        let _ = writeln!(s, "extern const emu::Entry* const* const emu_entries[] = {{");
        for name in names {
            let _ = writeln!(s, "&{name},");
        }
        s + "nullptr};\n"
    }

    /// The kernels of a source, each with the names of its parameters, a comma behind each.
    fn kernels_of(source: &str) -> Vec<(String, String)> {
        let code: String =
            source.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        let mut kernels = Vec::new();
        for part in code.split("KERNEL(").skip(1) {
            let (name, rest) = part.split_once(')').expect("KERNEL(name)");
            let list = rest.trim_start().strip_prefix('(').expect("parameters follow KERNEL(name)");
            let list = list.split_once(')').expect("parameters end").0;
            let words =
                list.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ',').collect::<Vec<_>>().join(" ");
            // Commas within <> do not occur: no parameter's type has two arguments.
            let names = words.split(',').filter_map(|p| p.split_whitespace().last());
            kernels.push((name.trim().to_owned(), names.map(|n| format!("{n},")).collect()));
        }
        kernels
    }

    fn identifier(text: &str) -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    }

    fn headers() -> String {
        [EMULATOR, KERNELS].iter().flat_map(|folder| files(folder, &["h", "cuh"])).map(text).collect()
    }

    fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry").path());
        let named = |file: &PathBuf| extensions.iter().any(|e| file.extension().is_some_and(|found| found == *e));
        let mut files: Vec<_> = entries.filter(named).collect();
        files.sort();
        files
    }

    fn text(path: impl AsRef<Path>) -> String {
        let path = path.as_ref();
        fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn written(out: &Path, name: &str, contents: &str) -> PathBuf {
        let path = out.join(format!("{name}.cpp"));
        write(&path, contents);
        path
    }

    fn write(path: &Path, contents: &str) {
        fs::write(path, contents).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
