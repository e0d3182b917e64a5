//! Tensor maps: what TMA, the copy engine of sm_90, is told of a matrix in memory.
use super::Ptr;
use crate::{Error, Result};

/// A row-major matrix of bf16 that TMA copies boxes of, in the 128-byte swizzle that wgmma reads: 16-byte piece i of row r
/// of a box lies at piece i XOR (r mod 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    pub at: Ptr,
    pub rows: usize,
    pub columns: usize,
    /// From one row to the next, in elements.
    pub pitch: usize,
    pub box_rows: usize,
    /// 64 fill the 128 bytes of a swizzled row.
    pub box_columns: usize,
}

impl Plane {
    /// What the hardware asks of a plane.
    ///
    /// # Errors
    /// [`Error::Device`] for one that it cannot copy: says which number is wrong.
    pub fn check(&self) -> Result<()> {
        let Self { at, rows, columns, pitch, box_rows, box_columns } = *self;
        let wrong = |what: String, hint: &str| Err(Error::device("tensor map", what, hint));
        if at.is_null() || at.0 % 16 != 0 {
            return wrong(format!("starts at {:#x}", at.0), "the first element must be aligned to 16 bytes");
        }
        if rows == 0 || columns == 0 || rows > u32::MAX as usize || columns > u32::MAX as usize {
            return wrong(format!("of {rows} x {columns} elements"), "each axis is 1 to 2^32 - 1");
        }
        if pitch < columns || pitch % 8 != 0 || pitch >= 1 << 39 {
            let what = format!("of {columns} columns with rows {pitch} elements apart");
            return wrong(what, "rows must not overlap, and begin at multiples of 16 bytes: 8 elements");
        }
        if box_rows == 0 || box_rows > 256 || box_columns == 0 || box_columns > 64 || box_columns % 8 != 0 {
            let what = format!("with boxes of {box_rows} x {box_columns}");
            return wrong(what, "a box has 1 to 256 rows, of 8, 16, .. 64 columns");
        }
        Ok(())
    }
}

/// A plane as a kernel takes it in its arguments: `CUtensorMap`, or what the emulator makes of one. Opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct TensorMap(pub(crate) [u64; 16]);
