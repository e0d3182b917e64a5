//! Tensor maps by the driver.
use super::super::{Plane, TensorMap};
use super::Driver;
use crate::{Error, Result};
use cudarc::driver::sys;

impl Driver {
    /// The map of a bf16 matrix whose boxes land in shared memory swizzled by 128 bytes; zeros are read outside of it.
    pub(super) fn encode(&self, plane: &Plane) -> Result<TensorMap> {
        plane.check()?;
        let (major, minor) = self.found.capability;
        if major < 9 {
            let hint = "TMA needs compute capability 9.0; use a kernel without it";
            let what = format!("a tensor map on compute capability {major}.{minor}");
            return Err(Error::unsupported(self.name(), what, hint));
        }
        self.enter()?;
        let Plane { at, rows, columns, pitch, box_rows, box_columns } = *plane;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // The innermost axis first; the stride, in bytes, is that of a row. `check` keeps all of them in range.
        let (sizes, strides) = ([columns as u64, rows as u64], [2 * pitch as u64]);
        let (boxes, steps) = ([box_columns as u32, box_rows as u32], [1u32, 1]);
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
