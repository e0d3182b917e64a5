//! The kernels that this build carries: fat binaries, one a file of `kernels/`, as `build.rs` compiled them.

/// Bytes that begin at a multiple of 64, as loaders of images want them.
#[allow(dead_code, reason = "a build without CUDA kernels has none")]
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

#[allow(unused_macros, reason = "a build without CUDA kernels has none")]
macro_rules! aligned {
    ($path:expr) => {{
        static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &IMAGE.0
    }};
}

// IMAGES: (file without its ending, fat binary). KERNELS: (name, index of its image), by name.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What compiled the kernels, `13.0.88`; none without kernels.
pub fn nvcc_release() -> Option<&'static str> {
    Some(env!("FIPK_NVCC_RELEASE")).filter(|release| !release.is_empty())
}

/// The architectures of every image, as `FIPK_CUDA_ARCHS` lists them: `80,90a,+80`.
pub fn archs() -> &'static str {
    env!("FIPK_CUDA_ARCHS")
}

/// The image that holds a kernel.
pub fn image_of(kernel: &str) -> Option<usize> {
    let at = KERNELS.binary_search_by(|(name, _)| (*name).cmp(kernel)).ok()?;
    Some(KERNELS[at].1)
}

/// Whether one of `archs` runs on a device: its own machine code, that of an earlier device of its generation, or PTX
/// no later than it.
pub fn run_on(archs: &str, (major, minor): (u32, u32)) -> bool {
    let device = 10 * major + minor;
    archs.split(',').map(str::trim).any(|arch| {
        let (ptx, number) = arch.strip_prefix('+').map_or((false, arch), |number| (true, number));
        let digits = number.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let Ok(built) = digits.parse::<u32>() else { return false };
        match (ptx, &number[digits.len()..]) {
            (true, _) => built <= device,
            // Its own features make it run nowhere else.
            (false, "a") => built == device,
            (false, _) => built / 10 == major && built <= device,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_run_their_own_code_or_earlier_ptx() {
        let cases: [(&str, (u32, u32), bool); 11] = [
            ("80,90a,+80", (8, 0), true),
            ("80,90a,+80", (9, 0), true),
            ("80,90a,+80", (12, 0), true), // by PTX
            ("80,90a,+80", (7, 5), false),
            ("80", (8, 9), true),
            ("86", (8, 0), false),
            ("80", (9, 0), false),
            ("90a", (9, 0), true),
            ("90a", (10, 0), false),
            ("100f", (10, 3), true),
            ("", (9, 0), false),
        ];
        for (archs, device, runs) in cases {
            assert_eq!(run_on(archs, device), runs, "{archs} on {device:?}");
        }
    }

    #[test]
    fn every_kernel_is_found_in_the_image_that_has_it() {
        assert!(KERNELS.is_sorted_by(|a, b| a.0 < b.0), "the search wants names in order, each once");
        for (name, image) in KERNELS {
            assert_eq!(image_of(name), Some(*image), "{name}");
            assert!(*image < IMAGES.len(), "{name}");
        }
        assert_eq!(image_of("no_such_kernel"), None);
        for (file, image) in IMAGES {
            assert!(!image.is_empty() && (image.as_ptr() as usize).is_multiple_of(64), "{file}");
        }
        assert_eq!(IMAGES.is_empty(), nvcc_release().is_none());
        assert_eq!(cfg!(fipk_cuda), nvcc_release().is_some());
    }
}
