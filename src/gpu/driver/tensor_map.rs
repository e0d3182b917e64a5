//! What the tensor memory accelerator of sm_90 needs to know of a matrix.
use super::{Driver, Ptr};
use crate::{Error, Result};
use cudarc::driver::sys;

/// A tensor map, as a kernel's argument struct holds it: opaque words, which the driver fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

impl Driver {
    /// A row-major bf16 matrix [rows, columns], read in boxes of [box_rows, box_columns] that land in shared memory
    /// swizzled by 128 bytes. Outside of the matrix, zeros are read.
    pub fn tensor_map(
        &self,
        at: Ptr,
        [rows, columns]: [usize; 2],
        [box_rows, box_columns]: [u32; 2],
    ) -> Result<TensorMap> {
        let refuse = |what: &str| {
            let what = format!("tensor map of [{rows}, {columns}] in boxes of [{box_rows}, {box_columns}]: {what}");
            Err(Error::device(self.name(), what, "use a kernel without tensor maps for it"))
        };
        if self.found.capability.0 < 9 {
            return refuse("devices have them from compute capability 9.0 on");
        }
        if !at.0.is_multiple_of(16) || !columns.is_multiple_of(8) {
            return refuse("wanted its start and its rows aligned to 16 bytes");
        }
        if !(1..=256).contains(&box_rows) || !(1..=64).contains(&box_columns) {
            return refuse("wanted boxes of 1 to 256 rows, each 128 bytes at most");
        }
        self.enter()?;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // The innermost axis first; the stride is that of a row.
        let (sizes, strides) = ([columns as u64, rows as u64], [2 * columns as u64]);
        let (boxes, steps) = ([box_columns, box_rows], [1u32, 1]);
        // SAFETY: two axes, so two sizes, boxes and steps, and one stride; the map is aligned as its type says. The
        // driver reads nothing at `at`.
        let answer = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                std::ptr::without_provenance_mut(at.0 as usize),
                sizes.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        self.answer("cuTensorMapEncodeTiled", answer.result())?;
        Ok(TensorMap(map.opaque))
    }
}
