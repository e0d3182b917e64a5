//! Every planted bug is caught, by every schedule, with the right words and at the line that is wrong.
use super::bench::{Bench, ONE_BLOCK, SEEDS, Shape};
use std::collections::BTreeSet;

const TILE: Shape = Shape { shared: 8192, ..ONE_BLOCK };
const TWO: Shape = Shape { blocks: 2, ..ONE_BLOCK };

/// Kernel, launch, words of the message.
const BUGS: [(&str, Shape, &str); 74] = [
    ("bug_no_barrier", ONE_BLOCK, "uninitialised|race: read of shared array `s`"),
    ("bug_no_barrier_in_warp", ONE_BLOCK, "uninitialised|race: read of shared array `s`"),
    ("bug_no_barrier_after_reading", ONE_BLOCK, "race: "),
    ("bug_shuffle_for_a_barrier", ONE_BLOCK, "race: read of shared array `s`"),
    ("bug_syncwarp_across_warps", ONE_BLOCK, "uninitialised|race: read of shared array `s`"),
    ("bug_syncwarp_of_half", ONE_BLOCK, "uninitialised|race: read of shared array `s`"),
    ("bug_divergent_barrier", ONE_BLOCK, "divergent barrier"),
    ("bug_barrier_in_condition", ONE_BLOCK, "a thread exits while|have exited"),
    ("bug_exit_before_barrier", ONE_BLOCK, "a thread exits while|have exited"),
    ("bug_race_on_global", ONE_BLOCK, "race: write of global memory"),
    ("bug_race_of_blocks", TWO, "another block's"),
    ("bug_race_on_counters", ONE_BLOCK, "race: "),
    ("bug_atomic_and_plain", ONE_BLOCK, "race: "),
    ("bug_last_block_without_fence", TWO, "another block's"),
    ("bug_shuffle_in_half_warp", ONE_BLOCK, "exits while lanes|have exited"),
    ("bug_shuffle_from_outside_the_mask", ONE_BLOCK, "reads lane"),
    ("bug_caller_outside_the_mask", ONE_BLOCK, "which is not in mask 0000ffff"),
    ("bug_shuffles_in_two_places", ONE_BLOCK, "warp divergence"),
    ("bug_exited_lanes_in_mask", ONE_BLOCK, "exits while lanes|have exited"),
    ("bug_masks_that_differ", ONE_BLOCK, "warp divergence|have exited"),
    ("bug_mma_in_half_warp", ONE_BLOCK, "exits while lanes|have exited"),
    (
        "bug_dynamic_shared_overrun",
        Shape { shared: 1024, ..ONE_BLOCK },
        "out of bounds: write of 4 bytes, 0 bytes past",
    ),
    ("bug_no_dynamic_shared", ONE_BLOCK, "launched with none"),
    ("bug_shared_overrun", ONE_BLOCK, "out of bounds: write beyond shared array `first`"),
    ("bug_read_past_the_end", ONE_BLOCK, "out of bounds: read of 4 bytes, 0 bytes past"),
    ("bug_write_past_the_end", ONE_BLOCK, "out of bounds: write of 4 bytes, 0 bytes past"),
    ("bug_read_before_the_start", ONE_BLOCK, "out of bounds: read of 4 bytes, 4 bytes before"),
    ("bug_pack_past_the_end", ONE_BLOCK, "out of bounds: read of 4 bytes, 0 bytes past"),
    ("bug_null_pointer", ONE_BLOCK, "null pointer"),
    ("bug_write_to_arguments", ONE_BLOCK, "write to constant memory"),
    ("bug_uninitialised_shared", ONE_BLOCK, "uninitialised: read of shared array `s` (1024 bytes, byte 28)"),
    ("bug_shared_from_the_last_block", TWO, "uninitialised"),
    ("bug_misaligned_pack", ONE_BLOCK, "misaligned"),
    ("bug_local_overrun", ONE_BLOCK, "undefined: index outside of an array"),
    ("bug_integer_overflow", ONE_BLOCK, "undefined: signed addition overflows"),
    ("bug_shift_too_far", ONE_BLOCK, "undefined: shift"),
    ("bug_division_by_zero", ONE_BLOCK, "undefined: integer division"),
    ("bug_trap", ONE_BLOCK, "__trap()"),
    ("bug_copy_not_waited_for", ONE_BLOCK, "asynchronous copy to it is in flight"),
    ("bug_copy_of_another_thread", ONE_BLOCK, "race: |in flight|uninitialised"),
    ("bug_one_group_too_many_in_flight", ONE_BLOCK, "asynchronous copy to it is in flight"),
    ("bug_copy_without_commit", ONE_BLOCK, "asynchronous copy to it is in flight"),
    ("bug_copy_misaligned", ONE_BLOCK, "misaligned: cp_async_16"),
    ("bug_copy_past_the_end", ONE_BLOCK, "past the end of global memory"),
    ("bug_copy_to_global", ONE_BLOCK, "not in shared memory"),
    ("bug_ldmatrix_misaligned", ONE_BLOCK, "misaligned: ldmatrix_x4"),
    ("bug_ldmatrix_before_barrier", ONE_BLOCK, "race: |uninitialised"),
    ("bug_named_barrier_of_other_size", ONE_BLOCK, "deadlock|which others entered as of"),
    ("bug_named_barrier_never_full", ONE_BLOCK, "deadlock"),
    ("bug_named_barrier_of_half_warps", ONE_BLOCK, "completes with lanes 0000ffff"),
    ("bug_named_barrier_zero", ONE_BLOCK, "named barriers are 1 to 15"),
    ("bug_arrival_for_a_wait", ONE_BLOCK, "race: |uninitialised"),
    ("bug_named_barrier_for_too_few", ONE_BLOCK, "race: |uninitialised"),
    ("bug_mbarrier_never_complete", ONE_BLOCK, "deadlock"),
    ("bug_mbarrier_not_initialised", ONE_BLOCK, "not been initialised"),
    ("bug_mbarrier_before_barrier", ONE_BLOCK, "race: |not been initialised"),
    ("bug_mbarrier_arrivals", ONE_BLOCK, "more than the 1 arrivals"),
    ("bug_mbarrier_written_over", ONE_BLOCK, "written over"),
    ("bug_mbarrier_parity", ONE_BLOCK, "deadlock"),
    ("bug_tma_not_waited_for", TILE, "asynchronous copy to it is in flight|uninitialised|race"),
    ("bug_tma_waited_for_by_another", TILE, "race: |uninitialised|in flight"),
    ("bug_tma_expects_too_little", TILE, "deadlock"),
    ("bug_tma_misaligned", Shape { shared: 16384, ..ONE_BLOCK }, "misaligned: tma_load_2d"),
    ("bug_tma_overwrites_what_is_read", TILE, "race: |in flight"),
    ("bug_tma_outlives_the_block", TILE, "nobody has waited"),
    ("bug_tma_store_without_fence", TILE, "fence_proxy_async"),
    ("bug_tma_store_not_waited_for", TILE, "has not been waited for"),
    ("bug_wgmma_without_proxy_fence", TILE, "fence_proxy_async"),
    ("bug_wgmma_without_fence", TILE, "without a wgmma_fence"),
    ("bug_wgmma_operand_overwritten", TILE, "has not been waited for"),
    ("bug_wgmma_not_waited_for", TILE, "without a wait"),
    ("bug_wgmma_by_three_warps", TILE, "deadlock"),
    ("bug_wgmma_operands_differ", TILE, "different products"),
    ("bug_wgmma_operand_misaligned", Shape { shared: 16384, ..ONE_BLOCK }, "misaligned: wgmma_bf16"),
];

#[test]
fn every_planted_bug_is_caught() {
    let mut wrong = Vec::new();
    for (kernel, shape, words) in BUGS {
        for seed in SEEDS {
            let bench = Bench::new(seed);
            if kernel == "bug_last_block_without_fence" {
                bench.zero_plane();
            }
            match bench.launch(kernel, shape) {
                Ok(()) => wrong.push(format!("{kernel} passes with seed {seed:?}")),
                Err(e) => {
                    let text = e.to_string();
                    if seed.is_none() {
                        println!("{text}");
                    }
                    if !words.split('|').any(|w| text.contains(w)) {
                        wrong.push(format!("seed {seed:?}: {text}, wanted {words:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_list_has_every_planted_bug() {
    let listed: BTreeSet<String> = BUGS.iter().map(|(kernel, ..)| kernel.to_string()).collect();
    let kernels = fipk::gpu::emulator::kernels();
    let planted: BTreeSet<String> = kernels.into_iter().map(|k| k.name).filter(|n| n.starts_with("bug_")).collect();
    assert_eq!(listed, planted);
}
