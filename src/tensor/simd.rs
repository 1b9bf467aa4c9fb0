//! Vector width chosen at run time: a function that is written once runs on the widest instruction set of the machine,
//! or on a narrower one that `RHOPO_SIMD` names.
//!
//! Owns no arithmetic; what is vectorised may fuse a product and a sum only where it says so (`mul_add`), so every
//! instruction set computes the same bits.

use crate::error::{Error, Result};

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

impl Level {
    const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// As `RHOPO_SIMD` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The level of that name.
    ///
    /// # Errors
    /// There is none, or it is above `most`, what the processor has.
    fn parse(name: &str, most: Self) -> Result<Self> {
        let level = Self::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::value(format!("{VARIABLE}: there is no instruction set `{name}`")).hint(format!("known: {known}"))
        })?;
        if level > most {
            return Err(Error::value(format!("{VARIABLE} is {name}, but this processor has {} at most", most.name()))
                .hint("unset it: the widest instruction set is used by itself"));
        }
        Ok(level)
    }
}

/// Names the instruction set to use: `portable`, `avx2` or `avx512`. All of them compute the same bits.
const VARIABLE: &str = "RHOPO_SIMD";

/// The instruction set that `RHOPO_SIMD` names, or the widest one of this processor that the kernels are written for.
///
/// # Errors
/// The variable names none, or one that this processor has not.
pub fn chosen() -> Result<Level> {
    match std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        Some(name) => Level::parse(&name.to_string_lossy(), detect()),
        None => Ok(detect()),
    }
}

/// What the kernels use. The program begins with `chosen`, so that a variable that means nothing ends it there.
pub fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = forced::level() {
        return level;
    }
    static LEVEL: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
    *LEVEL.get_or_init(|| chosen().unwrap_or_else(|_| detect()))
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

    /// 1 + the forced level; 0 for none. Of the whole process: kernels run on rayon's threads. Every level computes the
    /// same bits, so tests that run beside a forced one see nothing of it.
    static FORCED: AtomicU8 = AtomicU8::new(0);

    pub(super) fn level() -> Option<Level> {
        FORCED.load(Ordering::Relaxed).checked_sub(1).map(|i| Level::ALL[usize::from(i)])
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
        Level::ALL.into_iter().filter(|level| *level <= detect()).enumerate().map(&mut run).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_named_and_not_above_the_processors() {
        assert_eq!(Level::parse("avx2", Level::Avx512).unwrap(), Level::Avx2);
        assert_eq!(Level::parse("avx2", Level::Avx2).unwrap(), Level::Avx2);
        let refused = |name, most| Level::parse(name, most).unwrap_err();
        let above = refused("avx512", Level::Avx2).what;
        assert_eq!(above, "RHOPO_SIMD is avx512, but this processor has avx2 at most");
        let unknown = refused("AVX2", Level::Avx512);
        assert_eq!(unknown.what, "RHOPO_SIMD: there is no instruction set `AVX2`");
        assert_eq!(unknown.hint.unwrap(), "known: portable, avx2, avx512");
    }
}
