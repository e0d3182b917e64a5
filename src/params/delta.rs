//! A vector of weights as its difference from another, compressed without loss.
//!
//! The bits of two networks on one path agree in sign, exponent and leading digits wherever a weight moved little, and
//! altogether where it did not move. So the bits are combined by exclusive or, the bytes of like weight are put side by side
//! (a plane of top bytes, then the next, ..), and the planes deflated: long runs of zeros for the upper ones.
use crate::{Error, Result};
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use std::io::Read;

/// Numbers a block has: bounds the memory of both directions, and spoils compression by nothing worth mentioning.
const BLOCK: usize = 1 << 18;

/// `to` as its difference from `from`, which is as long.
///
/// # Errors
/// [`Error::Io`] from the compressor; none in practice.
pub fn encode(from: &[f32], to: &[f32]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut planes = Vec::new();
    for (from, to) in from.chunks(BLOCK).zip(to.chunks(BLOCK)) {
        planes.clear();
        for shift in [24, 16, 8, 0] {
            planes.extend(from.iter().zip(to).map(|(a, b)| ((a.to_bits() ^ b.to_bits()) >> shift) as u8));
        }
        let at = out.len();
        out.extend([0; 4]);
        DeflateEncoder::new(&planes[..], Compression::fast()).read_to_end(&mut out).map_err(failed("compress"))?;
        let length = ((out.len() - at - 4) as u32).to_le_bytes();
        out[at..at + 4].copy_from_slice(&length);
    }
    Ok(out)
}

/// What [`encode`] made its bytes of, in place of `w`, which holds what it was encoded from.
///
/// # Errors
/// [`Error::Io`] for bytes that are cut short or were not made by [`encode`] for as many numbers.
pub fn decode(mut bytes: &[u8], w: &mut [f32]) -> Result<()> {
    let mut planes = Vec::new();
    for w in w.chunks_mut(BLOCK) {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let block = rest.get(..u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
        bytes = &rest[block.len()..];
        planes.clear();
        // One more than there may be: a longer stream is noticed.
        let most = 4 * w.len() as u64 + 1;
        DeflateDecoder::new(block).take(most).read_to_end(&mut planes).map_err(failed("decompress"))?;
        if planes.len() != 4 * w.len() {
            return Err(cut());
        }
        let n = w.len();
        for (i, w) in w.iter_mut().enumerate() {
            let byte = |plane: usize| u32::from(planes[plane * n + i]);
            let bits = byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
            *w = f32::from_bits(w.to_bits() ^ bits);
        }
    }
    if bytes.is_empty() { Ok(()) } else { Err(cut()) }
}

fn failed(doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(doing, std::path::Path::new("a stored network"))
}

fn cut() -> Error {
    let what = "the stored difference is cut short, or belongs to another network";
    failed("read")(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn what_is_decoded_is_what_was_encoded_bit_for_bit() {
        let mut rng = Rng::new(1, 0);
        let n = BLOCK + 1000;
        let from: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
        let mut to: Vec<f32> = from.iter().map(|w| w * (1.0 + 1e-4 * rng.normal())).collect();
        to[..n / 2].copy_from_slice(&from[..n / 2]);
        (to[3], to[4], to[5]) = (0.0, -0.0, f32::MIN_POSITIVE / 4.0);
        let bytes = encode(&from, &to).unwrap();
        let mut back = from.clone();
        decode(&bytes, &mut back).unwrap();
        assert!(back.iter().zip(&to).all(|(a, b)| a.to_bits() == b.to_bits()));
        // Half of them did not move: 0 bytes; the others keep two bytes or so of four.
        assert!(bytes.len() * 3 < 4 * n, "{} bytes for {n} numbers", bytes.len());
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let (from, to) = (vec![1.0; 100], vec![2.0; 100]);
        let bytes = encode(&from, &to).unwrap();
        assert!(decode(&bytes[..bytes.len() - 1], &mut from.clone()).is_err());
        assert!(decode(&bytes, &mut vec![1.0; 99]).is_err());
        assert!(decode(&bytes, &mut vec![1.0; 101]).is_err());
        assert!(decode(&[bytes.clone(), vec![0]].concat(), &mut from.clone()).is_err());
    }
}
