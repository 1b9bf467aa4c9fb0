//! No name in the contract is a reserved word of the language: every one can be written as a variable, a map key and
//! a property.

use crate::common::host;

/// Names that scripts write which are no functions of the registry: columns, options, metrics.
const NAMES: &str = "mask old_logprob ref_logprob length finished text prompt reward advantage value old_value ret \
    label rollin turn_mask future kl_logratio n max_tokens temperature top_p top_k min_p greedy stop seed lr betas eps \
    weight_decay max_norm loss grad_norm kl_ref approx_kl entropy eval clipped margin right truncated reward_std adapter \
    lora head device dtype completion chosen rejected answer model task steps prompts group minibatch epochs clip beta \
    policy opt base run cfg clip_low clip_high eta delta lambda gamma tau desirable undesirable max_weight \
    label_smoothing method turn score step";

#[test]
fn every_name_parses() {
    let host = host();
    let functions =
        host.docs().iter().map(|doc| doc.name).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
    let mut names: Vec<&str> = NAMES.split_whitespace().chain(functions).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let text = format!("let m = #{{ {name}: 1 }};\nm.{name} = 2;\nlet {name} = m.{name};\n{name}");
        let source = host.loader().keep(name.to_string(), text);
        let value = host.eval(&source).unwrap_or_else(|e| panic!("`{name}`: {}", e.message));
        assert_eq!(value.as_int(), Ok(2), "`{name}`");
    }
}
