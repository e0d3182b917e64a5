//! Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the same stream on every
//! device and in any order: a number depends on (seed, stream, counter) alone, so its state is a counter.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox on one 128-bit counter under a 64-bit key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// A stream of random numbers; `position` is all of its state, so a checkpoint stores one integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rng {
    key: [u32; 2],
    stream: u64,
    position: u64,
}

impl Rng {
    /// `stream` separates independent uses of one seed (shuffling, masking, initial weights, ..).
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], stream, position: 0 }
    }

    /// How many 32-bit words have been drawn.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Continue at a stored [`Rng::position`].
    pub fn at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    pub fn next_u32(&mut self) -> u32 {
        let block = self.position / 4;
        let counter = [block as u32, (block >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        let word = philox(counter, self.key)[(self.position % 4) as usize];
        self.position += 1;
        word
    }

    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in 0..n, without modulo bias (Lemire's multiplication with rejection).
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "an empty range has no number in it");
        let n = n as u64;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if (wide as u64) >= n.wrapping_neg() % n {
                return (wide >> 64) as usize;
            }
        }
    }

    /// Standard normal (Box-Muller, one of its two values, so that a draw is always two words).
    pub fn normal(&mut self) -> f32 {
        let u = (f64::from(self.next_u32()) + 1.0) / 4_294_967_296.0;
        let v = f64::from(self.next_u32()) / 4_294_967_296.0;
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// Fisher-Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        // Random123's kat_vectors, philox4x32 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_stream_continues_at_its_position() {
        let mut whole = Rng::new(7, 3);
        let first: Vec<u32> = (0..9).map(|_| whole.next_u32()).collect();
        let mut rest = Rng::new(7, 3).at(5);
        assert_eq!(first[5..], (0..4).map(|_| rest.next_u32()).collect::<Vec<_>>()[..]);
    }

    #[test]
    fn draws_have_the_right_moments() {
        let mut rng = Rng::new(1, 0);
        let n = 200_000;
        let (mut mean, mut var, mut uniform) = (0.0f64, 0.0f64, 0.0f64);
        for _ in 0..n {
            let z = f64::from(rng.normal());
            mean += z / f64::from(n);
            var += z * z / f64::from(n);
            uniform += f64::from(rng.uniform()) / f64::from(n);
        }
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.02 && (uniform - 0.5).abs() < 0.005);
    }
}
