//! The script library's modules for rewards, pairs and evaluation against numbers worked out by hand.

use crate::common::{host, json};
use rhopo::script::lang::diagnostics::Diagnostic;
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::{Value, json};

fn run(text: &str) -> Result<Value, Diagnostic> {
    let host = host();
    let head = "import \"std/reward\" as reward; import \"std/pairing\" as pairing; import \"std/evaluation\" as evaluation;\n";
    host.eval(&Source { label: "library.rhai".into(), text: format!("{head}{text}") }).map(|value| to_json(&value))
}

fn value(text: &str) -> Value {
    run(text).unwrap_or_else(|e| panic!("{text}\n{e:?}"))
}

fn error(text: &str) -> String {
    run(text).expect_err(text).message
}

fn near(found: &Value, want: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - want).abs() < 1e-9, "{found}, not {want}");
}

#[test]
fn overlong_matches_the_reference() {
    let mut checked = 0;
    for case in json("objectives.json")["functions"].as_array().unwrap() {
        if case["function"] != "reward::overlong" {
            continue;
        }
        let args = &case["args"];
        let text = format!(
            "reward::overlong(tensor(parse_json(`{}`), \"f64\"), {}, {}).to_array()",
            args["length"], args["max"], args["cache"]
        );
        for (found, want) in value(&text).as_array().unwrap().iter().zip(case["value"].as_array().unwrap()) {
            near(&found[0], want[0].as_f64().unwrap());
        }
        checked += 1;
    }
    assert_eq!(checked, 9);
}

#[test]
fn exact_forgives_white_space_around_and_nothing_else() {
    let found = value(
        "reward::exact([\"46\", \" 46\\n\", \"460\", \"4 6\", \"\"], [\"46\", \"46\", \"46\", \"46\", \"46\"]).to_array()",
    );
    assert_eq!(found, json!([[1.0], [1.0], [0.0], [0.0], [0.0]]));
    assert_eq!(error("reward::exact([\"a\"], [])"), "reward::exact: 1 texts and 0 answers");
}

#[test]
fn format_reads_a_pattern_with_stars() {
    let texts = "[\"<a>x</a>y\", \"<a></a>\", \"<a>x\", \" <a>x</a>\", \"<a>x</a>\\n\"]";
    assert_eq!(
        value(&format!("reward::format({texts}, \"<a>*</a>*\").to_array()")),
        json!([[1.0], [1.0], [0.0], [0.0], [1.0]])
    );
    assert_eq!(
        value(&format!("reward::format({texts}, \"<a>*</a>\").to_array()")),
        json!([[0.0], [1.0], [0.0], [0.0], [0.0]])
    );
    // Pieces may not overlap; without a star the text is the pattern; alone, a star is anything.
    assert_eq!(value("reward::format([\"aba\", \"ababa\"], \"ab*ba\").to_array()"), json!([[0.0], [1.0]]));
    assert_eq!(value("reward::format([\"ab\", \"abc\"], \"ab\").to_array()"), json!([[1.0], [0.0]]));
    assert_eq!(value("reward::format([\"\", \"é\"], \"*\").to_array()"), json!([[1.0], [1.0]]));
    assert_eq!(value("reward::format([\"éa日b\"], \"é*日*\").to_array()"), json!([[1.0]]));
}

#[test]
fn weighted_adds_up() {
    let text =
        "reward::weighted([[1.0, tensor([[1], [0]])], [0.5, tensor([[1], [1]])], [-2, tensor([[0], [1]])]]).to_array()";
    assert_eq!(value(text), json!([[1.5], [-1.5]]));
    assert!(error("reward::weighted([])").contains("there are no parts"));
}

#[test]
fn pass_at_k_is_the_unbiased_estimator() {
    // Of 4 answers 1 and 3 are right: pass@2 is 1 - C(3,2)/C(4,2) = 1/2, and 1 - C(1,2)/C(4,2) = 1.
    let reward = "tensor([[1], [0], [0], [0], [1], [0], [1], [1]])";
    near(&value(&format!("evaluation::pass_at_k({reward}, 4, 2)")), 0.75);
    near(&value(&format!("evaluation::pass_at_k({reward}, 4, 1)")), 0.5);
    near(&value(&format!("evaluation::pass_at_k({reward}, 4, 4)")), 1.0);
    near(&value("evaluation::pass_at_k(tensor([[0], [0.5], [0.99]]), 3, 3)"), 0.0);
    // C(7,5)/C(10,5) = 21/252
    let ten = "tensor([[1], [1], [1], [0], [0], [0], [0], [0], [0], [0]])";
    near(&value(&format!("evaluation::pass_at_k({ten}, 10, 5)")), 1.0 - 21.0 / 252.0);
    assert!(error(&format!("evaluation::pass_at_k({ten}, 10, 11)")).contains("k is 11, expected 1 to n = 10"));
    assert!(error(&format!("evaluation::pass_at_k({ten}, 4, 1)")).contains("10 rows do not divide into groups of 4"));
}

#[test]
fn wilsons_interval() {
    // From the formula with z = 1.959963984540054: 8 of 10, and the ends.
    let found = value("evaluation::interval(8, 10)");
    near(&found["low"], 0.4901624715366418);
    near(&found["high"], 0.9433178485456248);
    assert_eq!(value("evaluation::interval(0, 10)")["low"], json!(0.0));
    near(&value("evaluation::interval(0, 10)")["high"], 0.2775327998628892);
    near(&value("evaluation::interval(10, 10)")["low"], 1.0 - 0.2775327998628892);
}

#[test]
fn a_tie_is_half_a_win() {
    let found = value("evaluation::win_rate(tensor([[1], [0], [1], [2]]), tensor([[0], [0], [1], [3]]))");
    near(&found["rate"], 0.5);
    let (low, high) = (found["low"].as_f64().unwrap(), found["high"].as_f64().unwrap());
    assert!((low + high - 1.0).abs() < 1e-9 && low < 0.2 && high > 0.8, "{found}");
}

#[test]
fn ordered_pairs_have_the_better_row_first_and_no_ties() {
    let made = "let b = batch(#{ reward: [0, 1, 5, 5, 3, 2], name: [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"] });";
    assert_eq!(value(&format!("{made} pairing::ordered(b).name")), json!(["b", "a", "e", "f"]));
    assert_eq!(value("pairing::ordered(batch(#{ reward: [1, 1] }))"), Value::Null);
}

#[test]
fn best_and_worst_keep_ties_with_label_0() {
    let made = "let b = batch(#{ reward: [0, 2, 1, 3, 3, 3, 5, 4, 5], row: [0, 1, 2, 3, 4, 5, 6, 7, 8] });
        let p = pairing::best_worst(b, 3);";
    assert_eq!(value(&format!("{made} p.row.to_array()")), json!([[1.0], [0.0], [3.0], [5.0], [6.0], [7.0]]));
    assert_eq!(value(&format!("{made} p.label.to_array()")), json!([[1.0], [-1.0], [0.0], [0.0], [1.0], [-1.0]]));
    assert!(error("pairing::best_worst(batch(#{ reward: [1, 2, 3] }), 2)").contains("3 rows and groups of 2"));
}

#[test]
fn random_pairs_are_two_rows_of_one_group() {
    let found = value(
        "let b = batch(#{ reward: arange(400).reshape([-1, 1]) });
         pairing::random_pairs(b, 4).reward.to_array()",
    );
    let rows: Vec<usize> = found.as_array().unwrap().iter().map(|row| row[0].as_f64().unwrap() as usize).collect();
    assert_eq!(rows.len(), 200);
    let mut seen = std::collections::BTreeSet::new();
    for (g, pair) in rows.chunks(2).enumerate() {
        assert!(pair[0] / 4 == g && pair[1] / 4 == g && pair[0] != pair[1], "{pair:?}");
        seen.insert((pair[0] % 4, pair[1] % 4));
    }
    assert_eq!(seen.len(), 12, "100 draws meet each of the 12 ordered pairs");
}

#[test]
fn interleaving_alternates() {
    let text = "pairing::interleave(batch(#{ reward: [1, 2] }), batch(#{ reward: [10, 20] })).reward.to_array()";
    assert_eq!(value(text), json!([[1.0], [10.0], [2.0], [20.0]]));
    let uneven = "pairing::interleave(batch(#{ reward: [1, 2] }), batch(#{ reward: [10] }))";
    assert!(error(uneven).contains("2 rows and 1 rows, expected as many"));
}

#[test]
fn ranked_answers_give_all_their_pairs() {
    let found = value(
        "pairing::ranked([#{ prompt: \"p\", ranked: [\"a\", \"b\", \"c\"] }, #{ prompt: \"q\", ranked: [\"d\"] }])",
    );
    let pair = |chosen: &str, rejected: &str| json!({ "prompt": "p", "chosen": chosen, "rejected": rejected });
    assert_eq!(found, json!([pair("a", "b"), pair("a", "c"), pair("b", "c")]));
}

#[test]
fn mismatched_rows_have_another_prompts_answer() {
    let found = value(
        "pairing::mismatched([#{ prompt: \"p\", completion: \"a\" }, #{ prompt: \"p\", completion: \"b\" },
                              #{ prompt: \"q\", completion: \"\" }, #{ prompt: \"r\", completion: \"c\" }])",
    );
    let row = |prompt: &str, completion: &str| json!({ "prompt": prompt, "completion": completion });
    assert_eq!(found, json!([row("p", "c"), row("p", "c"), row("q", "c"), row("r", "a")]));
    assert!(error("pairing::mismatched([#{ prompt: \"p\", completion: \"a\" }])").contains("at least two prompts"));
}

/// Rejection sampling from rewards 0 and 1 at tau = 1/2: the best is always taken; a worse one first with probability
/// e⁻² in its round; in the end all are.
#[test]
fn rejection_sampling_accepts_by_the_rewards() {
    assert_eq!(value("pairing::accepted([], 3, 0.5)"), json!([]));
    assert_eq!(value("pairing::accepted([1.0, 1.0, 1.0], 2, 0.5)"), json!([0, 1]));
    let all = value("let x = pairing::accepted([0.0, 3.0, 1.0], 9, 0.5); x.sort(); x");
    assert_eq!(all, json!([0, 1, 2]));
    let found = value(
        "let first = 0;
         for i in 0..4000 { if pairing::accepted([0.0, 1.0], 1, 0.5)[0] == 0 { first += 1; } }
         first / 4000.0",
    );
    // Row 0 stands first, and is taken before row 1 with probability e⁻² = 0.135; four standard deviations are 0.022.
    let share = found.as_f64().unwrap();
    assert!((share - (-2.0_f64).exp()).abs() < 0.022, "{share}");
}

#[test]
fn versus_and_discount() {
    assert_eq!(
        value("pairing::versus(tensor([[5], [3], [1], [9]])).to_array()"),
        json!([[2.0], [-2.0], [-8.0], [8.0]])
    );
    assert_eq!(value("pairing::discount(zeros([2, 3]), 0.5).to_array()"), json!([[1.0, 0.5, 0.25]]));
}

#[test]
fn the_two_worst_of_several_answers_make_a_pair() {
    let found = value(
        "let task = load_task(\"reverse\");
         let base = load_model(\"tiny\").frozen();
         let score = |rows, text| task.score(batch(#{ text: rows.map(text), answer: rows.map(|row| {
             let letters = row.prompt.split(\" \")[1].split(\"=\")[0]; let chars = letters.chars();
             let back = \"\"; for c in chars { back = c + back; } back }) }));
         let pairs = pairing::worst(base, task, 64, 4, 16);
         let two = pairing::judged(base, task, 64, 16);
         [score.call(pairs, |row| row.chosen), score.call(pairs, |row| row.rejected), score.call(two, |row| row.chosen)]
             .map(|x| x.to_array())",
    );
    let column =
        |i: usize| -> Vec<f64> { found[i].as_array().unwrap().iter().map(|row| row[0].as_f64().unwrap()).collect() };
    let (chosen, rejected, of_two) = (column(0), column(1), column(2));
    assert!(chosen.len() >= 16 && chosen.iter().zip(&rejected).all(|(a, b)| a > b), "{chosen:?} {rejected:?}");
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    assert!(mean(&chosen) + 0.05 < mean(&of_two), "{} {}", mean(&chosen), mean(&of_two));
}

#[test]
fn judged_pairs_prefer_by_the_reward() {
    let found = value(
        "let task = load_task(\"arithmetic\");
         let base = load_model(\"tiny\").frozen();
         let pairs = pairing::judged(base, task, 64, 16);
         let sums = pairs.map(|pair| { let ab = pair.prompt.split(\"=\")[0].split(\"+\");
             [parse_int(ab[0]) + parse_int(ab[1]), pair.chosen, pair.rejected] });
         let rows = pairing::labelled(base, task, 64, 16);
         [sums, rows.map(|row| { let ab = row.prompt.split(\"=\")[0].split(\"+\");
             [parse_int(ab[0]) + parse_int(ab[1]), row.completion, row.label] })]",
    );
    let pairs = found[0].as_array().unwrap();
    assert!((8..64).contains(&pairs.len()), "{} pairs of 64", pairs.len());
    for pair in pairs {
        let right = pair[0].to_string();
        assert!(pair[1].as_str() == Some(&right) && pair[2].as_str() != Some(&right), "{pair}");
    }
    for row in found[1].as_array().unwrap() {
        assert_eq!(row[1].as_str() == Some(&row[0].to_string()), row[2].as_bool().unwrap(), "{row}");
    }
}
