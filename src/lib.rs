//! A runtime for research on policy-optimisation objectives for language models.
//!
//! An algorithm is a script of some fifty lines in [Rhai](https://rhai.rs) that reads like its paper; nothing is compiled
//! when it changes. The engine underneath samples, scores and differentiates, and the gradient of an objective over the
//! whole batch is exact, however the batch is cut up to fit in memory. The program `rhopo` runs such scripts from the
//! command line and at a prompt; this library is all of that program.
//!
//! # Scripts in a Rust program
//!
//! [`Runtime`] runs a script's text and gives back the value it ends with, or an error with the place and a hint:
//!
//! ```
//! use rhopo::Runtime;
//!
//! let script = "
//!     let cfg = args(#{ clip: 0.2 });
//!     let ratio = tensor([[1.5], [0.9]]);
//!     let a = advantage::group([1, 0], 2);
//!     -mean(min(ratio * a, clip(ratio, 1 - cfg.clip, 1 + cfg.clip) * a))
//! ";
//! let loss = Runtime::new().set("clip", 0.1).run(script)?;
//! let loss = loss.number().expect("the script ends with a number");
//! assert!((loss + 0.0706).abs() < 1e-3);
//!
//! let error = Runtime::new().run("sigmiod(1.0)").expect_err("a misspelt function");
//! assert_eq!(error.hint(), Some("did you mean `sigmoid`?"));
//! # Ok::<(), rhopo::ScriptError>(())
//! ```
//!
//! `Runtime::new().out("runs/first").run_script("grpo")` trains as `rhopo run grpo --out runs/first` does.
//! `examples/embed.rs` is a whole program. What scripts can call is in `docs/reference`, or in the answer of `rhopo doc`.
//!
//! # Layers
//!
//! A module may use those above it in this list, and none below:
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`error`] | the kinds of errors, each with a hint |
//! | [`files`] | opening and writing files and folders; nothing else does |
//! | [`budget`] | whether there is memory for what is to be made, and whether work may go on |
//! | [`tensor`] | the tensors that scripts see, their differentiation, random numbers |
//! | [`gpu`] | a device and arrays on it, real or emulated |
//! | [`kernel`] | the operations that models are made of, each with its backward pass |
//! | [`rl`] | advantages, divergences and reductions: pure functions of tensors |
//! | [`model`] | configurations, decoders, adapters, weights, tokenizers, chat templates |
//! | [`engine`] | models on batches: packing, sampling, log-probs, gradients, optimizers |
//! | [`data`] | batches, prompts, data sets, tasks, dialogues |
//! | [`run`] | a program run: its folder, metrics, checkpoints, interruption |
//! | [`script`] | the language: what scripts can call, how they are loaded, their errors |
//! | [`ui`] | the command line, the prompt, progress and tables |
//!
//! [`Runtime`], [`ScriptError`] and [`Value`] are what a program needs to embed rhopo. The modules are public for the
//! program, tests and benchmarks; before a first release they change without notice.

#![deny(clippy::unwrap_used, clippy::dbg_macro, clippy::todo, clippy::unimplemented)]

pub mod error;
pub mod files;
pub mod budget;
pub mod tensor;
pub mod gpu;
pub mod kernel;
pub mod rl;
pub mod model;
pub mod engine;
pub mod data;
pub mod run;
pub mod script;
pub mod ui;

pub use error::{Error, Kind, Result};
pub use script::tools::embed::{Runtime, ScriptError, Value};
