//! Data sets: every format from JSON lines and from Parquet, order and cursor, and what is refused, text by text.

use crate::common::{fixtures, host};
use rhopo::data::Content;
use rhopo::data::dataset::{Cursor, Dataset, Format, Reading};
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use rhopo::tensor::rng::Key;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn file(name: &str) -> PathBuf {
    fixtures().join("data").join(name)
}

fn load(name: &str) -> Dataset {
    Dataset::open(&rhopo::files::anywhere(file(name)), &Reading::default(), None)
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// All rows in the order of the file.
fn rows(name: &str) -> Vec<Value> {
    let mut data = load(name);
    let n = data.len();
    data.rows(n).expect("rows").into_iter().map(Value::Object).collect()
}

/// The lines of a JSON file, read by nothing of ours.
fn lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A data set of one written file.
fn written(name: &str, text: impl AsRef<[u8]>) -> Result<Dataset, (String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let plain = |text: String| text.replace(&format!("{}/", dir.path().display()), "");
    Dataset::open(&rhopo::files::anywhere(&path), &Reading::default(), None)
        .map_err(|e| (plain(e.what), plain(e.hint.unwrap_or_default())))
}

/// What is said of a file with these lines.
fn refused(text: impl AsRef<[u8]>) -> String {
    written("a.jsonl", text).expect_err("must be refused").0
}

/// The value of a script's last expression.
fn eval(text: &str) -> Result<Value, String> {
    let host = host();
    let source = Source {
        label: "data.rhai".into(),
        text: text.replace("DATA", &fixtures().join("data").display().to_string()),
    };
    host.eval(&source).map(|value| to_json(&value)).map_err(|e| e.message)
}

const FIXTURES: [(&str, Format); 8] = [
    ("texts", Format::Texts),
    ("rewarded", Format::Rewarded),
    ("prompts", Format::Prompts),
    ("completions", Format::Completions),
    ("labelled", Format::Labelled),
    ("pairs", Format::Pairs),
    ("implicit", Format::Pairs),
    ("types", Format::Prompts),
];

#[test]
fn parquet_and_json_lines_hold_the_same_rows() {
    for (name, format) in FIXTURES {
        let (parquet, jsonl) = (format!("{name}.parquet"), format!("{name}.jsonl"));
        assert_eq!(rows(&jsonl), lines(&jsonl), "{name}");
        assert_eq!(rows(&parquet), lines(&jsonl), "{name}");
        for name in [parquet, jsonl] {
            assert_eq!(load(&name).format(), format, "{name}");
        }
    }
    assert_eq!(load("prompts.parquet").columns(), ["prompt", "answer", "digits"]);
}

#[test]
fn an_array_in_a_json_file_is_read_and_blank_lines_are_passed_over() {
    let rows = |mut data: Dataset| data.rows(2).expect("rows").into_iter().map(Value::Object).collect::<Vec<_>>();
    let expected = [json!({ "prompt": "a" }), json!({ "prompt": "é" })];
    let array = "\n[\n  {\"prompt\": \"a\"},\n  {\"prompt\": \"é\"}\n]\n";
    assert_eq!(rows(written("a.json", array.trim_start()).unwrap()), expected);
    let lines = "\u{feff}{\"prompt\": \"a\"}\r\n\r\n{\"prompt\": \"é\"}\n\n\n";
    assert_eq!(rows(written("a.jsonl", lines).unwrap()), expected);
    assert_eq!(
        written("a.json", "[{\"prompt\": 1}]").unwrap_err().0,
        "a.json, row 1: `prompt` must be a text or an array of messages, found the number 1"
    );
    assert_eq!(
        written("a.json", "[{\"prompt\": \"a\"}\n{}]").unwrap_err().0,
        "a.json, line 2, column 1: invalid JSON: expected `,` or `]`"
    );
}

#[test]
fn prompts_come_with_all_other_fields() {
    let prompts = load("prompts.jsonl").prompts(2).unwrap();
    assert_eq!(prompts.items[1].fields, *json!({ "answer": "2", "digits": [1, 2] }).as_object().unwrap());
    let kept = load("labelled.parquet").prompts(1).unwrap();
    assert_eq!(kept.items[0].fields, *json!({ "completion": "Yes.", "label": 1 }).as_object().unwrap());
}

#[test]
fn prompts_of_messages_stay_messages() {
    let prompts = load("completions.parquet").prompts(1).unwrap();
    let asked = json!({ "role": "user", "content": "Spell 0." });
    assert_eq!(prompts.items[0].content, Content::Messages(vec![asked]));
    assert_eq!(prompts.items[0].fields["source"], json!({ "page": 0, "tags": ["a", "zero"] }));
}

#[test]
fn labels_are_signs() {
    let labels: Vec<Value> =
        load("labelled.parquet").labelled(4).unwrap().into_iter().map(|row| row["label"].clone()).collect();
    assert_eq!(labels, [1, -1, 1, -1]);
    let mut data = written(
        "a.jsonl",
        "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":0}\n{\"prompt\":\"a\",\"completion\":\"b\",\"label\":1.0}",
    )
    .unwrap();
    assert_eq!(
        data.labelled(2).unwrap().iter().map(|row| row["label"].as_i64()).collect::<Vec<_>>(),
        [Some(-1), Some(1)]
    );
}

#[test]
fn an_implicit_prompt_is_what_both_answers_begin_with() {
    for name in ["implicit.jsonl", "implicit.parquet"] {
        let row = &load(name).pairs(2).unwrap()[1];
        assert_eq!(row["prompt"].as_array().unwrap().len(), 3, "not the text that stood in `prompt`");
        assert_eq!(row["prompt"][2], json!({ "role": "user", "content": "Round 1" }));
        assert_eq!(row["chosen"], json!([{ "role": "assistant", "content": "Good" }]));
        assert_eq!(row["rejected"], json!([{ "role": "assistant", "content": "Bad" }]));
    }
}

#[test]
fn the_last_answer_of_a_dialogue_is_the_completion() {
    let message = |role: &str, text: &str| json!({ "role": role, "content": text });
    let turns = [message("user", "a"), message("assistant", "b"), message("user", "c"), message("assistant", "d")];
    let row = json!({ "id": 7, "messages": turns });
    let mut data = written("a.jsonl", row.to_string()).unwrap();
    let demo = &data.demos(1).unwrap()[0];
    assert_eq!(Value::from(demo.clone()), json!({ "id": 7, "prompt": turns[..3], "completion": turns[3..] }));
    let open = json!({ "messages": turns[..3], "answer": "d" });
    let mut data = written("a.jsonl", open.to_string()).unwrap();
    assert_eq!(data.format(), Format::Prompts);
    assert_eq!(data.prompts(1).unwrap().items[0].fields["answer"], "d");
    let e = refused(format!("{row}\n{open}"));
    assert_eq!(
        e,
        "a.jsonl, line 2: `messages` ends with a message of the user, expected the assistant's answer as in the first row (a.jsonl, line 1)"
    );
}

#[test]
fn every_epoch_has_an_order_of_its_own_and_draws_go_on_across_its_end() {
    let reading = Reading::default();
    let open =
        |seed| Dataset::open(&rhopo::files::anywhere(file("prompts.jsonl")), &reading, Some(Key::new(seed))).unwrap();
    let answers = |data: &mut Dataset, n| -> Vec<String> {
        data.rows(n).expect("rows").iter().map(|row| row["answer"].as_str().unwrap().to_string()).collect()
    };
    let (mut whole, mut parts) = (open(3), open(3));
    let epochs: Vec<Vec<String>> = (0..3).map(|_| answers(&mut whole, 7)).collect();
    for epoch in &epochs {
        let mut all = epoch.clone();
        all.sort();
        assert_eq!(all, ["1", "2", "3", "4", "5", "6", "7"], "every row once");
    }
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    assert_ne!(epochs[0], answers(&mut open(4), 7));
    let drawn: Vec<String> = (0..7).flat_map(|_| answers(&mut parts, 3)).collect();
    assert_eq!(drawn, epochs.concat(), "in threes as in sevens");
    assert_eq!(parts.cursor(), Cursor { epoch: 3, row: 0 });
    assert_eq!(answers(&mut open(3), 21), epochs.concat(), "more than an epoch at once");
}

#[test]
fn a_cursor_leads_back() {
    let mut data =
        Dataset::open(&rhopo::files::anywhere(file("prompts.jsonl")), &Reading::default(), Some(Key::new(3))).unwrap();
    data.rows(12).expect("rows");
    let here = data.cursor();
    assert_eq!(here, Cursor { epoch: 1, row: 5 });
    let next = data.rows(9).expect("rows");
    let mut fresh =
        Dataset::open(&rhopo::files::anywhere(file("prompts.parquet")), &Reading::default(), Some(Key::new(3)))
            .unwrap();
    fresh.set_cursor(here).unwrap();
    assert_eq!(fresh.rows(9).expect("rows"), next);
    let e = fresh.set_cursor(Cursor { epoch: 0, row: 7 }).unwrap_err();
    assert!(e.what.starts_with("data.cursor: row 7 does not exist, ") && e.what.ends_with(" has 7 rows"), "{e}");
    assert_eq!(fresh.cursor(), Cursor { epoch: 3, row: 0 }, "an invalid cursor changes nothing");
}

#[test]
fn a_limit_takes_the_first_rows_before_shuffling() {
    for name in ["prompts.jsonl", "prompts.parquet"] {
        let reading = Reading { limit: Some(4), ..Reading::default() };
        let mut data = Dataset::open(&rhopo::files::anywhere(file(name)), &reading, Some(Key::new(1))).unwrap();
        let mut answers: Vec<_> =
            data.rows(4).expect("rows").iter().map(|row| row["answer"].as_str().unwrap().to_string()).collect();
        answers.sort();
        assert_eq!((data.len(), answers), (4, ["1", "2", "3", "4"].map(String::from).to_vec()), "{name}");
    }
    // The broken row is the fifth.
    let reading = Reading { limit: Some(4), ..Reading::default() };
    assert_eq!(Dataset::open(&rhopo::files::anywhere(file("hole.parquet")), &reading, None).unwrap().len(), 4);
    let reading = Reading { limit: Some(0), ..Reading::default() };
    let e = Dataset::open(&rhopo::files::anywhere(file("prompts.jsonl")), &reading, None).unwrap_err();
    assert_eq!(e.what, "`load_data`: limit is 0, expected at least 1");
}

#[test]
fn shards_of_a_folder_are_one_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (from, to) in
        [("prompts", "train-00000-of-00002"), ("prompts", "train-00001-of-00002"), ("pairs", "test-00000-of-00001")]
    {
        std::fs::copy(file(&format!("{from}.parquet")), data.join(format!("{to}.parquet"))).unwrap();
    }
    let open = |split: Option<&str>| {
        Dataset::open(
            &rhopo::files::anywhere(dir.path()),
            &Reading { split: split.map(String::from), ..Reading::default() },
            None,
        )
    };
    let mut train = open(None).unwrap();
    assert_eq!(train.len(), 14);
    let expected = [rows("prompts.jsonl"), rows("prompts.jsonl")].concat();
    assert_eq!(train.rows(14).expect("rows").into_iter().map(Value::Object).collect::<Vec<_>>(), expected);
    assert_eq!(open(Some("test")).unwrap().format(), Format::Pairs);
    let e = open(Some("dev")).unwrap_err();
    assert_eq!(e.hint.as_deref(), Some("found: test, train"));
}

#[test]
fn a_broken_row_is_named_by_file_line_and_field() {
    for (name, place) in [("hole.jsonl", "hole.jsonl, line 5"), ("hole.parquet", "hole.parquet, row 5")] {
        let e = Dataset::open(&rhopo::files::anywhere(file(name)), &Reading::default(), None).unwrap_err();
        assert!(e.what.ends_with(&format!("{place}: `rejected` is null")), "{e}");
        let hint = "every row of preference data has the fields `prompt`, `chosen` and `rejected`";
        assert_eq!(e.hint.as_deref(), Some(hint));
    }
    let pair = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let second = |row: &str| refused(format!("{pair}\n{row}\n"));
    assert_eq!(second(r#"{"prompt": "a", "rejected": "c"}"#), "a.jsonl, line 2: `chosen` is missing");
    assert_eq!(refused(r#"{"prompt": "a", "rejected": "c"}"#), "a.jsonl, line 1: `chosen` is missing");
    assert_eq!(second(r#"{"prompt": "a", "chosen": "", "rejected": "c"}"#), "a.jsonl, line 2: `chosen` is empty");
    assert_eq!(
        second(r#"{"prompt": 3, "chosen": "b", "rejected": "c"}"#),
        "a.jsonl, line 2: `prompt` must be a text or an array of messages, found the number 3"
    );
    assert_eq!(
        second(r#"{"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}"#),
        "a.jsonl, line 2: `chosen` is an array of messages, expected a text as in the first row (a.jsonl, line 1)"
    );
    assert_eq!(
        refused(r#"{"prompt": [{"role": "user", "content": "b"}], "completion": "c"}"#),
        "a.jsonl, line 1: `completion` is a text, but `prompt` is an array of messages"
    );
    assert_eq!(second("[1]"), "a.jsonl, line 2: expected an object, found an array");
    assert_eq!(second(r#"{"prompt": "a" "chosen""#), "a.jsonl, line 2, column 16: invalid JSON: expected `,` or `}`");
    let bytes = [pair.as_bytes(), b"\n{\"prompt\": \"\xff\"}\n"].concat();
    assert_eq!(refused(bytes), "a.jsonl, line 2, byte 13: this is not UTF-8 text");
    assert_eq!(refused("\n\n"), "a.jsonl has no rows");
    assert_eq!(written("a.json", "[]").unwrap_err().0, "a.json has no rows");
}

#[test]
fn broken_messages_are_named_by_their_place() {
    let of = |messages: &str| refused(format!("{{\"prompt\": {messages}}}"));
    assert_eq!(of("[]"), "a.jsonl, line 1: `prompt` is empty, expected at least one message");
    assert_eq!(of(r#"["hi"]"#), "a.jsonl, line 1: `prompt[0]` must be a message, found the text \"hi\"");
    assert_eq!(of(r#"[{"content": "a"}]"#), "a.jsonl, line 1: `prompt[0]` has no `role`");
    assert_eq!(
        of(r#"[{"role": "user", "content": "a"}, {"role": "user", "content": null}]"#),
        "a.jsonl, line 1: `prompt[1].content` must be a text or an array of parts, found null"
    );
    let user = r#"{"role": "user", "content": "a"}"#;
    let said = |text: &str| format!(r#"{{"role": "assistant", "content": "{text}"}}"#);
    let silent = said("");
    assert_eq!(
        refused(format!(r#"{{"prompt": [{user}], "completion": [{silent}]}}"#)),
        "a.jsonl, line 1: `completion` is empty"
    );
    assert_eq!(
        refused(format!(r#"{{"messages": [{user}, {silent}]}}"#)),
        "a.jsonl, line 1: the last answer in `messages` is empty"
    );
    let (good, bad) = (said("good"), said("bad"));
    assert_eq!(
        refused(format!(r#"{{"chosen": [{good}], "rejected": [{bad}]}}"#)),
        "a.jsonl, line 1: `chosen` and `rejected` have no first message in common, so there is no prompt"
    );
    assert_eq!(
        refused(format!(r#"{{"chosen": [{user}, {good}], "rejected": [{user}, {silent}]}}"#)),
        "a.jsonl, line 1: `rejected` is empty"
    );
    let same = format!(r#"{{"chosen": [{user}, {good}], "rejected": [{user}, {good}]}}"#);
    let pair = &written("a.jsonl", same).unwrap().pairs(1).unwrap()[0];
    assert_eq!(pair["chosen"], pair["rejected"], "equal answers are answers");
    assert_eq!(
        refused(format!(r#"{{"chosen": [{user}, {good}], "rejected": [{user}]}}"#)),
        "a.jsonl, line 1: `rejected` is empty after the messages that both answers begin with"
    );
}

#[test]
fn labels_must_be_true_or_false() {
    let row = |label: &str| format!(r#"{{"prompt": "a", "completion": "b", "label": {label}}}"#);
    let of = |label: &str| refused(format!("{}\n{}", row("true"), row(label)));
    assert_eq!(of("\"yes\""), "a.jsonl, line 2: `label` must be true or false (or 1 or 0), found the text \"yes\"");
    assert_eq!(of("-1"), "a.jsonl, line 2: `label` must be true or false (or 1 or 0), found the number -1");
    assert_eq!(of("null"), "a.jsonl, line 2: `label` is null");
}

#[test]
fn rows_without_a_known_format_are_refused_with_a_way_out() {
    let of = |row: &str| written("a.jsonl", row).expect_err("must be refused");
    let (what, hint) = of(r#"{"question": "1+2=", "answer": "3"}"#);
    assert_eq!(what, "a.jsonl, line 1: no field holds a prompt; found `question`, `answer`");
    assert!(hint.ends_with("#{ rename: #{ question: \"prompt\" } }"), "{hint}");

    let (_, hint) = of(r#"{"conversations": [{"from": "human", "value": "a"}]}"#);
    assert!(hint.starts_with("turn `conversations`"), "{hint}");
    let (what, hint) = of(r#"{"chosen": "ab", "rejected": "ac"}"#);
    assert_eq!(what, "a.jsonl, line 1: `prompt` is missing");
    assert!(hint.contains("texts need a `prompt`"), "{hint}");
}

#[test]
fn broken_files_are_refused() {
    let of = |name: &str, bytes: &[u8]| written(name, bytes).expect_err("must be refused");
    let (what, hint) = of("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    assert_eq!(what, "a.parquet is a pointer of Git LFS, not the data itself");
    assert!(hint.contains("git lfs pull"));
    assert!(of("a.parquet", b"PAR1").0.starts_with("a.parquet cannot be read as Parquet: "));
    let e = Dataset::open(&rhopo::files::anywhere(file("bytes.parquet")), &Reading::default(), None).unwrap_err();
    assert!(e.what.ends_with("bytes.parquet, row 1: `image` holds bytes that are no text"), "{e}");
    assert_eq!(of("a.csv", b"prompt\na\n").0, "a.csv: .csv files are not supported as data");
}

/// Room for them would be made before the first is read: 12 GB.
#[test]
fn a_dictionary_that_claims_more_values_than_it_has_is_refused() {
    let e = Dataset::open(&rhopo::files::anywhere(file("claimed.parquet")), &Reading::default(), None).unwrap_err();
    let (_, said) = e.what.split_once("claimed.parquet cannot be read as Parquet: ").expect("by its name");
    assert!(said.starts_with("the dictionary of `") && said.contains(" says it has "), "{e}");
}

/// A header that claims billions of values in a field that nobody reads: the library passes over them one by one.
#[test]
fn a_header_without_an_end_can_be_interrupted() {
    let stop = Arc::new(AtomicBool::new(false));
    rhopo::budget::obey(&stop);
    let begun = Instant::now();
    let later = stop.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        later.store(true, Ordering::Relaxed);
    });
    let e = Dataset::open(&rhopo::files::anywhere(file("endless.parquet")), &Reading::default(), None).unwrap_err();
    assert_eq!(e.kind, rhopo::error::Kind::Interrupted, "{e}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Bytes changed one after the other: whatever they break is an error, and never the program.
#[test]
fn damaged_parquet_files_never_panic() {
    let whole = std::fs::read(file("pairs.parquet")).unwrap();
    let key = Key::new(11);
    let mut refused = 0;
    for i in 0..400 {
        let mut bytes = whole.clone();
        let at = key.below(2 * i, bytes.len() as u64) as usize;
        bytes[at] ^= 1 + key.below(2 * i + 1, 255) as u8;
        refused += usize::from(written("a.parquet", bytes).is_err());
    }
    for cut in (0..whole.len()).step_by(97) {
        assert!(written("a.parquet", &whole[..cut]).is_err(), "cut to {cut} bytes");
    }
    assert!(refused > 50, "the changes reach something: {refused}");
}

#[test]
fn fields_can_be_renamed() {
    let text = "let data = load_data(\"DATA/prompts.jsonl\", #{ rename: #{ prompt: \"question\", answer: \"prompt\" }, limit: 1 });\n\
                [data.columns, data.rows(1)[0].prompt]";
    assert_eq!(eval(text).unwrap(), json!([["question", "prompt", "digits"], "1"]));
    let e = eval("load_data(\"DATA/prompts.jsonl\", #{ rename: #{ anwser: \"target\" } })").unwrap_err();
    assert_eq!(e, "unknown field in `rename`: `anwser`");
    let e = eval("load_data([#{ prompt: \"a\", b: 1 }], #{ rename: #{ b: \"prompt\" } })").unwrap_err();
    assert_eq!(e, "the array, entry 0: after `rename` there are two fields `prompt`");
}

#[test]
fn scripts_draw_prompts_with_their_answers() {
    let text = "let data = load_data(\"DATA/prompts.parquet\", #{ seed: 5 });\n\
                let b = sample(load_model(\"tiny\", #{ random: true }), data.prompts(3), #{ n: 2, max_tokens: 1 });\n\
                let right = 0;\n\
                for i in 0..6 { if b.prompt[i] == `${b.digits[i][0]}+1=` && parse_int(b.answer[i]) == b.digits[i][1] { right += 1; } }\n\
                [right, `${data}`.ends_with(\"prompts.parquet: 7 rows of prompt-only data)\"), data.cursor]";
    assert_eq!(eval(text).unwrap(), json!([6, true, { "epoch": 0, "row": 3 }]));
}

#[test]
fn copies_of_a_handle_share_one_cursor() {
    let text = "let data = load_data(\"DATA/prompts.jsonl\", #{ shuffle: false });\nlet same = data;\ndata.rows(2);\n\
                [same.cursor.row, same.rows(1)[0].answer, data.len()]";
    assert_eq!(eval(text).unwrap(), json!([2, "3", 7]));
}

#[test]
fn the_seed_is_the_runs_unless_given() {
    let order = |options: &str| {
        eval(&format!("load_data(\"DATA/prompts.jsonl\", #{{{options}}}).rows(7).map(|r| r.answer)")).unwrap()
    };
    assert_eq!(order(""), order("seed: 0"));
    assert_ne!(order(""), order("seed: 1"));
    assert_ne!(order(""), order("shuffle: false"));
}

#[test]
fn what_scripts_ask_wrongly_is_explained() {
    let of = |call: &str| eval(&format!("let data = load_data(\"DATA/prompts.jsonl\");\n{call}")).unwrap_err();
    let e = of("data.pairs(2)");
    assert!(
        e.starts_with("data.pairs: ")
            && e.ends_with("is prompt-only data, with `prompt`; pairs needs `prompt`, `chosen` and `rejected`"),
        "{e}"
    );
    assert_eq!(of("data.rows(-1)"), "`rows`: n must not be negative, found -1");
    assert_eq!(of("data.cursor = #{ epoch: 0 };"), "data.cursor: `row` is missing");
    assert_eq!(
        of("data.cursor = #{ epoch: 0, row: -1 };"),
        "data.cursor: `row` must be a whole number, 0 or more, found the int -1"
    );
    assert_eq!(of("data.cursor = #{ epoch: 0, row: 0, step: 1 };"), "data.cursor: unknown key `step`");
    let e = eval("load_data(\"DATA/prompts.jsonl\", #{ splits: \"train\" })").unwrap_err();
    assert_eq!(e, "unknown option of `load_data`: `splits`");
    let e = eval("load_data([#{ prompt: \"a\", text: \"b\" }]).prompts(1)").unwrap_err();
    assert_eq!(e, "the array: the field `text` has the name of a column that batches set");
    assert_eq!(eval("load_data([])").unwrap_err(), "the array has no rows");
}

/// A file of one group of rows with a text and a whole number without a sign.
fn unsigned(path: &std::path::Path, numbers: &[u64]) {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    let schema = "message rows { required binary prompt (UTF8); required int64 id (UINT_64); }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = std::sync::Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let prompts = vec![ByteArray::from("a"); numbers.len()];
    column.typed::<ByteArrayType>().write_batch(&prompts, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    // The same 64 bits.
    let numbers: Vec<i64> = numbers.iter().map(|&number| number as i64).collect();
    column.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn whole_numbers_beyond_63_bits_of_parquet_keep_their_digits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    unsigned(&path, &[7, 1 << 63, u64::MAX]);
    let mut data = Dataset::open(&rhopo::files::anywhere(&path), &Reading::default(), None).unwrap();
    let ids: Vec<Value> = data.rows(3).expect("rows").into_iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [json!(7), json!(9223372036854775808_u64), json!(18446744073709551615_u64)]);
    let text = format!("load_data(\"{}\", #{{ shuffle: false }}).rows(3).map(|row| `${{row.id}}`)", path.display());
    assert_eq!(eval(&text).unwrap(), json!(["7", "9223372036854775808", "18446744073709551615"]));
}

/// What a checkpoint keeps of data that a loop has made.
#[test]
fn data_as_a_value_draw_the_same_rows_in_the_same_way() {
    let dialogue = json!([{ "role": "user", "content": "1+1" }, { "role": "assistant", "content": "2" }]);
    let numbers = |i: i32| json!({ "messages": dialogue, "at": i, "x": 0.1 + 0.2, "large": u64::MAX });
    for every_turn in [false, true] {
        let reading = Reading { every_turn, ..Reading::default() };
        let mut data = Dataset::from_rows((0..7).map(numbers).collect(), &reading, Some(Key::new(3))).unwrap();
        let text = data.to_value().to_string();
        let mut back = Dataset::from_value(&serde_json::from_str(&text).unwrap()).unwrap();
        back.set_cursor(Cursor { epoch: 1, row: 4 }).unwrap();
        data.set_cursor(Cursor { epoch: 1, row: 4 }).unwrap();
        assert_eq!(data.to_string(), back.to_string());
        assert_eq!(data.demos(9).unwrap(), back.demos(9).unwrap(), "every_turn: {every_turn}");
    }
    assert!(Dataset::from_value(&json!({ "rows": [] })).is_err());
}
