//! What kernels a device runs beside those that all run.

/// Of a device and of this build's kernels for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abilities {
    /// Its compute capability: (8, 0) for A100, (9, 0) for H100 and H200.
    pub capability: (u32, u32),
    /// Whether it runs kernels of `wgmma` and TMA: capability 9.0, in a build that has machine code of sm_90a.
    pub sm_90a: bool,
}

impl Abilities {
    /// What every device has that this crate runs on: tensor cores by `mma.sync`, `cp.async`.
    pub const AMPERE: Self = Self { capability: (8, 0), sm_90a: false };
    pub const HOPPER: Self = Self { capability: (9, 0), sm_90a: true };
    /// One of each kind: what memory is planned for, where the device is not known.
    pub const ALL: [Self; 2] = [Self::AMPERE, Self::HOPPER];

    /// Of a device of this capability, with the kernels of `archs` (as [`super::images::archs`] lists them).
    pub fn new(capability: (u32, u32), archs: &str) -> Self {
        let own = archs.split(',').any(|arch| arch.trim() == "90a");
        Self { capability, sm_90a: own && capability == (9, 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sm_90a_takes_the_device_and_the_build() {
        let cases = [
            ((9, 0), "80,90a,+80", true),
            ((9, 0), "80,+80", false),
            ((10, 0), "80,90a,+80", false),
            ((8, 6), "80,90a", false),
        ];
        for (capability, archs, sm_90a) in cases {
            assert_eq!(Abilities::new(capability, archs), Abilities { capability, sm_90a });
        }
    }
}
