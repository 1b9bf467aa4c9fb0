//! A state as numbers and as a file: what an engine hands out of a model or an optimizer, and takes back.

use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::model::{SaveDtype, weights};
use safetensors::SafeTensors;
use std::collections::BTreeMap;

/// A state as numbers, to be saved and put back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Steps so far of each model of an optimizer; none of a model.
    pub steps: Vec<u64>,
    /// A model's parameters by name; an optimizer's moments by model, moment and name: `0/first/lm_head.weight`.
    pub tensors: BTreeMap<String, Vec<f32>>,
}

impl State {
    /// The numbers of one tensor.
    ///
    /// # Errors
    /// A tensor that is not there, or holds another count of numbers.
    pub(super) fn tensor(&self, name: &str, count: usize) -> Result<&[f32]> {
        let Some(values) = self.tensors.get(name) else {
            return Err(Error::value(format!("the state lacks `{name}`")));
        };
        if values.len() != count {
            let found = values.len();
            return Err(Error::shape(format!("the state holds {found} numbers for `{name}`, expected {count}")));
        }
        Ok(values)
    }

    /// Writes the tensors into a safetensors file, each as one row of f32; `steps` are not in it.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn write(&self, path: &Location) -> Result<()> {
        let named: Vec<_> = self.tensors.iter().map(|(name, x)| (name.as_str(), vec![x.len()], x.clone())).collect();
        weights::write(path, &named, SaveDtype::F32)
    }

    /// What `write` wrote, with these steps.
    ///
    /// # Errors
    /// A file that cannot be read, or is none of these.
    pub fn read(path: &Location, steps: Vec<u64>) -> Result<Self> {
        let bytes = files::bytes(path)?;
        let broken = |e: &dyn std::fmt::Display| Error::file(format!("{}: {e}", path.display()));
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| broken(&e))?;
        let number = |bytes: &[u8]| f32::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        let read = |name: &str| {
            let view = tensors.tensor(name).map_err(|e| broken(&e))?;
            Ok((name.to_string(), view.data().chunks_exact(size_of::<f32>()).map(number).collect()))
        };
        Ok(Self { steps, tensors: tensors.names().into_iter().map(read).collect::<Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_to_the_last_bit() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = files::anywhere(dir.path()).join("state.safetensors");
        let numbers = vec![0.1_f32, -0.0, f32::MIN_POSITIVE / 4.0, f32::MAX];
        let tensors = BTreeMap::from([("b".to_string(), numbers), ("a".to_string(), vec![])]);
        let state = State { steps: vec![3, 7], tensors };
        state.write(&path).expect("written");
        let back = State::read(&path, vec![3, 7]).expect("read");
        assert_eq!(back, state);
        assert!(back.tensors["b"][1].is_sign_negative());
    }
}
