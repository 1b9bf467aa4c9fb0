//! Work is queued and runs in order when the host waits; memory is counted; a device that failed stays so.

use super::tests::{add_partials, double, numbers, upload};
use crate::gpu::{DType, Emulator, Gpu, Grid, Number, Product, Start};

#[test]
fn work_runs_in_the_order_of_the_calls_and_keeps_what_it_needs() {
    let gpu = Gpu::emulated(0);
    let y = gpu.empty("y", DType::F32, &[4]).expect("room on the device");
    let z = gpu.empty("z", DType::F32, &[4]).expect("room on the device");
    let mut staging = vec![1.0_f32, 2.0, 3.0, 4.0];
    let x = gpu.upload("x", &staging, &[4]).expect("room on the device");
    staging.fill(9.0);
    double(&gpu, &x, &y);
    gpu.copy(&z, &y).expect("queued");
    gpu.write(&x, &staging).expect("queued");
    double(&gpu, &x, &y);
    drop(x); // while launches that read it have not run
    assert_eq!(gpu.read_all::<f32>(&[&z, &y]).expect("numbers"), [vec![2.0, 4.0, 6.0, 8.0], vec![18.0; 4]]);
    gpu.zero(&y).expect("queued");
    assert_eq!(gpu.read::<f32>(&y).expect("numbers"), [0.0; 4]);
}

#[test]
fn long_queues_run_by_themselves() {
    let gpu = Gpu::new("emulated", Box::new(Emulator::new(0, 40 << 20)), None);
    let x = gpu.zeros("x", DType::F32, &[32]).expect("room on the device");
    for i in 0..30_000_u32 {
        gpu.write(&x, &[i as f32; 32]).expect("queued");
    }
    // Far more than the device has.
    for _ in 0..40 {
        let large = gpu.empty("large", DType::F32, &[1 << 23]).expect("room on the device");
        gpu.copy(&large.view(0, &[32]).expect("inside the array"), &x).expect("queued");
    }
    assert_eq!(gpu.read::<f32>(&x).expect("numbers"), [29_999.0; 32]);
}

#[test]
fn memory_is_limited_by_the_device_and_by_what_was_asked() {
    let open = |limit| Gpu::new("emulated", Box::new(Emulator::new(0, 1 << 20)), limit);
    for (gpu, free) in [(open(None), 1 << 20), (open(Some(1 << 16)), 1 << 16)] {
        assert_eq!(gpu.available().expect("a device"), free);
        let half = gpu.empty("half", DType::F32, &[free as usize / 8]).expect("room on the device");
        let told = gpu.empty("more", DType::F32, &[free as usize / 8 + 1]).unwrap_err();
        assert!(told.to_string().contains("no memory for more"), "{told}");
        drop(half);
        assert!(gpu.empty("all", DType::F32, &[free as usize / 4]).is_ok());
    }
}

#[test]
fn what_nothing_wrote_is_neither_read_nor_multiplied() {
    fn told<T: Number + std::fmt::Debug>(dtype: DType) -> String {
        let gpu = Gpu::emulated(0);
        let x = gpu.zeros("x", dtype, &[4, 5]).expect("room on the device");
        let y = gpu.empty("y", dtype, &[4, 5]).expect("room on the device");
        let row = gpu.zeros("row", dtype, &[5]).expect("room on the device");
        gpu.copy(&y.view(0, &[5]).expect("inside the array"), &row).expect("queued");
        let out = gpu.empty("out", DType::F32, &[4, 4]).expect("room on the device");
        let product = Product { a: (&x).into(), b: crate::gpu::Operand::from(&y).t(), out: &out, start: Start::Zero };
        let read = gpu.read::<T>(&y).unwrap_err();
        assert!(gpu.product(product).is_ok(), "a read that fails is the host's mistake");
        format!("{read}; {}", gpu.synchronise().unwrap_err())
    }
    let said = |byte: u32| {
        let said = |who| format!("{who}: `y` byte {byte}: read before anything was written");
        format!("{}; {}", said("read by the host"), said("product"))
    };
    assert_eq!(told::<f32>(DType::F32), said(20));
    assert_eq!(told::<half::bf16>(DType::Bf16), said(10));
}

#[test]
fn a_device_that_failed_stays_so() {
    let gpu = Gpu::emulated(0);
    let x = upload(&gpu, "x", DType::F32, &numbers(64, 1), &[64]);
    double(&gpu, &x, &x.view(0, &[32]).expect("inside the array"));
    double(&gpu, &x, &x);
    let told = gpu.read::<f32>(&x).unwrap_err().to_string();
    assert!(told.starts_with("scale [MISTAKE=0]: `y` (x): out of bounds: "), "{told}");
    let later = [
        gpu.synchronise().unwrap_err(),
        gpu.empty("y", DType::F32, &[1]).unwrap_err(),
        gpu.available().unwrap_err(),
        gpu.zero(&x).unwrap_err(),
    ];
    assert!(later.iter().all(|e| e.to_string() == told));
}

#[test]
fn launches_are_counted_by_name() {
    let gpu = Gpu::emulated(0);
    let x = gpu.zeros("x", DType::F32, &[2, 8]).expect("room on the device");
    let sum = gpu.zeros("sum", DType::F32, &[8]).expect("room on the device");
    for _ in 0..3 {
        let args = [(&x).into(), (&sum).into(), 2_usize.into(), 8_usize.into()];
        gpu.launch(&add_partials(), Grid::of(1, 256), &args).expect("queued");
    }
    assert_eq!(gpu.counters().kernels.into_iter().collect::<Vec<_>>(), [("add_partials", 3)]);
}

#[test]
fn arrays_are_used_from_several_threads() {
    let gpu = Gpu::emulated(0);
    let x = upload(&gpu, "x", DType::F32, &numbers(64, 1), &[64]);
    let expected: Vec<f32> = numbers(64, 1).iter().map(|x| 2.0 * x).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let y = gpu.empty("y", DType::F32, &[64]).expect("room on the device");
                double(&gpu, &x, &y);
                assert_eq!(gpu.read::<f32>(&y).expect("numbers"), expected);
            });
        }
    });
}
