//! Packed copies of one version of a model's weights, made when a product first asks for them.
//!
//! Owns which copies are kept and for how long; how a copy lies in memory is `gemm.rs`'s.

use super::gemm::Packed;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which product a packed weight serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// x · Wᵀ
    Forward,
    /// dy · W
    Backward,
}

/// Which copies of a model are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All: a small model's (up to 64 Mi numbers).
    All,
    /// While answers are decoded, which reads every weight for each token, those of forward products: up to 2 GiB.
    Decoding,
    /// None: a large model's. Products pack as they go.
    Nothing,
}

impl Keep {
    /// For a model with this many numbers.
    pub fn of(parameters: usize) -> Self {
        const SMALL: usize = 64 << 20;
        const LARGE: usize = 512 << 20;
        match parameters {
            n if n <= SMALL => Self::All,
            n if n <= LARGE => Self::Decoding,
            _ => Self::Nothing,
        }
    }
}

type Copies = BTreeMap<(usize, Side), Arc<Packed>>;

/// The packed copies of a model's weights.
pub struct Packs {
    keep: Keep,
    copies: Mutex<Copies>,
    /// Copies of an earlier version, whose memory serves the next ones.
    spare: Mutex<Copies>,
}

/// Says only which copies are kept: the numbers are the weights' own.
impl std::fmt::Debug for Packs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packs").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl Packs {
    /// For a model with this many numbers.
    pub fn new(parameters: usize) -> Arc<Self> {
        Self::of(Keep::of(parameters), Copies::new(), Copies::new())
    }

    fn of(keep: Keep, copies: Copies, spare: Copies) -> Arc<Self> {
        Arc::new(Self { keep, copies: Mutex::new(copies), spare: Mutex::new(spare) })
    }

    /// The store of another model that shares the parameters for which `same` holds.
    pub fn shared(&self, same: impl Fn(usize) -> bool) -> Arc<Self> {
        let copies = locked(&self.copies).iter().filter(|((index, _), _)| same(*index)).map(own).collect();
        Self::of(self.keep, copies, Copies::new())
    }

    /// The store of the model's next version, in which the parameters for which `same` holds have not changed; it takes
    /// over the memory of the other copies.
    pub fn renewed(&self, same: impl Fn(usize) -> bool) -> Arc<Self> {
        let (copies, mut old): (Copies, Copies) =
            std::mem::take(&mut *locked(&self.copies)).into_iter().partition(|((index, _), _)| same(*index));
        old.append(&mut locked(&self.spare));
        Self::of(self.keep, copies, old)
    }

    /// The copy of parameter `index` for one side, which `fill` makes where it is not there yet; `None` where it is not
    /// kept. `decoding`: the pass decodes answers.
    pub(super) fn get<E>(
        &self,
        (index, side): (usize, Side),
        decoding: bool,
        fill: impl FnOnce(&mut Packed) -> Result<(), E>,
    ) -> Result<Option<Arc<Packed>>, E> {
        let mut copies = locked(&self.copies);
        if let Some(found) = copies.get(&(index, side)) {
            return Ok(Some(found.clone()));
        }
        let keeps = match self.keep {
            Keep::All => true,
            Keep::Decoding => decoding && side == Side::Forward,
            Keep::Nothing => false,
        };
        if !keeps {
            return Ok(None);
        }
        let spare = locked(&self.spare).remove(&(index, side)).and_then(Arc::into_inner);
        let mut packed = spare.unwrap_or_else(Packed::scratch);
        fill(&mut packed)?;
        let made = Arc::new(packed);
        copies.insert((index, side), made.clone());
        Ok(Some(made))
    }
}

fn own(((index, side), copy): (&(usize, Side), &Arc<Packed>)) -> ((usize, Side), Arc<Packed>) {
    ((*index, *side), copy.clone())
}

/// What a mutex guards, also after a panic elsewhere: a copy is entered once it is whole.
fn locked(copies: &Mutex<Copies>) -> MutexGuard<'_, Copies> {
    copies.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::gemm::Mat;

    const DECODING: bool = true;

    fn get(packs: &Packs, index: usize, side: Side, decoding: bool, x: f32) -> Option<Arc<Packed>> {
        let fill = |packed: &mut Packed| {
            packed.fill(Mat::new(&[x], 1, 1));
            Ok::<(), ()>(())
        };
        packs.get((index, side), decoding, fill).expect("filled")
    }

    #[test]
    fn a_new_version_has_the_copies_of_what_did_not_change_and_the_memory_of_the_others() {
        let packs = Packs::new(1);
        let copies = [0, 1].map(|index| get(&packs, index, Side::Forward, false, 1.0).expect("kept"));
        let again = get(&packs, 0, Side::Forward, false, 2.0).expect("kept");
        assert!(Arc::ptr_eq(&again, &copies[0]), "a kept copy is packed again");
        drop(again);
        let before = copies[1].numbers().as_ptr();
        let shared = packs.shared(|index| index == 0);
        assert!(Arc::ptr_eq(&get(&shared, 0, Side::Forward, false, 2.0).expect("kept"), &copies[0]));
        assert_eq!(get(&packs, 1, Side::Forward, false, 2.0).expect("kept").numbers()[0], 1.0);
        let renewed = packs.renewed(|index| index == 0);
        assert!(Arc::ptr_eq(&get(&renewed, 0, Side::Forward, false, 2.0).expect("kept"), &copies[0]));
        drop((copies, shared));
        let changed = get(&renewed, 1, Side::Forward, false, 2.0).expect("kept");
        assert_eq!((changed.numbers()[0], changed.numbers().as_ptr()), (2.0, before));
    }

    #[test]
    fn larger_models_keep_less() {
        let kept = |parameters: usize, side, decoding| get(&Packs::new(parameters), 0, side, decoding, 1.0).is_some();
        let all = |parameters| {
            let of = |side| [kept(parameters, side, !DECODING), kept(parameters, side, DECODING)];
            [of(Side::Forward), of(Side::Backward)]
        };
        assert_eq!(all(1 << 20), [[true, true], [true, true]]);
        assert_eq!(all(135_000_000), [[false, true], [false, false]]);
        assert_eq!(all(1_500_000_000), [[false, false], [false, false]]);
    }
}
