//! Ways out of the folder, each tried as it is: by a name, by a link, by a file that names another, through every command.
//! To try another, add a line to a table. A way is open where what lies outside is seen, or has changed.

use super::world::{SECRET, Step, World};
use Step::{Copy, Edit, Link, Model, Remove, Run, Write};
use std::sync::Mutex;

/// How it is tried.
#[derive(Clone)]
enum How {
    /// The script `own.rhai`.
    Script(&'static str),
    /// The same, with options.
    With(&'static str, &'static [&'static str]),
    /// A command.
    Command(&'static [&'static str]),
    /// `own.rhai` with a variable of the environment.
    Under(&'static str, &'static str, &'static str),
    /// Words at the prompt's script.
    Repl(&'static str),
}

/// What must be said, if anything.
#[derive(Clone, Copy, PartialEq)]
enum Said {
    Refused,
    /// It is passed over, or done inside.
    Nothing,
}

struct Case {
    kind: &'static str,
    steps: Vec<Step>,
    how: How,
    said: Said,
}

use How::{Command, Repl, Script, Under, With};
use Said::{Nothing, Refused};

fn case(kind: &'static str, steps: impl Into<Vec<Step>>, how: How, said: Said) -> Case {
    Case { kind, steps: steps.into(), how, said }
}

const CHAT: &str = "print(load_model(\"m\").chat([#{ role: \"user\", content: \"x\" }]));";
const RESAVE: &str = "load_model(\"m\").save(\"copy\");";
const ADAPTER: &str = "{\"peft_type\": \"LORA\", \"base_model_name_or_path\": \"{out}/model\", \"r\": 8, \"lora_alpha\": 8, \
                       \"target_modules\": [\"q_proj\"]}";
const EVIL: &str = "let cfg = args(#{});\nfn loss(logp, b, cfg) { print(load_data(\"{out}/secret.jsonl\").rows(1)); \
                    batch(#{ reward: [1] }).save(\"{out}/new\"); -seq_mean(logp * b.advantage, b.mask) }\n";

fn model_with(name: &'static str, to: &'static str) -> Vec<Step> {
    vec![Model("m"), Link(name, to)]
}

fn reads() -> Vec<Case> {
    let (name, link, file, command) = ("by name", "by link", "by a file", "by a command");
    let write = |path: &'static str, text: &str| Write(path, text.to_string());
    let adapter = |base: &str| vec![write("a/adapter_config.json", &ADAPTER.replace("{out}/model", base))];
    let evil = |path: &'static str| write(path, EVIL);
    let recorded = |to: &'static str| {
        vec![
            Run("r"),
            Edit("r/config.json", "    \"own\",\n", to),
            Edit("r/script.rhai", "let n = 0;", "let n = 0; print(load_data(\"{out}/secret.jsonl\").rows(1));"),
        ]
    };
    vec![
        case(name, [], Script("print(load_data(\"{out}/secret.jsonl\").rows(1));"), Refused),
        case(name, [], Script("print(load_data(\"{up}/secret.jsonl\").rows(1));"), Refused),
        case(name, [], Script("print(load_data(\"./../{up}/secret.jsonl\").rows(1));"), Refused),
        case(
            name,
            [],
            Script("print(load_task(\"arithmetic\", #{ data: \"{out}/secret.jsonl\" }).prompts(1));"),
            Refused,
        ),
        case(name, [], Script("load_task(\"{out}/x.rhai\");"), Refused),
        case(name, [], Script("load_task(\"{out}/x.rhai:n=1\");"), Refused),
        case(name, [], Script("load_task(\"arithmetic\", #{ reward: \"{out}/x.rhai\" });"), Refused),
        case(name, [], Script("load_task(\"arithmetic\", #{ reward: \"{out}/model\" });"), Refused),
        case(name, [], Script("load_task(\"arithmetic\", #{ reward: \"{out}/x.gguf\" });"), Refused),
        case(name, [], Script("load_batch(\"{out}/secret.txt\");"), Refused),
        case(name, [], Script("load_run(\"{out}\");"), Refused),
        case(link, [Run("r"), Link("r/metrics.jsonl", "{out}/secret.txt")], Script("print(load_run(\"r\"));"), Refused),
        case(link, [Run("r"), Link("r/script.rhai", "{out}/x.rhai")], Script("print(load_run(\"r\"));"), Refused),
        case(name, [], Script("load_model(\"{out}/model\");"), Refused),
        case(name, [], Script("load_model(\"{up}/model\");"), Refused),
        case(name, [], Script("load_model(\"tiny\", #{ adapter: \"{out}/model\" });"), Refused),
        case(name, [], Script("load_frozen(\"{out}/secret.txt\");"), Refused),
        case(
            name,
            [Copy("gguf/quantised.gguf", "x.gguf")],
            Script("load_frozen(\"x.gguf\", #{ tokenizer: \"{out}/model\" });"),
            Refused,
        ),
        case(name, [], Script("print(script(\"{out}/x\").call(\"f\", []));"), Refused),
        case(name, [], Script("print(defaults(\"{out}/x\"));"), Refused),
        case(name, [], Script("import \"{out}/x\" as x; print(x::f());"), Refused),
        case(name, [], Script("import \"{up}/x\" as x; print(x::f());"), Refused),
        case(
            name,
            [],
            With(
                "let c = args(#{ sep: \",\" }); print(load_data(\"{out}/secret.jsonl\").rows(1));",
                &["--set", "sep=/"],
            ),
            Refused,
        ),
        case(
            name,
            [],
            With(
                "let c = args(#{ note: \"\" }); print(load_data(\"{out}/secret.jsonl\").rows(1));",
                &["--set", "note=.."],
            ),
            Refused,
        ),
        case(
            name,
            [],
            With(
                "let c = args(#{ data: \"\" }); print(load_data(\"{out}/secret.jsonl\").rows(1));",
                &["--set", "data="],
            ),
            Refused,
        ),
        case(name, [], With("print(load_data(\"{out}/secret.jsonl\").rows(1));", &["--allow", ""]), Nothing),
        case(name, [], Under("print(load_data(\"{out}/secret.jsonl\").rows(1));", "HF_HUB_CACHE", ""), Refused),
        case(name, [], Under("print(load_data(\"{out}/secret.jsonl\").rows(1));", "HF_HOME", ""), Refused),
        case(
            name,
            [],
            Repl(
                "print(load_data([#{ prompt: \"1\" }]).rows(1)); let at = \"{out}/sec\" + \"ret.jsonl\"; print(load_data(at).rows(1));\n",
            ),
            Nothing,
        ),
        case(link, model_with("m/chat_template.jinja", "{out}/secret.txt"), Script(CHAT), Refused),
        case(link, model_with("m/chat_template.jinja", "../{up}/secret.txt"), Script(CHAT), Refused),
        case(link, model_with("m/additional_chat_templates", "{out}"), Script(CHAT), Refused),
        case(link, model_with("m/additional_chat_templates/x.jinja", "{out}/secret.txt"), Script(CHAT), Refused),
        case(link, model_with("m/vocab.json", "{out}/secret.txt"), Script(RESAVE), Refused),
        case(link, model_with("m/merges.txt", "{out}/secret.txt"), Script(RESAVE), Refused),
        case(link, model_with("m/added_tokens.json", "{out}/secret.txt"), Script(RESAVE), Refused),
        case(link, model_with("m/special_tokens_map.json", "{out}/secret.txt"), Script(RESAVE), Refused),
        case(link, model_with("m/tokenizer.json", "{out}/model/tokenizer.json"), Script(RESAVE), Refused),
        case(link, model_with("m/tokenizer_config.json", "{out}/secret.txt"), Script(RESAVE), Refused),
        case(link, model_with("m/generation_config.json", "{out}/secret.txt"), Script(RESAVE), Refused),
        case(link, model_with("m/config.json", "{out}/model/config.json"), Script(RESAVE), Refused),
        case(link, model_with("m/model.safetensors", "{out}/model/model.safetensors"), Script(RESAVE), Refused),
        case(link, [Link("m", "{out}/model")], Script(CHAT), Refused),
        case(link, [Link("sub", "{out}")], Script("load_model(\"sub/model\");"), Refused),
        case(link, [Link("a", "{in}/b"), Link("b", "{out}")], Script("load_model(\"a/model\");"), Refused),
        case(link, [Link("d.jsonl", "{out}/secret.jsonl")], Script("print(load_data(\"d.jsonl\").rows(1));"), Refused),
        case(link, [Link("d/train.jsonl", "{out}/secret.jsonl")], Script("print(load_data(\"d\").rows(1));"), Refused),
        case(link, [Link("d/data", "{out}")], Script("print(load_data(\"d\").rows(1));"), Refused),
        case(
            link,
            [Link("d/train.jsonl", "{out}/secret.jsonl")],
            Script("print(load_task(\"arithmetic\", #{ data: \"d\" }).prompts(1));"),
            Refused,
        ),
        case(link, [Link("x.gguf", "{out}/secret.txt")], Script("load_frozen(\"x.gguf\");"), Refused),
        case(link, [Link("g/x.gguf", "{out}/secret.txt")], Script("load_frozen(\"g\");"), Refused),
        case(
            link,
            [Copy("gguf/quantised.gguf", "x.gguf"), Link("tokenizer.json", "{out}/model/tokenizer.json")],
            Script("load_frozen(\"x.gguf\");"),
            Refused,
        ),
        case(
            link,
            [Copy("gguf/quantised.gguf", "x.gguf"), Link("t/tokenizer.json", "{out}/model/tokenizer.json")],
            Script("load_frozen(\"x.gguf\", #{ tokenizer: \"t\" });"),
            Refused,
        ),
        case(link, [Link("x.rhai", "{out}/x.rhai")], Script("import \"x\" as x; print(x::f());"), Refused),
        case(link, [Link("scripts/x.rhai", "{out}/x.rhai")], Script("print(script(\"x\").call(\"f\", []));"), Refused),
        case(
            link,
            [Link("x.rhai", "{out}/x.rhai")],
            Script("load_task(\"arithmetic\", #{ reward: \"x.rhai\" });"),
            Refused,
        ),
        case(link, [Link("b", "{out}/secret.txt")], Script("load_batch(\"b\");"), Refused),
        case(link, model_with("m/README.md", "{out}/secret.txt"), Script(RESAVE), Nothing),
        case(file, adapter("{out}/model"), Script("load_model(\"a\");"), Refused),
        case(file, adapter("{up}/model"), Script("load_model(\"a\");"), Refused),
        case(file, adapter("../{up}/model"), Script("load_model(\"a\");"), Refused),
        case(
            file,
            [Link("a/adapter_config.json", "{out}/secret.txt")],
            Script("load_model(\"tiny\", #{ adapter: \"a\" });"),
            Refused,
        ),
        case(
            file,
            [
                Model("m"),
                Remove("m/model.safetensors"),
                write("m/model.safetensors.index.json", "{\"weight_map\": {\"x\": \"{up}/model/model.safetensors\"}}"),
            ],
            Script(RESAVE),
            Nothing,
        ),
        case(
            file,
            [
                Model("m"),
                Remove("m/model.safetensors"),
                Link("m/model-00001-of-00001.safetensors", "{out}/model/model.safetensors"),
                write(
                    "m/model.safetensors.index.json",
                    "{\"weight_map\": {\"x\": \"model-00001-of-00001.safetensors\"}}",
                ),
            ],
            Script(RESAVE),
            Refused,
        ),
        case(
            file,
            [Model("m"), Remove("m/model.safetensors"), Link("m/model.safetensors.index.json", "{out}/secret.txt")],
            Script(RESAVE),
            Refused,
        ),
        case(
            file,
            [write("hub/models--o--n/refs/main", "../../../../{up}/model")],
            Under("load_model(\"o/n\").save(\"copy\");", "HF_HUB_CACHE", "{in}/hub"),
            Nothing,
        ),
        case(
            file,
            [write("hub/models--o--n/refs/main", "0123"), Link("hub/models--o--n/snapshots/0123", "{out}/model")],
            Under("load_model(\"o/n\").save(\"copy\");", "HF_HUB_CACHE", "{in}/hub"),
            Refused,
        ),
        case(
            file,
            [
                write("hub/models--o--n/refs/main", "0123"),
                Model("hub/models--o--n/snapshots/0123"),
                Link("hub/models--o--n/snapshots/0123/vocab.json", "{out}/secret.txt"),
            ],
            Under("load_model(\"o/n\").save(\"copy\");", "HF_HUB_CACHE", "{in}/hub"),
            Refused,
        ),
        case(
            file,
            [
                write("hub/models--o--n/refs/main", "0123"),
                write("hub/models--o--n/snapshots/0123/adapter_config.json", ADAPTER),
                Copy(
                    "adapters/qwen2-lora/adapter_model.safetensors",
                    "hub/models--o--n/snapshots/0123/adapter_model.safetensors",
                ),
            ],
            Under("load_model(\"o/n\");", "HF_HUB_CACHE", "{in}/hub"),
            Refused,
        ),
        case(file, recorded("    \"own\", \"--allow\", \"{out}\",\n"), Command(&["run", "--resume", "r"]), Refused),
        case(file, recorded("    \"own\", \"--set\", \"data={out}\",\n"), Command(&["run", "--resume", "r"]), Nothing),
        case(file, recorded("    \"own\", \"--allow\", \"/\",\n"), Command(&["replay", "r"]), Refused),
        case(
            file,
            [
                Run("r"),
                Edit("r/config.json", "    \"own\",\n", "    \"own\", \"--allow-exec\", \"x=cat {out}/secret.txt\",\n"),
                Edit("r/script.rhai", "let n = 0;", "let n = 0; load_task(\"arithmetic\", #{ reward: \"exec:x\" });"),
            ],
            Command(&["run", "--resume", "r"]),
            Nothing,
        ),
        case(command, [evil("evil.rhai")], Command(&["compare", "evil"]), Refused),
        case(command, [evil("evil.rhai")], Command(&["compare", "evil", "--svg", "./x.svg"]), Refused),
        case(command, [evil("evil.rhai")], Command(&["compare", "evil", "--svg", "{out}/x.svg"]), Refused),
        case(
            command,
            [write(
                "c.rhai",
                "const X = load_data(\"{out}/secret.jsonl\").rows(1);\nfn loss(logp, b, cfg) { print(X); mean(seq_sum(logp, b.mask)) }\n",
            )],
            Command(&["check", "c.rhai"]),
            Nothing,
        ),
        case(command, [evil("evil.rhai")], Command(&["check", "evil.rhai"]), Nothing),
        case(
            command,
            [write("t.rhai", "fn test_x() { throw load_data(\"{out}/secret.jsonl\").rows(1)[0].prompt; }\n")],
            Command(&["test", "t.rhai"]),
            Refused,
        ),
        case(command, [Link("t.rhai", "{out}/x.rhai")], Command(&["test"]), Nothing),
        case(command, [Run("runs/r"), Link("runs/r/metrics.jsonl", "{out}/secret.txt")], Command(&["runs"]), Refused),
        case(
            command,
            [Run("runs/r"), Link("runs/r/config.json", "{out}/secret.jsonl")],
            Command(&["runs", "--json"]),
            Refused,
        ),
        case(
            command,
            [Run("a"), Run("b"), Link("b/script.rhai", "{out}/x.rhai")],
            Command(&["diff", "a", "b"]),
            Refused,
        ),
        case(command, [Link("scripts/x.rhai", "{out}/x.rhai")], Command(&["list"]), Nothing),
        case(command, [Link("scripts/x.rhai", "{out}/x.rhai")], Command(&["new", "mine", "--from", "x"]), Refused),
        case(command, [Link("scripts/x.rhai", "{out}/x.rhai")], Command(&["run", "x"]), Refused),
        case(command, model_with("m/tokenizer_config.json", "{out}/secret.txt"), Command(&["inspect", "m"]), Refused),
        case(command, [Run("r"), Link("r/script.rhai", "{out}/x.rhai")], Command(&["run", "--resume", "r"]), Refused),
        case(command, [Run("r"), Link("r/checkpoints", "{out}")], Command(&["run", "--resume", "r"]), Refused),
        case(command, [Run("r"), Link("r/metrics.jsonl", "{out}/secret.txt")], Command(&["replay", "r"]), Refused),
        case(
            file,
            [
                write("hub/models--o--n/refs/main", "0123"),
                Model("hub/models--o--n/blobs"),
                Link("hub/models--o--n/snapshots", "{out}"),
            ],
            Under("load_model(\"o/n\");", "HF_HUB_CACHE", "{in}/hub"),
            Nothing,
        ),
    ]
}

fn writes() -> Vec<Case> {
    let (name, link, removal, command) = ("by name", "by link", "by removal", "by a command");
    let write = |path: &'static str, text: &str| Write(path, text.to_string());
    let run = "let run = open_run(#{}); run.save(load_model(\"tiny\"));";
    let go_on: &[&str] = &["run", "--resume", "r"];
    let planted = |name: &'static str| vec![Run("r"), Link(name, "{out}/secret.txt")];
    vec![
        case(name, [], Script("batch(#{ reward: [1] }).save(\"{out}/new\");"), Refused),
        case(name, [], Script("batch(#{ reward: [1] }).save(\"{out}/secret.txt\");"), Refused),
        case(name, [], Script("batch(#{ reward: [1] }).save(\"{up}/new\");"), Refused),
        case(name, [write("sub/x", "")], Script("batch(#{ reward: [1] }).save(\"sub/../{up}/new\");"), Refused),
        case(name, [], Script("load_model(\"tiny\").save(\"{out}/new\");"), Refused),
        case(name, [], Script("load_model(\"tiny\").save(\"{out}/model\");"), Refused),
        case(name, [], Script("load_model(\"tiny\").save(\"{up}/model\");"), Refused),
        case(name, [], Script("heatmap(\"{out}/x.svg\", #{ x: ones([1, 1]) });"), Refused),
        case(name, [], Script("heatmap(\"{up}/x.svg\", #{ x: ones([1, 1]) });"), Refused),
        case(
            name,
            [write("w.rhai", "batch(#{ reward: [1] }).save(\"{out}/new\");\nfn f() { 1 }")],
            Script("import \"w\" as w; w::f();"),
            Refused,
        ),
        case(
            name,
            [write("w.rhai", "const X = batch(#{ reward: [1] }).save(\"{out}/new\");\nfn f() { 1 }")],
            Script("script(\"w\").call(\"f\", []);"),
            Refused,
        ),
        case(name, [], With("batch(#{ reward: [1] }).save(\"{out}/new\");", &["--allow", "{out}"]), Refused),
        case(
            name,
            [],
            Script("let run = open_run(#{}); heatmap(run.dir + \"/../../{up}/x.svg\", #{ x: ones([1, 1]) });"),
            Refused,
        ),
        case(link, [Link("b", "{out}/secret.txt")], Script("batch(#{ reward: [1] }).save(\"b\");"), Refused),
        case(link, [Link("b", "{out}/new")], Script("batch(#{ reward: [1] }).save(\"b\");"), Refused),
        case(link, [Link("d", "{out}")], Script("batch(#{ reward: [1] }).save(\"d/new\");"), Refused),
        case(link, [Link("d", "{out}/folder")], Script("load_model(\"tiny\").save(\"d\");"), Refused),
        case(link, [Link("d", "{out}/nowhere")], Script("load_model(\"tiny\").save(\"d\");"), Refused),
        case(link, [Link("d/sub", "{out}")], Script("load_model(\"tiny\").save(\"d/sub/model\");"), Refused),
        case(link, [Link("x.svg", "{out}/new.svg")], Script("heatmap(\"x.svg\", #{ x: ones([1, 1]) });"), Refused),
        case(link, [Link("x.svg", "{out}/secret.txt")], Script("heatmap(\"x.svg\", #{ x: ones([1, 1]) });"), Refused),
        case(
            link,
            [Link("x.svg", "{in}/y.svg"), Link("y.svg", "{out}/new.svg")],
            Script("heatmap(\"x.svg\", #{ x: ones([1, 1]) });"),
            Refused,
        ),
        case(
            link,
            [Link("m/config.json", "{out}/model/config.json")],
            Script("load_model(\"tiny\").save(\"m\");"),
            Nothing,
        ),
        case(
            link,
            [Link("m/model.safetensors", "{out}/model/model.safetensors")],
            Script("load_model(\"tiny\").save(\"m\");"),
            Nothing,
        ),
        case(
            link,
            [Link("m/generation_config.json", "{out}/new")],
            Script("load_model(\"tiny\").save(\"m\");"),
            Nothing,
        ),
        case(link, [Link("runs", "{out}/folder")], Script(run), Refused),
        case(link, [Link("runs", "{out}/nowhere")], Script(run), Refused),
        case(link, [Link("runs/x", "{out}")], With(run, &["--out", "runs/y"]), Nothing),
        case(link, planted("r/metrics.jsonl"), Command(go_on), Refused),
        case(link, planted("r/log.txt"), Command(go_on), Nothing),
        case(link, planted("r/samples.jsonl"), Command(go_on), Nothing),
        case(link, planted("r/status.json"), Command(go_on), Refused),
        case(link, planted("r/lock"), Command(go_on), Nothing),
        case(link, planted("r/curves.svg"), Command(go_on), Nothing),
        case(link, [Run("r"), Link("r/model/README.md", "{out}/secret.txt")], Command(go_on), Nothing),
        case(link, [Run("r"), Link("r/model/config.json", "{out}/secret.txt")], Command(go_on), Nothing),
        case(link, [Run("r"), Link("r/model", "{out}/model")], Command(go_on), Nothing),
        case(
            link,
            [Run("r"), Link("r/checkpoints/000006", "{out}/folder")],
            Command(&["run", "--resume", "r", "--checkpoint", "1"]),
            Nothing,
        ),
        case(removal, [Run("r"), Link("r/model.part", "{out}/folder")], Command(go_on), Nothing),
        case(removal, [Run("r"), Link("r/model.old", "{out}/folder")], Command(go_on), Nothing),
        case(removal, [Run("r"), Link("r/model.part/sub", "{out}/folder")], Command(go_on), Nothing),
        case(
            removal,
            [Run("r"), Link("r/checkpoints/000001", "{out}/folder")],
            Command(&["run", "--resume", "r", "--checkpoint", "1"]),
            Nothing,
        ),
        case(
            removal,
            [Run("r"), Link("r/checkpoints/000009.old", "{out}/folder")],
            Command(&["run", "--resume", "r", "--checkpoint", "1"]),
            Nothing,
        ),
        case(
            removal,
            [
                Model("m"),
                write(
                    "m/model.safetensors.index.json",
                    "{\"weight_map\": {\"x\": \"../{up}/secret.txt\", \"y\": \"model-00001-of-00002.safetensors\"}}",
                ),
                Link("m/model-00001-of-00002.safetensors", "{out}/secret.txt"),
            ],
            Script("load_model(\"tiny\").save(\"m\");"),
            Nothing,
        ),
        case(
            command,
            [write(
                "evil.rhai",
                "let cfg = args(#{});\nfn loss(logp, b, cfg) { batch(#{ reward: [1] }).save(\"{out}/new\"); -seq_mean(logp * b.advantage, b.mask) }\n",
            )],
            Command(&["compare", "evil"]),
            Refused,
        ),
        case(
            command,
            [write(
                "evil.rhai",
                "let cfg = args(#{});\nfn loss(logp, b, cfg) { batch(#{ reward: [1] }).save(\"{out}/new\"); -seq_mean(logp * b.advantage, b.mask) }\n",
            )],
            Command(&["compare", "evil", "--svg", "x.svg"]),
            Refused,
        ),
        case(
            command,
            [write(
                "c.rhai",
                "const X = heatmap(\"{out}/x.svg\", #{ x: ones([1, 1]) });\nfn loss(logp, b, cfg) { mean(seq_sum(logp, b.mask)) }\n",
            )],
            Command(&["check", "c.rhai"]),
            Nothing,
        ),
        case(
            command,
            [write("t.rhai", "fn test_x() { heatmap(\"{out}/x.svg\", #{ x: ones([1, 1]) }); }\n")],
            Command(&["test", "t.rhai"]),
            Refused,
        ),
        case(command, [Link("mine.rhai", "{out}/new.rhai")], Command(&["new", "mine"]), Nothing),
        case(command, [Link("mine.rhai", "{out}/secret.txt")], Command(&["new", "mine"]), Nothing),
        case(command, [], Repl("let at = \"{out}/ne\" + \"w\"; batch(#{ reward: [1] }).save(at);\n"), Nothing),
    ]
}

/// Tries one; says what went wrong.
fn tried(case: &Case, reads: bool) -> Result<(), String> {
    let world = World::new();
    world.lay(&case.steps);
    let before = world.state();
    let words = |words: &[&str]| words.iter().map(|word| world.fill(word)).collect::<Vec<_>>();
    let own = |text: &str, more: &[&str]| {
        world.lay(&[Step::Write("own.rhai", text.to_string())]);
        words(&[&["run", "own", "--threads", "1"], more].concat())
    };
    let done = match &case.how {
        Script(text) => world.run(&own(text, &[]), &[]),
        With(text, more) => world.run(&own(text, more), &[]),
        Under(text, name, value) => world.run(&own(text, &[]), &[(*name, world.fill(value))]),
        Command(list) => world.run(&words(list), &[]),
        Repl(text) => world.run_with(&words(&["repl"]), &[], &world.fill(text)),
    };
    let said = &done.said;
    if done.code.is_none() {
        return Err(format!("killed: {said}"));
    }
    if reads && said.contains(SECRET) {
        return Err(format!("SEEN: {said}"));
    }
    if let Some(path) = world.leak().filter(|_| reads) {
        return Err(format!("COPIED into {}: {said}", path.display()));
    }
    if world.state() != before {
        return Err(format!("CHANGED: {said}"));
    }
    let refused =
        ["may not read", "may not write", "cannot read", "cannot write"].iter().any(|text| said.contains(text));
    if case.said == Refused && !(refused && said.contains("outside of")) {
        return Err(format!("not refused by name ({:?}): {said}", done.code));
    }
    Ok(())
}

fn all_are_closed(what: &str, cases: Vec<Case>) {
    let (count, queue) = (cases.len(), Mutex::new(cases.into_iter().enumerate()));
    let (failed, totals) = (Mutex::new(Vec::new()), Mutex::new(std::collections::BTreeMap::new()));
    let work = || {
        loop {
            let Some((i, case)) = queue.lock().expect("no panic").next() else { return };
            let outcome = tried(&case, what == "read");
            let mut totals = totals.lock().expect("no panic");
            let entry: &mut (u32, u32) = totals.entry(case.kind).or_default();
            entry.0 += 1;
            if let Err(e) = outcome {
                entry.1 += 1;
                failed.lock().expect("no panic").push(format!("{what} {} {i}: {e}", case.kind));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    for (kind, (tried, open)) in totals.into_inner().expect("no panic") {
        println!("{what} {kind}: {tried} tried, {open} failed");
    }
    let failed = failed.into_inner().expect("no panic");
    assert!(count >= 40, "{count}");
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn no_way_of_reading_leads_out() {
    all_are_closed("read", reads());
}

#[test]
fn no_way_of_writing_leads_out() {
    all_are_closed("write", writes());
}
