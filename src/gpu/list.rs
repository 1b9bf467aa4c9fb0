/// (file, the definitions it is compiled with, one compilation each)
pub const LIST: &[(&str, &[&str])] = &[
    ("add", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("bias", &["X=float", "X=bf16"]),
    ("cast", &["X=float Y=bf16", "X=bf16 Y=float"]),
    ("column_sums", &["X=float", "X=bf16"]),
    ("columns", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("gated", &["X=float", "X=bf16"]),
    ("gather", &["X=float Y=float", "X=bf16 Y=float", "X=bf16 Y=bf16"]),
    ("gelu", &["X=float", "X=bf16"]),
    ("layer_norm", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("rms_norm", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
    ("rotary", &["X=float", "X=bf16"]),
    ("scale", &["X=float", "X=bf16"]),
    ("softcap", &["X=float", "X=bf16"]),
];
