//! Which scripts run with which settings. A script's own defaults where `sets` is empty.

pub const SEEDS: [u64; 3] = [0, 1, 2];

/// One script with settings, to be run on every seed.
pub struct Plan {
    /// Names its row and its folder.
    pub name: &'static str,
    pub script: &'static str,
    pub task: &'static str,
    /// `--set`
    pub sets: &'static [&'static str],
    /// Replacements in the script's text, for what no hyper-parameter says. Each must be found.
    pub edits: &'static [(&'static str, &'static str)],
    /// The plan whose model, of the same seed, the script gets as `teacher`.
    pub teacher: Option<&'static str>,
    /// The reward model of the same seed that the script is trained on, in the place of the task's reward.
    pub judge: Option<&'static Plan>,
    /// Tokens of an answer when it is measured.
    pub max_tokens: usize,
    pub measured: Measured,
}

/// Where a script's numbers before and after are from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// `measure.rhai` on the saved model.
    Policy,
    /// The same, on an adapter.
    Adapter,
    /// The first and last `eval` that the script logs, which is this.
    Own(&'static str),
}

impl Plan {
    pub const fn new(name: &'static str, task: &'static str) -> Self {
        Self {
            name,
            script: name,
            task,
            sets: &[],
            edits: &[],
            teacher: None,
            judge: None,
            max_tokens: 16,
            measured: Measured::Policy,
        }
    }

    pub const fn of(mut self, script: &'static str) -> Self {
        self.script = script;
        self
    }

    pub const fn sets(mut self, sets: &'static [&'static str]) -> Self {
        self.sets = sets;
        self
    }

    pub const fn edits(mut self, edits: &'static [(&'static str, &'static str)]) -> Self {
        self.edits = edits;
        self
    }

    pub const fn teacher(mut self, plan: &'static str) -> Self {
        self.teacher = Some(plan);
        self
    }

    pub const fn judge(mut self, plan: &'static Plan) -> Self {
        self.judge = Some(plan);
        self
    }

    pub const fn tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = max_tokens;
        self
    }

    pub const fn measured(mut self, measured: Measured) -> Self {
        self.measured = measured;
        self
    }
}

/// Every shipped script that learns; the longer ones shortened to 25 seconds.
pub const SCRIPTS: &[Plan] = &[
    Plan::new("sft", "arithmetic").sets(&["steps=100"]),
    Plan::new("reward_model", "tldr")
        .sets(&["steps=100", "pairs=16", "test_pairs=128"])
        .measured(Measured::Own("share of held-out pairs ranked right")),
    Plan::new("reinforce", "arithmetic").sets(&["steps=40", "prompts=256"]),
    Plan::new("rloo", "arithmetic").sets(&["steps=40"]),
    Plan::new("remax", "arithmetic").sets(&["steps=40", "prompts=256"]),
    Plan::new("reinforce_pp", "arithmetic").sets(&["steps=40", "prompts=256"]),
    Plan::new("reinforce_pp_baseline", "arithmetic").sets(&["steps=50"]),
    Plan::new("a2c", "arithmetic").sets(&["steps=40"]),
    Plan::new("trpo", "arithmetic").sets(&["steps=20"]),
    Plan::new("npg", "arithmetic").sets(&["steps=20"]),
    Plan::new("ppo", "arithmetic").sets(&["steps=40"]),
    Plan::new("ppo_penalty", "arithmetic").sets(&["steps=40"]),
    Plan::new("ppo_clip_kl", "arithmetic").sets(&["steps=30"]),
    Plan::new("ppo_shared", "arithmetic").sets(&["steps=40"]),
    Plan::new("ppo_ptx", "arithmetic").sets(&["steps=40"]),
    Plan::new("cpi", "arithmetic").measured(Measured::Own("reward of the mixture's answers")),
    Plan::new("nash_md", "arithmetic").sets(&["steps=40"]),
    Plan::new("grpo", "arithmetic").sets(&["steps=50"]),
    Plan::new("grpo_lora", "arithmetic").sets(&["steps=50"]).measured(Measured::Adapter),
    Plan::new("dr_grpo", "arithmetic").sets(&["steps=50"]),
    Plan::new("dapo", "arithmetic").sets(&["steps=25"]),
    Plan::new("grpo_plus", "arithmetic").sets(&["steps=50"]),
    Plan::new("gspo", "arithmetic").sets(&["steps=50"]),
    Plan::new("gmpo", "arithmetic").sets(&["steps=50"]),
    Plan::new("cispo", "arithmetic").sets(&["steps=50"]),
    Plan::new("sapo", "arithmetic").sets(&["steps=50"]),
    Plan::new("dppo", "arithmetic").sets(&["steps=50"]),
    Plan::new("dual_clip", "arithmetic").sets(&["steps=50"]),
    Plan::new("max_rl", "arithmetic").sets(&["steps=50"]),
    Plan::new("ppo_pp", "reverse").sets(&["steps=30"]),
    Plan::new("dr_po", "reverse").sets(&["steps=30"]),
    Plan::new("rebel", "arithmetic").sets(&["steps=30"]),
    Plan::new("refuel", "guess:max=12").sets(&["steps=14"]).tokens(4),
    Plan::new("a_star_po", "arithmetic").sets(&["steps=60", "pool=1024"]),
    Plan::new("dpo", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("cdpo", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("ipo", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("kto", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("cpl", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("simpo", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("orpo", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("cpo", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("slic", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("rso", "arithmetic").sets(&["prompts=1024", "steps=120"]),
    Plan::new("apo_zero", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("apo_down", "reverse"),
    Plan::new("discopop", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("online_dpo", "arithmetic").sets(&["steps=40"]),
    Plan::new("ipo_md", "arithmetic").sets(&["steps=40"]),
    Plan::new("ema_dpo", "arithmetic").sets(&["prompts=4096", "steps=120"]),
    Plan::new("spin", "arithmetic"),
    Plan::new("opd", "arithmetic").sets(&["steps=40"]).teacher("sft"),
    Plan::new("gkd", "arithmetic").sets(&["steps=40"]).teacher("sft"),
    Plan::new("distill", "arithmetic").sets(&["steps=40"]),
    Plan::new("self_distill", "arithmetic")
        .sets(&["steps=60"])
        .measured(Measured::Own("reward of bare prompts, after the lessons and at the end")),
    Plan::new("awr", "arithmetic").sets(&["steps=50"]),
    Plan::new("alol", "arithmetic").sets(&["steps=100"]),
    Plan::new("best_of_n", "arithmetic")
        .sets(&["prompts=128"])
        .measured(Measured::Own("reward of one answer, then of the best of n")),
    Plan::new("rest", "arithmetic"),
    Plan::new("gro", "arithmetic").sets(&["steps=50"]),
];

/// The tasks of all plans, each once.
pub fn tasks() -> Vec<&'static str> {
    let mut tasks: Vec<&str> = SCRIPTS.iter().map(|plan| plan.task).collect();
    tasks.sort_unstable();
    tasks.dedup();
    tasks
}
