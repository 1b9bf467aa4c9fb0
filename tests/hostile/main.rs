//! Scripts that try to leave their folder or to end the process, and damaged ones.

mod attacks;
#[cfg(unix)]
mod full;
mod fuzz_scripts;
#[cfg(unix)]
mod honest;
#[cfg(unix)]
mod kills;
#[cfg(unix)]
mod places;
#[cfg(unix)]
mod races;
#[cfg(target_os = "linux")]
mod resources;
#[cfg(unix)]
mod servers;
#[cfg(unix)]
mod starts;
#[cfg(unix)]
mod world;
mod templates;
