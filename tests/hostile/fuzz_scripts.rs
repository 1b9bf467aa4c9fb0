//! Text that is almost a script: shipped scripts, modules and every example of the reference, damaged at random. Each
//! compiles and runs, or says what is wrong; nothing panics. `RHOPO_FUZZ=n` tries n times as many.

use rhopo::run::Launch;
use rhopo::run::access::Access;
use rhopo::script::builder::HostBuilder;
use rhopo::script::lang::limits::Limits;
use rhopo::script::lang::loader::{Loader, STDLIB};
use rhopo::script::lang::reference;
use rhopo::tensor::rng::Key;

/// Scripts that are tried.
const TRIES: u64 = 1500;
const OPERATIONS: u64 = 100_000;

/// What a damaged script is made to meet.
const ODD: [&str; 28] = [
    "0",
    "-1",
    "1",
    "2",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "-0.0",
    "0.0/0.0",
    "1.0/0.0",
    "\"\"",
    "\"x\"",
    "()",
    "[]",
    "#{}",
    "|x| x",
    "true",
    "tensor([])",
    "zeros([0, 3])",
    "zeros([3, 0])",
    "[[1], [2, 3]]",
    "this",
    "randn([2, 3])",
    "'c'",
    "\"\u{0}\u{7f}é日\"",
    "0..0",
    "-",
    ";",
];

struct Dice {
    key: Key,
    at: u64,
}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.at += 1;
        self.key.below(self.at, n.max(1) as u64) as usize
    }
}

/// Words, numbers and signs, so that damage leaves most of the grammar whole.
fn tokens(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let kind = |c: char| match c {
        _ if c.is_alphanumeric() || c == '_' => 0,
        _ if c.is_whitespace() => 1,
        _ => 2,
    };
    let mut last = 3;
    for c in text.chars() {
        let now = kind(c);
        match found.last_mut() {
            Some(token) if now == last && now != 2 => token.push(c),
            _ => found.push(c.to_string()),
        }
        last = now;
    }
    found
}

fn damage(text: &str, others: &[String], dice: &mut Dice) -> String {
    let mut tokens = tokens(text);
    for _ in 0..=dice.below(4) {
        if tokens.is_empty() {
            break;
        }
        let at = dice.below(tokens.len());
        match dice.below(7) {
            0 => drop(tokens.remove(at)),
            1 => tokens.insert(at, tokens[at].clone()),
            2 => {
                let other = dice.below(tokens.len());
                tokens.swap(at, other);
            }
            3 | 4 => tokens[at] = ODD[dice.below(ODD.len())].to_string(),
            5 => {
                let other = self::tokens(&others[dice.below(others.len())]);
                let from = dice.below(other.len());
                tokens.splice(at..at, other[from..(from + 6).min(other.len())].iter().cloned());
            }
            _ => tokens.truncate(at),
        }
    }
    tokens.concat()
}

fn fuzz() {
    let dir = tempfile::tempdir().expect("a folder");
    // What is written with a damaged path lands where it does no harm.
    std::env::set_current_dir(dir.path()).expect("entered");
    let loader = Loader::new(None);
    let launch = || Launch {
        access: Access::confined(None, &[]),
        out: Some(tempfile::tempdir_in(".").expect("a folder").path().join("run")),
        ..Launch::default()
    };
    let docs = HostBuilder::new().build().docs().to_vec();
    let mut seeds: Vec<String> = reference::entries(&docs).into_iter().map(|entry| entry.section.example).collect();
    seeds.extend(STDLIB.iter().map(|(_, text)| (*text).to_string()));
    // Training is not what is tried here: a script's settings make it one step of next to nothing.
    for name in ["grpo", "dpo", "ppo", "gro", "refuel"] {
        let text = loader.find(name).expect("shipped").text;
        let body = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        seeds.push(body.split("let run ").next().unwrap_or_default().to_string());
    }
    let many = std::env::var("RHOPO_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut dice = Dice { key: Key::new(11), at: 0 };
    let (mut ran, mut refused) = (0, 0);
    for i in 0..TRIES * many {
        let seed = dice.below(seeds.len());
        let text = damage(&seeds[seed], &seeds, &mut dice);
        let limits = Limits { operations: Some(OPERATIONS), ..Limits::default() };
        let host = HostBuilder::new().launch(launch()).loader(&loader).limits(limits).build();
        let source = loader.keep(format!("fuzz {i}"), text.clone());
        match host.run(&source) {
            Ok(()) => ran += 1,
            Err(e) => {
                refused += 1;
                assert!(!e.message.contains("rhopo itself failed"), "{}\nof:\n{text}", e.message);
                assert!(!e.message.trim().is_empty(), "an error without a text, of:\n{text}");
                rhopo::script::lang::render::render(&e, &loader, true);
            }
        }
    }
    assert!(ran > 50 && refused > 50, "damage that is neither too light nor too heavy: {ran} ran, {refused} did not");
}

#[test]
fn damaged_scripts_end_in_clean_errors() {
    let stack = 512 << 20;
    let thread = std::thread::Builder::new().stack_size(stack).spawn(fuzz).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
