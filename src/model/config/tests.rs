//! What is read, in both spellings, and what is refused by name.

use super::*;
use crate::kernel::attention::Heads;
use crate::model::trunk::Rotation;

fn qwen2(changes: Value) -> Value {
    let text = include_str!("../../../tests/fixtures/models/qwen2/config.json");
    let mut value: Value = serde_json::from_str(text).expect("fixture");
    for (key, change) in changes.as_object().expect("an object") {
        value[key] = change.clone();
    }
    value
}

fn refused(changes: Value) -> (String, String) {
    let e = Config::from_json(&qwen2(changes)).expect_err("must be refused");
    (e.what, e.hint.unwrap_or_default())
}

fn rope(config: &Config) -> &Rotation {
    &config.rotations[0]
}

#[test]
fn reads_the_fixture() {
    let config = Config::from_json(&qwen2(json!({}))).expect("valid");
    let block = &config.blocks[0];
    assert_eq!((config.blocks.len(), block.heads), (3, Heads::new(4, 2, 12)));
    assert_eq!((config.vocab_size, config.hidden_size, block.mlp.width), (384, 48, 104));
    assert_eq!((rope(&config).theta, config.norm.eps()), (1e6, 1e-6));
    assert_eq!((config.eos.as_slice(), config.pad), ([2].as_slice(), Some(0)));
    assert!(config.tied && block.qkv_bias && !block.out_bias && !block.mlp.bias);
    assert_eq!(config.parameter_count(), 84720, "the number that transformers reports");
}

#[test]
fn both_ways_to_write_the_rotary_embedding_are_read() {
    let new = json!({"rope_theta": null, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}});
    assert_eq!(rope(&Config::from_json(&qwen2(new)).expect("valid")).theta, 5e5);
    let (what, _) = refused(json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}));
    assert_eq!(what, "config.json: rope_theta is 1000000, but 500000 in rope_parameters");
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4,
        "original_max_position_embeddings": 8192,
    });
    let old = Config::from_json(&qwen2(json!({"rope_scaling": llama3}))).expect("valid");
    let mut inside = llama3;
    inside["rope_theta"] = json!(1e6);
    let new = Config::from_json(&qwen2(json!({"rope_parameters": inside}))).expect("valid");
    assert_eq!(rope(&old), rope(&new));
    assert!(matches!(rope(&old).scaling, Scaling::Llama3 { factor: 8.0, original_max_positions: 8192.0, .. }));
    let linear = json!({"rope_scaling": {"type": "linear", "factor": 2.5}});
    let linear = Config::from_json(&qwen2(linear)).expect("valid");
    assert_eq!(rope(&linear).scaling, Scaling::Linear { factor: 2.5 });
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let (what, hint) = refused(json!({"architectures": ["MambaForCausalLM"]}));
    assert_eq!(what, "the architecture MambaForCausalLM is not supported");
    assert!(hint.starts_with("supported: LlamaForCausalLM, Qwen2ForCausalLM, "), "{hint}");
    let cases = [
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "rope_type in rope_scaling `yarn`"),
        (json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6}}), "factor is missing"),
        (json!({"rope_scaling": {"rope_type": "linear", "factor": 2, "beta": 3}}), "rope_scaling with beta"),
        (json!({"hidden_act": "gelu"}), "hidden_act `gelu`"),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types is"),
        (json!({"layer_types": ["full_attention", "linear_attention", "full_attention"]}), "`linear_attention`"),
        (json!({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}), "sliding_window"),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        (json!({"logit_scale": 0.5}), "logit_scale = 0.5 changes how a model computes"),
        (json!({"architectures": ["Qwen2ForSequenceClassification"]}), "a classification head of 2 labels"),
    ];
    for (change, named) in cases {
        let (what, hint) = refused(change);
        assert!(what.contains(named), "{what:?} must name {named:?}");
        assert!(!hint.is_empty(), "{what}");
    }
}

#[test]
fn keys_that_change_nothing_are_accepted_and_unusual_ones_noted() {
    let notes = |changes: Value| Config::from_json(&qwen2(changes)).expect("valid").notes;
    assert!(notes(json!({"_num_labels": 1, "torchscript": true, "typical_p": 1.0})).is_empty());
    assert_eq!(
        notes(json!({"my_note": "x", "another": [1], "off": false})),
        ["config.json has keys that are not read here: my_note, another"]
    );
}

#[test]
fn dropout_is_not_applied_and_said_so() {
    let config = Config::from_json(&qwen2(json!({"attention_dropout": 0.1}))).expect("valid");
    assert_eq!(config.notes, ["trained without dropout, whatever config.json says (attention_dropout 0.1)"]);
}

#[test]
fn windows_follow_the_layers() {
    let of = |config: Config| config.blocks.iter().map(|block| block.heads.window).collect::<Vec<_>>();
    let windows = |changes: Value| of(Config::from_json(&qwen2(changes)).expect("valid"));
    assert_eq!(windows(json!({"sliding_window": 16})), [None; 3], "switched off");
    let on = |extra: Value| {
        let mut all = json!({"sliding_window": 16, "use_sliding_window": true, "layer_types": null});
        extra.as_object().expect("an object").iter().for_each(|(key, value)| all[key] = value.clone());
        windows(all)
    };
    assert_eq!(on(json!({"max_window_layers": 1})), [None, Some(16), Some(16)]);
    let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    assert_eq!(on(json!({"layer_types": types})), [Some(16), None, Some(16)]);
    let mistral = |window: Option<Value>| {
        let text = include_str!("../../../tests/fixtures/models/mistral/config.json");
        let mut value: Value = serde_json::from_str(text).expect("fixture");
        match window {
            Some(window) => value["sliding_window"] = window,
            None => _ = value.as_object_mut().expect("an object").remove("sliding_window"),
        }
        of(Config::from_json(&value).expect("valid"))
    };
    assert_eq!(mistral(Some(json!(16))), [Some(16); 2]);
    assert_eq!(mistral(Some(Value::Null)), [None; 2]);
    assert_eq!(mistral(None), [Some(4096); 2], "the default of transformers");
}

#[test]
fn impossible_sizes_are_refused() {
    let cases = [
        (json!({"num_attention_heads": 0}), "hidden_size 48 is not a multiple of num_attention_heads 0"),
        (json!({"num_attention_heads": 5}), "hidden_size 48 is not a multiple of num_attention_heads 5"),
        (json!({"num_key_value_heads": 3}), "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        (json!({"vocab_size": 0}), "vocab_size is 0, expected a positive size"),
        (json!({"hidden_size": -1}), "hidden_size is -1, expected a size"),
        (json!({"num_hidden_layers": 1e9}), "num_hidden_layers is 1000000000.0, expected a size"),
        (json!({"num_hidden_layers": 1_000_000_000}), "num_hidden_layers is 1000000000, expected 1 to 4096"),
        (json!({"head_dim": 7}), "7 dimensions of a head are rotated, which has 7"),
        (json!({"rms_norm_eps": 0.0}), "eps is 0, expected a positive number"),
        (json!({"eos_token_id": [2, 384]}), "the end token 384 is outside the vocabulary of 384 tokens"),
    ];
    for (change, text) in cases {
        let (what, _) = refused(change);
        assert!(what.contains(text), "{what:?} must contain {text:?}");
    }
}

#[test]
fn generation_config_overrides_the_end_tokens() {
    let config = Config::from_json(&qwen2(json!({}))).expect("valid");
    let config = config.with_generation(&json!({"eos_token_id": [1, 2]})).expect("valid");
    assert_eq!(config.eos, [1, 2]);
    let e = config.with_generation(&json!({"eos_token_id": "x"})).expect_err("a string");
    assert_eq!(e.what, "generation_config.json: eos_token_id is \"x\", expected a token id or a list of them");
}

#[test]
fn an_untied_head_is_a_parameter() {
    let names = |tied: bool| {
        let config = Config::from_json(&qwen2(json!({"tie_word_embeddings": tied}))).expect("valid");
        config.parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert!(!names(true).contains(&"lm_head.weight".to_string()));
    assert!(names(false).contains(&"lm_head.weight".to_string()));
    assert!(names(false).is_sorted());
}

/// The configuration of a fixture, changed.
fn fixture(name: &str, changes: Value) -> Result<Config> {
    let path = format!("{}/tests/fixtures/models/{name}/config.json", env!("CARGO_MANIFEST_DIR"));
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("read")).expect("JSON");
    for (key, change) in changes.as_object().expect("an object") {
        value[key] = change.clone();
    }
    Config::from_json(&value)
}

#[test]
fn the_keys_of_transformers_4_give_the_same_gemma_3() {
    let new = fixture("gemma3", json!({})).expect("valid");
    let old = json!({
        "rope_parameters": null, "layer_types": null, "_sliding_window_pattern": null, "sliding_window_pattern": 6,
        "rope_theta": 1e6, "rope_local_base_freq": 1e4, "cache_implementation": "hybrid",
    });
    let old = fixture("gemma3", old).expect("valid");
    assert_eq!((&new.rotations, &new.blocks), (&old.rotations, &old.blocks));
    assert_eq!(new.rotations.iter().map(|r| r.theta).collect::<Vec<_>>(), [1e6, 1e4]);
    let rotations: Vec<_> = new.blocks.iter().map(|block| block.rotation).collect();
    assert_eq!(rotations, [1, 1, 1, 1, 1, 0, 1].map(Some));
    let scaled = json!({
        "rope_parameters": null, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    });
    let scaled = fixture("gemma3", scaled).expect("valid");
    let scalings: Vec<_> = scaled.rotations.iter().map(|r| r.scaling.clone()).collect();
    assert_eq!(scalings, [Scaling::Linear { factor: 8.0 }, Scaling::None], "of global layers alone");
}

#[test]
fn what_a_family_leaves_out_is_as_in_transformers() {
    let gemma2 = fixture("gemma2", json!({"layer_types": null})).expect("valid");
    let windows: Vec<_> = gemma2.blocks.iter().map(|block| block.heads.window).collect();
    assert_eq!((windows, gemma2.logit_softcap), (vec![Some(16), None], Some(30.0)));
    let uncapped = fixture("gemma2", json!({"final_logit_softcapping": null, "attn_logit_softcapping": null}));
    let uncapped = uncapped.expect("valid");
    assert_eq!((uncapped.logit_softcap, uncapped.blocks[0].heads.softcap), (None, None));
    let smollm3 = fixture("smollm3", json!({"no_rope_layers": null, "no_rope_layer_interval": 2})).expect("valid");
    let turned: Vec<_> = smollm3.blocks.iter().map(|block| block.rotation.is_some()).collect();
    assert_eq!(turned, [true, false, true, false]);
    let partial = json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}});
    assert_eq!(fixture("phi3", partial).expect("valid").rotations[0].dims, 6);
}

#[test]
fn what_a_new_family_does_not_compute_is_refused_by_name() {
    let short = json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
    let cases = [
        ("gemma2", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention true is not supported"),
        ("gemma2", json!({"hidden_activation": "relu"}), "hidden_activation `relu` is not supported"),
        (
            "gemma2",
            json!({"final_logit_softcapping": -1.0}),
            "final_logit_softcapping is -1, expected a positive number",
        ),
        ("gemma3", json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping 50.0 is not supported"),
        ("gemma3", json!({"sliding_window": null}), "sliding_window null is not supported"),
        ("phi3", json!({"rope_parameters": short}), "short_factor has 1 numbers, expected one for each of 6 pairs"),
        (
            "phi3",
            json!({"rope_parameters": {"rope_type": "longrope"}}),
            "short_factor in rope_parameters is not a list",
        ),
        ("olmo2", json!({"rope_parameters": {"rope_type": "yarn"}}), "rope_type in rope_parameters `yarn`"),
        ("smollm3", json!({"no_rope_layers": [1, 1]}), "no_rope_layers is [1,1], expected a list of 4"),
        ("granite", json!({"residual_multiplier": 0.0}), "residual_multiplier is 0, expected a positive number"),
        ("granite", json!({"num_local_experts": 8}), "num_local_experts = 8 changes how a model computes"),
    ];
    for (family, change, named) in cases {
        let what = fixture(family, change).expect_err("must be refused").what;
        assert!(what.contains(named), "{what:?} must name {named:?}");
    }
}
