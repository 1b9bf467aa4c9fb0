//! Vector width chosen at run time: a function that is written once runs on the widest instruction set of the machine.
//!
//! Owns no arithmetic; what is vectorised may fuse a product and a sum only where it says so (`mul_add`), so every
//! instruction set computes the same bits.

/// Compiles a function for AVX-512, AVX2+FMA and the baseline, and calls the widest one the machine has.
/// (A macro because `#[target_feature]` belongs to a function item, not to a closure.)
macro_rules! simd {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn medium($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::tensor::simd::level() {
                    // SAFETY: `level` saw that the processor has these features.
                    $crate::tensor::simd::Level::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    $crate::tensor::simd::Level::Avx2 => return unsafe { medium($($arg),*) },
                    $crate::tensor::simd::Level::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use simd;

/// What the processor can do; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Portable,
    Avx2,
    Avx512,
}

/// The widest instruction set of this processor that the kernels are written for.
pub fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = forced::level() {
        return level;
    }
    static LEVEL: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// Narrower levels than the processor's, for tests of all the code that is compiled.
#[cfg(test)]
pub(crate) mod forced {
    use super::{Level, detect};
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::{Mutex, PoisonError};

    const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// 1 + the forced level; 0 for none. Of the whole process: kernels run on rayon's threads. Every level computes the
    /// same bits, so tests that run beside a forced one see nothing of it.
    static FORCED: AtomicU8 = AtomicU8::new(0);

    pub(super) fn level() -> Option<Level> {
        FORCED.load(Ordering::Relaxed).checked_sub(1).map(|i| LEVELS[usize::from(i)])
    }

    /// What `f` returns at each level that this processor has, narrowest first.
    pub(crate) fn at_every_level<T>(mut f: impl FnMut(Level) -> T) -> Vec<T> {
        struct Undo;
        impl Drop for Undo {
            fn drop(&mut self) {
                FORCED.store(0, Ordering::Relaxed);
            }
        }
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let _undo = Undo;
        let mut run = |(i, level): (usize, Level)| {
            FORCED.store(i as u8 + 1, Ordering::Relaxed);
            f(level)
        };
        LEVELS.into_iter().filter(|level| *level <= detect()).enumerate().map(&mut run).collect()
    }
}
