//! What a machine with a GPU is asked, rehearsed on the emulator.

use std::process::Command;

#[test]
fn the_device_check_ends_in_one_table() {
    let out = tempfile::tempdir().expect("a folder");
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/device/run");
    let parts = ["libraries", "intrinsics", "kernels", "products", "ceilings", "train-tiny"];
    let done = Command::new("bash")
        .arg(run)
        .env("OUT", out.path())
        .env("RHOPO", env!("CARGO_BIN_EXE_rhopo"))
        .env("DEVICE", "emulated")
        .env("SIZES", "tiny")
        .env("ONLY", parts.join(" "))
        .output()
        .expect("bash starts");
    let table = String::from_utf8_lossy(&done.stdout);
    for part in parts {
        let line = table.lines().find(|line| line.starts_with(part)).unwrap_or_else(|| panic!("{part}: {table}"));
        assert!(line.contains(" ok "), "{table}");
    }
    // Figures of an emulated device say nothing; that there are some is what is rehearsed.
    for told in ["hold, 0 wrong", "TFLOP/s", "GiB at most"] {
        assert!(table.contains(told), "{told}: {table}");
    }
}
