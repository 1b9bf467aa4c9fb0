//! Runs scripts from a Rust program: `cargo run --release --example embed`

use rhopo::{Runtime, ScriptError, Value};

/// GRPO's loss on two prompts with two answers each, and its gradient at the ratio.
const LOSS: &str = r"
    let cfg = args(#{ clip: 0.2 });
    let reward = tensor([[1], [0], [0], [1]]);                    // [B,1]
    let ratio = tensor([[1.3], [0.9], [1.0], [0.7]]).with_grad(); // [B,1]
    let a = advantage::group(reward, 2);
    let loss = -mean(min(ratio * a, clip(ratio, 1 - cfg.clip, 1 + cfg.clip) * a));
    print(`clip ${cfg.clip}: loss ${loss.item()}`);
    #{ loss: loss, gradient: grad(loss, ratio) }
";

pub fn main() -> Result<(), ScriptError> {
    // A hyper-parameter is set from outside, and a number is read back.
    for clip in [0.2, 0.4] {
        let runtime = Runtime::new().set("clip", clip).on_print(|line| println!("the script says: {line}"));
        let found = runtime.run(LOSS)?;
        let loss = found.get("loss").and_then(Value::number).expect("the script ends with a map that has it");
        println!("the program reads: {loss:.4}, gradient {:?}", found.get("gradient"));
    }

    // An error says what is wrong, where, and what to do about it.
    let e = Runtime::new().run("let x = tensor([[1.0, 2.0]]);\nseq_maen(x, x)").expect_err("a misspelt function");
    println!("line {:?}: {}; {}", e.line(), e.message(), e.hint().unwrap_or("no hint"));
    println!("{e}");
    Ok(())
}
