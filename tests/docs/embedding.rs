//! The example that embeds rhopo in a program is whole, and does what it says.

#[path = "../../examples/embed.rs"]
mod example;

#[test]
fn the_example_that_embeds_rhopo_runs() {
    example::main().expect("its scripts run");
}
