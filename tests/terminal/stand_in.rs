//! A GPU through libraries that stand in for NVIDIA's (`stand_in.c`): what is asked of the driver and of cuBLASLt, in which
//! order and with which sizes, on a machine without a GPU. Kernels do not run there; what is written for a GPU is run by
//! the emulator.

use std::path::Path;
use std::process::{Command, Output};

/// Compiles the libraries into a folder.
fn build(folder: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/terminal/stand_in.c");
    let libraries = [("DRIVER", "libcuda.so.1"), ("COMPILER", "libnvrtc.so.13"), ("PRODUCTS", "libcublasLt.so.13")];
    for (part, name) in libraries {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-shared", "-fPIC", source, "-D", part, "-o"]).arg(folder.join(name));
        let made = cc.arg(format!("-Wl,-soname,{name}")).arg("-ldl").output().expect("a C compiler");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

fn rhopo(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let Output { status, stdout, stderr } = command
        .args(args)
        .env("RHOPO_CUDA", folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .output()
        .expect("rhopo starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_device_behind_the_driver_is_driven() {
    let folder = tempfile::tempdir().expect("a folder");
    build(folder.path());

    let (code, out, err) = rhopo(folder.path(), &["gpu", "info"]);
    assert!(
        code == Some(0) && out.contains("cuda:0  stand-in 0, sm_90a, 0.1 GiB") && out.contains("13.0.2"),
        "{out}{err}"
    );

    // Every layout, type and start comes to exact numbers through descriptors that the library reads column-major.
    let (code, out, err) = rhopo(folder.path(), &["gpu", "check", "products"]);
    assert!(code == Some(0) && out.contains("24 hold, 0 wrong"), "{out}{err}");
    // The pinned algorithm cannot do every number of rows there: others were chosen, and counted.
    let counted = out.lines().find_map(|line| line.trim().strip_prefix("shapes with an algorithm of their own"));
    assert!(counted.is_some_and(|count| count.trim().parse::<u64>().is_ok_and(|count| count > 0)), "{out}");
    let (code, out, err) = rhopo(folder.path(), &["gpu", "check", "ceilings"]);
    assert!(code == Some(0) && out.contains("TFLOP/s"), "{out}{err}");

    // Each kernel makes an illegal access there: it is told by its name, and the device stays failed.
    let (code, out, err) = rhopo(folder.path(), &["gpu", "check", "intrinsics"]);
    assert!(code == Some(1) && out.contains("0 hold, 6 wrong"), "{out}{err}");
    assert_eq!(out.matches("stand-in 0 has failed: CUDA_ERROR_ILLEGAL_ADDRESS").count(), 6, "{out}");

    let (code, _, err) = rhopo(folder.path(), &["gpu", "check", "products", "--device", "cuda:3"]);
    assert!(code == Some(1) && err.contains("there is no device cuda:3: the driver sees 1 GPUs"), "{err}");

    // A library that is not there is told by its name, before anything is done.
    std::fs::remove_file(folder.path().join("libcublasLt.so.13")).expect("removed");
    let (code, _, err) = rhopo(folder.path(), &["gpu", "check", "products"]);
    // Unless this machine has it elsewhere.
    let told = err.contains("libcublasLt (matrix products) was not found") && err.contains("--device cpu");
    assert!(code == Some(0) || told, "{err}");
}
