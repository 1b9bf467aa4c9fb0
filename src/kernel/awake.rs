//! The threads of a pass: while one runs over a model, they stay awake and take parts of its loops within a microsecond.
//!
//! A pass is hundreds of small parallel loops. rayon's threads go to sleep between two of them, and waking one takes longer
//! than most of the loops do. Owns how parts are handed out; what they are is the operations'.

use crate::gpu::Place;
use rayon::prelude::*;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a pass waits at its start for the other threads, which may be busy with something else.
const PATIENCE: Duration = Duration::from_millis(1);
/// Looks for a loop between two looks for rayon's work, and before a thread offers its core to whoever else wants it.
const LOOKS: usize = 64;
const IDLE: usize = 4096;

thread_local! {
    /// Of the pass that this thread runs, outside of its loops.
    static CREW: Cell<Option<&'static Crew>> = const { Cell::new(None) };
}

/// Runs `work` on a thread of the pool while the pool's other threads wait for its loops. On a device they have nothing
/// to do.
pub fn awake<T: Send>(place: &Place, work: impl FnOnce() -> T + Send) -> T {
    static ONE: Crew = Crew::new();
    let others = rayon::current_num_threads() - 1;
    // One pass at a time has a crew; another one beside it runs its loops as rayon does.
    if others == 0 || matches!(place, Place::Gpu(_)) || ONE.taken.swap(true, Ordering::Acquire) {
        return work();
    }
    let _leave = Leave(&ONE);
    rayon::scope(|scope| {
        let _over = Over(&ONE);
        for _ in 0..others {
            scope.spawn(|_| ONE.watch());
        }
        ONE.begin(others);
        CREW.set(Some(&ONE));
        work()
    })
}

/// Calls `part` with every number below `parts`, on all threads, in no order.
pub fn each(parts: usize, part: impl Fn(usize) + Sync) {
    if parts == 1 {
        return part(0);
    }
    // Taken out while it is busy: a loop inside of a part finds none.
    match CREW.take() {
        None => (0..parts).into_par_iter().with_max_len(1).for_each(&part),
        Some(crew) => {
            let _back = Back(crew);
            crew.run(parts, &part);
        }
    }
}

/// Calls `part` with every block of `size` numbers, the last one shorter, and its number.
pub fn each_block<T: Send>(of: &mut [T], size: usize, part: impl Fn(usize, &mut [T]) + Sync) {
    let blocks = Blocks::of(of, size);
    // SAFETY: `each` gives every number to one part.
    each(blocks.count(), |i| part(i, unsafe { blocks.get(i) }));
}

/// What `part` gives for every number below `parts`, in their order.
pub fn map_each<T: Send>(parts: usize, part: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let mut found: Vec<Option<T>> = (0..parts).map(|_| None).collect();
    each_block(&mut found, 1, |i, found| found[0] = Some(part(i)));
    found.into_iter().map(|found| found.expect("every part was run")).collect()
}

/// As `each_block`, with the blocks of two slices that have as many.
pub fn each_pair<T: Send, U: Send>(
    (a, a_size): (&mut [T], usize),
    (b, b_size): (&mut [U], usize),
    part: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    let (a, b) = (Blocks::of(a, a_size), Blocks::of(b, b_size));
    assert_eq!(a.count(), b.count(), "blocks of two slices");
    // SAFETY: `each` gives every number to one part.
    each(a.count(), |i| unsafe { part(i, a.get(i), b.get(i)) });
}

/// A slice in blocks that different threads change.
struct Blocks<'a, T> {
    start: *mut T,
    len: usize,
    size: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `get` gives out one block at a time, and its caller each block once.
unsafe impl<T: Send> Sync for Blocks<'_, T> {}

impl<'a, T> Blocks<'a, T> {
    fn of(slice: &'a mut [T], size: usize) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), size: size.max(1), slice: PhantomData }
    }

    fn count(&self) -> usize {
        self.len.div_ceil(self.size)
    }

    /// # Safety
    /// No block may be in use twice at a time.
    #[expect(clippy::mut_from_ref, reason = "every block is given to one part alone")]
    unsafe fn get(&self, i: usize) -> &mut [T] {
        let from = (i * self.size).min(self.len);
        // SAFETY: the block lies inside the slice, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), self.size.min(self.len - from)) }
    }
}

/// The parts of a loop, with the loop's lifetime left out: `Crew::run` waits for all who have it.
type Part = *const (dyn Fn(usize) + Sync);

/// The threads of a pass, and the loop that is open to them.
struct Crew {
    taken: AtomicBool,
    watching: AtomicUsize,
    /// The pass has begun: who comes later would only be in its way, on its own thread perhaps.
    begun: AtomicBool,
    over: AtomicBool,
    open: AtomicBool,
    /// Threads that may be looking at `part`.
    inside: AtomicUsize,
    next: AtomicUsize,
    parts: AtomicUsize,
    part: UnsafeCell<Option<Part>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `part` is written by the pass's thread while nobody is inside, and read by those who went inside and then saw
// the loop open.
unsafe impl Sync for Crew {}

impl Crew {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            watching: AtomicUsize::new(0),
            begun: AtomicBool::new(false),
            over: AtomicBool::new(false),
            open: AtomicBool::new(false),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            parts: AtomicUsize::new(0),
            part: UnsafeCell::new(None),
            panic: Mutex::new(None),
        }
    }

    /// Gives the others a moment to come.
    fn begin(&self, others: usize) {
        let start = Instant::now();
        while self.watching.load(Ordering::Relaxed) < others && start.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        self.begun.store(true, Ordering::SeqCst);
    }

    /// Takes parts of the pass's loops until it is over.
    fn watch(&self) {
        if self.begun.load(Ordering::SeqCst) {
            return;
        }
        self.watching.fetch_add(1, Ordering::Relaxed);
        let mut idle = 0;
        while !self.over.load(Ordering::Acquire) {
            if self.help() || (idle % LOOKS == LOOKS - 1 && rayon::yield_now() == Some(rayon::Yield::Executed)) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < IDLE {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Takes parts of the open loop; says whether there was one.
    fn help(&self) -> bool {
        let waiting = || self.next.load(Ordering::Relaxed) < self.parts.load(Ordering::Relaxed);
        if !self.open.load(Ordering::Relaxed) || !waiting() {
            return false;
        }
        // Either the pass's thread, which closes the loop and then looks who is inside, sees this thread there, or this
        // thread sees the loop closed: both orders are of one total order.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let open = self.open.load(Ordering::SeqCst);
        if open {
            // SAFETY: it was written before the loop was opened, and stays until nobody is inside.
            let part = unsafe { &*(*self.part.get()).expect("an open loop has parts") };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take(part))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        open
    }

    fn take(&self, part: &(dyn Fn(usize) + Sync)) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.parts.load(Ordering::Relaxed) {
                return;
            }
            part(i);
        }
    }

    /// Runs a loop to its end, with whoever comes.
    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; `Closed` waits, also in a panic, until nobody has it any more.
        let lasting = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Part>(part) };
        // SAFETY: the last loop was closed, and nobody was inside; nobody comes in before this one is open.
        unsafe { *self.part.get() = Some(lasting) };
        self.parts.store(parts, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.open.store(true, Ordering::SeqCst);
        let closed = Closed(self);
        self.take(part);
        drop(closed);
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// Closes the open loop, and waits for those inside.
struct Closed<'a>(&'a Crew);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.open.store(false, Ordering::SeqCst);
        // Whoever is inside finishes the part in hand, and finds no other one.
        while self.0.inside.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
    }
}

/// Ends the watch, also where the work panics.
struct Over(&'static Crew);

impl Drop for Over {
    fn drop(&mut self) {
        CREW.set(None);
        self.0.over.store(true, Ordering::Release);
    }
}

/// Gives the crew back, once its threads have left it.
struct Leave(&'static Crew);

impl Drop for Leave {
    fn drop(&mut self) {
        let Crew { taken, watching, begun, over, .. } = self.0;
        watching.store(0, Ordering::Relaxed);
        begun.store(false, Ordering::Relaxed);
        over.store(false, Ordering::Relaxed);
        taken.store(false, Ordering::Release);
    }
}

/// Gives a thread its crew back after a loop.
struct Back(&'static Crew);

impl Drop for Back {
    fn drop(&mut self) {
        CREW.set(Some(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_every_loop_is_done_once() {
        awake(&Place::Host, || {
            for parts in (0..2000).map(|i| i % 37) {
                let mut done = vec![0u8; parts * 3];
                each_block(&mut done, 3, |i, block| block.iter_mut().for_each(|x| *x += 1 + (i % 5) as u8));
                assert!(done.iter().enumerate().all(|(i, x)| *x == 1 + (i / 3 % 5) as u8), "{parts} parts");
            }
        });
    }

    #[test]
    fn loops_inside_of_parts_and_passes_inside_of_passes_end() {
        let sum = AtomicUsize::new(0);
        awake(&Place::Host, || {
            each(8, |i| {
                each(8, |j| {
                    sum.fetch_add(awake(&Place::Host, || i * j), Ordering::Relaxed);
                });
            });
        });
        assert_eq!(sum.into_inner(), 28 * 28);
    }

    #[test]
    fn passes_beside_each_other_end() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let sum = AtomicUsize::new(0);
                        let add = |i| _ = sum.fetch_add(i, Ordering::Relaxed);
                        awake(&Place::Host, || each(16, add));
                        assert_eq!(sum.into_inner(), 120);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_in_a_part_is_the_pass_s_own() {
        for bad in [0, 7] {
            let run = || awake(&Place::Host, || each(8, |i| assert_ne!(i, bad, "part {bad}")));
            let panic = catch_unwind(run).expect_err("a panic");
            let said = panic.downcast_ref::<String>().expect("a text");
            assert!(said.contains(&format!("part {bad}")), "{said}");
        }
        let mut after = [0; 4];
        awake(&Place::Host, || each_block(&mut after, 1, |i, x| x[0] = i));
        assert_eq!(after, [0, 1, 2, 3]);
    }
}
