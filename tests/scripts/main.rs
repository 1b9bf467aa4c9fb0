//! The shipped scripts run, learn, and stand input at the edge of what makes sense.

#[path = "../common/mod.rs"]
mod common;

mod card;
mod degenerate;
#[cfg(feature = "emulate")]
mod device;
mod events;
mod going_on;
mod keeping;
mod lora_script;
mod offline;
mod own_rewards;
mod resume;
mod scripts_pairs;
mod scripts_run;
mod second_engine;
mod signals;
