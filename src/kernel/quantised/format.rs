//! How numbers are kept in few bits: codes, and the scales that make numbers of them.
//!
//! Owns no file's layout (`model/gguf/blocks.rs` reads those) and no arithmetic.

/// What the numbers of a matrix are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    F32,
    F16,
    BF16,
    Blocks(Blocks),
}

/// Blocks of numbers along k: number = code·scale + offset. In the formats of files code·scale fits the 24 bits of an
/// f32, so that a number has one value, whether it is rounded after each operation or once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Of a code: 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
    pub offset: Offset,
    /// Numbers that one f16 scale (and minimum) serves: 32 or 256.
    pub block: usize,
    /// Numbers that share a whole number by which the scale (and minimum) is multiplied: 16 or 32, where there is one.
    pub part: Option<usize>,
}

/// What is added to code·scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// −centre·scale: this code stands for 0.
    Centre(u8),
    /// A minimum of each block.
    Minimum,
    /// The opposite of one.
    Minus,
}

impl Blocks {
    /// 2 where minima stand beside the scales.
    pub(super) fn groups(self) -> usize {
        match self.offset {
            Offset::Centre(_) => 1,
            Offset::Minimum | Offset::Minus => 2,
        }
    }

    /// Numbers that have the same scale.
    pub(super) fn uniform(self) -> usize {
        self.part.unwrap_or(self.block)
    }
}

impl Format {
    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::BF16 => 16,
            Self::Blocks(blocks) => blocks.bits,
        }
    }

    /// The code's low bits and the bits above them, which are kept in words of their own: both divide 32.
    pub(super) fn planes(self) -> [usize; 2] {
        let high = match self.bits() {
            3 | 5 => 1,
            6 => 2,
            _ => 0,
        };
        [self.bits() - high, high]
    }

    pub(super) fn blocks(self) -> Option<Blocks> {
        match self {
            Self::Blocks(blocks) => Some(blocks),
            Self::F32 | Self::F16 | Self::BF16 => None,
        }
    }
}

/// One column of a matrix (a row of the file's `[out,in]`) taken apart.
#[derive(Default)]
pub struct Column {
    /// One per number: the code, or the bits of a float.
    pub codes: Vec<u32>,
    /// Bits of f16, one per block.
    pub scales: Vec<u16>,
    /// As many where there are minima.
    pub minima: Vec<u16>,
    /// One per part where there are parts.
    pub scale_factors: Vec<i8>,
    /// As many where there are minima too.
    pub minimum_factors: Vec<i8>,
}

impl Column {
    pub(super) fn clear(&mut self) {
        let Self { codes, scales, minima, scale_factors, minimum_factors } = self;
        codes.clear();
        [scales, minima].into_iter().for_each(Vec::clear);
        [scale_factors, minimum_factors].into_iter().for_each(Vec::clear);
    }
}
