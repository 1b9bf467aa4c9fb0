/// (file, the definitions it is compiled with, one compilation each)
pub const LIST: &[(&str, &[&str])] = &[
    ("rms_norm", &["X=float Y=float", "X=float Y=bf16", "X=bf16 Y=bf16"]),
];
