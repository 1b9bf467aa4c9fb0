//! Which files a path and a split mean: one file, or the shards in a folder as data sets are laid out on the Hugging
//! Face hub. Owns names only; nothing is read but folders.

use crate::error::{Error, Result};
use crate::files::{self, Location};
use std::path::Path;

/// What a file's name says about how to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    Json,
    Parquet,
}

const SUPPORTED: &str = "supported: .jsonl (one object per line), .json (the same, or one array of objects), .parquet";
/// JSON files that describe a data set and hold none of its rows.
const DESCRIPTIONS: [&str; 6] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "metadata.json"];
/// What is taken for data in a folder, so that the unsupported is refused rather than passed over.
const DATA: [&str; 12] = ["jsonl", "ndjson", "json", "parquet", "csv", "tsv", "arrow", "gz", "zst", "bz2", "xz", "zip"];

impl FileType {
    /// By the extension.
    ///
    /// # Errors
    /// Any other one; those of common data files come with a way to convert them.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = extension(path);
        let hint = match extension.as_str() {
            "jsonl" | "ndjson" | "json" => return Ok(Self::Json),
            "parquet" => return Ok(Self::Parquet),
            "csv" | "tsv" => {
                "convert it in Python: pandas.read_csv(FILE).to_json(\"train.jsonl\", orient=\"records\", lines=True)"
            }
            "arrow" => "convert it in Python: datasets.load_from_disk(FOLDER).to_json(\"train.jsonl\")",
            "gz" | "zst" | "bz2" | "xz" | "zip" => "unpack it first",
            _ => "",
        };
        let found =
            if extension.is_empty() { "files without an extension".into() } else { format!(".{extension} files") };
        let e = Error::file(format!("{}: {found} are not supported as data", path.display()));
        Err(e.hint(if hint.is_empty() { SUPPORTED.to_string() } else { format!("{hint}; {SUPPORTED}") }))
    }
}

/// A file of a folder with the split that it belongs to.
#[derive(Debug)]
struct Part {
    split: String,
    path: Location,
}

/// The files to read, in order: `path` itself, or those of one split of a folder.
///
/// # Errors
/// Nothing at `path`; a split that is not there; a folder with several data sets; a file type that is not supported; a
/// missing shard.
pub fn find(path: &Location, split: Option<&str>) -> Result<Vec<Location>> {
    if let Some(name) = split.filter(|name| name.contains('[')) {
        let whole = name.split('[').next().unwrap_or_default();
        let e = Error::value(format!("`load_data`: slices of a split, like {name:?}, are not supported"));
        return Err(e.hint(format!("the first rows are #{{ split: {whole:?}, limit: 100 }}")));
    }
    if files::is_file(path) {
        FileType::of(path)?;
        return match split {
            None => Ok(vec![path.clone()]),
            Some(_) => Err(Error::value(format!("`load_data`: {} is one file, it has no splits", path.display()))
                .hint("leave `split` out, or give the folder that holds the files of all splits")),
        };
    }
    if !files::is_folder(path) {
        let e = Error::file(format!("there is no file or folder {}", path.display()));
        return Err(e.hint(
            "data is read from disk; a data set of the Hugging Face hub comes there by \
             `hf download NAME --repo-type dataset --local-dir FOLDER`",
        ));
    }
    let parts = parts(path)?;
    let split = choose(path, split, &parts)?;
    let mut files: Vec<Location> = parts.into_iter().filter(|part| part.split == split).map(|part| part.path).collect();
    let kinds = files.iter().map(|file| FileType::of(file)).collect::<Result<Vec<_>>>()?;
    if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
        let (a, b) = (files[0].display(), files[other].display());
        let e = Error::file(format!("the split {split} appears twice, in files of different types: {a} and {b}"));
        return Err(e.hint("give the path of one of the files"));
    }
    files.sort_by_key(|file| natural(&name(file)));
    check_shards(&files)?;
    Ok(files)
}

/// The split asked for; else `train`, or the only one.
fn choose(path: &Path, asked: Option<&str>, parts: &[Part]) -> Result<String> {
    let mut found: Vec<&str> = parts.iter().map(|part| part.split.as_str()).collect();
    found.sort_unstable();
    found.dedup();
    let wanted = asked.unwrap_or(if found.len() == 1 { found[0] } else { "train" });
    if found.contains(&wanted) {
        return Ok(wanted.to_string());
    }
    let list = found.join(", ");
    Err(match asked {
        Some(_) => Error::file(format!("{} has no split {wanted:?}", path.display())).hint(format!("found: {list}")),
        None => Error::file(format!("{} has several splits: {list}", path.display()))
            .hint(format!("choose one: #{{ split: {:?} }}", found[0])),
    })
}

/// The data files of a folder: its own, else those of its `data`, of folders named like splits, or of its only folder
/// with data.
fn parts(folder: &Location) -> Result<Vec<Part>> {
    let own = files_of(folder)?;
    if !own.is_empty() {
        return Ok(own);
    }
    let mut inside = Vec::new();
    for folder in entries(folder)?.into_iter().filter(files::is_folder) {
        let found = files_of(&folder)?;
        if !found.is_empty() {
            inside.push((folder, found));
        }
    }
    if let Some(at) = inside.iter().position(|(folder, _)| name(folder) == "data") {
        return Ok(inside.swap_remove(at).1);
    }
    // `train/0000.parquet`: the folder is the split.
    let numbered = |part: &Part| part.split.chars().all(|c| c.is_ascii_digit());
    if !inside.is_empty() && inside.iter().all(|(_, found)| found.iter().all(numbered)) {
        let whole = inside.into_iter().flat_map(|(folder, found)| {
            let split = name(&folder);
            found.into_iter().map(move |part| Part { split: split.clone(), ..part })
        });
        return Ok(whole.collect());
    }
    match inside.len() {
        0 => Err(Error::file(format!("there is no data in the folder {}", folder.display())).hint(SUPPORTED)),
        1 => Ok(inside.swap_remove(0).1),
        _ => {
            let names: Vec<String> = inside.iter().map(|(folder, _)| name(folder)).collect();
            let e = Error::file(format!("{} holds several data sets: {}", folder.display(), names.join(", ")));
            Err(e.hint(format!("give the path of one: {}", inside[0].0.display())))
        }
    }
}

/// The data files directly in a folder. A file's split is its name up to the first `-` or `.`.
fn files_of(folder: &Location) -> Result<Vec<Part>> {
    let is_data = |path: &Location| {
        DATA.contains(&extension(path).as_str()) && files::is_file(path) && !DESCRIPTIONS.contains(&name(path).as_str())
    };
    let part = |path: Location| {
        let split = name(&path).split(['-', '.']).next().unwrap_or_default().to_string();
        Part { split, path }
    };
    Ok(entries(folder)?.into_iter().filter(is_data).map(part).collect())
}

/// What is in a folder, sorted, without hidden files.
fn entries(folder: &Location) -> Result<Vec<Location>> {
    Ok(files::entries(folder)?.into_iter().filter(|path| !name(path).starts_with('.')).collect())
}

fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `part-10` comes after `part-9`: runs of digits compare as numbers.
fn natural(name: &str) -> Vec<(String, u128)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let start = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let end = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| start + n);
        key.push((rest[..start].to_string(), rest[start..end].parse().unwrap_or(u128::MAX)));
        rest = &rest[end..];
    }
    key
}

/// Every `-00001-of-00003` needs the others.
fn check_shards(files: &[Location]) -> Result<()> {
    let shards: Vec<(usize, usize)> = files.iter().filter_map(|file| shard(&name(file))).collect();
    let Some(&(_, of)) = shards.first() else { return Ok(()) };
    let Some(missing) = (0..of).find(|i| !shards.contains(&(*i, of))) else { return Ok(()) };
    let folder = files[0].parent().unwrap_or(Path::new(""));
    Err(Error::file(format!(
        "{}: shard {missing:05} of {of:05} is missing beside {}",
        folder.display(),
        name(&files[0])
    ))
    .hint("was the download complete?"))
}

/// `train-00001-of-00003.parquet` is (1, 3).
fn shard(name: &str) -> Option<(usize, usize)> {
    let stem = name.split('.').next()?;
    let (rest, of) = stem.rsplit_once("-of-")?;
    Some((rest.rsplit('-').next()?.parse().ok()?, of.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these (empty) files.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for file in names {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        dir
    }

    fn found(names: &[&str], split: Option<&str>) -> std::result::Result<Vec<String>, (String, String)> {
        let dir = folder(names);
        let root = dir.path().display().to_string();
        let plain = |text: String| text.replace(&root, "DIR");
        match find(&files::anywhere(dir.path()), split) {
            Ok(paths) => Ok(paths.iter().map(|path| plain(path.display().to_string())).collect()),
            Err(e) => Err((plain(e.what), plain(e.hint.unwrap_or_default()))),
        }
    }

    #[test]
    fn layouts_of_the_hub_are_known() {
        let some = |files: &[&str], split| found(files, split).expect("found");
        assert_eq!(some(&["train.jsonl", "test.jsonl", "README.md", ".x.json", "LICENSE"], None), ["DIR/train.jsonl"]);
        assert_eq!(some(&["train.jsonl", "test.jsonl"], Some("test")), ["DIR/test.jsonl"]);
        assert_eq!(some(&["pairs.json", "dataset_info.json", "logo.png"], None), ["DIR/pairs.json"], "the only one");
        let shards = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        assert_eq!(some(&shards, None), shards.map(|file| format!("DIR/{file}")));
        assert_eq!(some(&["main/train-00000-of-00001.parquet"], None), ["DIR/main/train-00000-of-00001.parquet"]);
        let by_folder = ["test/0000.parquet", "train/0000.parquet", "train/0001.parquet"];
        assert_eq!(some(&by_folder, None), ["DIR/train/0000.parquet", "DIR/train/0001.parquet"]);
        let prefs = ["data/train_prefs-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"];
        assert_eq!(some(&prefs, Some("train_prefs")), [format!("DIR/{}", prefs[0])]);
    }

    #[test]
    fn shards_come_in_the_order_of_their_numbers() {
        let files = ["train-10.jsonl", "train-2.jsonl", "train-1.jsonl"];
        let sorted = ["DIR/train-1.jsonl", "DIR/train-2.jsonl", "DIR/train-10.jsonl"];
        assert_eq!(found(&files, None).expect("found"), sorted);
        let (what, _) =
            found(&["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], None).expect_err("gap");
        assert_eq!(what, "DIR: shard 00001 of 00003 is missing beside train-00000-of-00003.parquet");
    }

    #[test]
    fn what_cannot_be_chosen_is_listed() {
        let refused = |files: &[&str], split| found(files, split).expect_err("must be refused");
        let (what, hint) = refused(&["dev.jsonl", "test.jsonl"], None);
        assert_eq!(
            (what.as_str(), hint.as_str()),
            ("DIR has several splits: dev, test", "choose one: #{ split: \"dev\" }")
        );
        let (what, hint) = refused(&["train.jsonl", "test.jsonl"], Some("val"));
        assert_eq!((what.as_str(), hint.as_str()), ("DIR has no split \"val\"", "found: test, train"));
        let (what, hint) = refused(&["main/train-0.parquet", "socratic/train-0.parquet"], None);
        assert_eq!(what, "DIR holds several data sets: main, socratic");
        assert_eq!(hint, "give the path of one: DIR/main");
        let (what, hint) = refused(&["train.jsonl"], Some("train[:10]"));
        assert_eq!(what, "`load_data`: slices of a split, like \"train[:10]\", are not supported");
        assert_eq!(hint, "the first rows are #{ split: \"train\", limit: 100 }");
        assert_eq!(refused(&["README.md"], None).0, "there is no data in the folder DIR");
        let (what, _) = refused(&["train.jsonl", "train.parquet"], None);
        assert!(what.starts_with("the split train appears twice, in files of different types: "), "{what}");
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let (what, hint) = found(&["train-00000-of-00001.arrow", "state.json"], None).expect_err("arrow");
        assert_eq!(what, "DIR/train-00000-of-00001.arrow: .arrow files are not supported as data");
        assert!(hint.starts_with("convert it in Python: datasets.load_from_disk(FOLDER)"), "{hint}");
        let e = FileType::of(Path::new("a.csv")).expect_err("csv");
        assert_eq!(e.what, "a.csv: .csv files are not supported as data");
        assert!(e.hint.expect("a hint").contains("pandas.read_csv"));
        assert_eq!(FileType::of(Path::new("a.xlsx")).expect_err("xlsx").hint.as_deref(), Some(SUPPORTED));
        let e = find(&files::anywhere("nowhere/to/be"), None).expect_err("nothing there");
        assert_eq!(e.what, "there is no file or folder nowhere/to/be");
    }
}
