//! Pictures of runs that were written by hand.

use super::*;
use serde_json::json;
use std::fs;
use std::path::Path;

fn run(dir: &Path, name: &str, args: serde_json::Value, seed: u64, metrics: &str) -> Summary {
    let folder = dir.join(name);
    fs::create_dir(&folder).expect("made");
    let config = json!({ "script": "own", "args": args, "seed": seed });
    fs::write(folder.join("config.json"), config.to_string()).expect("written");
    fs::write(folder.join("metrics.jsonl"), metrics).expect("written");
    Summary::read(&crate::files::anywhere(&folder)).expect("a run")
}

fn lines(values: &[f64]) -> String {
    let line = |(i, y): (usize, &f64)| json!({ "step": i + 1, "seconds": 0.5 * i as f64, "reward": y }).to_string();
    values.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn request(metrics: &[String]) -> Request<'_> {
    Request { metrics, across: Across::Step, smooth: 1 }
}

#[test]
fn a_picture_says_what_differs_how_many_runs_there_are_and_where_no_mean_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let clip = |name: &str, clip: f64, seed: u64, values: &[f64]| {
        run(dir.path(), name, json!({ "clip": clip, "lr": 0.1 }), seed, &lines(values))
    };
    let runs = [clip("a", 0.1, 0, &[1.0, 2.0]), clip("b", 0.1, 1, &[2.0, 3.0, 4.0]), clip("c", 0.3, 0, &[5.0, 6.0])];
    let grouped = groups(&runs, Some(SEED)).expect("groups");
    let metrics = ["reward".to_string()];
    let picture = picture(&runs, &grouped, &request(&metrics)).expect("drawn");
    assert_eq!(picture.legend, ["clip=0.1 (n=2)", "clip=0.3"]);
    assert_eq!(picture.panels[0].curves[0].spread.iter().map(|at| at.mean).collect::<Vec<_>>(), [1.5, 2.5]);
    assert_eq!(picture.notes.len(), 2);
    let svg = svg(&picture).expect("a text");
    for text in ["reward", "clip=0.1 (n=2)", "mean of n runs", "Thin lines", "<polygon", "step"] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    assert!(png(&svg).expect("pixels").len() > 1000);
}

#[test]
fn hostile_names_and_numbers_are_drawn_and_are_no_markup() {
    let dir = tempfile::tempdir().expect("a folder");
    let name = "<script>alert(1)</script>\u{1b}[31m";
    let line = |i: i64, y: serde_json::Value| json!({ "step": i, name: y }).to_string();
    let text = [line(1, json!(1e300)), line(2, json!(null)), line(3, json!(-1e300)), line(4, json!(5e-324))].join("\n");
    let runs =
        [run(dir.path(), "a", json!({ "x": name }), 0, &text), run(dir.path(), "b", json!({ "x": 1 }), 0, &text)];
    let metrics = [name.to_string()];
    let picture = picture(&runs, &groups(&runs, None).expect("groups"), &request(&metrics)).expect("drawn");
    let svg = svg(&picture).expect("a text");
    assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script") && !svg.contains('\u{1b}'), "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    png(&svg).expect("pixels");
}

#[test]
fn more_curves_than_can_be_told_apart_are_counted_and_unknown_metrics_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let all = 0..MOST + 3;
    let runs: Vec<Summary> =
        all.map(|i| run(dir.path(), &format!("r{i}"), json!({ "lr": i }), 0, &lines(&[i as f64, 1.0]))).collect();
    let grouped = groups(&runs, None).expect("groups");
    let (metrics, wrong) = (["reward".to_string()], ["rewad".to_string()]);
    let drawn = picture(&runs, &grouped, &request(&metrics)).expect("drawn");
    assert_eq!((drawn.legend.len(), drawn.notes.as_slice()), (MOST, &["3 more curves are not drawn.".to_string()][..]));
    svg(&drawn).expect("a text");
    let e = picture(&runs, &grouped, &request(&wrong)).expect_err("no such");
    assert_eq!(e.hint.as_deref(), Some("did you mean `reward`?"));
    let sampled = Request { across: Across::Sampled, ..request(&metrics) };
    let e = picture(&runs, &grouped, &sampled).expect_err("no tokens");
    assert!(e.what.contains("no finite value over tokens sampled"), "{e}");
}

#[test]
fn axes_of_steps_have_whole_numbers() {
    let dir = tempfile::tempdir().expect("a folder");
    let metrics = ["reward".to_string()];
    for (name, values) in [("one", &[1.0][..]), ("few", &[1.0, 2.0, 3.0]), ("some", &[1.0, 2.0, 3.0, 4.0, 5.0])] {
        let runs = [run(dir.path(), name, json!({}), 0, &lines(values))];
        let request = request(&metrics);
        let svg =
            svg(&picture(&runs, &groups(&runs, None).expect("groups"), &request).expect("drawn")).expect("a text");
        let below = svg.split("text-anchor=\"middle\"").skip(1).filter_map(|text| text.split(['>', '<']).nth(1));
        let labels: Vec<&str> = below.map(str::trim).filter(|text| text.parse::<f64>().is_ok()).collect();
        let whole: Vec<u64> = labels.iter().filter_map(|label| label.parse().ok()).collect();
        assert!(!whole.is_empty() && whole.len() == labels.len(), "{labels:?}");
        assert!(whole.windows(2).all(|pair| pair[0] < pair[1]), "each once: {labels:?}");
        assert!(!svg.contains("Thin lines") && !svg.contains("Band"), "{svg}");
    }
}

#[test]
fn names_are_found_by_either_spelling_and_runs_without_numbers_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = json!({ "step": 1, "seconds/sample": 0.5 }).to_string();
    let (full, empty) = (run(dir.path(), "a", json!({}), 0, &text), run(dir.path(), "b", json!({}), 0, ""));
    let draw = |run: &Summary, metric: &str| {
        let (runs, metrics) = ([run.clone()], [metric.to_string()]);
        picture(&runs, &groups(&runs, None).expect("groups"), &request(&metrics)).map(|picture| picture.panels.len())
    };
    assert_eq!(draw(&full, "seconds_sample").expect("drawn"), draw(&full, "seconds/sample").expect("drawn"));
    assert!(draw(&empty, "reward").expect_err("nothing").what.contains("no run has logged a number yet"));
}
