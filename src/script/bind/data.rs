//! Data sets in scripts.

use super::convert::{Answer, drawn};
use crate::data::Prompts;
use crate::data::dataset::{Cursor, Dataset, Fields, Reading};
use crate::error::{Error, Result};
use crate::run::{Session, Stream};
use crate::script::options::{Options, describe};
use crate::script::registry::{Doc, Registry};
use crate::script::value::to_json;
use rhai::{Array, Dynamic, INT, Map};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// A handle: all copies share one cursor.
#[derive(Clone)]
pub struct Data(Rc<RefCell<Dataset>>);

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Data>("Data");
    for name in ["to_string", "to_debug"] {
        reg.global().set_native_fn(name, |data: &mut Data| -> Answer<String> { Ok(data.0.borrow().to_string()) });
    }
    load(reg, session);
    draw(reg);
    look(reg);
    cursor(reg);
}

fn load(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "load_data(path: string | array, options?: map) -> Data",
        "Rows of a JSONL, JSON or Parquet file, of a folder of them as data sets of the Hugging Face hub are laid out, \
         or of an array of maps. All rows are checked and kept in memory; they are drawn in a random order, another one \
         in every epoch.",
    )
    .param(
        "path",
        "string or array of map",
        "rows have `prompt`, or `prompt` and `completion`, or `prompt`, `chosen` and `rejected`, or `prompt`, \
         `completion` and `label`: texts, or arrays of messages #{ role, content }. Without `prompt`, the messages that \
         `chosen` and `rejected` both begin with are it. In rows of `messages` the assistant's last one is the \
         completion. Other fields travel along",
    )
    .param("split", "string", "of a folder: the first word of the file names; train unless given, or the only one")
    .param("limit", "int", "the first so many rows of the files only")
    .param("seed", "int", "of the order; the run's unless given")
    .param("shuffle", "bool", "false keeps the order of the files; true unless given")
    .param("rename", "map", "names of fields in the files and their names here: #{ question: \"prompt\" }")
    .errors(
        "A file that is not there or of another type; a row that is not like the first one, or has an empty answer, \
         named by file, line and field; a split that is not there.",
    )
    .source("the data formats of TRL, https://huggingface.co/docs/trl/dataset_formats")
    .example(
        "// let data = load_data(\"pairs.jsonl\", #{ limit: 1000, seed: 1 });\n\
         let data = load_data([#{ question: \"1+2=\", answer: \"3\" }], #{ rename: #{ question: \"prompt\" } });\n\
         assert_eq(data.format, \"prompt-only\");\nassert_eq(data.prompts(1).to_array()[0].answer, \"3\");",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn("load_data", move |path: &str| -> Answer<Data> { Ok(open(&plain, path, Dynamic::UNIT)?) });
        let given = session.clone();
        m.set_native_fn("load_data", move |path: &str, options: Map| -> Answer<Data> {
            Ok(open(&given, path, options.into())?)
        });
        let plain = session.clone();
        m.set_native_fn("load_data", move |rows: Array| -> Answer<Data> { Ok(take(&plain, &rows, Dynamic::UNIT)?) });
        m.set_native_fn("load_data", move |rows: Array, options: Map| -> Answer<Data> {
            Ok(take(&session, &rows, options.into())?)
        });
    });
}

fn open(session: &Session, path: &str, options: Dynamic) -> Result<Data> {
    let (reading, order) = read_options(options)?;
    session.access().read(Path::new(path))?;
    Ok(share(Dataset::open(Path::new(path), &reading, order.key(session))?))
}

fn take(session: &Session, rows: &Array, options: Dynamic) -> Result<Data> {
    let (reading, order) = read_options(options)?;
    Ok(share(Dataset::from_rows(rows.iter().map(to_json).collect(), &reading, order.key(session))?))
}

fn share(dataset: Dataset) -> Data {
    Data(Rc::new(RefCell::new(dataset)))
}

/// How rows are shuffled, as the options say it.
struct Order {
    seed: Option<u64>,
    shuffle: bool,
}

impl Order {
    fn key(&self, session: &Session) -> Option<crate::tensor::rng::Key> {
        self.shuffle.then(|| session.lasting_key(Stream::Data, self.seed))
    }
}

fn read_options(options: Dynamic) -> Result<(Reading, Order)> {
    let mut options = Options::new("load_data", options)?;
    let split = options.string("split")?;
    let limit = options.count("limit")?;
    let seed = options.count("seed")?.map(|seed| seed as u64);
    let shuffle = options.bool("shuffle")?.unwrap_or(true);
    let rename = options.map("rename")?.unwrap_or_default();
    options.finish()?;
    let pair = |(old, new): (&rhai::Identifier, &Dynamic)| match new.clone().into_string() {
        Ok(new) => Ok((old.to_string(), new)),
        Err(_) => Err(Error::value(format!("`load_data`: rename.{old} must be a name, found {}", describe(new)))),
    };
    let rename = rename.iter().map(pair).collect::<Result<_>>()?;
    Ok((Reading { split, limit, rename }, Order { seed, shuffle }))
}

fn draw(reg: &mut Registry) {
    let doc = Doc::named(
        "prompts",
        "data.prompts(n: int) -> Prompts",
        "The next n prompts, for `sample`; a row's other fields become columns of the batch, answers included.",
    )
    .param("n", "int", "how many; after the last row the next epoch begins")
    .errors("A negative n; a field with the name of a column that `sample` sets (rename it in `load_data`).")
    .example(
        "let data = load_data([#{ prompt: \"1+2=\", answer: \"3\" }, #{ prompt: \"5+7=\", answer: \"12\" }]);\n\
         let b = sample(load_model(\"tiny\"), data.prompts(2), #{ max_tokens: 2 });\n\
         assert(b.answer == [\"3\", \"12\"] || b.answer == [\"12\", \"3\"]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("prompts", |data: &mut Data, n: INT| -> Answer<Prompts> {
            Ok(data.0.borrow_mut().prompts(drawn("prompts", n)?)?)
        });
    });
    let doc = Doc::named(
        "demos",
        "data.demos(n: int) -> array",
        "The next n rows of prompt and completion, as maps #{ prompt, completion, … } for `encode`.",
    )
    .param("n", "int", "how many; after the last row the next epoch begins")
    .errors("Data of another format; a negative n; a field with the name of a column that `encode` sets.")
    .example(
        "let data = load_data([#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         let b = encode(load_model(\"tiny\"), data.demos(1));\nassert_eq(b.text, [\"3\"]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("demos", |data: &mut Data, n: INT| -> Answer<Array> {
            maps(data.0.borrow_mut().demos(drawn("demos", n)?)?)
        });
    });
    let doc = Doc::named(
        "pairs",
        "data.pairs(n: int) -> array",
        "The next n rows of preference data, as maps #{ prompt, chosen, rejected, … } for `encode_pairs`.",
    )
    .param("n", "int", "how many; after the last row the next epoch begins")
    .errors("Data of another format; a negative n; a field with the name of a column that `encode_pairs` sets.")
    .example(
        "let said = |text| #{ role: \"assistant\", content: text };\n\
         let asked = #{ role: \"user\", content: \"1+2=\" };\n\
         let data = load_data([#{ chosen: [asked, said.call(\"3\")], rejected: [asked, said.call(\"4\")] }]);\n\
         let pair = data.pairs(1)[0];\n\
         assert_eq(pair.prompt, [asked]);   // what both begin with\nassert_eq(pair.chosen[0].content, \"3\");",
    );
    reg.add(doc, |m| {
        m.set_native_fn("pairs", |data: &mut Data, n: INT| -> Answer<Array> {
            maps(data.0.borrow_mut().pairs(drawn("pairs", n)?)?)
        });
    });
    let doc = Doc::named(
        "labelled",
        "data.labelled(n: int) -> array",
        "The next n rows of unpaired preference data, as maps #{ prompt, completion, label, … } for `encode`; the label \
         is 1 where the completion is desirable, else -1, as KTO writes it.",
    )
    .param("n", "int", "how many; after the last row the next epoch begins")
    .errors("Data of another format; a negative n; a field with the name of a column that `encode` sets.")
    .example(
        "let data = load_data([#{ prompt: \"1+2=\", completion: \"4\", label: false }]);\n\
         let rows = data.labelled(1);\nlet b = encode(load_model(\"tiny\"), rows);\n\
         b.label = rows.map(|row| row.label);\nassert_eq(b.label.to_array(), [[-1.0]]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("labelled", |data: &mut Data, n: INT| -> Answer<Array> {
            maps(data.0.borrow_mut().labelled(drawn("labelled", n)?)?)
        });
    });
    let doc = Doc::named(
        "rows",
        "data.rows(n: int) -> array",
        "The next n rows as maps, with the fields that they have in the file.",
    )
    .param("n", "int", "how many; after the last row the next epoch begins")
    .errors("A negative n.")
    .example(
        "let data = load_data([#{ prompt: \"a\" }, #{ prompt: \"b\" }], #{ shuffle: false });\n\
         assert_eq(data.rows(3).map(|row| row.prompt), [\"a\", \"b\", \"a\"]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("rows", |data: &mut Data, n: INT| -> Answer<Array> {
            maps(data.0.borrow_mut().rows(drawn("rows", n)?))
        });
    });
}

fn maps(rows: Vec<Fields>) -> Answer<Array> {
    rows.into_iter().map(|row| rhai::serde::to_dynamic(serde_json::Value::Object(row))).collect()
}

fn look(reg: &mut Registry) {
    let doc = Doc::named("len", "data.len() -> int", "How many rows a data set has: the length of an epoch.")
        .example("assert_eq(load_data([#{ prompt: \"a\" }, #{ prompt: \"b\" }]).len(), 2);");
    reg.add(doc, |m| {
        m.set_native_fn("len", |data: &mut Data| -> Answer<INT> { Ok(data.0.borrow().len() as INT) });
    });
    let doc =
        Doc::named("columns", "data.columns -> array", "The names of the rows' fields, in the order of the file.")
            .example("assert_eq(load_data([#{ answer: 3, prompt: \"1+2=\" }]).columns, [\"answer\", \"prompt\"]);");
    reg.add(doc, |m| {
        m.set_getter_fn("columns", |data: &mut Data| -> Answer<Array> {
            Ok(data.0.borrow().columns().iter().map(|name| name.clone().into()).collect())
        });
    });
    let doc = Doc::named(
        "format",
        "data.format -> string",
        "What the rows are for: prompt-only, prompt-completion, preference or unpaired preference.",
    )
    .example("assert_eq(load_data([#{ prompt: \"1+2=\", completion: \"3\" }]).format, \"prompt-completion\");");
    reg.add(doc, |m| {
        m.set_getter_fn("format", |data: &mut Data| -> Answer<String> { Ok(data.0.borrow().format().name().into()) });
    });
}

fn cursor(reg: &mut Registry) {
    let doc = Doc::named(
        "cursor",
        "data.cursor -> #{ epoch: int, row: int }",
        "How far rows have been drawn, both from 0. Setting it goes there: the order follows from seed and epoch alone.",
    )
    .errors("When it is set: other keys, numbers below 0, a row that does not exist.")
    .example(
        "let data = load_data([#{ prompt: \"a\" }, #{ prompt: \"b\" }, #{ prompt: \"c\" }]);\ndata.rows(4);\n\
         let here = data.cursor;\nassert_eq([here.epoch, here.row], [1, 1]);\n\
         let next = data.rows(2);\ndata.cursor = here;\nassert_eq(data.rows(2), next);",
    );
    reg.add(doc, |m| {
        m.set_getter_fn("cursor", |data: &mut Data| -> Answer<Map> {
            let Cursor { epoch, row } = data.0.borrow().cursor();
            Ok(Map::from([("epoch".into(), (epoch as INT).into()), ("row".into(), (row as INT).into())]))
        });
        m.set_setter_fn("cursor", |data: &mut Data, cursor: Map| -> Answer<()> {
            Ok(data.0.borrow_mut().set_cursor(read_cursor(&cursor)?)?)
        });
    });
}

fn read_cursor(map: &Map) -> Result<Cursor> {
    let wrong = |what: String| Error::value(format!("data.cursor: {what}")).hint("a cursor is #{ epoch: 0, row: 0 }");
    if let Some(other) = map.keys().find(|key| !["epoch", "row"].contains(&key.as_str())) {
        return Err(wrong(format!("unknown key `{other}`")));
    }
    let read = |key: &str| {
        let value = map.get(key).ok_or_else(|| wrong(format!("`{key}` is missing")))?;
        let number = value.as_int().ok().and_then(|n| u64::try_from(n).ok());
        number.ok_or_else(|| wrong(format!("`{key}` must be a whole number, 0 or more, found {}", describe(value))))
    };
    Ok(Cursor { epoch: read("epoch")?, row: read("row")? })
}
