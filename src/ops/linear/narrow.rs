//! The cotangent of a linear map whose output is f32 beside weights and inputs of bf16, as of a head whose scores a loss
//! reads: rounded to bf16 once, where the map is large enough that products on tensor cores pay for it.
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::DeviceTensor;

/// As `CastArgs` in kernels/flat.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CastArgs {
    from: Ptr,
    to: Ptr,
    n: u64,
}
impl Args for CastArgs {}
const _: () = assert!(size_of::<CastArgs>() == 24);

// Cycles of an H100 on paper, as in src/ops/gemm/mma.rs.
/// FMAs of f32 in a cycle: 128 on each of 132 multiprocessors.
const FMAS: usize = 128 * 132;
/// Bytes in a cycle.
const BYTES: usize = 24 * 132;
/// To launch one kernel more.
const LAUNCH: usize = 3000;

/// Whether rounding gy [m, n] pays, beside W [n, k] and x [m, k] of bf16: where FMAs would take twice as long for both products
/// as the launch and its six bytes an element, tensor cores being left the other half. Rows of all three are whole chunks of
/// 16 bytes, as they want it.
pub fn pays((m, n, k): (usize, usize, usize)) -> bool {
    let whole = n.is_multiple_of(8) && k.is_multiple_of(8);
    whole && 2 * m * n * k / FMAS > 2 * (LAUNCH + 6 * m * n / BYTES)
}

/// Bytes of scratch for gy as rounded, at the start of scratch; the products' own lie behind. Of every map that is large enough,
/// since a plan does not know what outputs are widened.
pub fn scratch((m, n, k): (usize, usize, usize)) -> usize {
    if pays((m, n, k)) { (m * n * Dtype::Bf16.bytes()).next_multiple_of(256) } else { 0 }
}

/// gy as the products take it, and the queue with what is left of scratch: rounded where it is f32, W and x are bf16 and it pays;
/// else as it was.
///
/// # Errors
/// What the device says.
pub fn narrowed<'a>(
    queue: &Queue<'a>,
    (m, n, k): (usize, usize, usize),
    gy: DeviceTensor<'a>,
    others: [Dtype; 2],
) -> Result<(DeviceTensor<'a>, Queue<'a>)> {
    if gy.dtype != Dtype::F32 || others != [Dtype::Bf16; 2] || !pays((m, n, k)) {
        return Ok((gy, *queue));
    }
    let args = CastArgs { from: gy.at, to: queue.scratch, n: (m * n) as u64 };
    queue.launch("flat_narrow_bf16", queue.blocks(m * n, 8 * 256), 256, 0, &args)?;
    let rest = Queue { scratch: queue.scratch.offset(scratch((m, n, k))), ..*queue };
    Ok((DeviceTensor { at: args.to, dtype: Dtype::Bf16, ..gy }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pays_for_vocabularies_and_not_for_classes() {
        let cases = [
            ((4096, 3072, 768), true),
            ((512, 32000, 768), true),
            ((256, 1000, 768), true),
            // 5.8e3 cycles of FMAs, and 6.2e3 to launch and to round.
            ((64, 1000, 768), false),
            ((4096, 16, 384), false),
            ((8, 8, 8), false),
            // Ten classes, and rows that are no whole chunks.
            ((65536, 10, 4096), false),
            ((4096, 30522, 768), false),
        ];
        for (size, want) in cases {
            assert_eq!(pays(size), want, "{size:?}");
            assert_eq!(scratch(size) >= 2 * size.0 * size.1, want, "{size:?}");
        }
    }
}
