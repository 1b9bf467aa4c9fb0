/// (file, the definitions it is compiled with, one compilation each)
pub const LIST: &[(&str, &[&str])] = &[
    ("absorb", &[""]),
    ("adamw", &["C=float", "C=bf16"]),
    ("add", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("append", &["Y=float", "Y=bf16"]),
    ("attention", HEAD_DIMS),
    ("attention_backward", HEAD_DIMS),
    ("attention_f32", &[""]),
    ("attention_sums", &["Y=float", "Y=bf16"]),
    ("bias", &["X=float", "X=bf16"]),
    ("cast", &["X=float Y=bf16", "X=bf16 Y=float"]),
    ("column_sums", &["X=float", "X=bf16"]),
    ("columns", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("dot", &[""]),
    ("gated", &["X=float", "X=bf16"]),
    ("gather", &["X=float Y=float", "X=bf16 Y=float", "X=bf16 Y=bf16"]),
    ("gelu", &["X=float", "X=bf16"]),
    ("intrinsics", &[""]),
    ("kl", &["Z=float", "Z=bf16"]),
    ("layer_norm", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("rms_norm", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("rotary", &["X=float", "X=bf16"]),
    ("scale", &["X=float", "X=bf16"]),
    ("softcap", &["X=float", "X=bf16"]),
    ("softmax_grad", &["Z=float", "Z=bf16"]),
];

/// Widths of heads that attention on tensor cores is compiled for.
const HEAD_DIMS: &[&str] =
    &["HEAD_DIM=16", "HEAD_DIM=32", "HEAD_DIM=64", "HEAD_DIM=80", "HEAD_DIM=96", "HEAD_DIM=128", "HEAD_DIM=256"];
