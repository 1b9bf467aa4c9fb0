//! Token ids mean something to one tokenizer alone: rows that another one made are refused and not scored.

use crate::common::{fixtures, host};
use rhopo::script::lang::loader::Source;

fn run(statements: &str) {
    let model = |name: &str| fixtures().join("models").join(name).display().to_string();
    let text = format!(
        "let own = load_model(\"{}\");
         let other = load_model(\"{}\");
         let b = sample(own, [\"one two\", \"three\"], #{{ n: 2, max_tokens: 3 }});
         {statements}",
        model("qwen2"),
        model("llama2"),
    );
    let host = host();
    let _ = host.eval(&Source { label: "own.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}"));
}

#[test]
fn rows_of_another_tokenizer_are_not_scored() {
    run("assert_throws(|| logprob(other, b), \"token ids of another tokenizer than the model\");
         assert_throws(|| entropy(other.frozen(), b), \"another tokenizer\");
         assert_throws(|| kl::full(own, other, b), \"\");
         assert_throws(|| logprob(other, b.select([0])), \"another tokenizer\");
         let demo = encode(own, [#{ prompt: \"one\", completion: \"two\" }]);
         assert_throws(|| logprob(other, demo), \"another tokenizer\");
         let at = sample(own, reset(b, 1), #{ max_tokens: 2 });
         assert_throws(|| logprob(other, at), \"another tokenizer\");");
}

#[test]
fn batches_of_different_tokenizers_are_not_joined() {
    run("let c = sample(other, [\"one\"], #{ max_tokens: 3 });
         assert_throws(|| join([b, c]), \"batches 0 and 1 hold token ids of different tokenizers\");");
}

#[test]
fn copies_of_a_model_and_rows_of_unknown_origin_go_on() {
    run("assert_eq(logprob(own.frozen(), b).shape, b.mask.shape);
         assert_eq(logprob(own, join([b, b])).shape[0], 8);
         assert_eq(logprob(other, encode_ids([[5], [6]], [[1, 2], [3]])).shape, [2, 2]);");
}
