//! Scripts and files that ask for more time or memory than the command line allows: each ends soon, and nobody's machine is
//! filled. The scripts are `fixtures/hungry/`, the files are made here. A third of them is tried; `RHOPO_ATTACKS=all` tries all,
//! which takes four minutes, `RHOPO_ATTACKS=PART` those whose names have that part.

use super::attacks::texts_of;
use super::world::command_of_nobody;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMITS: [&str; 6] = ["--max-ops", "200000", "--max-seconds", "2", "--max-memory", "1"];
/// What is allowed, and what it takes to notice that it is over.
const LONGEST: Duration = Duration::from_secs(3);
const MOST: u64 = (3 << 30) / 2;
/// One that takes longer than this is ended by the test.
const PATIENCE: Duration = Duration::from_secs(30);
/// A busy machine is no fault of the program: what takes too long is tried again.
const TRIES: usize = 3;

/// What is laid into a folder, and what is run there.
struct Attack {
    name: String,
    lay: Box<dyn Fn(&Path) + Send + Sync>,
    words: Vec<String>,
}

impl Attack {
    fn new(name: impl Into<String>, words: &[&str], lay: impl Fn(&Path) + Send + Sync + 'static) -> Self {
        Self { name: name.into(), lay: Box::new(lay), words: words.iter().map(ToString::to_string).collect() }
    }

    fn script(name: impl Into<String>, text: String) -> Self {
        Self::new(name, &["run", "own"], move |dir| fs::write(dir.join("own.rhai"), &text).expect("written"))
    }

    /// A script that reads what is laid.
    fn file(name: &str, script: &str, lay: impl Fn(&Path) + Send + Sync + 'static) -> Self {
        let script = script.to_string();
        Self::new(name, &["run", "own"], move |dir| {
            lay(dir);
            fs::write(dir.join("own.rhai"), &script).expect("written");
        })
    }
}

/// Texts of the corpus: what stands above the first name of a file begins each of its scripts.
fn scripts() -> Vec<Attack> {
    let mut found = Vec::new();
    for (stem, text) in texts_of("hungry") {
        let mut parts = text.split("//# ");
        let begins = parts.next().expect("a beginning").to_string();
        for part in parts {
            let (name, script) = part.split_once('\n').expect("a name");
            found.push(Attack::script(format!("{stem}: {name}"), format!("{begins}{script}")));
        }
    }
    found
}

fn write_with(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
    let mut out = BufWriter::new(File::create(path).expect("a file"));
    fill(&mut out).and_then(|()| out.flush()).expect("written");
}

/// `open`, then `n` times `each`, then `close`.
fn repeat(path: &Path, open: &str, each: &str, n: usize, close: &str) {
    write_with(path, |out| {
        out.write_all(open.as_bytes())?;
        (0..n).try_for_each(|_| out.write_all(each.as_bytes()))?;
        out.write_all(close.as_bytes())
    });
}

/// A column of `rows` values that are all the same: texts of a length, or one list of numbers.
fn parquet(path: &Path, schema: &str, rows: usize, text: Option<usize>) {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let compression = parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer =
        SerializedFileWriter::new(File::create(path).expect("a file"), schema, properties).expect("written");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("a column").expect("there is one");
    const CHUNK: usize = 100_000;
    match text {
        Some(len) => {
            let values = vec![ByteArray::from(vec![b'1'; len]); CHUNK];
            for _ in 0..rows / CHUNK {
                column.typed::<ByteArrayType>().write_batch(&values, None, None).expect("written");
            }
        }
        None => {
            // A row is written at once.
            let repeated: Vec<i16> = (0..rows).map(|i| i16::from(i > 0)).collect();
            column
                .typed::<Int64Type>()
                .write_batch(&vec![0; rows], Some(&vec![1; rows]), Some(&repeated))
                .expect("written");
        }
    }
    column.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
}

/// A fixture model, and a file in it that `lay` makes anew.
fn model(name: &str, lay: impl Fn(&Path) + Send + Sync + 'static) -> Attack {
    Attack::file(name, "load_model(\"m\").chat([#{ role: \"user\", content: \"x\" }]);", move |dir| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2");
        fs::create_dir(dir.join("m")).expect("made");
        for entry in fs::read_dir(from).expect("a fixture") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, dir.join("m").join(path.file_name().expect("a name"))).expect("copied");
        }
        lay(&dir.join("m"));
    })
}

fn files() -> Vec<Attack> {
    const MIB: usize = 1 << 20;
    let data = "load_data(\"d.jsonl\").rows(1);";
    vec![
        Attack::file("files: a line of 32 GiB", data, |dir| {
            File::create(dir.join("d.jsonl")).and_then(|file| file.set_len(32 << 30)).expect("made");
        }),
        Attack::file("files: an array of 50 MB", data, |dir| {
            repeat(&dir.join("d.jsonl"), "{\"prompt\": \"1\", \"x\": [1", ", 1", 17 * MIB, "]}\n");
        }),
        Attack::file("files: maps in 50 MB", data, |dir| {
            repeat(&dir.join("d.jsonl"), "{\"prompt\": \"1\", \"x\": [1", ", {\"a\": 1}", 5 * MIB, "]}\n");
        }),
        Attack::file("files: a prompt of 50 MB", "load_data(\"d.jsonl\").prompts(1000);", |dir| {
            repeat(&dir.join("d.jsonl"), "{\"prompt\": \"", "1", 50 * MIB, "\"}\n");
        }),
        Attack::file("files: a million keys in a row", data, |dir| {
            write_with(&dir.join("d.jsonl"), |out| {
                write!(out, "{{\"prompt\": \"1\"")?;
                (0..3_500_000).try_for_each(|i| write!(out, ", \"k{i}\": 1"))?;
                writeln!(out, "}}")
            });
        }),
        Attack::file("files: nested lists", data, |dir| {
            let n = 10 * MIB;
            repeat(&dir.join("d.jsonl"), "{\"prompt\": \"1\", \"x\": ", "[", n, &format!("{}}}\n", "]".repeat(n)));
        }),
        Attack::file("files: many rows", "load_data(\"d.jsonl\").rows(10);", |dir| {
            repeat(&dir.join("d.jsonl"), "", "{\"prompt\": \"1\"}\n", 6 * MIB, "");
        }),
        Attack::file("files: JSON of 100 MB", "load_data(\"d.json\").rows(10);", |dir| {
            repeat(&dir.join("d.json"), "[{\"prompt\": \"1\"}", ", {\"prompt\": \"1\"}", 6 * MIB, "]");
        }),
        Attack::file(
            "files: a reward of a data file without end",
            "load_task(\"arithmetic\", #{ data: \"d.jsonl\" });",
            |dir| {
                File::create(dir.join("d.jsonl")).and_then(|file| file.set_len(32 << 30)).expect("made");
            },
        ),
        Attack::file("files: a batch of 32 GiB", "load_batch(\"b\");", |dir| {
            File::create(dir.join("b")).and_then(|file| file.set_len(32 << 30)).expect("made");
        }),
        Attack::file("files: a module of 32 GiB", "import \"m\" as m;", |dir| {
            File::create(dir.join("m.rhai")).and_then(|file| file.set_len(32 << 30)).expect("made");
        }),
        Attack::file("files: GGUF of 32 GiB", "load_frozen(\"m.gguf\");", |dir| {
            let file = File::create(dir.join("m.gguf")).expect("a file");
            (&file).write_all(b"GGUF\x03\0\0\0").and_then(|()| file.set_len(32 << 30)).expect("made");
        }),
        Attack::file("files: Parquet of many short texts", "load_data(\"d.parquet\").rows(1);", |dir| {
            parquet(&dir.join("d.parquet"), "message m { required binary prompt (UTF8); }", 50_000_000, Some(1));
        }),
        Attack::file("files: Parquet of long texts", "load_data(\"d.parquet\").rows(1);", |dir| {
            parquet(&dir.join("d.parquet"), "message m { required binary prompt (UTF8); }", 5_000_000, Some(1000));
        }),
        Attack::file("files: Parquet of one long list", "load_data(\"d.parquet\").rows(1);", |dir| {
            let schema = "message m { required group x (LIST) { repeated group list { required int64 element; } } }";
            parquet(&dir.join("d.parquet"), schema, 20_000_000, None);
        }),
        model("models: a configuration of 50 MB", |dir| {
            let text = fs::read_to_string(dir.join("config.json")).expect("there");
            let open = format!("{{\"x\": [1{}], ", ", 1".repeat(17 * MIB));
            fs::write(dir.join("config.json"), text.replacen('{', &open, 1)).expect("written");
        }),
        model("models: a tokenizer of 100 MB", |dir| {
            let text = fs::read_to_string(dir.join("tokenizer.json")).expect("there");
            let open = format!("{{\"x\": [1{}], ", ", 1".repeat(33 * MIB));
            fs::write(dir.join("tokenizer.json"), text.replacen('{', &open, 1)).expect("written");
        }),
        model("models: a template of 50 MB", |dir| {
            repeat(&dir.join("chat_template.jinja"), "", "{% if a %}{{ b }}{% endif %}", 2 * MIB, "");
        }),
        model("models: an index of 50 MB", |dir| {
            fs::remove_file(dir.join("model.safetensors")).ok();
            write_with(&dir.join("model.safetensors.index.json"), |out| {
                write!(out, "{{\"weight_map\": {{\"a\": \"b.safetensors\"")?;
                (0..1_500_000).try_for_each(|i| write!(out, ", \"k{i}\": \"s{i}.safetensors\""))?;
                writeln!(out, "}}}}")
            });
        }),
        model("models: an adapter with many targets", |dir| {
            let targets = vec!["\"q_proj\""; 100_000].join(", ");
            let text = format!(
                "{{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"base_model_name_or_path\": \"tiny\", \
                 \"target_modules\": [{targets}]}}"
            );
            fs::write(dir.join("adapter_config.json"), text).expect("written");
            fs::remove_file(dir.join("config.json")).expect("there");
            fs::rename(dir.join("model.safetensors"), dir.join("adapter_model.safetensors")).expect("renamed");
        }),
        model("models: weights of 32 GiB", |dir| {
            File::create(dir.join("model.safetensors")).and_then(|file| file.set_len(32 << 30)).expect("made");
        }),
        model("models: a header of 100 MB", |dir| {
            let header = format!("{{\"__metadata__\": {{\"x\": \"{}\"}}}}", "1".repeat(99 * MIB));
            let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
            fs::write(dir.join("model.safetensors"), bytes).expect("written");
        }),
    ]
}

/// Commands other than `run`.
fn commands() -> Vec<Attack> {
    let loss =
        |body: &str| format!("let cfg = args(#{{ lr: 1e-3 }});\nfn loss(logp, b, cfg) {{ {body}; mean(logp) }}\n");
    let bodies = [
        ("a loop", "loop { }"),
        ("sleep", "sleep(86400)"),
        ("tensors", "let all = []; loop { all.push(ones([1000, 1000])); }"),
        ("texts", "let t = \"x\"; loop { t += t; }"),
    ];
    let mut found = Vec::new();
    for (name, body) in bodies {
        let text = loss(body);
        for words in [&["check", "own"][..], &["compare", "own"]] {
            let text = text.clone();
            found.push(Attack::new(format!("{}: {name}", words[0]), words, move |dir| {
                fs::write(dir.join("own.rhai"), &text).expect("written");
            }));
        }
        let text = format!("fn test_it() {{ {body}; }}\n");
        found.push(Attack::new(format!("test: {name}"), &["test", "own.rhai"], move |dir| {
            fs::write(dir.join("own.rhai"), &text).expect("written");
        }));
    }
    let module = |name: &str, body: &str| {
        let text =
            format!("const X = {body};\nlet cfg = args(#{{ lr: 1e-3 }});\nfn loss(logp, b, cfg) {{ mean(logp) }}\n");
        Attack::new(name, &["check", "own"], move |dir| fs::write(dir.join("own.rhai"), &text).expect("written"))
    };
    found.push(module("check: a constant that sleeps", "sleep(86400)"));
    found.push(module("check: a constant of many texts", "load_task(\"countdown\").demos(10000000)"));
    found
}

/// What one attack took.
struct Taken {
    status: Option<ExitStatus>,
    time: Duration,
    most: u64,
    said: String,
}

fn held(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    kib.map_or(0, |kib: u64| kib << 10)
}

fn attack(attack: &Attack) -> Taken {
    let dir = tempfile::tempdir().expect("a folder");
    (attack.lay)(dir.path());
    let (err, limits) = (tempfile::NamedTempFile::new().expect("a file"), LIMITS.map(String::from));
    let words: Vec<String> = attack.words.iter().cloned().chain(limits).collect();
    let mut command = command_of_nobody(dir.path(), &words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err.reopen().expect("the file"));
    let begun = Instant::now();
    let mut child = command.spawn().expect("rhopo starts");
    let mut most = 0;
    let status = loop {
        most = most.max(held(&child));
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if begun.elapsed() > PATIENCE {
            child.kill().and_then(|()| child.wait()).expect("killed");
            break None;
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let bytes = fs::read(err.path()).expect("written");
    let said = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(2000)..]).into_owned();
    Taken { status, time: begun.elapsed(), most, said }
}

fn wrong(taken: &Taken) -> Option<String> {
    let gib = taken.most as f64 / f64::from(1 << 30);
    match taken.status.map(|status| status.code()) {
        None => Some(format!("no end; {gib:.2} GiB")),
        Some(None) => Some(format!("ended by a signal: {:?}", taken.status)),
        Some(Some(0 | 1)) if taken.said.contains("rhopo itself failed") => Some(format!("a panic: {}", taken.said)),
        Some(Some(0 | 1)) if taken.most > MOST => Some(format!("{gib:.2} GiB")),
        Some(Some(0 | 1)) if taken.time > LONGEST => Some(format!("{:.2} s", taken.time.as_secs_f64())),
        Some(Some(0 | 1)) => None,
        Some(Some(code)) => Some(format!("ended with {code}: {}", taken.said)),
    }
}

#[test]
fn what_asks_for_too_much_ends_soon_and_small() {
    let only = std::env::var("RHOPO_ATTACKS").ok();
    let all: Vec<Attack> = scripts().into_iter().chain(files()).chain(commands()).collect();
    assert!(all.len() >= 120, "{}", all.len());
    let chosen = |(i, attack): &(usize, Attack)| match only.as_deref() {
        None => i % 3 == 0,
        Some("all") => true,
        Some(part) => attack.name.contains(part),
    };
    let all: Vec<Attack> = all.into_iter().enumerate().filter(chosen).map(|(_, attack)| attack).collect();
    let (count, next) = (all.len(), Mutex::new(all.into_iter()));
    let (failed, taken) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let Some(one) = next.lock().expect("no panic").next() else { return };
            let mut tries = (0..TRIES).map(|_| attack(&one));
            let mut last = tries.next().expect("one");
            while let (Some(_), Some(again)) = (wrong(&last), tries.next()) {
                last = again;
            }
            if let Some(what) = wrong(&last) {
                println!("{}: {what}", one.name);
                failed.lock().expect("no panic").push(format!("{}: {what}", one.name));
            }
            taken.lock().expect("no panic").push((last.time, last.most, one.name));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (mut taken, failed) = (taken.into_inner().expect("no panic"), failed.into_inner().expect("no panic"));
    taken.sort();
    let (time, _, name) = taken.last().expect("some");
    let (_, most, largest) = taken.iter().max_by_key(|(_, most, _)| *most).expect("some");
    println!("{count} attacks; the longest took {:.2} s ({name})", time.as_secs_f64());
    println!("the largest held {:.2} GiB ({largest})", *most as f64 / f64::from(1 << 30));
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), failed.join("\n"));
}

/// Whatever a shell allows the process to address: it does its work, or says in an error that it cannot.
#[test]
fn a_limit_on_addresses_ends_in_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let scripts = [
        (
            "work",
            "let p = load_model(\"tiny\");\nsample(p, [\"1+1=\"], #{ n: 64, max_tokens: 16 });\nlet all = [];\n\
                  for i in 0..150 { all.push(ones([1000, 1000])); }\nprint(\"done\");\n",
        ),
        ("deep", "let f = |x| 1;\nfor i in 0..4000000 { let g = f; f = |x| g; }\nprint(\"done\");\n"),
    ];
    for (name, text) in scripts {
        fs::write(dir.path().join(format!("{name}.rhai")), text).expect("written");
    }
    let mut told = Vec::new();
    for kib in (1..=20).map(|i| 100_000 * i * i * i / (1 + i)) {
        // What lies deep takes long, and needs much.
        for (name, _) in scripts.into_iter().take(if kib > 2_000_000 && kib < 12_000_000 { 2 } else { 1 }) {
            let nobody = command_of_nobody(dir.path(), &["run".into(), name.into()]);
            let line = format!("ulimit -v {kib} && exec \"$0\" run {name} --device cpu");
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &line]).arg(nobody.get_program()).current_dir(dir.path());
            command.envs(nobody.get_envs().filter_map(|(key, value)| Some((key, value?))));
            let out = command.output().expect("sh starts");
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            // What the system's loader cannot map is none of ours.
            let fine = match out.status.code() {
                Some(0) => String::from_utf8_lossy(&out.stdout).contains("done"),
                Some(1) => said.contains("Error: ") && said.lines().count() <= 12,
                Some(127) => kib < 100_000,
                _ => false,
            };
            assert!(fine, "{kib} KiB, {name}: {:?}: {said}", out.status);
            told.push(out.status.code() == Some(0));
        }
    }
    assert!(told.iter().any(|done| *done) && told.iter().any(|done| !*done), "{told:?}");
}

/// Millions of small values, at the script's top and within a function: nobody waits until they are taken apart.
#[test]
fn what_a_script_made_is_not_taken_apart_beyond_its_time() {
    const SECONDS: u64 = 5;
    let dir = tempfile::tempdir().expect("a folder");
    let fill = "let all = []; for i in 0..1000000000 { let own = i; all.push(|| own); }";
    for text in [fill.to_string(), format!("fn fill() {{ {fill} }}\nfill();")] {
        fs::write(dir.path().join("own.rhai"), &text).expect("written");
        let seconds = SECONDS.to_string();
        let words = ["run", "own", "--max-seconds", &seconds, "--max-memory", "8"].map(String::from);
        let begun = Instant::now();
        let out = command_of_nobody(dir.path(), &words).output().expect("rhopo starts");
        let (took, said) = (begun.elapsed(), String::from_utf8_lossy(&out.stderr).into_owned());
        assert!(said.contains("took more than 5 s") || said.contains("out of memory"), "{text}: {said}");
        assert!(took < Duration::from_secs(SECONDS) + Duration::from_millis(1500), "{text}: {took:?}: {said}");
        assert_eq!(out.status.code(), Some(1), "{text}: {said}");
    }
}
